"""Videos of explanations: the map of each frame, and curves over time with a moving cursor."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from painseq.explain.attribution import Attribution
from painseq.explain.drawing import BLUE, Curve, map_picture
from painseq.video.writing import write_video

PANEL_PX = 288
CURVES_PX = 432
_CURSOR = (214, 90, 49)


def write_overlay_video(
    path: Path, attribution: Attribution, show_faces: bool, curves: Sequence[Curve] = (), cut: float = 0.0
) -> int:
    """Write an MP4 with one frame per frame of the clip, at the clip's mean frame rate.

    Args:
        path: ends in .mp4.
        attribution: has maps.
        show_faces: draw the crops under the maps. Otherwise no pixel of them is drawn, but a coarse map and, if the
            clip has landmarks, the lines of a face.
        curves: as for `film_strip`; without any, only the map is drawn.
        cut: see `Attribution.heat`.

    Returns:
        Number of frames.

    Raises:
        PainseqError: no maps, or the file cannot be written.
    """
    times_s = attribution.times_s.numpy()
    fps = (len(times_s) - 1) / float(times_s[-1] - times_s[0]) if len(times_s) > 1 else 1.0
    return write_video(path, overlay_frames(attribution, show_faces, curves, cut), fps)


def overlay_frames(
    attribution: Attribution, show_faces: bool, curves: Sequence[Curve] = (), cut: float = 0.0
) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of `write_overlay_video`, (H, W, 3); a frame without a face is dark and labelled."""
    clip, heat = attribution.clip, attribution.heat(cut, coarse=not show_faces).numpy()
    times_s = clip.times_s.numpy()
    drawn = _Curves(curves, times_s) if curves else None
    font = ImageFont.load_default(size=14)
    for frame, time_s in enumerate(times_s):
        present = bool(clip.present[frame])
        points = clip.landmarks[frame] if present and clip.landmarks is not None else None
        face = clip.x[frame].byte().permute(1, 2, 0).numpy() if show_faces and present else None
        panel = Image.fromarray((map_picture(heat[frame], points, face, PANEL_PX) * 255).round().astype(np.uint8))
        caption = f"{time_s:.1f} s" if present else f"{time_s:.1f} s, no face"
        # With a black outline, since the face may be light.
        ImageDraw.Draw(panel).text((8, PANEL_PX - 24), caption, "white", font, stroke_width=2, stroke_fill="black")
        picture = np.asarray(panel)
        yield picture if drawn is None else np.concatenate([picture, drawn.at(float(time_s))], axis=1)


class _Curves:
    """Curves drawn once, below each other, with a cursor at any time."""

    def __init__(self, curves: Sequence[Curve], frame_times_s: NDArray[np.float64]) -> None:
        figure = Figure(figsize=(CURVES_PX / 100, PANEL_PX / 100), dpi=100, layout="constrained")
        panels = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (times_s, values, title) in zip(panels, curves, strict=True):
            axes.plot(times_s, values, color=BLUE, linewidth=1.4, marker="o", markersize=1.4, markeredgewidth=0)
            axes.set_ylim(-1 if np.nanmin(values) < 0 else 0, 1)
            axes.set_title(title, fontsize=7, loc="left")
            axes.tick_params(labelsize=7)
            axes.spines[["top", "right"]].set_visible(False)
        panels[-1].set_xlim(float(frame_times_s[0]), max(float(frame_times_s[-1]), float(frame_times_s[0]) + 1e-3))
        panels[-1].set_xlabel("seconds", fontsize=7)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        self.picture = np.asarray(Image.open(buffer).convert("RGB"))
        self.axes = panels

    def at(self, time_s: float) -> NDArray[np.uint8]:
        """Return the picture of the curves with a line at this time."""
        picture = self.picture.copy()
        for axes in self.axes:
            box = axes.bbox
            column = round(float(axes.transData.transform((time_s, 0.0))[0]))
            column = min(max(column, 1), picture.shape[1] - 2)
            picture[PANEL_PX - round(box.y1) : PANEL_PX - round(box.y0), column - 1 : column + 1] = _CURSOR
        return picture
