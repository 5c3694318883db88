"""One video, explained in space and in time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from painseq.data.labels import Scale
from painseq.errors import PainseqError
from painseq.explain import (
    Attribution,
    Frames,
    KnownUnits,
    Method,
    MethodOptions,
    VideoOptions,
    class_number,
    explain,
    features_of,
    film_strip,
    frames_of_video,
    known_units,
    list_layers,
    region_shares,
    space_methods,
    time_methods,
    write_overlay_video,
)
from painseq.explain.by_input import MOST_STEPS, TOLERANCE
from painseq.explain.drawing import Curve
from painseq.explain.known_units import HIGHEST_PSPI
from painseq.explain.regions import has_regions
from painseq.faces import Locator
from painseq.features import ClipFeatures
from painseq.files import write_csv, write_json
from painseq.model.pain_model import PainModel, VideoPrediction
from painseq.runs import OnProgress, new_run_folder, no_progress, versions
from painseq.video.generated import is_generated

log = logging.getLogger("painseq")

PEAKED = ("integrated_gradients", "gradient_x_input", "saliency")
"""Methods in whose maps single pixels stand out; so many of them are drawn alike that the rest can be seen."""
CUT = 0.01


@dataclass(frozen=True)
class ExplainVideoOptions:
    """What to explain of a video, and how.

    Args:
        start_s: seconds from the first frame shown.
        end_s: exclusive; None is the end.
        class_name: None: the predicted class.
        method: for the map, one of `space_methods`; None: the first of them.
        layer: for gradcam, see `list_layers`; None: `default_layer`.
        time_method: for the curve, one of `time_methods`; None: the first of them, for ViViT its attention, since
            gradients of crops take long.
        most_steps: for integrated_gradients, gradients at most.
        show_faces: draw the face too. Without it only generated faces are drawn.
        locator: finds faces instead of the model's own; None: its own.
        image_fps: images a second, where the video is a folder of them.
        baseline: a video of the same person without pain, for a model that needs it.
        action_units: OpenFace's table of the video; None: `<video without suffix>.csv` beside it, if it is there.
        checkpoints: where the model was read from, to be named in the results.
    """

    start_s: float = 0.0
    end_s: float | None = None
    class_name: str | None = None
    method: str | None = None
    layer: str | None = None
    time_method: str | None = None
    most_steps: int = MOST_STEPS
    show_faces: bool = False
    locator: Locator | None = None
    image_fps: float | None = None
    baseline: Path | None = None
    action_units: Path | None = None
    checkpoints: tuple[Path, ...] = ()


USUAL = ExplainVideoOptions()


@dataclass(frozen=True)
class VideoExplanation:
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

    def curves(self) -> list[Curve]:
        """The class's probability (or the number), the frames' relevance, and PSPI where it is known."""
        prediction, time = self.prediction, self.time
        if self.scale is None:
            rows, name = prediction.frame_probabilities[:, time.target], time.class_name
        else:
            rows, name = prediction.frame_values / self.scale.high, f"{self.scale.name} / {self.scale.high:g}"
        # No line over a stretch in which no face was seen.
        gaps = prediction.faceless_times_s
        seen_s, rows = np.append(prediction.frame_times_s, gaps), np.append(rows, np.full(len(gaps), np.nan))
        order = np.argsort(seen_s, kind="stable")
        relevance = time.over_time.numpy()
        relevance = np.where(time.present.numpy(), relevance / max(float(np.abs(relevance).max()), 1e-12), np.nan)
        moments = time.times_s.numpy()
        curves = [
            (seen_s[order], rows[order], f"{name} ({prediction.frame_meaning})"),
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
        prediction = self.prediction
        if prediction.label is not None:
            outcome = f"predicted {prediction.label} ({prediction.probabilities[prediction.label]:.2f})"
        else:
            outcome = f"estimated {prediction.value:.2f}"
        shown = self.space or self.time
        heat = None if self.space is None else self.space.heat(self.cut, coarse=not self.faces)
        title = f"{shown.method} for {shown.class_name}; {outcome}"
        return film_strip(shown.clip, heat, title, self.faces, self.curves())

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON; the face's regions where 68 landmarks tell them."""
        regions = None if self.space is None or not has_regions(self.space.clip) else region_shares(self.space)
        return {
            "prediction": self.prediction.to_dict(),
            "space": None if self.space is None else _facts(self.space),
            "time": _facts(self.time),
            "regions": None if regions is None else regions.to_dict(),
        }


def explain_video(
    model: PainModel,
    video: str | Path,
    out: str | Path | None = None,
    options: ExplainVideoOptions = USUAL,
    on_progress: OnProgress = no_progress,
) -> VideoExplanation:
    """Show where in the face, and when, a class's score comes from.

    Args:
        out: a PNG to write; or a new folder for explanation.png, explanation.json, frames.csv and, for a model that is
            given the picture, maps.npz and overlay.mp4. None: nothing is written.

    Raises:
        PainseqError: no face, an unknown class, a method or layer that does not fit the model, an unreadable file; the
            PNG is there already, or the folder holds something.

    Example:
        >>> from painseq.studies.explain_video import ExplainVideoOptions, explain_video
        >>> explained = explain_video(model, Path("video.mp4"), Path("why.png"), ExplainVideoOptions(end_s=10.0))
        >>> explained.space.maps, explained.time.over_time  # (T, S, S) and (T,)
    """
    video = Path(video)
    out = None if out is None else Path(out)
    if out is None:
        return _explained(model, video, options, on_progress)
    is_png = out.suffix.lower() == ".png"
    if is_png and out.exists():
        raise PainseqError(f"{out} is there already, and nothing is overwritten. Choose another `out`.")
    with nullcontext() if is_png else new_run_folder(out):
        explained = _explained(model, video, options, on_progress)
        try:
            if is_png:
                out.write_bytes(explained.picture())
            else:
                _write(explained, out, options)
        except OSError as error:
            raise PainseqError(f"{out} cannot be written: {error}.") from error
    return explained


def _explained(
    model: PainModel, video: Path, options: ExplainVideoOptions, on_progress: OnProgress
) -> VideoExplanation:
    space, time = space_methods(model), time_methods(model)
    _check(model, options)

    def progress(note: str) -> Callable[[float], None]:
        return lambda share: on_progress(round(100 * share), 100, note)

    read = progress(f"reading {video.name}")
    read(0.0)
    clip = _read(model, video, options)
    read(0.5)
    features = features_of(model, clip)
    given = ClipFeatures(features.x, features.present, features.times_s, backend=clip.backend)
    prediction = model.predict_features(given, video, options.locator)
    target = options.class_name or prediction.label
    read(1.0)
    known = known_units(video, clip.times_s.numpy(), options.start_s, options.image_fps, options.action_units)
    where = None
    if space:
        name = cast("Method", options.method or space[0])
        how = MethodOptions(layer=options.layer, most_steps=options.most_steps)
        where = explain(model, clip, name, target, how, progress(f"{name}, map"))
        _log_completeness(where)
        if where.layer is not None:
            shapes = {key: f"{key} {h} x {w}" for key, (_, h, w) in list_layers(model.extractor).items()}
            log.info("Layer %s; there are: %s places.", where.layer, ", ".join(shapes.values()))
    usual = "attention" if features.are_pixels and "attention" in time else time[0]
    name = cast("Method", options.time_method or usual)
    how = MethodOptions(most_steps=options.most_steps)
    when = explain(model, features, name, target, how, progress(f"{name}, frames"))
    _log_completeness(when)
    faces = options.show_faces or is_generated(video)
    log.info("%s: %s, score %.3f.%s", video.name, when.class_name, when.score, "" if faces else _without_faces(where))
    return VideoExplanation(video, prediction, where, when, faces, known, model.scale)


def _read(model: PainModel, video: Path, options: ExplainVideoOptions) -> Frames:
    table = options.action_units if "action_units" in model.streams else None
    how = VideoOptions(options.locator, options.baseline, options.image_fps, table)
    clip = frames_of_video(model, video, options.start_s, options.end_s, how)
    if not clip.present.any():
        raise PainseqError(f"{video}: no face found in any frame, so there is nothing to explain.")
    return clip


def _check(model: PainModel, options: ExplainVideoOptions) -> None:
    """Refuse what does not fit the model before the video is read."""
    for name, method, known in (
        ("method", options.method, space_methods(model)),
        ("time_method", options.time_method, time_methods(model)),
    ):
        if method is not None and method not in known:
            raise PainseqError(f"{name} {method} does not fit this model; those that do: {', '.join(known) or 'none'}.")
    method = options.method or next(iter(space_methods(model)), "none: this model is not given the picture")
    if options.layer is not None and method != "gradcam":
        raise PainseqError(f"layer goes with method gradcam, not {method}.")
    if options.class_name is not None:
        class_number(model, options.class_name)


def _write(explained: VideoExplanation, out: Path, options: ExplainVideoOptions) -> None:
    (out / "explanation.png").write_bytes(explained.picture())
    details = {
        **explained.to_dict(),
        "checkpoints": [str(path) for path in options.checkpoints],
        "start_s": options.start_s,
        "end_s": options.end_s,
        "versions": versions(),
    }
    write_json(out / "explanation.json", details)
    time = explained.time
    rows: list[list[object]] = [["time_s", "face", time.method]]
    for moment, face, value in zip(time.times_s.tolist(), time.present.tolist(), time.over_time.tolist(), strict=True):
        rows.append([f"{moment:.4f}", int(face), f"{value:.6g}"])
    write_csv(out / "frames.csv", rows, line_end="\n")
    space = explained.space
    if space is not None:
        maps = space.maps.numpy().astype(np.float32)
        np.savez_compressed(out / "maps.npz", maps=maps, times_s=space.times_s.numpy(), present=space.present.numpy())
        write_overlay_video(out / "overlay.mp4", space, explained.faces, explained.curves(), explained.cut)


def _without_faces(where: Attribution | None) -> str:
    """What stands in the face's place."""
    if where is None:
        return ""
    if where.clip.landmarks is None:
        return (
            " Faces not drawn. There are no landmarks to draw one from either, so the map stands alone: the locators "
            "face_alignment and sidecar give landmarks, show_faces draws the face itself."
        )
    return " Faces not drawn. The lines of its landmarks stand for the face; show_faces draws it."


def _log_completeness(attribution: Attribution) -> None:
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
            "raise most_steps.",
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
