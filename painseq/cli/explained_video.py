"""One video, explained in space and in time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from painseq.errors import PainseqError

if TYPE_CHECKING:
    from painseq.data.labels import Scale
    from painseq.explain import Attribution, KnownUnits, Method
    from painseq.faces import Locator
    from painseq.model.pain_model import PainModel, VideoPrediction

log = logging.getLogger("painseq")

PEAKED = ("integrated_gradients", "gradient_x_input", "saliency")
"""Methods in whose maps single pixels stand out; so many of them are drawn alike that the rest can be seen."""
CUT = 0.01


@dataclass(frozen=True)
class Explained:
    """One video, explained in space and in time.

    Args:
        space: of the crops; None for a model that is not given the picture.
        time: of the features, or of the crops where the head takes them itself.
        faces: whether faces may be drawn.
        known: the action units of `time`'s frames, where they are known.
        scale: of a model of a scale.
    """

    video: Path
    prediction: VideoPrediction
    space: Attribution | None
    time: Attribution
    faces: bool
    known: KnownUnits | None
    scale: Scale | None

    def curves(self) -> list[tuple[np.ndarray, np.ndarray, str]]:
        """The class's probability (or the number), the frames' relevance, and PSPI where it is known."""
        from painseq.explain.known_units import HIGHEST_PSPI

        prediction, time = self.prediction, self.time
        if self.scale is None:
            rows = prediction.frame_probabilities[:, time.target]
            said = time.class_name
        else:
            rows = prediction.frame_values / self.scale.high
            said = f"{self.scale.name} / {self.scale.high:g}"
        # No line over a stretch in which no face was seen.
        gaps = prediction.faceless_times_s
        seen_s, rows = np.append(prediction.frame_times_s, gaps), np.append(rows, np.full(len(gaps), np.nan))
        order = np.argsort(seen_s, kind="stable")
        relevance = time.over_time.numpy()
        relevance = np.where(time.present.numpy(), relevance / max(float(np.abs(relevance).max()), 1e-12), np.nan)
        moments = time.times_s.numpy()
        curves = [
            (seen_s[order], rows[order], f"{said} ({prediction.frame_meaning})"),
            (moments, relevance, f"relevance ({time.method})"),
        ]
        if self.known is not None and np.isfinite(self.known.pspi).any():
            curves.append((moments, self.known.pspi / HIGHEST_PSPI, f"PSPI / {HIGHEST_PSPI} ({self.known.source})"))
        return curves

    @property
    def cut(self) -> float:
        """See `Attribution.heat`."""
        return CUT if self.space is not None and self.space.method in PEAKED else 0.0

    def picture(self) -> bytes:
        """A film strip with the curves below it; a PNG."""
        from painseq.explain import film_strip

        prediction = self.prediction
        if prediction.label is not None:
            said = f"predicted {prediction.label} ({prediction.probabilities[prediction.label]:.2f})"
        else:
            said = f"estimated {prediction.value:.2f}"
        shown = self.space or self.time
        return film_strip(
            shown.clip.x,
            None if self.space is None else self.space.heat(self.cut, coarse=not self.faces),
            shown.present,
            shown.times_s,
            f"{shown.method} for {shown.class_name}; {said}",
            self.faces,
            curves=self.curves(),
            landmarks=shown.clip.landmarks,
        )

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON; the face's regions where 68 landmarks tell them."""
        from painseq.explain import region_shares
        from painseq.explain.regions import has_regions

        regions = None if self.space is None or not has_regions(self.space.clip) else region_shares(self.space)
        return {
            "prediction": self.prediction.to_dict(),
            "space": None if self.space is None else _facts(self.space),
            "time": _facts(self.time),
            "regions": None if regions is None else regions.to_dict(),
        }


def explanation(
    model: PainModel,
    video: Path,
    start_s: float = 0.0,
    end_s: float | None = None,
    class_name: str | None = None,
    show_faces: bool = False,
    locator: Locator | None = None,
    image_fps: float | None = None,
    baseline: Path | None = None,
    method: str | None = None,
    layer: str | None = None,
    time_method: str | None = None,
    most_steps: int | None = None,
    action_units: Path | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> Explained:
    """Where in the face, and when, a class's score comes from.

    Faces may be drawn if they are generated ones, or if `show_faces` says so.

    Args:
        class_name: None: the predicted class.
        baseline: a video of the same person without pain, for a model that needs it.
        method: for the map, one of `space_methods`; None: the first of them.
        time_method: for the curve, one of `time_methods`; None: the first of them, for ViViT its attention, since
            gradients of crops take long.
        action_units: OpenFace's table of the video; None: `<video without suffix>.csv` beside it, if it is there.
        on_progress: called with what is being done and its share that is done.

    Raises:
        PainseqError: no face, an unknown class, a method or layer that does not fit the model, an unreadable file.
    """
    from painseq.explain import (
        class_number,
        explain,
        features_of,
        frames_of_video,
        known_units,
        list_layers,
        space_methods,
        time_methods,
    )
    from painseq.explain.by_input import MOST_STEPS
    from painseq.features import ClipFeatures
    from painseq.video.generated import is_generated

    space, time = space_methods(model), time_methods(model)
    _check_method("--method", method, space)
    _check_method("--time-method", time_method, time)
    named = method or next(iter(space), "none: this model is not given the picture")
    if layer is not None and named != "gradcam":
        raise PainseqError(f"--layer goes with --method gradcam, not {named}.")
    if class_name is not None:
        class_number(model, class_name)

    def progress(what: str) -> Callable[[float], None]:
        return lambda share: None if on_progress is None else on_progress(what, share)

    table = action_units if "action_units" in model.streams else None
    read = progress(f"reading {video.name}")
    read(0.0)
    clip = frames_of_video(model, video, start_s, end_s, locator, baseline, image_fps, table)
    if not clip.present.any():
        raise PainseqError(f"{video}: no face found in any frame, so there is nothing to explain.")
    read(0.5)
    features = features_of(model, clip)
    given = ClipFeatures(features.x, features.present, features.times_s, backend=clip.backend)
    prediction = model.predict_features(given, video, locator)
    target = class_name or prediction.label
    read(1.0)
    known = known_units(video, clip.times_s.numpy(), start_s, image_fps, action_units)
    steps = MOST_STEPS if most_steps is None else most_steps
    where = None
    if space:
        name = cast("Method", method or space[0])
        where = explain(model, clip, name, target, layer=layer, most_steps=steps, on_progress=progress(f"{name}, map"))
        _tell(where)
        if where.layer is not None:
            shapes = {key: f"{key} {h} x {w}" for key, (_, h, w) in list_layers(model.extractor).items()}
            log.info("Layer %s; there are: %s places.", where.layer, ", ".join(shapes.values()))
    usual = "attention" if features.are_pixels and "attention" in time else time[0]
    name = cast("Method", time_method or usual)
    when = explain(model, features, name, target, most_steps=steps, on_progress=progress(f"{name}, frames"))
    _tell(when)
    faces = show_faces or is_generated(video)
    log.info("%s: %s, score %.3f.%s", video.name, when.class_name, when.score, "" if faces else _unseen(where))
    return Explained(video, prediction, where, when, faces, known, model.scale)


def _unseen(where: Attribution | None) -> str:
    """What stands in the face's place."""
    if where is None:
        return ""
    if where.clip.landmarks is None:
        return (
            " Faces not drawn. There are no landmarks to draw one from either, so the map stands alone: --locator "
            "face_alignment or sidecar gives landmarks, --show-faces draws the face itself."
        )
    return " Faces not drawn. The lines of its landmarks stand for the face; --show-faces draws it."


def _check_method(option: str, method: str | None, known: Sequence[str]) -> None:
    if method is not None and method not in known:
        raise PainseqError(f"{option} {method} does not fit this model; those that do: {', '.join(known) or 'none'}.")


def _tell(attribution: Attribution) -> None:
    from painseq.explain.by_input import TOLERANCE

    error, steps = attribution.completeness_error, attribution.steps
    if error is None:
        return
    if error <= TOLERANCE:
        log.info(
            "Integrated Gradients: %d steps, complete to %.2g %% of the difference to the baseline.", steps, 100 * error
        )
    else:
        log.warning(
            "Integrated Gradients: %d steps miss %.2g %% of the difference to the baseline, where %g %% is allowed: "
            "raise --most-steps.",
            steps,
            100 * error,
            100 * TOLERANCE,
        )


def _facts(attribution: Attribution) -> dict[str, object]:
    error = attribution.completeness_error
    return {
        "method": attribution.method,
        "class": attribution.class_name,
        "score": attribution.score,
        "layer": attribution.layer,
        "completeness_error": error if error is None or np.isfinite(error) else None,
        "steps": attribution.steps,
        "shape": list(attribution.values.shape),
    }
