"""One video, explained in space and in time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from painseq.data.labels import Scale
from painseq.data.streams import ClipRows, video_streams
from painseq.errors import PainseqError
from painseq.explain import (
    Attribution,
    ColumnOcclusion,
    Frames,
    KnownUnits,
    Method,
    MethodOptions,
    VideoOptions,
    check_gradients,
    class_number,
    column_bars,
    explain,
    features_of,
    film_strip,
    frames_of_video,
    known_units,
    list_layers,
    named_columns,
    occlude_columns,
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
from painseq.files import write_atomically, write_csv, write_json
from painseq.model.pain_model import PainModel
from painseq.model.prediction import VideoPrediction
from painseq.records import MIN_FACE_SHARE, check_min_face_share
from painseq.runs import OnProgress, new_run_folder, no_progress, versions
from painseq.video.generated import is_generated

log = logging.getLogger("painseq")

PEAKED = ("integrated_gradients", "gradient_x_input", "saliency")
"""Methods with very large values in single pixels; the strongest share `CUT` is drawn alike, so that others show."""
CUT = 0.01
MOST_LOGGED = 5
"""Columns that are logged; files have all."""


@dataclass(frozen=True)
class ExplainVideoOptions:
    """Options of the explanation of a video.

    Args:
        start_s: start of the span, in seconds from the first frame.
        end_s: end of the span, exclusive; None: the end of the video.
        class_name: class to explain; None: the predicted class.
        method: method of the map, one of `space_methods`; None: the first of them.
        layer: for gradcam, see `list_layers`; None: `default_layer`.
        time_method: method of the curve, one of `time_methods`; None: the first of them (of trees frame_occlusion), or
            attention for ViViT, since gradients of crops are slow.
        most_steps: for integrated_gradients, the most gradients.
        show_faces: draw the face. Otherwise only generated faces are drawn.
        locator: detects faces instead of the model's own locator; None: the model's own.
        image_fps: images per second, if the video is a folder of images.
        baseline: video of the same subject without pain, for a model that needs one.
        same_person: further videos of the person, for a model of features normalised by subject; see
            `PainModel.with_same_person`.
        action_units: table of the video's action units; None: `<video without suffix>.csv` next to it, if it exists.
        checkpoints: files that the model was loaded from, named in the results.
        min_face_share: the prediction is reported as doubtful if a smaller share of the frames has a face.
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
    same_person: tuple[Path, ...] = ()
    action_units: Path | None = None
    checkpoints: tuple[Path, ...] = ()
    min_face_share: float = MIN_FACE_SHARE

    def __post_init__(self) -> None:
        check_min_face_share(self.min_face_share)


DEFAULT_OPTIONS = ExplainVideoOptions()


@dataclass(frozen=True)
class VideoExplanation:
    """One video, explained in space and in time.

    Args:
        video: file or folder of images.
        prediction: the model's prediction.
        space: explanation of the crops; None for a model that takes no crops.
        time: explanation of the features, or of the crops if the head takes crops.
        faces: whether faces may be drawn.
        known: action units of the frames of `time`, if known.
        scale: scale of a model of a scale.
        columns: importance of the columns; None for a model without named columns, whose only stream is `cnn`.
    """

    video: Path
    prediction: VideoPrediction
    space: Attribution | None
    time: Attribution
    faces: bool
    known: KnownUnits | None
    scale: Scale | None
    columns: ColumnOcclusion | None = None

    def curves(self) -> list[Curve]:
        """Return the class's probability (or the value), the frames' relevance, and PSPI if it is known."""
        prediction, time = self.prediction, self.time
        if self.scale is None:
            rows, name = prediction.frame_probabilities[:, time.target], time.class_name
        else:
            rows, name = prediction.frame_values / self.scale.high, f"{self.scale.name} / {self.scale.high:g}"
        # No line over frames without a face.
        gaps = prediction.faceless_times_s
        seen_s, rows = np.append(prediction.frame_times_s, gaps), np.append(rows, np.full(len(gaps), np.nan))
        order = np.argsort(seen_s, kind="stable")
        relevance = time.over_time.numpy()
        relevance = np.where(time.present.numpy(), relevance / max(float(np.abs(relevance).max()), 1e-12), np.nan)
        times_s = time.times_s.numpy()
        curves = [
            (seen_s[order], rows[order], f"{name} ({prediction.frame_meaning})"),
            (times_s, relevance, f"relevance ({time.method})"),
        ]
        if self.known is not None and np.isfinite(self.known.pspi).any():
            curves.append((times_s, self.known.pspi / HIGHEST_PSPI, f"PSPI / {HIGHEST_PSPI} ({self.known.source})"))
        return curves

    @property
    def cut(self) -> float:
        """See `Attribution.heat`."""
        return CUT if self.space is not None and self.space.method in PEAKED else 0.0

    def picture(self) -> bytes:
        """Draw a film strip with the curves below it, as a PNG."""
        prediction = self.prediction
        if prediction.label is not None:
            outcome = f"predicted {prediction.label} ({prediction.probabilities[prediction.label]:.2f})"
        else:
            outcome = f"estimated {prediction.value:.2f}"
        if prediction.face_share < prediction.min_face_share:
            outcome += f"; a face in {prediction.face_share:.0%} of the frames only"
        if prediction.switched_s:
            outcome += f"; perhaps another person from {prediction.switched_s[0]:.2f} s on"
        attribution = self.space or self.time
        heat = None if self.space is None else self.space.heat(self.cut, coarse=not self.faces)
        title = f"{attribution.method} for {attribution.class_name}; {outcome}"
        return film_strip(attribution.clip, heat, title, self.faces, self.curves())

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON, with the face's regions if the landmarks tell them."""
        regions = None if self.space is None or not has_regions(self.space.clip) else region_shares(self.space)
        return {
            "prediction": self.prediction.to_dict(),
            "space": None if self.space is None else _facts(self.space),
            "time": _facts(self.time),
            "regions": None if regions is None else regions.to_dict(),
            "columns": None if self.columns is None else self.columns.to_dict(),
        }


def explain_video(
    model: PainModel,
    video: str | Path,
    out: str | Path | None = None,
    options: ExplainVideoOptions = DEFAULT_OPTIONS,
    on_progress: OnProgress = no_progress,
) -> VideoExplanation:
    """Explain which places in the face, and which frames, a class's score depends on.

    Args:
        out: PNG to write; or a new folder for explanation.png, explanation.json, frames.csv and, for a model that takes
            crops, maps.npz and overlay.mp4; for a model with named columns, columns.csv and column_bars.png. None
            writes nothing.

    Raises:
        PainseqError: no face, an unknown class, a method or layer that does not fit the model, an unreadable file; the
            PNG exists already, or the folder is not empty.

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
        raise PainseqError(
            f"{out} already exists, and is never overwritten. Choose another path for out (command line: --out)."
        )
    with nullcontext() if is_png else new_run_folder(out):
        explained = _explained(model, video, options, on_progress)
        try:
            if is_png:
                write_atomically(out, explained.picture())
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
    if options.same_person:
        model = model.with_same_person(options.same_person, options.locator, options.image_fps)
    clip = _read(model, video, options)
    read(0.5)
    features = features_of(model, clip)
    given = ClipRows(
        features.x.numpy(),
        features.present.numpy(),
        features.times_s.numpy(),
        backend=clip.backend,
        switched_s=clip.switched_s,
    )
    prediction = model.predict_rows(given, video, options.locator)
    by = (str(video), *model.same_person) if model.record.by_person == "subject" else ()
    prediction = replace(prediction, min_face_share=options.min_face_share, normalised_by=by)
    if prediction.note is not None:
        log.info("%s: %s", video.name, prediction.note)
    if prediction.warning is not None:
        log.warning("%s: %s", video.name, prediction.warning)
    target = options.class_name or prediction.label
    read(1.0)
    known = known_units(video, clip.times_s.numpy(), options.start_s, options.image_fps, options.action_units)
    of_space = None
    if space:
        name = cast("Method", options.method or space[0])
        settings = MethodOptions(layer=options.layer, most_steps=options.most_steps)
        of_space = explain(model, clip, name, target, settings, progress(f"{name}, map"))
        _log_completeness(of_space)
        if of_space.layer is not None:
            shapes = {key: f"{key} {h} x {w}" for key, (_, h, w) in list_layers(model.extractor).items()}
            log.info("Layer %s. Layers and sizes of their maps: %s.", of_space.layer, ", ".join(shapes.values()))
    default = "attention" if features.are_pixels and "attention" in time else time[0]
    name = cast("Method", options.time_method or default)
    settings = MethodOptions(most_steps=options.most_steps)
    of_time = explain(model, features, name, target, settings, progress(f"{name}, frames"))
    _log_completeness(of_time)
    of_columns = _of_columns(model, features, video, options, target, progress("columns"))
    faces = options.show_faces or is_generated(video)
    hidden = "" if faces else _without_faces(of_space)
    log.info("%s: %s, score %.3f.%s", video.name, of_time.class_name, of_time.score, hidden)
    return VideoExplanation(video, prediction, of_space, of_time, faces, known, model.scale, of_columns)


def _of_columns(
    model: PainModel,
    features: Frames,
    video: Path,
    options: ExplainVideoOptions,
    target: str | None,
    progress: Callable[[float], None],
) -> ColumnOcclusion | None:
    """Explain the columns of a model of plain vectors, unless all are those of the extractor."""
    if model.streams == ("cnn",) or len(model.head.in_shape) != 1:
        return None
    table = options.action_units if "action_units" in model.streams else None
    locator = None if model.face is None else (options.locator or model.face.locator)
    columns = named_columns(model, video_streams(model.stream_identities, video, table, locator))
    occluded = occlude_columns(model, features, columns, target, progress)
    first = ", ".join(f"{name} {fall:+.3f}" for name, fall in occluded.ranked[:MOST_LOGGED] if fall)
    text = first or "no column by itself changes it"
    log.info("Fall of the score without a column (set to its %s): %s.", occluded.replaced_by, text)
    return occluded


def _read(model: PainModel, video: Path, options: ExplainVideoOptions) -> Frames:
    table = options.action_units if "action_units" in model.streams else None
    reading = VideoOptions(options.locator, options.baseline, options.image_fps, table)
    clip = frames_of_video(model, video, options.start_s, options.end_s, reading)
    if not clip.present.any():
        raise PainseqError(f"{video}: no face found in any frame, so there is nothing to explain.")
    return clip


def _check(model: PainModel, options: ExplainVideoOptions) -> None:
    """Check that the options fit the model, before the video is read."""
    for name, method, known in (
        ("method", options.method, space_methods(model)),
        ("time_method", options.time_method, time_methods(model)),
    ):
        check_gradients(model, method)
        if method is not None and method not in known:
            raise PainseqError(
                f"{name} {method} does not fit this model; methods that do: {', '.join(known) or 'none'}."
            )
    method = options.method or next(iter(space_methods(model)), "none, as this model takes no crops")
    if options.layer is not None and method != "gradcam":
        raise PainseqError(f"layer {options.layer} applies to method gradcam only, not to {method}.")
    if options.class_name is not None:
        class_number(model, options.class_name)


def _write(explained: VideoExplanation, out: Path, options: ExplainVideoOptions) -> None:
    write_atomically(out / "explanation.png", explained.picture())
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
    for time_s, face, value in zip(time.times_s.tolist(), time.present.tolist(), time.over_time.tolist(), strict=True):
        rows.append([f"{time_s:.4f}", int(face), f"{value:.6g}"])
    write_csv(out / "frames.csv", rows, line_end="\n")
    columns = explained.columns
    if columns is not None:
        cells: list[list[object]] = [["column", "fall"]]
        cells += [[name, f"{fall:.6g}"] for name, fall in columns.ranked]
        write_csv(out / "columns.csv", cells, line_end="\n")
        title = f"Score of {columns.class_name}: fall without a column (set to its {columns.replaced_by})"
        bars = [(name, fall, (None, None)) for name, fall in columns.ranked]
        write_atomically(out / "column_bars.png", column_bars(bars, title, "png"))
    space = explained.space
    if space is not None:
        maps = space.maps.numpy().astype(np.float32)
        np.savez_compressed(out / "maps.npz", maps=maps, times_s=space.times_s.numpy(), present=space.present.numpy())
        write_overlay_video(out / "overlay.mp4", space, explained.faces, explained.curves(), explained.cut)


def _without_faces(of_space: Attribution | None) -> str:
    """Describe what is drawn in place of the face."""
    if of_space is None:
        return ""
    if of_space.clip.landmarks is None:
        return (
            " Faces are not drawn. There are no landmarks to draw lines of a face, so only the map is drawn. The "
            "locators face_mesh, face_alignment and sidecar give landmarks; show_faces draws the face."
        )
    return " Faces are not drawn, but the lines of their landmarks. To draw faces, set show_faces."


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
            "Integrated Gradients: %d steps miss %.2g %% of the difference to the baseline; %g %% is allowed. Raise "
            "most_steps.",
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
