"""Pictures of facial movements: curves over time below a film strip, and the mesh drawn into a video."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from painseq.faces.mesh_points import OUTLINES
from painseq.faces.movements import NAMES, Movements

PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("brows", ("browDown", "browInnerUp", "browOuterUp")),
    ("eyes", ("eyeBlink", "eyeSquint", "eyeWide")),
    ("gaze", ("eyeLookDown", "eyeLookUp", "eyeLookIn", "eyeLookOut")),
    ("mouth", ("mouthSmile", "mouthFrown", "mouthStretch", "mouthUpperUp", "mouthPress", "mouthPucker")),
    ("jaw", ("jawOpen", "mouthClose")),
)
"""What is drawn together; the two sides of the face are averaged."""
STRIP_FRAMES = 10
_PICTURE_PX = 160
_LINE, _BACKGROUND = (120, 200, 235), (24, 28, 34)


@dataclass(frozen=True)
class Still:
    """A frame of the film strip: its time, and a square picture of the face, (S, S, 3) uint8."""

    time_s: float
    picture: NDArray[np.uint8]


class StripFrames:
    """Collects evenly spread frames of a video of unknown length: `STRIP_FRAMES` to twice as many are kept."""

    def __init__(self, show_faces: bool) -> None:
        self.show_faces = show_faces
        self._every, self._seen = 1, 0
        self._kept: list[Still] = []

    def add(self, images: Sequence[NDArray[np.uint8]], points: NDArray[np.float32], part: Movements) -> None:
        """Add the next frames, with their (n, 478, 3) points; those without a face are left out."""
        for frame in np.flatnonzero(part.success).tolist():
            if self._seen % self._every == 0:
                picture = face_picture(images[frame] if self.show_faces else None, points[frame], part.boxes[frame])
                self._kept.append(Still(float(part.times_s[frame]), picture))
            self._seen += 1
            if len(self._kept) == 2 * STRIP_FRAMES:
                self._kept, self._every = self._kept[::2], 2 * self._every

    def stills(self) -> list[Still]:
        """Return at most `STRIP_FRAMES` frames, in order."""
        if len(self._kept) <= STRIP_FRAMES:
            return self._kept
        return [self._kept[i] for i in np.linspace(0, len(self._kept) - 1, STRIP_FRAMES).round().astype(int)]


def face_picture(
    image: NDArray[np.uint8] | None, points: NDArray[np.float32], box: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Draw the mesh of a face on the picture of it, or on a plain ground if the face must not be shown.

    Returns:
        (S, S, 3) uint8, a square around the box.
    """
    side = 1.3 * float((box[2:] - box[:2]).max())
    corner = (box[:2] + box[2:]) / 2 - side / 2
    area = (float(corner[0]), float(corner[1]), float(corner[0] + side), float(corner[1] + side))
    size = (_PICTURE_PX, _PICTURE_PX)
    canvas = Image.new("RGB", size, _BACKGROUND)
    if image is not None:
        canvas = Image.fromarray(image).transform(size, Image.Transform.EXTENT, area, Image.Resampling.BILINEAR)
    draw_mesh(canvas, (points[:, :2] - corner) * (_PICTURE_PX / side))
    return np.asarray(canvas)


def draw_mesh(canvas: Image.Image, points: NDArray[np.floating]) -> None:
    """Draw the outlines of a mesh, (478, 2) in pixels of the canvas, if they are finite."""
    if not np.isfinite(points).all():
        return
    draw = ImageDraw.Draw(canvas)
    for line in OUTLINES:
        draw.line([(float(x), float(y)) for x, y in points[list(line)]], fill=_LINE, width=1 + canvas.width // 640)


def mesh_frames(
    images: Sequence[NDArray[np.uint8]], points: NDArray[np.float32], show_faces: bool
) -> Iterator[NDArray[np.uint8]]:
    """Yield frames with the mesh drawn into them, of even height and width; on a plain ground without `show_faces`."""
    for image, of_frame in zip(images, points, strict=True):
        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        canvas = (
            Image.fromarray(image[:height, :width]) if show_faces else Image.new("RGB", (width, height), _BACKGROUND)
        )
        draw_mesh(canvas, of_frame[:, :2])
        yield np.asarray(canvas)


def movements_picture(table: Movements, stills: Sequence[Still], title: str) -> bytes:
    """Draw the film strip and the curves below it, as the bytes of a PNG; spans without a face are shaded."""
    ratios = [1.0] * bool(stills) + [0.8] * len(PANELS)
    figure = Figure(figsize=(10, 1.2 * sum(ratios) + 0.8), dpi=110, layout="constrained")
    grid = figure.add_gridspec(len(ratios), max(1, len(stills)), height_ratios=ratios)
    for column, still in enumerate(stills):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(still.picture)
        axes.set_axis_off()
        axes.set_title(f"{still.time_s:.1f} s", fontsize=8)
    for row, (name, stems) in enumerate(PANELS, start=bool(stills)):
        axes = figure.add_subplot(grid[row, :])
        _draw_panel(axes, table, stems)
        axes.set_title(name, fontsize=8, loc="left")
    axes.set_xlabel("seconds", fontsize=8)
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_panel(axes: Axes, table: Movements, stems: Sequence[str]) -> None:
    for stem in stems:
        sides = [number for number, name in enumerate(NAMES) if name in (stem, f"{stem}Left", f"{stem}Right")]
        axes.plot(table.times_s, table.values[:, sides].mean(axis=1), linewidth=1.2, label=stem)
    axes.fill_between(table.times_s, 0, 1, where=~table.success, step="mid", color="0.85", linewidth=0)
    axes.set_ylim(0, 1)
    axes.set_xlim(float(table.times_s[0]), max(float(table.times_s[-1]), float(table.times_s[0]) + 1e-3))
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    # Above the panel, where no curve is.
    axes.legend(fontsize=6, ncols=len(stems), loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
