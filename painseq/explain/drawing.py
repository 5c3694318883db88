"""Pictures of attributions."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

MAP = "inferno"
"""Perceptually ordered: brighter is more, in colour and in grey."""


def film_strip(
    crops: Tensor,
    heat: Tensor | None,
    present: Tensor,
    times_s: Tensor,
    title: str,
    show_faces: bool,
    curves: Sequence[tuple[np.ndarray, np.ndarray, str]] = (),
    frames: int = 8,
) -> bytes:
    """Heat maps of some frames of a clip, and curves over time below them.

    Args:
        crops: (T, 3, S, S) uint8; not looked at without heat.
        heat: (T, S, S) in 0..1; None leaves the curves alone.
        present: (T,) bool; frames without a face are not drawn.
        times_s: (T,) seconds.
        show_faces: draw the crops under the maps and above them; without it the maps stand alone, since faces of
            patients are not for reports.
        curves: of each, moments (N,), values (N,) in 0..1, or in -1..1 if any is negative, and what they are.
        frames: how many frames to draw, evenly spaced over the clip.

    Returns:
        A PNG.
    """
    real = np.flatnonzero(present.numpy())
    chosen = real[np.linspace(0, len(real) - 1, min(frames, len(real))).round().astype(int)]
    rows = 0 if heat is None else (2 if show_faces else 1)
    ratios = [1.0] * rows + [0.7] * len(curves)
    figure = Figure(figsize=(1.35 * len(chosen) + 0.6, 1.45 * sum(ratios) + 0.7), dpi=110, layout="constrained")
    grid = figure.add_gridspec(len(ratios), len(chosen), height_ratios=ratios)
    for column, frame in enumerate(chosen if heat is not None else ()):
        assert heat is not None
        face = crops[frame].permute(1, 2, 0).numpy()
        pictures = [face, overlay(face, heat[frame].numpy())] if show_faces else [heat[frame].numpy()]
        for row, picture in enumerate(pictures):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(picture, cmap=MAP, vmin=0, vmax=1)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(f"{float(times_s[frame]):.1f} s", fontsize=8)
    for row, (moments, values, what) in enumerate(curves, start=rows):
        axes = figure.add_subplot(grid[row, :])
        axes.plot(moments, values, color="#31487a", linewidth=1.6)
        axes.set_ylim(-1 if np.nanmin(values) < 0 else 0, 1)
        axes.set_xlim(0, max(float(times_s[-1]), 1e-3))
        axes.set_xlabel("seconds", fontsize=8)
        axes.set_ylabel(what, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def overlay(face: np.ndarray, heat: np.ndarray, strongest: float = 0.65) -> np.ndarray:
    """A heat map over a face, (S, S, 3) float in 0..1; the stronger the heat, the more it covers."""
    colours: np.ndarray = colormaps[MAP](heat)[..., :3]
    cover = strongest * heat[..., None]
    mixed: np.ndarray = (1 - cover) * face / 255 + cover * colours
    return mixed


def contact_sheet(crops: Sequence[np.ndarray], titles: Sequence[str], columns: int = 8) -> bytes:
    """Crops (S, S, 3) uint8 side by side, as a PNG; for generated faces, or with the user's word."""
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
