"""`painseq explain --score`: which explanation of a checkpoint to trust, measured over many clips."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from painseq.cli.explain_scores_report import TITLES, ScoredClip, bar_of, draw, tell, write_rows
from painseq.cli.explained_clips import (
    clips_of,
    frames_of_clip,
    model_and_data,
    named_truth,
    none_explained,
    seen_in_training,
)
from painseq.errors import PainseqError
from painseq.files import write_json
from painseq.runs import check_same_run, make_run_folder, read_json, versions

if TYPE_CHECKING:
    from painseq.cli.experiment import ExperimentCLI
    from painseq.data.datamodule import PainDataModule
    from painseq.explain import Frames, Method
    from painseq.explain.randomisation import Kind
    from painseq.explain.ranking import Rank
    from painseq.model.pain_model import PainModel
    from painseq.records import Clip

log = logging.getLogger("painseq")

OF_NO_ACCOUNT = ("out", "device", "trust")
"""Options that may differ when a run goes on."""
RANDOMISED_CLIPS = 5
"""On which the weights are randomised: the first ones, of as many people as there are."""

Plan = Mapping["Kind", Sequence["Method"]]


def main(argv: Sequence[str]) -> int:
    """Run the command. Interrupted, it goes on at the clip where it was."""
    from painseq.cli.experiment import ExperimentCLI
    from painseq.explain import class_number
    from painseq.explain.ranking import rank, verdict

    cli = ExperimentCLI("explain --score", argv)
    config = cli.config
    if config["most_steps"] < 8:
        raise PainseqError(f"--most-steps is {config['most_steps']}; it must be 8 or more.")
    model, data, device = model_and_data(cli)
    plan = _plan(model, config["methods"])
    target = None if config["class_name"] is None else class_number(model, config["class_name"])
    clips = clips_of(data, config)
    out, seed, steps = Path(config["out"]), int(config["seed_everything"] or 0), config["most_steps"]
    _prepare(cli, data, clips)
    log.info(
        "%d clips; %s; then the weights are randomised, on %d clips. Integrated Gradients take at most %d gradients, "
        "three times a clip (--most-steps). On %s.",
        len(clips),
        "; ".join(f"{TITLES[kind]}: {', '.join(methods)}" for kind, methods in plan.items()),
        min(RANDOMISED_CLIPS, len(clips)),
        steps,
        device,
    )
    done, skipped = _score_clips(model, data, clips, plan, target, steps, seed, out)
    checks = _randomise(model, data, [one.clip for one in done[:RANDOMISED_CLIPS]], plan, target, steps, seed, out)
    subjects = [one.clip.subject_id for one in done]
    ranks: dict[Kind, list[Rank]] = {}
    for kind in plan:
        survives = {method: cast("bool | None", check["survives"]) for method, check in checks[kind].items()}
        ranks[kind] = rank([one.scores[kind] for one in done], subjects, survives)
    details = {
        "verdict": {kind: verdict(of) for kind, of in ranks.items()},
        "ranking": {kind: [one.to_dict() for one in of] for kind, of in ranks.items()},
        "randomisation": checks,
        "part": config["part"],
        "data": {"name": data.name, "labels": data.options.labels, "fingerprint": data.manifest.fingerprint()},
        "checkpoints": _digests(config),
        "class": config["class_name"],
        "clips": len(done),
        "skipped": skipped,
        "seen_in_training": seen_in_training(model, data, clips),
        "most_steps": steps,
        "settings": _settings(),
        "seed": seed,
        "device": device,
        "versions": versions(),
    }
    write_json(out / "scores.json", details)
    draw(out, done, ranks)
    tell(done, ranks, details)
    log.info("Written to %s.", out)
    return 0


def _plan(model: PainModel, wanted: Sequence[str]) -> Plan:
    """Space or time -> the methods to score."""
    from painseq.explain import space_methods, time_methods

    known: dict[Kind, tuple[Method, ...]] = {"space": space_methods(model), "time": time_methods(model)}
    fitting = list(dict.fromkeys(method for methods in known.values() for method in methods))
    unknown = [name for name in wanted if name not in fitting]
    if unknown:
        raise PainseqError(f"--methods {unknown[0]} does not fit this model; those that do: {', '.join(fitting)}.")
    chosen = {kind: [one for one in methods if not wanted or one in wanted] for kind, methods in known.items()}
    return {kind: methods for kind, methods in chosen.items() if methods}


def _prepare(cli: ExperimentCLI, data: PainDataModule, clips: Sequence[Clip]) -> None:
    """Make the run folder, or see that what is there is this very run."""
    out = Path(cli.config["out"])
    config = yaml.safe_load(cli.parser.dump(cli.config, skip_validation=True))
    content = {
        "fingerprint": data.manifest.fingerprint(),
        "clips": [clip.clip_id for clip in clips],
        "checkpoints": _digests(cli.config),
        "settings": _settings(),
    }
    before = read_json(out / "run.json")
    # A store has a run.json, but no config.yaml: it is refused as any other folder that holds something.
    if before is None or not (out / "config.yaml").is_file():
        make_run_folder(out)
        (out / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        write_json(out / "run.json", content)
        return
    then, now = (
        {key: value for key, value in written.items() if key not in OF_NO_ACCOUNT}
        for written in (yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8")), config)
    )
    check_same_run(out, {**then, "run": before}, {**now, "run": content})


def _digests(config: Any) -> dict[str, str]:
    """Checkpoint -> sha256 of the file."""
    paths = config["average_checkpoints"] or [config["checkpoint"]]
    return {str(path): hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}


def _settings() -> dict[str, object]:
    from painseq.explain import faithfulness, perturbation, randomisation

    return {
        "cells_a_side": perturbation.CELLS_A_SIDE,
        "steps": perturbation.STEPS,
        "boxes": faithfulness.BOXES,
        "noise": faithfulness.NOISE,
        "noisy_clips": faithfulness.NOISY_CLIPS,
        "survives": randomisation.SURVIVES,
    }


def _score_clips(
    model: PainModel,
    data: PainDataModule,
    clips: Sequence[Clip],
    plan: Plan,
    target: int | None,
    most_steps: int,
    seed: int,
    out: Path,
) -> tuple[list[ScoredClip], dict[str, str]]:
    """The clips that could be scored, and why the others could not; each is written as it is done.

    Raises:
        PainseqError: none could.
    """
    from painseq.explain.ranking import MethodScores

    done: list[ScoredClip] = []
    skipped: dict[str, str] = {}
    (out / "clips").mkdir(exist_ok=True)
    with bar_of("clips", len(clips)) as (show, step):
        for number, clip in enumerate(clips):
            path = out / "clips" / f"{number:04d}.json"
            found = read_json(path)
            # Another run that is still at work in this folder may have left its own.
            if found is None or found["clip_id"] != clip.clip_id:
                try:
                    # Noise of its own for each clip.
                    found = _score_clip(model, data, clip, plan, target, most_steps, seed + number, show)
                except PainseqError as error:
                    skipped[clip.clip_id] = str(error)
                    step(False)
                    continue
                write_json(path, found)
                step(True)
            else:
                step(False)
            read = {kind: [MethodScores(**one) for one in found["scores"][kind]] for kind in plan}
            done.append(ScoredClip(clip, named_truth(clip, data.scheme), found["explained"], read))
            write_rows(out, done)
    if not done:
        raise none_explained(skipped)
    return done, skipped


def _score_clip(
    model: PainModel,
    data: PainDataModule,
    clip: Clip,
    plan: Plan,
    target: int | None,
    most_steps: int,
    seed: int,
    show: Callable[[str, float], None],
) -> dict[str, Any]:
    """All scores of one clip, ready for JSON.

    Raises:
        PainseqError: it cannot be read, or a method cannot explain it (of one frame nothing can be left out).
    """
    from painseq.explain import Scorer, features_of, pain_regions
    from painseq.explain.ranking import score_methods

    frames = frames_of_clip(model, data, clip)
    if not frames.present.any():
        raise PainseqError("no face found in any frame")
    inputs: dict[Kind, Frames] = {"space": frames, "time": features_of(model, frames)}
    scorer = Scorer(model, frames if "space" in plan else inputs["time"], target)
    regions = pain_regions(data.manifest.path(clip), frames, clip.start_s) if "space" in plan else None
    scores = {
        kind: score_methods(
            model,
            inputs[kind],
            kind,
            methods,
            scorer.target,
            most_steps,
            seed,
            regions if kind == "space" else None,
            show,
        )
        for kind, methods in plan.items()
    }
    return {
        "clip_id": clip.clip_id,
        "explained": scorer.class_name,
        "scores": {kind: [one.to_dict() for one in of] for kind, of in scores.items()},
    }


def _randomise(
    model: PainModel,
    data: PainDataModule,
    clips: Sequence[Clip],
    plan: Plan,
    target: int | None,
    most_steps: int,
    seed: int,
    out: Path,
) -> dict[Kind, dict[str, dict[str, Any]]]:
    """Space or time -> method -> its `RandomisationCheck`; each is written as it is done."""
    from painseq.explain import features_of
    from painseq.explain.randomisation import explainer_of, randomisation_check

    checks: dict[Kind, dict[str, dict[str, Any]]] = {kind: {} for kind in plan}
    (out / "randomised").mkdir(exist_ok=True)
    crops: list[Frames] = []
    with bar_of("randomised", sum(map(len, plan.values()))) as (show, step):
        for kind, methods in plan.items():
            for method in methods:
                path = out / "randomised" / f"{kind}-{method}.json"
                made_of: dict[str, Any] = {
                    "method": method,
                    "of": kind,
                    "clip_ids": [clip.clip_id for clip in clips],
                    "class": None if target is None else model.class_names[target],
                    "most_steps": most_steps,
                    "seed": seed,
                }
                found = read_json(path)
                # A clip that could not be read before, and can now, changes which are the first ones.
                if found is None or {key: found.get(key) for key in made_of} != made_of:
                    crops = crops or [frames_of_clip(model, data, clip) for clip in clips]
                    inputs = crops if kind == "space" else [features_of(model, frames) for frames in crops]

                    def progress(share: float, name: str = method) -> None:
                        show(name, share)

                    check = randomisation_check(
                        model,
                        inputs,
                        explainer_of(method, kind, most_steps),
                        [clip.subject_id for clip in clips],
                        parts=(),
                        seed=seed,
                        on_progress=progress,
                        target=target,
                    )
                    found = {**made_of, **check.to_dict()}
                    write_json(path, found)
                    step(True)
                else:
                    step(False)
                checks[kind][method] = found
    return checks
