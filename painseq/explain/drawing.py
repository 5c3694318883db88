"""Pictures of attributions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from painseq.explain.frames import Frames
from painseq.explain.region_shares import RegionRow
from painseq.explain.sketch import drawn_face, sketch

MAP = "inferno"
"""Colour map; perceptually ordered, so that brighter is more in colour and in grey."""
BLUE, GREY, INK = "#31487a", "#8b949b", "#23272b"
PICTURE_PX = 160
MOST_BARS = 15
"""Columns that are drawn and printed; files have all."""
Curve = tuple[np.ndarray, np.ndarray, str]
"""Times (N,) in seconds, values (N,) in 0..1, or in -1..1 if any is negative, and a title."""


def film_strip(
    clip: Frames,
    heat: Tensor | None,
    title: str,
    show_faces: bool,
    curves: Sequence[Curve] = (),
    frames: int = 8,
) -> bytes:
    """Draw heat maps of some frames of a clip, and curves over time below them.

    Args:
        clip: its crops are drawn only with `show_faces`. Otherwise a face is drawn from its landmarks, if it has any.
        heat: (T, S, S) in 0..1, coarse (`Attribution.heat`) if faces must not be shown; None draws the curves only.
        show_faces: draw the crops under the maps and above them. Otherwise no pixel of them is drawn, since faces of
            patients must not appear in reports.
        frames: number of frames to draw: the one with the strongest map from each of as many equal segments.

    Returns:
        The bytes of a PNG.
    """
    real = np.flatnonzero(clip.present.numpy())
    segments = np.array_split(real, min(frames, len(real)))
    rows = 0 if heat is None else (2 if show_faces else 1)
    ratios = [1.0] * rows + [0.7] * len(curves)
    figure = Figure(figsize=(1.35 * len(segments) + 0.6, 1.45 * sum(ratios) + 0.7), dpi=110, layout="constrained")
    grid = figure.add_gridspec(len(ratios), len(segments), height_ratios=ratios)
    for column, segment in enumerate([] if heat is None else segments):
        assert heat is not None
        frame = segment[int(heat[segment].flatten(1).amax(dim=1).argmax())]
        points = None if clip.landmarks is None else clip.landmarks[frame]
        face = clip.x[frame].byte().permute(1, 2, 0).numpy() if show_faces else None
        picture = map_picture(heat[frame].numpy(), points, face, PICTURE_PX)
        for row, image in enumerate([picture] if face is None else [face, picture]):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(image)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(f"{float(clip.times_s[frame]):.1f} s", fontsize=8)
    for row, curve in enumerate(curves, start=rows):
        axes = figure.add_subplot(grid[row, :])
        _draw_curve(axes, curve, float(clip.times_s[-1]))
        if row == len(ratios) - 1:
            axes.set_xlabel("seconds", fontsize=8)
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_curve(axes: Axes, curve: Curve, end_s: float) -> None:
    times_s, values, name = curve
    # Dots, since a single frame between frames without a face has no line.
    axes.plot(times_s, values, color=BLUE, linewidth=1.6, marker="o", markersize=1.6, markeredgewidth=0)
    axes.set_ylim(-1 if np.nanmin(values) < 0 else 0, 1)
    axes.set_xlim(0, max(end_s, 1e-3))
    # Above the panel, since long labels along the axes of low panels overlap.
    axes.set_title(name, fontsize=8, loc="left")
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def map_picture(
    heat: NDArray[np.floating], landmarks: Tensor | None, face: NDArray[np.uint8] | None, picture_px: int
) -> NDArray[np.float64]:
    """Draw a map over a face, or over lines of a face if it must not be shown.

    Args:
        heat: (S, S) in 0..1.
        landmarks: (L, 2) in pixels of the crop; None draws no lines.
        face: (S, S, 3) the crop; None if it must not be shown.
        picture_px: side of the picture, P.

    Returns:
        (P, P, 3) in 0..1.
    """
    side = (picture_px, picture_px)
    large = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(side, Image.Resampling.BILINEAR)).clip(0, 1)
    if face is not None:
        return overlay(np.asarray(Image.fromarray(face).resize(side, Image.Resampling.BILINEAR)), large)
    return drawn_face(colormaps[MAP](large)[..., :3], sketch(landmarks, len(heat), picture_px))


def overlay(face: np.ndarray, heat: np.ndarray, strongest: float = 0.65) -> np.ndarray:
    """Draw a heat map over a face, (S, S, 3) float in 0..1; stronger heat covers more."""
    colours: np.ndarray = colormaps[MAP](heat)[..., :3]
    cover = strongest * heat[..., None]
    mixed: np.ndarray = (1 - cover) * face / 255 + cover * colours
    return mixed


def contact_sheet(crops: Sequence[np.ndarray], titles: Sequence[str], columns: int = 8) -> bytes:
    """Draw crops (S, S, 3) uint8 side by side, as a PNG; only for generated faces, or if the user permits it."""
    rows = -(-len(crops) // columns)
    figure = Figure(figsize=(1.25 * columns, 1.45 * rows), dpi=110, layout="constrained")
    for index, (crop, title) in enumerate(zip(crops, titles, strict=True)):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.imshow(crop)
        axes.set_axis_off()
        axes.set_title(title, fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def region_bars(tables: Mapping[str, Sequence[RegionRow]], title: str, kind: Literal["svg", "png"] = "svg") -> bytes:
    """Draw each region's share of the attribution, with its interval, and of the area; one panel per class.

    Args:
        tables: name -> rows of `region_table`.
        title: title of the figure.
        kind: file format.
    """
    with matplotlib.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "painseq", "text.color": INK}):
        figure = Figure(figsize=(1.5 + 2.5 * len(tables), 3.2), dpi=130, layout="constrained")
        panels = figure.subplots(1, len(tables), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (name, rows) in zip(panels, tables.items(), strict=True):
            places = np.arange(len(rows))
            shares = [row.share.value or 0.0 for row in rows]
            bars = axes.barh(places, shares, height=0.6, color=BLUE, alpha=0.55)
            ends = [(row.share.interval.low, row.share.interval.high) for row in rows]
            for place, (low, high) in zip(places, ends, strict=True):
                if low is not None and high is not None:
                    axes.plot([low, high], [place, place], color=BLUE, linewidth=2, solid_capstyle="butt")
            areas = [row.area.value or 0.0 for row in rows]
            (marks,) = axes.plot(areas, places, "|", color=INK, markersize=15, markeredgewidth=2)
            subjects = max((row.share.interval.subjects for row in rows), default=0)
            axes.set_title(f"{name} ({subjects} subject{'' if subjects == 1 else 's'})", fontsize=9, loc="left")
            axes.set_yticks(places, [row.region for row in rows])
            axes.tick_params(axis="y", length=0)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.spines["bottom"].set_color(GREY)
        panels[0].set_xlim(left=0)
        panels[0].invert_yaxis()
        figure.legend(
            [bars, marks],
            ["share of the attribution, 95 % interval over subjects", "share of the area"],
            loc="outside lower center",
            ncols=min(2, len(tables)),
            frameon=False,
        )
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        buffer = io.BytesIO()
        # No date, so that equal figures give equal files.
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
        return buffer.getvalue()


def column_bars(
    rows: Sequence[tuple[str, float, tuple[float | None, float | None]]], title: str, kind: Literal["svg", "png"]
) -> bytes:
    """Draw the importance of the first `MOST_BARS` columns that have an effect, and say how many more there are.

    Args:
        rows: name, value and interval of each column, most important first; (None, None) for no interval.
        title: title of the figure.
        kind: file format.
    """
    shown = [row for row in rows[:MOST_BARS] if row[1]]
    places = np.arange(len(shown))
    with matplotlib.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "painseq", "text.color": INK}):
        figure = Figure(figsize=(6.4, 1.2 + 0.27 * len(shown)), dpi=130, layout="constrained")
        axes = figure.subplots()
        axes.barh(places, [value for _, value, _ in shown], height=0.6, color=BLUE, alpha=0.55)
        for place, (_, _, (low, high)) in zip(places, shown, strict=True):
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=BLUE, linewidth=2, solid_capstyle="butt")
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_yticks(places, [name for name, _, _ in shown])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(GREY)
        more = len(rows) - len(shown)
        if more:
            idle = sum(not value for _, value, _ in rows)
            axes.set_xlabel(
                f"{more} more column{'' if more == 1 else 's'}, {idle} without effect by itself", fontsize=8
            )
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
        return buffer.getvalue()
