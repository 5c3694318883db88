"""The whole road from video to store: against the bare network, its own stages, the published recipe."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from extraction_parts.bench import (
    BATCH,
    Bench,
    Skipped,
    bare,
    chunks_of,
    in_turns,
    ratio,
    ready_crops,
    require_same,
    stage_table,
    stored_features,
    table,
)
from extraction_parts.extract_once import WOLFGANG, YUNET, clips_of
from extraction_parts.published_recipe import PublishedRecipe  # Early: OpenCV writes no PNG if decord came before it.
from heads import verdict
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from painseq.faces import CropChunk, FaceCrops, YuNet
from painseq.faces.locator import Face
from painseq.features import ClipFeatures, ExtractOptions, ExtractSummary, StoreWriter, extract, pipeline_spec
from painseq.features.network import Network
from painseq.video import open_video, read_chunks

MOST_DEVIATION_PX = 5.0  # What `FaceCrops` promises of its default.


def pipeline(bench: Bench) -> str:
    """The whole road against the bare network, both in fp32."""
    manifest, faces, extractor = bench.some(), bench.faces(), bench.network("vgg16")
    network, crops = Network(extractor, "cpu", "fp32"), ready_crops(chunks_of(manifest, faces))
    summaries: dict[str, ExtractSummary] = {}

    def whole(title: str, workers: int | None = None, batch_frames: int | None = None) -> Callable[[], None]:
        def run() -> None:
            with bench.folder() as out:
                summaries[title] = extract(
                    manifest,
                    faces,
                    extractor,
                    None,
                    out / "s",
                    options=ExtractOptions(precision="fp32", batch_frames=batch_frames, workers=workers),
                )

        return run

    with bench.folder() as out:
        extract(manifest, faces, extractor, None, out / "s", options=ExtractOptions(dtype="float32", precision="fp32"))
        error = require_same("The store", stored_features(out / "s"), bare(network, crops))
    seconds = in_turns({"bare": lambda: bare(network, crops), "pipeline": whole("pipeline")}, bench.rounds)
    share = ratio(seconds, "bare", "pipeline")
    bench.figures["fp32"] = len(crops) / min(seconds["pipeline"])
    others = {
        "read in the network's thread": whole("read in the network's thread", workers=0),
        "two reading threads": whole("two reading threads", workers=2),
        f"batches of {4 * BATCH}": whole(f"batches of {4 * BATCH}", batch_frames=4 * BATCH),
    }
    seconds |= in_turns(others, 1)
    reference_s = min(seconds["bare"])
    rows = [
        f"| {title} | {len(crops) / min(each):.1f} | {reference_s / min(each):.2f} |" for title, each in seconds.items()
    ]
    return "\n".join(
        [
            f"{len(crops)} frames with a face in {len(manifest)} clips, VGG16, fp32; batches of {BATCH} and one "
            f"reading thread unless said. Features apart from the bare network's: {error:.0e}.",
            "",
            table("| | frames/s | share of bare |", rows),
            "",
            stage_table(summaries["pipeline"]),
            "",
            verdict("whole pipeline over the bare network, VGG16 fp32", share, 0.92, at_least=True),
        ]
    )


def light(bench: Bench) -> str:
    """A light network: the whole road against its stages, each timed by itself."""
    manifest, faces, extractor = bench.all(), bench.faces(), bench.network("resnet18")
    network = Network(extractor, "cpu", "fp32")
    chunks = chunks_of(manifest, faces)
    crops = ready_crops(chunks)
    features = bare(network, crops)
    summaries = []
    inside: dict[str, list[float]] = {"locate and track": [], "crop": []}

    def whole() -> None:
        with bench.folder() as out:
            summaries.append(
                extract(
                    manifest,
                    faces,
                    extractor,
                    None,
                    out / "s",
                    options=ExtractOptions(dtype="float32", precision="fp32"),
                )
            )
            require_same("The store", stored_features(out / "s"), features)

    def decode() -> None:
        for clip in manifest:
            with open_video(manifest.path(clip)) as video:
                for _ in read_chunks(video, clip.start_s, clip.end_s, None, 16):
                    pass

    def locate_and_crop() -> None:
        spent = {"locate": 0.0, "crop": 0.0}
        for each in chunks_of(manifest, faces).values():
            for chunk in each:
                for stage in spent:
                    spent[stage] += chunk.seconds.get(stage, 0.0)
        inside["locate and track"].append(spent["locate"])
        inside["crop"].append(spent["crop"])

    def write() -> None:
        done = 0
        with (
            bench.folder() as out,
            StoreWriter(out / "s", pipeline_spec(extractor, faces, None), "float16", extractor) as to,
        ):
            for clip_id, each in chunks.items():
                present = torch.from_numpy(np.concatenate([chunk.present for chunk in each]))
                times_s = torch.from_numpy(np.concatenate([chunk.times_s for chunk in each]))
                rows = torch.zeros(len(present), *extractor.out_shape)
                rows[present] = features[done : done + int(present.sum())]
                done += int(present.sum())
                to.add(clip_id, ClipFeatures(rows, present, times_s), "source")

    whole()
    seconds = in_turns(
        {
            "whole": whole,
            "decode": decode,
            "crops alone": locate_and_crop,
            "network": lambda: bare(network, crops),
            "write": write,
        },
        bench.rounds,
    )
    stages = {"decode": seconds["decode"], **inside, "network": seconds["network"], "write": seconds["write"]}
    whole_sum = sum(map(min, stages.values()))
    share = min(seconds["whole"]) / whole_sum
    rows = [f"| {stage} | {min(each):.2f} | {min(each) / whole_sum:.2f} |" for stage, each in stages.items()]
    rows += [f"| sum | {whole_sum:.2f} | 1.00 |", f"| whole | {min(seconds['whole']):.2f} | {share:.2f} |"]
    return "\n".join(
        [
            f"{summaries[0].frames} frames, {len(crops)} with a face, resnet18 with random weights, fp32.",
            "",
            table("| stage, by itself | seconds | share of the sum |", rows),
            "",
            verdict("whole pipeline over the sum of its stages, resnet18", share, 1.1, at_least=False),
        ]
    )


def recipe(bench: Bench) -> str:
    """The published recipe against ours, both with VGG16."""
    try:
        published = PublishedRecipe(bench.network("vgg16"))
    except ImportError as error:
        raise Skipped(f"it needs painseq[face-alignment]: {error}") from error
    count = 2 if bench.quick else 8
    manifest = clips_of(bench.assets / "videos", [(WOLFGANG, 0.0, 0.4 if bench.quick else 2.0)])
    extractor, faces = bench.network("vgg16"), bench.faces()
    chunks = chunks_of(manifest, faces)
    crops = ready_crops(chunks)
    boxes: list[NDArray[np.float32]] = [box for each in chunks.values() for chunk in each for box in chunk.boxes]
    results: dict[str, Tensor] = {}

    def theirs() -> None:
        with bench.folder() as folder:
            results["published"] = published.features(manifest.path(manifest.clips[0]), boxes[:count], folder)

    def ours() -> None:
        with bench.folder() as out:
            extract(manifest, faces, extractor, None, out / "s", options=ExtractOptions(precision="fp32"))
            results["painseq"] = stored_features(out / "s")

    for warm in (theirs, ours):
        warm()
    alike = F.cosine_similarity(results["published"], results["painseq"][:count].float())
    alike_at_least = float(alike.min())
    if alike_at_least < 0.9:
        raise SystemExit(f"The features of the published recipe are others: cosine {alike_at_least:.3f}.")
    seconds = in_turns({"published recipe": theirs, "painseq": ours}, bench.rounds)
    frame_s = {
        title: [each / (count if title == "published recipe" else len(crops)) for each in rounds]
        for title, rounds in seconds.items()
    }
    bench.figures["published recipe"] = 1 / min(frame_s["published recipe"])
    faster = ratio(frame_s, "published recipe", "painseq")
    rows = [f"| {title} | {1e3 * min(each):.0f} | {1 / min(each):.2f} |" for title, each in frame_s.items()]
    return "\n".join(
        [
            f"Frames of 640 x 360 pixels, VGG16, fp32; {count} frames a round of the recipe and {len(crops)} of ours. "
            "S3FD and FAN have random weights; FAN sees each face twice, once mirrored, as is its package's default. "
            "Both crop the same boxes; the resampling differs, so that the features agree to a cosine of "
            f"{alike_at_least:.3f}.",
            "",
            table("| | ms a frame | frames/s |", rows),
            "",
            verdict("painseq over the published recipe, VGG16", faster, 8, at_least=True),
        ]
    )


class CountingYuNet(YuNet):
    """Counts the frames that it is shown."""

    shown = 0

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        self.shown += len(times_s)
        return super().locate(images, times_s, video)


def tracking(bench: Bench) -> str:
    """Crops from a followed face against the face found in every frame."""
    manifest, size_px, defaults = bench.all(), bench.size_px, bench.faces()
    found: dict[str, dict[str, list[CropChunk]]] = {}
    shown: dict[str, int] = {}

    def follow(title: str, every_s: float) -> Callable[[], None]:
        def run() -> None:
            locator = CountingYuNet(str(bench.assets / YUNET))
            found[title] = chunks_of(manifest, FaceCrops(locator, size_px=size_px, every_s=every_s))
            shown[title] = locator.shown

        return run

    followed = f"every {defaults.every_s:g} s"
    seconds = in_turns(
        {"every frame": follow("every frame", 0.0), followed: follow(followed, defaults.every_s)}, bench.rounds
    )
    rows, worst = [], 0.0
    for clip in manifest:
        each, exact = (
            np.concatenate([chunk.boxes for chunk in found[title][clip.clip_id]]) for title in (followed, "every frame")
        )
        both = np.isfinite(each).all(1) & np.isfinite(exact).all(1)
        other = int((np.isfinite(each).all(1) != np.isfinite(exact).all(1)).sum())
        side = (exact[both, 2:] - exact[both, :2]).max(axis=1, initial=0)
        edges = np.abs(each[both] - exact[both]).max(axis=1, initial=0) / np.maximum(side, 1) * 224
        worst = max(worst, float(edges.max(initial=0)))
        cells = f"{edges.mean():.2f} | {np.quantile(edges, 0.95):.2f} | {edges.max():.2f}" if len(edges) else "| |"
        rows.append(f"| {clip.video} | {len(exact)} | {int(both.sum())} | {cells} | {other} |")
    faster = ratio(seconds, "every frame", followed)
    frames = sum(len(chunk) for each in found[followed].values() for chunk in each)
    head = "| video | frames | with a face | edge apart, mean | 95 % | largest | frames with and without a face |"
    return "\n".join(
        [
            f"The locator {followed} against every frame; edges of the crops apart, in pixels of a crop of 224.",
            "",
            table(head, rows),
            "",
            f"Located: {shown[followed] / frames:.2f} of the frames. Decoding, following and cropping take "
            f"{1 / faster:.2f} of the time: {frames / min(seconds[followed]):.0f} frames/s.",
            "",
            verdict("largest deviation of a crop's edge, in pixels of 224", worst, MOST_DEVIATION_PX, at_least=False),
        ]
    )
