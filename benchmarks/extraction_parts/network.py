"""The network by itself, in its two precisions."""

import time
from collections.abc import Callable
from statistics import median

import torch
from extraction_parts.bench import (
    BATCH,
    SAME,
    Bench,
    Skipped,
    in_turns,
    ratio,
    require_same,
    stored_features,
    table,
)
from extraction_parts.ceilings import ceilings
from extraction_parts.extract_once import network_of
from heads import verdict
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from painseq.data.labels import label_scheme
from painseq.data.resident import resident_clips
from painseq.data.streams import CnnStream
from painseq.data_modules.biovid import BioVid
from painseq.faces import FaceCrops, Sidecar
from painseq.features import ExtractOptions, ExtractSummary, FeatureStore, extract
from painseq.features.network import Network, has_bf16
from painseq.heads import LSTM, FrameANN, Head
from painseq.model.decision import decide
from painseq.records import UNKNOWN
from painseq.synthetic import BioVidPlan, write_biovid


def ceiling(bench: Bench) -> str:
    """The bare network as a share of what the processor multiplies at most."""
    extractor = bench.network("vgg16")
    random = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (BATCH, 3, bench.size_px, bench.size_px), dtype=torch.uint8, generator=random)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        plain = extractor(crops)
    frame_flop = counter.get_total_flops() / BATCH
    rows, goals, rounds, batches = [], [], 1 if bench.quick else 5, 1 if bench.quick else 4
    with bench.folder() as folder:
        for found in ceilings(folder, seconds=0.02 if bench.quick else 0.5):
            network = Network(bench.network("vgg16"), "cpu", found.kind)
            error = require_same(f"VGG16, {found.kind}", network(crops), plain, SAME if found.kind == "fp32" else 0.05)
            shares, rates = [], []
            for _ in range(rounds):
                most = found.rate()
                start = time.perf_counter()
                for _ in range(batches):
                    network(crops)
                rates.append((batches * BATCH / (time.perf_counter() - start), most))
                shares.append(1e-9 * rates[-1][0] * frame_flop / most)
            frames_s, most = (median(column) for column in zip(*rates, strict=True))
            bench.figures[f"bare {found.kind}"] = frames_s
            rows.append(
                f"| {found.kind} | {found.how} | {most:.0f} | {frames_s:.1f} | {median(shares):.2f} | {error:.0e} |"
            )
            goals.append(verdict(f"bare VGG16 over the ceiling, {found.kind}", median(shares), 0.8, at_least=True))
    head = "| | ceiling | GFLOP/s | VGG16, frames/s | share | features apart from eager, channels first |"
    return "\n".join([f"{1e-9 * frame_flop:.1f} GFLOP a frame.", "", table(head, rows), "", *goals])


def bf16(bench: Bench) -> str:
    """bf16 against fp32: time of the whole road, and what trained heads say of the features."""
    if not has_bf16("cpu"):
        raise Skipped("this processor does not multiply bf16 natively")
    manifest, faces, extractor = bench.some(), bench.faces(), bench.network("vgg16")
    summaries: dict[str, ExtractSummary] = {}
    features: dict[str, Tensor] = {}

    def run(precision: str) -> Callable[[], None]:
        def once() -> None:
            with bench.folder() as out:
                summaries[precision] = extract(
                    manifest,
                    faces,
                    extractor,
                    None,
                    out / "s",
                    options=ExtractOptions(dtype="float32", precision=precision),
                )
                features[precision] = stored_features(out / "s")

        return once

    run("bf16")()
    seconds = in_turns({kind: run(kind) for kind in ("fp32", "bf16")}, bench.rounds)
    faster = ratio(seconds, "fp32", "bf16")
    error = require_same("bf16", features["bf16"], features["fp32"], 0.05)
    for kind, each in seconds.items():
        bench.figures[kind] = len(features[kind]) / min(each)
    rows = [
        f"| {kind} | {bench.figures[kind]:.1f} | {summaries[kind].stages['waiting for frames']:.2f} |"
        for kind in seconds
    ]
    agreeing, goals = label_agreement(bench)
    return "\n".join(
        [
            f"{len(features['fp32'])} frames with a face, VGG16. bf16 features are {error:.0e} of the largest apart.",
            "",
            table("| | frames/s, end to end | seconds without frames |", rows),
            "",
            agreeing,
            "",
            verdict("bf16 over fp32, end to end", faster, 1.8, at_least=True),
            *goals,
        ]
    )


def label_agreement(bench: Bench) -> tuple[str, list[str]]:
    """Heads trained on fp32 features of half of the subjects, and their labels for the other half, on both features."""
    plan = BioVidPlan(20, 4, ("BL1", "PA1", "PA4"), fps=2, size_px=128)
    if bench.quick:
        plan = BioVidPlan(2, 1, ("BL1", "PA4"), fps=2, size_px=64)
    size_px = 32 if bench.quick else 112
    extractor = network_of(bench.name_of("vgg16"), bench.assets, size_px)
    scheme = label_scheme("biovid", "three", BioVid.facts)
    with bench.folder() as folder:
        write_biovid(folder / "heat", plan, seed=0, workers=1 if bench.quick else 2)
        manifest = BioVid(folder / "heat").manifest
        batches = {}
        for kind in ("fp32", "bf16"):
            print(f"  {len(manifest)} generated clips in {kind}", flush=True)
            store = folder / kind
            extract(
                manifest,
                FaceCrops(Sidecar(), size_px=size_px),
                extractor,
                None,
                store,
                options=ExtractOptions(precision=kind),
            )
            clips = resident_clips(manifest.clips, scheme, FeatureStore(store), (CnnStream(),), manifest.root)
            batches[kind] = clips.batch(range(len(clips)))
    half = set(manifest.subjects[::2])
    train = torch.tensor([clip.subject_id in half for clip in manifest])
    width, rows, goals = int(extractor.out_shape[0]), [], []
    exact, rounded = batches["fp32"], batches["bf16"]
    assert exact.features is not None and rounded.features is not None
    for kind in (FrameANN, LSTM):
        torch.manual_seed(0)
        head = fitted(
            kind((width,), len(scheme.class_names)),
            exact.features[train].float(),
            exact.mask[train],
            exact.target[train],
        )
        with torch.inference_mode():
            said = [
                decide(head.level, head(batch.features[~train].float(), batch.mask[~train]), batch.mask[~train])
                for batch in (exact, rounded)
            ]
        agree = float((said[0].label == said[1].label).float().mean())
        apart_by = float((said[0].probabilities - said[1].probabilities).abs().max())
        target = exact.target[~train]
        recalls = [(said[0].label[target == k] == k).float().mean() for k in range(len(scheme.class_names))]
        right = float(torch.stack(recalls).nanmean())
        rows.append(f"| {kind.__name__} | {int((~train).sum())} | {right:.2f} | {agree:.3f} | {apart_by:.3f} |")
        goals.append(verdict(f"labels on bf16 features that agree, {kind.__name__}", agree, 0.99, at_least=True))
    head_line = "| head | clips | balanced accuracy on fp32 | labels that agree | probabilities apart, at most |"
    return table(head_line, rows), goals


def fitted(head: Head, x: Tensor, mask: Tensor, target: Tensor, steps: int = 60) -> Head:
    """Trained on all clips at once."""
    optimizer = torch.optim.AdamW(head.parameters(), 2e-3, weight_decay=0.1)
    for _ in range(steps):
        logits, wanted = head.train()(x, mask), target
        if head.level == "frame":
            logits, wanted = logits.flatten(0, 1), torch.where(mask, target[:, None], UNKNOWN).flatten()
        optimizer.zero_grad()
        F.cross_entropy(logits, wanted, ignore_index=UNKNOWN).backward()
        optimizer.step()
    return head.eval()
