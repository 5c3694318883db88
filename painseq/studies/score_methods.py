"""Which explanation of a model to trust, measured over many clips of a data set."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.explain import (
    Frames,
    Method,
    RandomisationOptions,
    Scorer,
    class_number,
    explainer_of,
    faithfulness,
    features_of,
    pain_regions,
    perturbation,
    randomisation,
    randomisation_check,
    space_methods,
    time_methods,
)
from painseq.explain.perturbation_picture import perturbation_picture
from painseq.explain.randomisation import Kind
from painseq.explain.ranking import NUMBERS, MethodScores, Rank, method_scores, rank, verdict
from painseq.files import write_csv, write_json
from painseq.model.pain_model import PainModel
from painseq.records import Clip, Part
from painseq.runs import OnProgress, check_same_run, make_run_folder, no_progress, read_json, versions
from painseq.studies.experiment import Experiment
from painseq.studies.explained_clips import (
    check_explainable,
    chosen_clips,
    frames_of_clip,
    named_truth,
    none_explained,
    run_config,
    seen_in_training,
    write_config,
)

log = logging.getLogger("painseq")

TITLES: Mapping[Kind, str] = {"space": "places in the face", "time": "frames"}
RANDOMISED_CLIPS = 5
"""On which the weights are randomised: the first ones, of as many subjects as there are."""
FEWEST_STEPS = 8

Plan = Mapping[Kind, Sequence[Method]]


@dataclass(frozen=True)
class ScoringOptions:
    """What to score, and on which clips.

    Args:
        part: of the split.
        clips: how many, chosen evenly by class and subject.
        methods: of `space_methods` and `time_methods`; empty: all that fit the model.
        class_name: None: of each clip the predicted class.
        most_steps: for integrated_gradients, gradients at most, three times a clip.
        seed: of boxes, noise and randomised weights.
        checkpoints: where the model was read from, to be named in the results.
    """

    part: Part = "test"
    clips: int = 20
    methods: Sequence[str] = ()
    class_name: str | None = None
    most_steps: int = 64
    seed: int = 0
    checkpoints: tuple[Path, ...] = ()


USUAL = ScoringOptions()


@dataclass(frozen=True)
class ScoredClip:
    """What is known of one clip.

    Args:
        truth: its class, or number; empty where it is hidden.
        explained: the class whose score is explained.
        scores: space or time -> what `method_scores` gave.
    """

    clip: Clip
    truth: str
    explained: str
    scores: Mapping[Kind, Sequence[MethodScores]]


@dataclass(frozen=True)
class MethodRanking:
    """The methods in order, and what it rests on.

    Args:
        clips: those that could be scored.
        skipped: clip -> why it could not be.
        ranks: space or time -> the methods, the best first.
        details: what scores.json holds: the verdict in words among it.
    """

    clips: Sequence[ScoredClip]
    skipped: Mapping[str, str]
    ranks: Mapping[Kind, Sequence[Rank]]
    details: Mapping[str, Any]


def score_methods(
    model: PainModel,
    data: PainDataModule,
    out: str | Path,
    options: ScoringOptions = USUAL,
    experiment: Experiment | None = None,
    on_progress: OnProgress = no_progress,
) -> MethodRanking:
    """Measure and rank the explanations of a model by how right they are.

    Interrupted, the same call resumes at the clip where it was. A clip that cannot be read or explained is skipped and
    counted.

    Args:
        out: folder for config.yaml, run.json, clips/ and randomised/ (what is done), scores.csv (a row for each clip
            and method), scores.json (ranking, verdict, settings), scores.svg and scores.png.
        experiment: what `data` was built from, kept in config.yaml beside the options.

    Raises:
        PainseqError: no clip could be scored, model and data do not fit together, a method or class that does not fit
            the model, or the folder holds another run.

    Example:
        >>> from painseq.studies.score_methods import ScoringOptions, score_methods
        >>> ranking = score_methods(model, data, Path("scored"), ScoringOptions(methods=["gradcam", "occlusion"]))
        >>> ranking.details["verdict"]["space"]
    """
    out = Path(out)
    if options.most_steps < FEWEST_STEPS:
        raise PainseqError(f"most_steps is {options.most_steps}; it must be {FEWEST_STEPS} or more.")
    check_explainable(model, data)
    plan = _plan(model, options.methods)
    target = None if options.class_name is None else class_number(model, options.class_name)
    clips = chosen_clips(data, options.part, options.clips)
    digests = {str(path): hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in options.checkpoints}
    content = {
        "fingerprint": data.manifest.fingerprint(),
        "clips": [clip.clip_id for clip in clips],
        "checkpoints": digests,
        "model": _digest(model),
        "settings": _settings(),
    }
    _prepare(out, run_config(experiment, "explain_score", options, model), content)
    run = _Run(model, data, out, options, plan, target, on_progress)
    run.announce(clips)
    done, skipped = run.score(clips)
    checks = run.randomise([one.clip for one in done[:RANDOMISED_CLIPS]], len(clips))
    ranks = _ranks(plan, done, checks)
    details = {
        "verdict": {kind: verdict(of) for kind, of in ranks.items()},
        "ranking": {kind: [one.to_dict() for one in of] for kind, of in ranks.items()},
        "randomisation": checks,
        **run.facts(),
        "checkpoints": digests,
        "clips": len(done),
        "skipped": skipped,
        "seen_in_training": seen_in_training(model, data, clips),
    }
    write_json(out / "scores.json", details)
    _draw(out, done, ranks)
    return MethodRanking(done, skipped, ranks, details)


@dataclass(frozen=True)
class _Run:
    """What all clips of a run share.

    Args:
        target: class index; None: of each clip the predicted one.
    """

    model: PainModel
    data: PainDataModule
    out: Path
    options: ScoringOptions
    plan: Plan
    target: int | None
    on_progress: OnProgress

    def announce(self, clips: Sequence[Clip]) -> None:
        """Log what is going to be done."""
        log.info(
            "%d clips; %s; then the weights are randomised, on %d clips. Integrated Gradients take at most %d "
            "gradients, three times a clip (most_steps). On %s.",
            len(clips),
            "; ".join(f"{TITLES[kind]}: {', '.join(methods)}" for kind, methods in self.plan.items()),
            min(RANDOMISED_CLIPS, len(clips)),
            self.options.most_steps,
            self.model.device,
        )

    def facts(self) -> dict[str, object]:
        """How the run was made, for scores.json."""
        data, options = self.data, self.options
        return {
            "part": options.part,
            "data": {"name": data.name, "labels": data.options.labels, "fingerprint": data.manifest.fingerprint()},
            "class": options.class_name,
            "most_steps": options.most_steps,
            "settings": _settings(),
            "seed": options.seed,
            "device": str(self.model.device),
            "versions": versions(),
        }

    def score(self, clips: Sequence[Clip]) -> tuple[list[ScoredClip], dict[str, str]]:
        """The clips that could be scored, and why the others could not; each is written as it is done.

        Raises:
            PainseqError: none could.
        """
        done: list[ScoredClip] = []
        skipped: dict[str, str] = {}
        (self.out / "clips").mkdir(exist_ok=True)
        for number, clip in enumerate(clips):
            show = self._show(number, len(clips))
            show("", 0.0)
            path = self.out / "clips" / f"{number:04d}.json"
            found = read_json(path)
            # Another run that is still at work in this folder may have left its own.
            if found is None or found["clip_id"] != clip.clip_id:
                try:
                    # Noise of its own for each clip.
                    found = self._score_clip(clip, self.options.seed + number, show)
                except PainseqError as error:
                    skipped[clip.clip_id] = str(error)
                    continue
                write_json(path, found)
            read = {kind: [MethodScores(**one) for one in found["scores"][kind]] for kind in self.plan}
            done.append(ScoredClip(clip, named_truth(clip, self.data.scheme), found["explained"], read))
            _write_rows(self.out, done)
        if not done:
            raise none_explained(skipped)
        return done, skipped

    def _score_clip(self, clip: Clip, seed: int, show: Callable[[str, float], None]) -> dict[str, Any]:
        """All scores of one clip, ready for JSON.

        Raises:
            PainseqError: it cannot be read, or a method cannot explain it (of one frame nothing can be left out).
        """
        model, plan = self.model, self.plan
        frames = frames_of_clip(model, self.data, clip)
        if not frames.present.any():
            raise PainseqError("no face found in any frame")
        inputs: dict[Kind, Frames] = {"space": frames, "time": features_of(model, frames)}
        first = Scorer(model, frames if "space" in plan else inputs["time"], self.target)
        regions = pain_regions(self.data.manifest.path(clip), frames, clip.start_s) if "space" in plan else None
        scores = {
            kind: method_scores(
                Scorer(model, inputs[kind], first.target),
                kind,
                methods,
                self.options.most_steps,
                seed,
                regions if kind == "space" else None,
                show,
            )
            for kind, methods in plan.items()
        }
        return {
            "clip_id": clip.clip_id,
            "explained": first.class_name,
            "scores": {kind: [one.to_dict() for one in of] for kind, of in scores.items()},
        }

    def randomise(self, clips: Sequence[Clip], clips_of_run: int) -> dict[Kind, dict[str, dict[str, Any]]]:
        """Space or time -> method -> its `RandomisationCheck`; each is written as it is done."""
        checks: dict[Kind, dict[str, dict[str, Any]]] = {kind: {} for kind in self.plan}
        (self.out / "randomised").mkdir(exist_ok=True)
        crops: list[Frames] = []
        for number, (kind, method) in enumerate((kind, one) for kind, methods in self.plan.items() for one in methods):
            path = self.out / "randomised" / f"{kind}-{method}.json"
            asked = self._asked(kind, method, clips)
            found = read_json(path)
            # A clip that could not be read before, and can now, changes which are the first ones.
            if found is None or {key: found.get(key) for key in asked} != asked:
                crops = crops or [frames_of_clip(self.model, self.data, clip) for clip in clips]
                show = self._show(clips_of_run + number, clips_of_run)
                found = {**asked, **self._randomise(kind, method, clips, crops, show)}
                write_json(path, found)
            checks[kind][method] = found
        return checks

    def _randomise(
        self,
        kind: Kind,
        method: Method,
        clips: Sequence[Clip],
        crops: Sequence[Frames],
        show: Callable[[str, float], None],
    ) -> dict[str, object]:
        return randomisation_check(
            self.model,
            crops if kind == "space" else [features_of(self.model, frames) for frames in crops],
            explainer_of(method, kind, self.options.most_steps),
            [clip.subject_id for clip in clips],
            RandomisationOptions(parts=(), seed=self.options.seed, target=self.target),
            lambda share: show(f"{method} of random weights", share),
        ).to_dict()

    def _asked(self, kind: Kind, method: Method, clips: Sequence[Clip]) -> dict[str, Any]:
        return {
            "method": method,
            "of": kind,
            "clip_ids": [clip.clip_id for clip in clips],
            "class": self.options.class_name,
            "most_steps": self.options.most_steps,
            "seed": self.options.seed,
        }

    def _show(self, done: int, clips: int) -> Callable[[str, float], None]:
        """Tells how far a step is; a step is a clip, or a method with randomised weights."""
        total = clips + sum(map(len, self.plan.values()))
        return lambda note, share: self.on_progress(done, total, f"{note} {share:.0%}" if note else "")


def _plan(model: PainModel, wanted: Sequence[str]) -> Plan:
    """Space or time -> the methods to score."""
    known: dict[Kind, tuple[Method, ...]] = {"space": space_methods(model), "time": time_methods(model)}
    fitting = list(dict.fromkeys(method for methods in known.values() for method in methods))
    unknown = [name for name in wanted if name not in fitting]
    if unknown:
        raise PainseqError(
            f"methods names {unknown[0]}, which does not fit this model; those that do: {', '.join(fitting)}."
        )
    chosen = {kind: [one for one in methods if not wanted or one in wanted] for kind, methods in known.items()}
    return {kind: methods for kind, methods in chosen.items() if methods}


def _prepare(out: Path, config: Mapping[str, Any], content: Mapping[str, object]) -> None:
    """Make the run folder, or see that what is there is this very run."""
    before = read_json(out / "run.json")
    # A store has a run.json, but no config.yaml: it is refused as any other folder that holds something.
    if before is None or not (out / "config.yaml").is_file():
        make_run_folder(out)
        write_config(out, config)
        write_json(out / "run.json", content)
        return
    then = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    check_same_run(out, {**then, "run": before}, {**config, "run": content})


def _digest(model: PainModel) -> str:
    """Of a model's weights, and of the mix of classes that it is corrected for."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    for part in model.modules():
        if isinstance(part, PainModel) and part.prior_shift is not None:
            digest.update(f"prior {part.prior_shift.tolist()} ".encode())
    return digest.hexdigest()


def _settings() -> dict[str, object]:
    return {
        "cells_a_side": perturbation.CELLS_A_SIDE,
        "steps": perturbation.STEPS,
        "boxes": faithfulness.BOXES,
        "noise": faithfulness.NOISE,
        "noisy_clips": faithfulness.NOISY_CLIPS,
        "survives": randomisation.SURVIVES,
    }


def _ranks(
    plan: Plan, done: Sequence[ScoredClip], checks: Mapping[Kind, Mapping[str, Mapping[str, Any]]]
) -> dict[Kind, list[Rank]]:
    subjects = [one.clip.subject_id for one in done]
    ranks: dict[Kind, list[Rank]] = {}
    for kind in plan:
        survives: dict[str, bool | None] = {method: check["survives"] for method, check in checks[kind].items()}
        ranks[kind] = rank([one.scores[kind] for one in done], subjects, survives)
    return ranks


def _write_rows(out: Path, done: Sequence[ScoredClip]) -> None:
    """scores.csv, a row a clip and method."""
    rows: list[list[object]] = [["clip_id", "subject_id", "truth", "explained", "of", "method", *NUMBERS]]
    for one in done:
        about = [one.clip.clip_id, one.clip.subject_id, one.truth, one.explained]
        for kind, scores in one.scores.items():
            for score in scores:
                numbers = [getattr(score, name) for name in NUMBERS]
                shown = ["" if number is None else f"{number:.6f}" for number in numbers]
                rows.append([*about, kind, score.method, *shown])
    write_csv(out / "scores.csv", rows, line_end="\n")


def _draw(out: Path, done: Sequence[ScoredClip], ranks: Mapping[Kind, Sequence[Rank]]) -> None:
    """The curves of deletion and insertion, scores.svg and scores.png."""
    tables = {TITLES[kind]: [one.scores[kind] for one in done] for kind in ranks}
    order = {TITLES[kind]: of for kind, of in ranks.items()}
    subjects = [one.clip.subject_id for one in done]
    (out / "scores.svg").write_bytes(perturbation_picture(tables, subjects, order, "svg"))
    (out / "scores.png").write_bytes(perturbation_picture(tables, subjects, order, "png"))
