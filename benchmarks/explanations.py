"""Do explanations lie where the pain is drawn? On generated data, preset seeds, all reported.

    python benchmarks/explanations.py            # seeds 0, 1, 2; about 35 minutes on one core
    python benchmarks/explanations.py --write    # and record them in RESULTS.md, some in docs/explanations.md

For each seed heat pain is generated, no pain and high pain; networks are trained on training subjects, and every
method explains the class high pain in clips of high pain of test subjects. Each map is held beside two truths: the
boxes of the regions that pain moves in that frame, and, much smaller, the pixels that pain changes, found by drawing
every frame once more without its pain. A map that knows nothing gets the share of the area. Seeds that are finished
are not run again.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from explanations_tables import FACE, NO_MODEL, beside_the_face, summary, tables
from results import RESULTS, ROOT, machine, write_between
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor
from torch.nn import functional as F

from painseq.cli.extract import main as extract
from painseq.cli.fit import fit
from painseq.explain import (
    Attribution,
    Frames,
    MethodOptions,
    Scorer,
    default_layer,
    explain,
    features_of,
    frames_of_video,
    list_layers,
    pain_regions,
    space_methods,
    time_methods,
    truth_scores,
)
from painseq.explain.regions import REGIONS, region_map
from painseq.extractors import TimmBackbone
from painseq.files import write_json
from painseq.heads import LinearFrames
from painseq.model.checkpoint import load
from painseq.model.decision import Decision, decide
from painseq.model.pain_model import PainModel
from painseq.synthetic import BioVidPlan, write_biovid
from painseq.synthetic.biovid import biovid_jobs
from painseq.synthetic.clips import ClipJob, draw_subject, rng_of
from painseq.synthetic.expression import draw_course
from painseq.synthetic.face import FacePainter, Shape, draw_poses, shape_of

PAGE = ROOT / "docs" / "explanations.md"
SEEDS = (0, 1, 2)
PLAN = BioVidPlan(subjects=48, trials=3, levels=("BL1", "PA4"), fps=4)
SIDE = 80
PAIN_S = (2.5, 5.6)
"""The part of a clip, in seconds, on whose single frames the networks are trained."""
CHANGED = 10
"""Of 255: a pixel that pain changes by as much, mean over the colours, counts as changed."""
MOST_STEPS = 32
"""Of Integrated Gradients on pixels; the default of 1024 takes hours here."""
MOST_STEPS_OF_FEATURES = 256
SUBJECTS = 8
"""Test subjects of whom one clip of high pain is explained; all test subjects count for the balanced accuracy."""
VIVIT = (
    "{class_path: painseq.heads.ViViT, init_args: "
    "{frames: 22, tubelet: [2, 16], width: 64, depth: 4, heads: 4, pool: mean, dropout: 0.1}}"
)
HEADS = ("lstm", "attention_mil")


# ---- Models ----


def train(out: Path, seed: int) -> dict[str, PainModel]:
    """Everything fitted on training subjects, stopped early on validation subjects."""
    write_biovid(out / "heat", PLAN, seed)
    data = ["--config=configs/demo/transfer_heat.yaml", f"--data.root={out / 'heat'}"]
    crops = out / "crops"
    pixels = f"{{class_path: painseq.extractors.Pixels, init_args: {{input_size_px: {SIDE}}}}}"
    extract([*data, f"--model.extractor={pixels}", f"--out={crops}"])
    on_crops = [*data, "--data.options.view=pixels", f"--data.options.store={crops}"]
    single = [
        *on_crops,
        "--config=configs/head/linear_frames.yaml",
        f"--data.options.frames={{from_s: {PAIN_S[0]}, to_s: {PAIN_S[1]}}}",
        "--data.options.balance=true",
        "--data.options.batch_size=64",
    ]
    run(out / "cnn", seed, [*single, f"--model.extractor={timm('test_resnet')}", "--trainer.max_epochs=8"])
    run(out / "vit", seed, [*single, f"--model.extractor={timm('test_vit')}", "--trainer.max_epochs=30"])
    run(
        out / "vivit",
        seed,
        [
            *on_crops,
            f"--model.extractor={pixels}",
            f"--model.head={VIVIT}",
            "--model.optimizer={class_path: torch.optim.AdamW, init_args: {lr: 5.0e-4, weight_decay: 0.05}}",
            "--model.class_weights=inverse_frequency",
            "--data.options.batch_size=8",
            "--trainer.max_epochs=60",
            "--early_stopping.patience=12",
        ],
    )
    network = f"--model.extractor={timm('test_resnet', str(out / 'cnn' / 'extractor.safetensors'))}"
    extract([*data, network, f"--out={out / 'features'}", "--precision=fp32"])
    for head in HEADS:
        run(
            out / head,
            seed,
            [
                *data,
                f"--config=configs/head/{head}.yaml",
                "--model.extractor=null",
                f"--data.options.store={out / 'features'}",
            ],
        )
    models = {
        "CNN, linear, mean of frames": load(out / "cnn" / "best.ckpt"),
        **{f"CNN, {head}": load(out / head / "best.ckpt") for head in HEADS},
        "ViT, linear, mean of frames": load(out / "vit" / "best.ckpt"),
        "ViViT": load(out / "vivit" / "best.ckpt"),
    }
    models["CNN, linear, UNTRAINED"] = untrained(models["CNN, linear, mean of frames"], seed)
    return models


def timm(model: str, weights: str | None = None) -> str:
    arguments = f"model: {model}, input_size_px: {SIDE}, weights: {weights or 'null'}, "
    trainable = "[all]" if weights is None else "[]"
    return f"{{class_path: painseq.extractors.TimmBackbone, init_args: {{{arguments}trainable: {trainable}}}}}"


def run(out: Path, seed: int, args: Sequence[str]) -> None:
    if not (out / "run.json").is_file():
        # Left by a run that was stopped.
        shutil.rmtree(out, ignore_errors=True)
        fit([*args, f"--seed_everything={seed}", "--trainer.enable_model_summary=false", f"--out={out}"])


def untrained(like: PainModel, seed: int) -> PainModel:
    """The same network and head before training."""
    extractor = TimmBackbone("test_resnet", input_size_px=SIDE, seed=seed).eval()
    torch.manual_seed(seed)
    return PainModel(like.record, LinearFrames(extractor.out_shape, len(like.class_names)), extractor, like.face)


def said(model: PainModel, clip: Frames) -> Decision:
    scorer = Scorer(model, clip)
    with torch.no_grad():
        outputs = scorer.outputs(scorer.known_features, scorer.mask)
        return decide(model.head.level, outputs, scorer.mask, model.objective.rule)


# ---- Truth and maps ----


def drawn_by_pain(job: ClipJob, clip: Frames) -> Tensor:
    """(T, 3, S, S) what pain adds to the crops: each frame is drawn with its pain and without."""
    look, temper, rng = draw_subject(job.seed, job.data_set, job.subject)
    painter = FacePainter(look, job.size_px, rng)
    rng = rng_of(job.seed, job.data_set, job.subject, job.clip)
    course = draw_course(job.stimulus, job.level, job.duration_s, job.fps, temper, rng)
    poses = draw_poses(look, course.times_s, rng)
    shown = shape_of(look, course.au)
    # What pain drowned of everything else is not known: as if there had been nothing.
    calm = shape_of(look, np.where(course.pain >= course.au, 0.0, course.au))

    def drawn(shape: Shape, i: int) -> Tensor:
        # A generator of its own, so that both have the same noise.
        frame = painter.frame(shape, i, poses, np.random.default_rng(i))
        return torch.from_numpy(frame.astype(np.float32)).permute(2, 0, 1)

    difference = torch.stack([drawn(shown, i) - drawn(calm, i) for i in range(len(poses))])
    assert len(clip) == len(poses) and clip.boxes is not None
    return in_crops(difference, clip.boxes, SIDE)


def in_crops(frames: Tensor, boxes: Tensor, side: int) -> Tensor:
    """(T, C, H, H) of whole frames to (T, C, S, S) of crops (T, 4), zero beyond the frame."""
    centres = (torch.arange(side) + 0.5) / side
    x, y = (boxes[:, i, None] + (boxes[:, i + 2] - boxes[:, i])[:, None] * centres for i in (0, 1))
    grid = torch.stack([x[:, None].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=-1)
    return F.grid_sample(frames, (2 * grid / frames.shape[-1] - 1).to(frames), align_corners=False)


def maps_of(model: PainModel, clip: Frames, target: int) -> Iterator[tuple[str, Attribution]]:
    for method in space_methods(model):
        if method != "gradcam":
            yield method, explain(model, clip, method, target, MethodOptions(most_steps=MOST_STEPS))
            continue
        layers = list_layers(model.extractor)
        for layer, (_, height, width) in layers.items():
            named = f"gradcam, {layer} ({height} x {width}{', default' if layer == default_layer(layers) else ''})"
            yield named, explain(model, clip, method, target, MethodOptions(layer=layer))


def summed(attribution: Attribution, mask: Tensor) -> dict[str, float]:
    """Mass summed over the frames with pain; the area of each frame weighs as much as the frame's mass."""
    painful = mask.flatten(1).any(dim=1)
    maps, inside = attribution.maps.clamp(min=0).double()[painful].flatten(1), mask[painful].flatten(1)
    weight = maps.sum(dim=1)
    area = (inside.double().mean(dim=1) * weight).sum() / weight.sum()
    empty = float((weight == 0).double().mean())
    return {
        "summed mass": float((maps * inside).sum() / weight.sum()),
        "summed area": float(area),
        "empty share": empty,
    }


def maps_of_nothing(like: Attribution, places: int, rng: torch.Generator) -> Iterator[tuple[str, Attribution]]:
    """Maps that no model made: they know nothing, or only where the face is."""
    clip, shape = like.clip, like.maps.shape
    there = clip.present[:, None, None]
    yield "random, each pixel", replace(like, values=torch.rand(shape, generator=rng) * there)
    coarse = F.interpolate(
        torch.rand(len(clip), 1, places, places, generator=rng), size=shape[1:], mode="bilinear", align_corners=False
    )[:, 0]
    yield f"random, {places} x {places} places", replace(like, values=coarse * there)
    assert clip.landmarks is not None
    face = torch.from_numpy(region_map(clip.landmarks, SIDE) != REGIONS.index("outside the face"))
    yield FACE, replace(like, values=(face & there).float())


# ---- One seed ----


def one_seed(out: Path, seed: int) -> dict[str, Any]:
    begin = time.process_time()
    models = train(out, seed)
    trained = time.process_time()
    tested = set(json.loads((out / "cnn" / "run.json").read_text(encoding="utf-8"))["data"]["split"]["test"])
    jobs = [job for job in biovid_jobs(out / "heat", PLAN, seed) if job.subject_id in tested]
    any_model = next(iter(models.values()))
    clips = {job.clip_id: frames_of_video(any_model, job.video) for job in jobs}
    target = any_model.class_names.index("high_pain")
    accuracy = {
        name: balanced_accuracy_score(
            [job.level > 0 for job in jobs],
            [int(said(model, clips[job.clip_id]).label) == target for job in jobs],
        )
        for name, model in models.items()
    }
    print(f"seed {seed}: {accuracy}, {(trained - begin) / 60:.1f} minutes", flush=True)
    maps: list[dict[str, Any]] = []
    hidden: list[dict[str, Any]] = []
    times: list[dict[str, Any]] = []
    rng = torch.Generator().manual_seed(seed)
    for job in painful(jobs):
        clip = clips[job.clip_id]
        regions = pain_regions(job.video, clip)
        assert regions is not None
        added = drawn_by_pain(job, clip)
        changed = (added.abs().mean(dim=1) >= CHANGED) & clip.present[:, None, None]
        truths = {"regions": regions, "pixels": changed}
        about = {"subject": job.subject_id, "clip": job.clip_id}
        shown = regions.flatten(1).any(dim=1)
        if not shown.any():
            continue  # A face that hardly reacts.

        def keep(
            model: str,
            method: str,
            attribution: Attribution,
            about: dict[str, str] = about,
            truths: dict[str, Tensor] = truths,
        ) -> None:
            for truth, mask in truths.items():
                scores = truth_scores(attribution, mask)
                row = {"model": model, "method": method, "truth": truth, **about}
                maps.append({**row, **({} if scores is None else {**asdict(scores), **summed(attribution, mask)})})

        for name, model in models.items():
            last: Attribution | None = None
            for method, last in maps_of(model, clip, target):
                keep(name, method, last)
            hidden.append({"model": name, **about, **without(model, clip, target, regions, added)})
            features = features_of(model, clip)
            steps = MOST_STEPS if features.are_pixels else MOST_STEPS_OF_FEATURES
            for method in time_methods(model):
                relevance = explain(model, features, method, target, MethodOptions(most_steps=steps)).over_time.clamp(
                    min=0
                )
                share = float(relevance[shown].sum() / relevance.sum()) if relevance.any() else None
                frames = float(shown.sum() / clip.present.sum())
                times.append({"model": name, "method": method, **about, "relevance": share, "frames": frames})
            if name == "CNN, linear, mean of frames":
                assert last is not None
                places = list_layers(model.extractor)[default_layer(list_layers(model.extractor))][1]
                for method, nothing in maps_of_nothing(last, places, rng):
                    keep(NO_MODEL, method, nothing)
        print(f"seed {seed}: {job.clip_id}, {(time.process_time() - begin) / 60:.1f} minutes", flush=True)
    return {
        "seed": seed,
        "accuracy": accuracy,
        "maps": maps,
        "hidden": hidden,
        "times": times,
        "minutes": {"training": (trained - begin) / 60, "all": (time.process_time() - begin) / 60},
    }


def painful(jobs: Sequence[ClipJob]) -> list[ClipJob]:
    """The first clip of high pain of each of the first subjects."""
    first: dict[str, ClipJob] = {}
    for job in jobs:
        if job.level > 0:
            first.setdefault(job.subject_id, job)
    return list(first.values())[:SUBJECTS]


def without(model: PainModel, clip: Frames, target: int, regions: Tensor, added: Tensor) -> dict[str, float]:
    """The probability of high pain for the clip as it is, and for changed ones: does the model use these regions?

    Covered is by the mean colour of the clip: the regions, or as much elsewhere (the same shapes moved by half a crop
    both ways, around its edges). Undrawn is what pain adds, in the regions or in all the rest.
    """
    x, there = clip.x.float(), regions[:, None]
    elsewhere = there.roll((SIDE // 2, SIDE // 2), (2, 3))
    colour = x[clip.present].mean(dim=(0, 2, 3))[:, None, None]
    changed = {
        "as it is": x,
        "regions covered": torch.where(there, colour, x),
        "as much elsewhere covered": torch.where(elsewhere, colour, x),
        "pain undrawn in the regions": torch.where(there, x - added, x),
        "pain undrawn elsewhere": torch.where(there, x, x - added),
    }
    return {
        name: float(said(model, replace(clip, x=crops)).probabilities[0, target]) for name, crops in changed.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_explanations"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--write", action="store_true", help="record the tables in benchmarks/RESULTS.md and the page")
    args = parser.parse_args()
    # Sums differ with the number of threads, and training makes other networks of it.
    torch.set_num_threads(1)
    found = []
    for seed in args.seeds:
        path = args.out / f"seed{seed}" / "explanations.json"
        if not path.is_file():
            write_json(path, one_seed(path.parent, seed))
        found.append(beside_the_face(json.loads(path.read_text(encoding="utf-8"))))
    steps = f"Integrated Gradients on pixels: {MOST_STEPS} steps at most."
    text = f"{machine()} {steps} {tables(found)}"
    print(text, summary(found), sep="\n\n")
    if args.write:
        write_between(RESULTS, "explanations", text)
        write_between(PAGE, "explanations_summary", summary(found))


if __name__ == "__main__":
    main()
