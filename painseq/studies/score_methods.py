"""Ranking of explanation methods for a model, measured over many clips of a data set."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from painseq.data.datamodule import PainDataModule
from painseq.errors import CLIP_FAILURES, PainseqError, reason_of
from painseq.explain import (
    Frames,
    Method,
    RandomisationOptions,
    Scorer,
    check_gradients,
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
from painseq.files import read_yaml, write_atomically, write_csv, write_json
from painseq.model.pain_model import PainModel
from painseq.records import Clip, Part
from painseq.runs import OnProgress, check_same_run, locked_folder, make_run_folder, no_progress, read_json, versions
from painseq.studies.experiment import Experiment
from painseq.studies.explained_clips import (
    check_explainable,
    chosen_clips,
    frames_of_clip,
    named_truth,
    none_explained,
    run_config,
    seen_in_training,
    with_tracks,
    write_config,
)

log = logging.getLogger("painseq")

TITLES: Mapping[Kind, str] = {"space": "places in the face", "time": "frames"}
RANDOMISED_CLIPS = 5
"""Number of clips for the randomisation check: the first ones, of as many subjects as possible."""
FEWEST_STEPS = 8

Plan = Mapping[Kind, Sequence[Method]]


@dataclass(frozen=True)
class ScoringOptions:
    """Options of the scoring of methods.

    Args:
        part: part of the split.
        clips: number of clips, chosen evenly by class and subject.
        methods: methods from `space_methods` and `time_methods`; empty: all that fit the model.
        class_name: class to explain; None: the predicted class of each clip.
        most_steps: for integrated_gradients, the most gradients of each of three explanations per clip.
        seed: seed of boxes, noise and randomised weights.
        checkpoints: files that the model was loaded from, named in the results.
    """

    part: Part = "test"
    clips: int = 20
    methods: Sequence[str] = ()
    class_name: str | None = None
    most_steps: int = 64
    seed: int = 0
    checkpoints: tuple[Path, ...] = ()


DEFAULT_OPTIONS = ScoringOptions()


@dataclass(frozen=True)
class ScoredClip:
    """The scores of one clip.

    Args:
        clip: the clip.
        truth: its true class or value; empty if hidden.
        explained: name of the explained class.
        scores: space or time -> result of `method_scores`.
    """

    clip: Clip
    truth: str
    explained: str
    scores: Mapping[Kind, Sequence[MethodScores]]


@dataclass(frozen=True)
class MethodRanking:
    """The ranked methods, and the scores behind the ranking.

    Args:
        clips: the scored clips.
        skipped: clip id -> why the clip was skipped.
        ranks: space or time -> the methods, the best first.
        details: content of scores.json, including the verdict as sentences.
    """

    clips: Sequence[ScoredClip]
    skipped: Mapping[str, str]
    ranks: Mapping[Kind, Sequence[Rank]]
    details: Mapping[str, Any]


def score_methods(
    model: PainModel,
    data: PainDataModule,
    out: str | Path,
    options: ScoringOptions = DEFAULT_OPTIONS,
    experiment: Experiment | None = None,
    on_progress: OnProgress = no_progress,
) -> MethodRanking:
    """Measure and rank explanation methods for a model by their faithfulness. Repeat an interrupted call to resume.

    Clips that cannot be read or explained are skipped and reported.

    Args:
        out: folder for config.yaml, run.json, clips/ and randomised/ (finished work), scores.csv (one row per clip and
            method), scores.json (ranking, verdict, settings), scores.svg and scores.png.
        experiment: experiment that `data` was built from, written to config.yaml with the options.

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
    model = with_tracks(model, data)
    digests = {str(path): hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in options.checkpoints}
    content = _content(model, data, clips, digests)
    with locked_folder(out) as interrupted:
        _prepare(out, run_config(experiment, "explain_score", options, model), content, interrupted)
        run = _Run(model, data, out, options, plan, target, on_progress)
        run.announce(clips)
        done, skipped = run.score(clips)
        checks = run.randomise([scored.clip for scored in done[:RANDOMISED_CLIPS]], len(clips))
        ranks = _ranks(plan, done, checks)
        details = {
            "verdict": {kind: verdict(ranked) for kind, ranked in ranks.items()},
            "ranking": {kind: [method.to_dict() for method in ranked] for kind, ranked in ranks.items()},
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
    """The settings of a run.

    Args:
        target: class index; None: the predicted class of each clip.
    """

    model: PainModel
    data: PainDataModule
    out: Path
    options: ScoringOptions
    plan: Plan
    target: int | None
    on_progress: OnProgress

    def announce(self, clips: Sequence[Clip]) -> None:
        """Log the planned work."""
        log.info(
            "%d clips; %s; then randomised weights on %d clips. Integrated Gradients compute at most %d gradients "
            "(most_steps), three times per clip. Device: %s.",
            len(clips),
            "; ".join(f"{TITLES[kind]}: {', '.join(methods)}" for kind, methods in self.plan.items()),
            min(RANDOMISED_CLIPS, len(clips)),
            self.options.most_steps,
            self.model.device,
        )

    def facts(self) -> dict[str, object]:
        """Return the settings of the run for scores.json."""
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
        """Score clips, writing each when finished; also returns why others were skipped.

        Raises:
            PainseqError: no clip could be scored.
        """
        done: list[ScoredClip] = []
        skipped: dict[str, str] = {}
        (self.out / "clips").mkdir(exist_ok=True)
        for number, clip in enumerate(clips):
            show = self._show(number, len(clips))
            show("", 0.0)
            path = self.out / "clips" / f"{number:04d}.json"
            stored = read_json(path)
            # Another run that is still working in this folder may have written its own file.
            if stored is None or stored["clip_id"] != clip.clip_id:
                try:
                    # Different noise for each clip.
                    stored = self._score_clip(clip, self.options.seed + number, show)
                except CLIP_FAILURES as error:
                    skipped[clip.clip_id] = reason_of(error)
                    continue
                write_json(path, stored)
            scores = {kind: [MethodScores(**row) for row in stored["scores"][kind]] for kind in self.plan}
            done.append(ScoredClip(clip, named_truth(clip, self.data.scheme), stored["explained"], scores))
            _write_rows(self.out, done)
        if not done:
            raise none_explained(skipped)
        return done, skipped

    def _score_clip(self, clip: Clip, seed: int, show: Callable[[str, float], None]) -> dict[str, Any]:
        """Return all scores of one clip as plain values for JSON.

        Raises:
            PainseqError: the clip cannot be read, or a method cannot explain it (frame_occlusion needs two frames).
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
            "scores": {kind: [row.to_dict() for row in rows] for kind, rows in scores.items()},
        }

    def randomise(self, clips: Sequence[Clip], clips_of_run: int) -> dict[Kind, dict[str, dict[str, Any]]]:
        """Return space or time -> method -> `RandomisationCheck`, writing each when finished."""
        checks: dict[Kind, dict[str, dict[str, Any]]] = {kind: {} for kind in self.plan}
        (self.out / "randomised").mkdir(exist_ok=True)
        crops: list[Frames] = []
        for number, (kind, method) in enumerate((kind, name) for kind, names in self.plan.items() for name in names):
            path = self.out / "randomised" / f"{kind}-{method}.json"
            request = self._request(kind, method, clips)
            stored = read_json(path)
            # The first clips may change if a clip has become readable.
            if stored is None or {key: stored.get(key) for key in request} != request:
                crops = crops or [frames_of_clip(self.model, self.data, clip) for clip in clips]
                show = self._show(clips_of_run + number, clips_of_run)
                stored = {**request, **self._randomise(kind, method, clips, crops, show)}
                write_json(path, stored)
            checks[kind][method] = stored
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
            lambda share: show(f"{method} with random weights", share),
        ).to_dict()

    def _request(self, kind: Kind, method: Method, clips: Sequence[Clip]) -> dict[str, Any]:
        return {
            "method": method,
            "of": kind,
            "clip_ids": [clip.clip_id for clip in clips],
            "class": self.options.class_name,
            "most_steps": self.options.most_steps,
            "seed": self.options.seed,
        }

    def _show(self, done: int, clips: int) -> Callable[[str, float], None]:
        """Return a function to report the progress of a step: a clip, or a method with randomised weights."""
        total = clips + sum(map(len, self.plan.values()))
        return lambda note, share: self.on_progress(done, total, f"{note} {share:.0%}" if note else "")


def _plan(model: PainModel, wanted: Sequence[str]) -> Plan:
    """Return space or time -> the methods to score."""
    known: dict[Kind, tuple[Method, ...]] = {"space": space_methods(model), "time": time_methods(model)}
    fitting = list(dict.fromkeys(method for methods in known.values() for method in methods))
    for name in wanted:
        check_gradients(model, name)
    unknown = [name for name in wanted if name not in fitting]
    if unknown:
        raise PainseqError(
            f"methods names {unknown[0]}, which does not fit this model; methods that do: {', '.join(fitting)}."
        )
    chosen = {kind: [name for name in methods if not wanted or name in wanted] for kind, methods in known.items()}
    return {kind: methods for kind, methods in chosen.items() if methods}


def _content(
    model: PainModel, data: PainDataModule, clips: Sequence[Clip], digests: Mapping[str, str]
) -> dict[str, object]:
    """Return the content of run.json, which must be the same when a run is resumed."""
    return {
        "fingerprint": data.manifest.fingerprint(),
        "clips": [clip.clip_id for clip in clips],
        "checkpoints": dict(digests),
        "model": _digest(model),
        "settings": _settings(),
    }


def _prepare(out: Path, config: Mapping[str, Any], content: Mapping[str, object], interrupted: bool) -> None:
    """Start a run in its folder, or check that it holds the same run."""
    previous_run = read_json(out / "run.json")
    # A feature store also has a run.json, but no config.yaml; it is refused as a folder that is not empty.
    if previous_run is None or not (out / "config.yaml").is_file():
        make_run_folder(out, ("config.yaml",) if interrupted else ())
        write_config(out, config)
        write_json(out / "run.json", content)
        return
    previous = read_yaml(out / "config.yaml")
    check_same_run(out, {**previous, "run": previous_run}, {**config, "run": content})


def _digest(model: PainModel) -> str:
    """Return a digest of a model's weights and its prior correction."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    for module in model.modules():
        if isinstance(module, PainModel) and module.prior_shift is not None:
            digest.update(f"prior {module.prior_shift.tolist()} ".encode())
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
    subjects = [scored.clip.subject_id for scored in done]
    ranks: dict[Kind, list[Rank]] = {}
    for kind in plan:
        survives: dict[str, bool | None] = {method: check["survives"] for method, check in checks[kind].items()}
        ranks[kind] = rank([scored.scores[kind] for scored in done], subjects, survives)
    return ranks


def _write_rows(out: Path, done: Sequence[ScoredClip]) -> None:
    """Write scores.csv, with one row per clip and method."""
    rows: list[list[object]] = [["clip_id", "subject_id", "truth", "explained", "of", "method", *NUMBERS]]
    for scored in done:
        prefix = [scored.clip.clip_id, scored.clip.subject_id, scored.truth, scored.explained]
        for kind, scores in scored.scores.items():
            for score in scores:
                numbers = [getattr(score, name) for name in NUMBERS]
                cells = ["" if number is None else f"{number:.6f}" for number in numbers]
                rows.append([*prefix, kind, score.method, *cells])
    write_csv(out / "scores.csv", rows, line_end="\n")


def _draw(out: Path, done: Sequence[ScoredClip], ranks: Mapping[Kind, Sequence[Rank]]) -> None:
    """Draw the deletion and insertion curves, scores.svg and scores.png."""
    tables = {TITLES[kind]: [scored.scores[kind] for scored in done] for kind in ranks}
    order = {TITLES[kind]: ranked for kind, ranked in ranks.items()}
    subjects = [scored.clip.subject_id for scored in done]
    write_atomically(out / "scores.svg", perturbation_picture(tables, subjects, order, "svg"))
    write_atomically(out / "scores.png", perturbation_picture(tables, subjects, order, "png"))
