"""Draw a shaded 2-D face from action units, fast enough to generate a data set.

A subject's head is shaded once. Each frame redraws only what action units move (furrows, brows, eyes, nostrils, mouth,
jaw) as soft masks in numpy; an affine transform by Pillow then sets the head's pose in front of the background.

Face coordinates: x to the right, y down, origin between the eyes, unit half the face's width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from painseq.synthetic.expression import AUS, REGIONS
from painseq.synthetic.look import Look

Array = npt.NDArray[Any]

UNIT = 0.265
"""Half a face's width as a fraction of the frame's size, at zoom 1."""
LEFT, RIGHT, TOP, BOTTOM = -1.5, 1.5, -1.55, 2.0
"""The canvas that the head is drawn on, in face units, with space for a dropped jaw."""
INNER = (-1.0, 1.0, -0.62, 1.5)
"""The part of the canvas that is redrawn for each frame."""
JAW_FROM = 0.68
"""Below this height the face stretches when the jaw drops."""
MAX_NOISE = 12
FURROWS = ("glabella", "nose_root", "nasolabial", "crow", "lower_lid", "cheek")


@dataclass(frozen=True)
class Shape:
    """The effect of the action units of N frames on the face; each field is (N,), lengths in face units."""

    brow_in: Array
    brow_out: Array
    brow_near: Array
    open: Array
    low: Array
    closed: Array
    nose_up: Array
    lip_up: Array
    corner_up: Array
    wide: Array
    gap: Array
    jaw: Array
    furrows: Array
    """(N, len(FURROWS)) strength, 0 to about 1."""


def shape_of(look: Look, au: Array) -> Shape:
    """Compute the shape of the face from (N, len(AUS)) intensities 0 to 5."""
    a = {name: au[:, i] / 5.0 for i, name in enumerate(AUS)}
    furrows = {
        "glabella": a["AU4"],
        "nose_root": a["AU9"] + 0.15 * a["AU4"],
        "nasolabial": np.maximum.reduce([0.95 * a["AU10"], 0.8 * a["AU9"], 0.75 * a["AU12"]]),
        "crow": np.maximum(a["AU6"], 0.45 * a["AU7"]),
        "lower_lid": np.maximum(a["AU7"], 0.7 * a["AU6"]),
        "cheek": np.maximum(a["AU6"], 0.4 * a["AU12"]),
    }
    return Shape(
        brow_in=0.17 * a["AU4"] + 0.04 * a["AU9"],
        brow_out=0.05 * a["AU4"] + 0.02 * a["AU6"],
        brow_near=0.08 * a["AU4"],
        open=np.clip(1.0 - 0.55 * a["AU7"] - 0.15 * a["AU6"] - 0.1 * a["AU9"], 0.2, 1.0),
        low=np.clip(0.6 * a["AU7"] + 0.45 * a["AU6"] + 0.15 * a["AU9"], 0.0, 0.9),
        closed=np.maximum(a["AU43"], a["AU45"]),
        nose_up=0.08 * a["AU9"] + 0.015 * a["AU10"],
        lip_up=0.10 * a["AU10"] + 0.04 * a["AU9"],
        corner_up=0.015 + 0.16 * a["AU12"],
        wide=1.0 + 0.24 * a["AU12"] + 0.04 * a["AU10"] - 0.06 * a["AU26"],
        gap=0.11 * a["AU25"] + 0.24 * a["AU26"],
        jaw=0.30 * a["AU26"],
        furrows=np.stack([np.minimum(furrows[name] + 0.3 * look.wrinkles, 1.2) for name in FURROWS], axis=1),
    )


# ---- Curves, used for drawing (one frame, many x) and for landmarks (many frames, few x). ----


def _brow(look: Look, t: Array, brow_in: Array, brow_out: Array) -> Array:
    """Return the height of a brow's centre line from its inner (t = 0) to its outer end (1)."""
    y: Array = look.brow_y - look.brow_arch * np.sin(np.pi * np.clip(t, 0, 1) * 0.85)
    lowered: Array = y + brow_in * np.clip(1.0 - t, 0, 1) ** 1.3 + brow_out * np.clip(t, 0, 1)
    return lowered


def _brow_ends(look: Look, near: Array) -> tuple[Array, float]:
    return look.eye_x - look.eye_w - 0.09 - near, look.eye_x + look.eye_w + 0.10


def _lids(look: Look, s: Array, opened: Array, low: Array, closed: Array) -> tuple[Array, Array]:
    """Return the heights of the upper and lower lid from one corner of the eye (s = -1) to the other (1)."""
    bow = np.clip(1.0 - np.abs(s) ** 2.2, 0.0, 1.0)
    lower = look.eye_h * (0.55 - 0.45 * low) * bow
    upper = lower * closed - (1.0 - closed) * look.eye_h * 1.05 * opened * bow
    return upper, lower


def _lips(look: Look, s: Array, corner_up: Array, lip_up: Array, gap: Array) -> tuple[Array, Array, Array, Array]:
    """Return the heights of the outer and inner edge of the upper lip, and the inner and outer edge of the lower."""
    bow = np.clip(1.0 - s * s, 0.0, 1.0)
    middle = look.mouth_y - corner_up * (s * s - 0.15) - 0.8 * lip_up * bow
    cupid = 1.0 - 0.22 * np.exp(-((s / 0.16) ** 2))
    upper_in, lower_in = middle - 0.25 * gap * bow, middle + 0.75 * gap * bow**0.8
    upper_out = upper_in - look.lip_h * (1.0 - 1.2 * lip_up) * cupid * bow**0.8 - 0.3 * lip_up * bow
    return upper_out, upper_in, lower_in, lower_in + 1.15 * look.lip_h * bow**0.75


def _jaw(y: Array, jaw: Array) -> Array:
    """Map a height of the resting face to its height with the jaw dropped."""
    lowered: Array = np.where(y > JAW_FROM, JAW_FROM + (y - JAW_FROM) * (1.0 + jaw), y)
    return lowered


def landmarks_of(look: Look, shape: Shape) -> Array:
    """Return the (N, 68, 2) iBUG landmarks in face units."""
    n = len(shape.jaw)
    points = np.zeros((n, 68, 2))

    def col(x: Array) -> Array:
        return x[:, None]

    angle = np.linspace(0.0, np.pi, 17)
    points[:, :17, 0] = -np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / look.jaw)
    points[:, :17, 1] = _jaw(0.1 + (look.chin - 0.1) * np.sin(angle)[None] ** (2 / look.jaw), col(shape.jaw))
    t = np.linspace(0.0, 1.0, 5)
    inner, outer = _brow_ends(look, col(shape.brow_near))
    brow_x = inner + (outer - inner) * t
    brow_y = _brow(look, t, col(shape.brow_in), col(shape.brow_out)) - 0.3 * look.brow_w
    points[:, 22:27] = np.stack([brow_x, brow_y], axis=2)
    points[:, 17:22] = np.stack([-brow_x, brow_y], axis=2)[:, ::-1]
    points[:, 27:31, 1] = np.linspace(0.05, look.nose_y - 0.06, 4) - np.linspace(0, 1, 4) * col(shape.nose_up)
    points[:, 31:36, 0] = np.linspace(-0.2, 0.2, 5) * look.nose_w
    points[:, 31:36, 1] = look.nose_y + np.array([0.0, 0.03, 0.05, 0.03, 0.0]) - col(shape.nose_up)
    s = np.array([-1.0, -0.4, 0.4, 1.0])
    upper, lower = _lids(look, s, col(shape.open), col(shape.low), col(shape.closed))
    eye_x = np.broadcast_to(look.eye_x + look.eye_w * s, upper.shape)
    for first, sign in ((36, -1.0), (42, 1.0)):
        order = [3, 2, 1, 0] if sign < 0 else [0, 1, 2, 3]
        points[:, first : first + 4] = np.stack([sign * eye_x, upper], axis=2)[:, order]
        points[:, first + 4 : first + 6] = np.stack([sign * eye_x, lower], axis=2)[:, [order[2], order[1]]]
    outer_s, inner_s = np.linspace(-1, 1, 7), np.array([-0.8, -0.33, 0.0, 0.33, 0.8])
    width = look.mouth_w * col(shape.wide)
    upper_out, _, _, lower_out = _lips(look, outer_s, col(shape.corner_up), col(shape.lip_up), col(shape.gap))
    _, upper_in, lower_in, _ = _lips(look, inner_s, col(shape.corner_up), col(shape.lip_up), col(shape.gap))
    points[:, 48:55] = np.stack([outer_s * width, upper_out], axis=2)
    points[:, 55:60] = np.stack([outer_s * width, lower_out], axis=2)[:, 5:0:-1]
    points[:, 60:65] = np.stack([inner_s * width, upper_in], axis=2)
    points[:, 65:68] = np.stack([inner_s * width, lower_in], axis=2)[:, 3:0:-1]
    # The subject's slight asymmetry tilts everything except the jaw, as in the drawing.
    points[:, 17:, 1] += look.tilt * points[:, 17:, 0]
    return points


def regions_of(points: Array) -> Array:
    """Return (N, len(REGIONS), 4) boxes of the face regions, xyxy in face units, from (N, 68, 2) landmarks."""

    def around(indices: list[int], pad_x: float, pad_top: float, pad_bottom: float) -> Array:
        chosen = points[:, indices]
        low, high = chosen.min(axis=1), chosen.max(axis=1)
        return np.concatenate([low - np.array([pad_x, pad_top]), high + np.array([pad_x, pad_bottom])], axis=1)

    boxes = {
        "brows": around([*range(17, 27)], 0.05, 0.12, 0.08),
        "eyes": around([*range(36, 48)], 0.12, 0.08, 0.12),
        "nose": around([27, 28, 29, 30, 31, 35], 0.08, 0.05, 0.08),
        "cheeks": around([36, 45, 41, 46, 31], 0.20, -0.08, 0.05),
        "mouth": around([*range(48, 60)], 0.12, 0.16, 0.06),
    }
    return np.stack([boxes[name] for name in REGIONS], axis=1)


def face_box_of(points: Array) -> Array:
    """Return (N, 4) face boxes, xyxy in the landmarks' coordinates, with the proportions of YuNet's boxes."""
    left, right = points[:, :17, 0].min(axis=1), points[:, :17, 0].max(axis=1)
    brows, chin = points[:, 17:27, 1].min(axis=1), points[:, :17, 1].max(axis=1)
    above = 0.30 * (chin - brows)
    inset, below = 0.03 * (right - left), 0.045 * (chin - brows)
    return np.stack([left + inset, brows - above, right - inset, chin + below], axis=1)


def _soft(distance: Array) -> Array:
    """Convert a distance in pixels, positive inside, to a mask with a soft edge of one pixel."""
    mask: Array = np.clip(distance + 0.5, 0.0, 1.0)
    return mask


def _bump(x: Array, y: Array, width: float, height: float) -> Array:
    bump: Array = np.exp(-((x / width) ** 2) - (y / height) ** 2)
    return bump


def _groove(x: Array, y: Array, path: list[tuple[float, float]], width: float) -> Array:
    """Draw a dark line along a path with a light ridge on both sides, fading at its ends."""
    nearest, fade = np.full(x.shape, 9.0), np.zeros(x.shape)
    for i, ((x0, y0), (x1, y1)) in enumerate(pairwise(path)):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        distance = np.hypot(x - x0 - along * dx, y - y0 - along * dy)
        closer = distance < nearest
        nearest = np.where(closer, distance, nearest)
        fade = np.where(closer, np.sin(np.pi * np.clip((i + along) / (len(path) - 1), 0.04, 0.96)) ** 0.5, fade)
    line: Array = -np.exp(-((nearest / width) ** 2)) + 0.4 * np.exp(-(((nearest - 1.9 * width) / width) ** 2))
    return line * fade


def _clouds(rng: np.random.Generator, height: int, width: int, rows: int, columns: int) -> Array:
    """Draw smooth noise with a standard deviation of about 1: an enlarged small random image."""
    small = Image.fromarray(rng.normal(0.0, 1.0, (rows, columns)).astype(np.float32))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Patch:
    """A part of the redrawn area: its position there, and the face coordinates of its pixels, each (h, w)."""

    rows: slice
    columns: slice
    x: Array
    y: Array
    side: Array


class FacePainter:
    """Draw one subject.

    Args:
        look: the subject.
        size_px: height and width of the frames.
        rng: random numbers for skin texture, hair and background.
    """

    def __init__(self, look: Look, size_px: int, rng: np.random.Generator) -> None:
        self.look = look
        self.size_px = size_px
        self.unit_px = UNIT * size_px * look.zoom
        x = np.arange(LEFT, RIGHT, 1.0 / self.unit_px) + 0.5 / self.unit_px
        y = np.arange(TOP, BOTTOM, 1.0 / self.unit_px) + 0.5 / self.unit_px
        self._x, self._y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
        self._head = self._paint_head(rng)
        self._canvas = np.clip(self._head, 0, 255).astype(np.uint8)
        self._room = self._paint_room(rng)
        noise = rng.normal(0.0, look.noise, (size_px + 61, size_px + 67, 3))
        # Negative numbers wrap around, and wrap back when added in uint8.
        self._noise = np.clip(np.rint(noise), -MAX_NOISE, MAX_NOISE).astype(np.int16).astype(np.uint8)
        columns = np.flatnonzero((x > INNER[0]) & (x < INNER[1]))
        rows = np.flatnonzero((y > INNER[2]) & (y < INNER[3]))
        self._inner = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        # One plane per colour, which is faster to mask.
        self._skin = np.ascontiguousarray(self._head[self._inner][..., :3].transpose(2, 0, 1))
        self._gx = self._x[self._inner]
        self._gy = self._y[self._inner] - look.tilt * self._gx
        self._furrows = self._draw_furrows()
        self._glasses = self._draw_glasses()
        self._brow_patch = self._patch(-0.85, 0.85, -0.52, 0.02)
        self._eye_patch = self._patch(-0.75, 0.75, -0.28, 0.2)
        self._nose_patch = self._patch(-0.35, 0.35, look.nose_y - 0.2, look.nose_y + 0.12)
        self._mouth_patch = self._patch(-0.62, 0.62, look.mouth_y - 0.36, look.mouth_y + 0.48)
        height, width = self._brow_patch.x.shape
        grain = np.clip(_clouds(rng, height, width, height // 2, width // 2), -1, 1)
        self._brow_texture = (0.7 + 0.18 * grain).astype(np.float32)
        self._sclera = _planes((222, 214, 208)) * np.float32(0.55 + 0.45 * look.ambient)
        self._lip_colour = _planes(look.skin) * _planes((0.82, 0.58, 0.58)) * _planes(look.cast)
        shown_x, shown_y = x[self._head[..., 3].any(axis=0)], y[self._head[..., 3].any(axis=1)]
        lowest = min(BOTTOM, shown_y[-1] + 0.3 * (look.chin + 0.05 - JAW_FROM))
        self._extent = np.array([[px, py] for px in (shown_x[0], shown_x[-1]) for py in (shown_y[0], lowest)])

    # ---- once per subject ----

    def _paint_head(self, rng: np.random.Generator) -> Array:
        """Draw the (H, W, 4) float32 head without brows, eyes and mouth: colour and opacity, 0 to 255."""
        look, x, y, u = self.look, self._x, self._y, self.unit_px
        side = np.abs(x)
        down = np.where(y > 0.1, (y - 0.1) / (look.chin - 0.1), (0.1 - y) / (0.1 - look.top))
        power = np.where(y > 0.1, look.jaw, 2.3)
        radius = (side**power + down**power) ** (1.0 / power)
        face = _soft((1.0 - radius) * u)

        shade = self._light(self._relief(radius))

        skin = np.array(look.skin, np.float32)
        texture = 1.0 + 0.022 * _clouds(rng, *x.shape, 14, 12) + 0.010 * _clouds(rng, *x.shape, 70, 60)
        tone = shade * texture
        # Less light reaches the area under the nose, the eye sockets and the sides of the nose.
        tone *= 1.0 - 0.24 * _bump(side, y - look.nose_y - 0.09, 0.17, 0.05)
        tone *= 1.0 - 0.17 * _bump(side - look.eye_x + 0.05, y + 0.10, 0.22, 0.08)
        tone *= 1.0 - 0.12 * _bump(side - 0.15, y + 0.02, 0.07, 0.13)
        colour = skin * tone[..., None] ** np.array([0.88, 1.0, 1.08], np.float32)
        flush = 0.5 * _bump(side - 0.55, y - 0.45, 0.25, 0.2) + 0.5 * _bump(x, y - look.nose_y, 0.15, 0.12)
        colour *= 1.0 + flush[..., None] * np.array([0.05, -0.05, -0.04], np.float32)
        if look.beard:
            low = _soft((y - 0.62 - 0.25 * (side < 0.12)) / 0.15) * (1.0 - _bump(x, y - look.mouth_y, 0.30, 0.10))
            grain = np.clip(0.8 + 0.25 * _clouds(rng, *x.shape, 90, 80), 0, 1)
            colour = _blend(colour, np.clip(low * grain, 0, 1) * look.beard, look.brow)

        strands = (1.0 + 0.12 * _clouds(rng, *x.shape, 9, 90)) * (1.0 + 0.05 * _clouds(rng, *x.shape, 20, 20))
        hair = np.array(look.hair, np.float32) * ((0.62 + 0.5 * shade) * strands)[..., None]
        alpha = np.zeros(x.shape, np.float32)
        rgb = np.zeros((*x.shape, 3), np.float32)

        def lay(mask: Array, paint: Array) -> None:
            nonlocal rgb, alpha
            rgb = rgb * (1.0 - mask[..., None]) + paint * mask[..., None]
            alpha = alpha + mask - alpha * mask

        crown = (side / 1.10) ** 2.3 + (np.abs(y - 0.1) / (0.22 - look.top)) ** 2.3
        if look.hair_style == "long":
            back = (side / 1.26) ** 3 + (np.abs(y - 0.25) / (1.65 if look.chin > 1.33 else 1.5)) ** 3
            lay(_soft((1.0 - back) * u * 0.4), hair * 0.8)
        elif look.hair_style != "bald":
            lay(_soft((1.0 - crown) * u * 0.5) * _soft((0.05 - y) * u), hair * 0.85)
        ear = ((side - 1.02) / 0.13) ** 2 + ((y - 0.18) / 0.25) ** 2
        if look.hair_style != "long":
            lay(_soft((1.0 - ear) * u * 0.1), skin * (0.72 + 0.12 * np.cos(8 * (y - 0.18)))[..., None])
        lay(face, colour)
        if look.hair_style != "bald":
            dip = {"fringe": 0.22, "long": 0.10, "short": 0.0}[look.hair_style]
            curve = 0.75 if look.hair_style == "long" else 0.45
            hairline = look.hairline + dip + curve * side**2.5 + 0.03 * _clouds(rng, 1, x.shape[1], 1, 24)
            front = _soft((hairline - y) * u * 0.35) * _soft((1.0 - crown) * u * 0.5)
            if look.hair_style != "long":
                front = front * _soft((0.0 - y) * u * 0.2)
            lay(front, hair)
        # Transparent pixels need a colour too: at the outline they are blended with opaque ones.
        rgb = np.where(alpha[..., None] > 0.01, rgb / np.maximum(alpha, 0.01)[..., None], skin * 0.7)
        rgb *= np.array(look.cast, np.float32)
        return np.concatenate([np.clip(rgb, 0, 250), 255.0 * alpha[..., None]], axis=2).astype(np.float32)

    def _relief(self, radius: Array) -> Array:
        """Return the (H, W) height of the face; `radius` is 0 in its middle and 1 at its edge."""
        look, x, y = self.look, self._x, self._y
        side = np.abs(x)
        height = 0.80 * np.sqrt(np.clip(1.0 - radius**2, 0.0, 1.0) + 0.03)
        along = np.clip((y + 0.15) / (look.nose_y + 0.1), 0.0, 1.0)
        ridge = np.exp(-((x / ((0.075 + 0.085 * along) * look.nose_w)) ** 2)) * along
        height += 0.26 * ridge * _soft((look.nose_y + 0.04 - y) / 0.10)
        for sx in (-1.0, 1.0):
            height += 0.07 * _bump(x - sx * 0.16 * look.nose_w, y - look.nose_y + 0.03, 0.09, 0.09)
        height += 0.05 * np.exp(-(((y + 0.2) / 0.11) ** 2)) * (side < 0.8)
        height -= 0.11 * _bump(side - look.eye_x, y + 0.02, 0.21, 0.15)
        height += 0.06 * _bump(side - 0.55, y - 0.42, 0.26, 0.24)
        height += 0.06 * _bump(x, y - look.mouth_y, 0.36, 0.18)
        height += 0.06 * _bump(x, y - look.chin + 0.2, 0.22, 0.13)
        height -= 0.035 * _bump(x, y - look.mouth_y - 0.17, 0.22, 0.06)
        return np.asarray(height)

    def _light(self, height: Array) -> Array:
        """Shade a height field by Lambert's law; about 1 where the surface faces the camera."""
        look = self.look
        dy, dx = np.gradient(height, 1.0 / self.unit_px)
        norm = np.sqrt(dx * dx + dy * dy + 1.0)
        lx, ly, lz = look.light[0], look.light[1], 1.0
        lit = np.clip((-dx * lx - dy * ly + lz) / (norm * np.sqrt(lx * lx + ly * ly + 1.0)), 0.0, None)
        shade: Array = look.ambient + (1.12 - look.ambient) * lit
        return shade

    def _paint_room(self, rng: np.random.Generator) -> Image.Image:
        """Draw the wall with objects, neck and shoulders."""
        look, size = self.look, self.size_px
        px, py = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
        x = (px - look.place[0] * size) / self.unit_px
        y = (py - look.place[1] * size) / self.unit_px
        room = (
            np.array(look.wall)
            * (1.0 + 0.10 * look.light[0] * x - 0.05 * y + 0.02 * _clouds(rng, size, size, 6, 6))[..., None]
        )
        for _ in range(rng.integers(0, 4)):
            left, top = rng.uniform(-2.0, 1.6), rng.uniform(-2.0, 0.6)
            inside = _soft((rng.uniform(0.2, 0.7) - np.abs(x - left)) * 30) * _soft(
                (rng.uniform(0.2, 1.0) - np.abs(y - top)) * 30
            )
            room = _blend(room, 0.8 * inside, np.clip(np.array(look.wall) * rng.uniform(0.5, 1.15, 3), 20, 240))
        neck_shade = 0.62 + 0.25 * np.clip((y - look.chin) / 0.7, 0, 1) + 0.1 * x * look.light[0]
        neck = _soft((0.56 + 0.25 * np.clip(y - 1.3, 0, None) ** 2 - np.abs(x)) * self.unit_px) * (y > 0.6)
        room = room * (1 - neck[..., None]) + np.array(look.skin) * neck_shade[..., None] * neck[..., None]
        drop = 1.72 + 0.16 * np.abs(x) ** 2 - 0.30 * np.exp(-((np.abs(x) - 0.75) ** 2) / 0.06)
        cloth = _soft((y - drop) * self.unit_px * 0.6)
        room = room * (1 - cloth[..., None]) + np.array(look.clothes) * cloth[..., None] * (
            0.9 + 0.1 * np.cos(3 * x + 1) + 0.03 * _clouds(rng, size, size, 40, 40)
        )[..., None]  # fmt: skip
        return Image.fromarray(np.clip(room * np.array(look.cast), 0, 250).astype(np.uint8))

    def _draw_furrows(self) -> Array:
        """Draw the (len(FURROWS), h, w) relative changes of brightness at full strength."""
        look = self.look
        x, y = self._x[self._inner], self._y[self._inner]
        side = np.abs(x)
        nose, mouth, eye = look.nose_y, look.mouth_y, look.eye_x
        corner = eye + look.eye_w
        fold = [
            (0.19, nose - 0.14),
            (0.27, nose - 0.02),
            (0.38, mouth - 0.2),
            (0.46, mouth - 0.05),
            (0.47, mouth + 0.06),
        ]
        maps = {
            "glabella": 0.60 * _groove(side, y, [(0.085, -0.36), (0.07, -0.24), (0.075, -0.1)], 0.026)
            + 0.10 * _bump(x, y + 0.22, 0.05, 0.12)
            - 0.12 * _bump(side - 0.2, y + 0.13, 0.10, 0.06),
            "nose_root": 0.32 * sum(
                _groove(side, y, [(0.0, at), (0.07, at - 0.01), (0.13, at + 0.03)], 0.02) for at in (-0.03, 0.06, 0.15)
            )
            + 0.26 * _groove(side, y, [(0.11, 0.12), (0.17, 0.22), (0.2, 0.32)], 0.026),
            "nasolabial": 0.5 * _groove(side, y, fold, 0.032) + 0.12 * _bump(side - 0.48, y - nose - 0.02, 0.14, 0.12),
            "crow": 0.30 * sum(
                _groove(side, y, [(corner + 0.05, 0.02 + 0.3 * k), (corner + 0.20, 0.02 + k)], 0.017)
                for k in (-0.13, -0.02, 0.09)
            ),
            "lower_lid": 0.32 * _groove(side, y, [(eye - 0.19, 0.1), (eye, 0.155), (eye + 0.2, 0.1)], 0.024)
            + 0.14 * _bump(side - eye, y - 0.085, 0.14, 0.03),
            "cheek": 0.13 * _bump(side - 0.52, y - 0.32, 0.2, 0.12)
            + 0.22 * _groove(side, y, [(eye - 0.2, 0.18), (eye, 0.25), (eye + 0.24, 0.2)], 0.035)
            - 0.08 * _bump(side - 0.55, y - 0.58, 0.22, 0.10),
        }  # fmt: skip
        return np.stack([maps[name] for name in FURROWS]).astype(np.float32)

    def _draw_glasses(self) -> Array | None:
        """Draw the (h, w) opacity of a pair of glasses; None without glasses."""
        look = self.look
        if not look.glasses:
            return None
        x, y = self._x[self._inner], self._y[self._inner]
        side = np.abs(x)
        ring = ((np.abs(side - look.eye_x - 0.01) / 0.29) ** 3 + (np.abs(y - 0.04) / 0.21) ** 3) ** (1 / 3)
        frame = _soft(1.2 - np.abs(ring - 1.0) * 0.25 * self.unit_px)
        bridge = _soft((0.02 - np.abs(y + 0.02)) * self.unit_px) * (side < look.eye_x - 0.27)
        temple = _soft((0.025 - np.abs(y + 0.03)) * self.unit_px) * (side > look.eye_x + 0.30)
        return np.asarray(0.85 * np.maximum.reduce([frame, bridge, temple]), np.float32)

    # ---- once per frame ----

    def frame(self, shape: Shape, i: int, pose: Array, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Draw frame `i`.

        Args:
            shape: the shape in all frames of the clip.
            i: index of the frame.
            pose: (N, 7), see `draw_poses`.
            rng: random numbers for the camera's noise.

        Returns:
            (size_px, size_px, 3) RGB.
        """
        rows, columns = self._inner
        canvas, paint = self._canvas.copy(), self._skin.copy()
        if shape.jaw[i] > 0.002:
            first, lowered = self._drop_jaw(float(shape.jaw[i]))
            canvas[first:] = lowered
            paint[:, first - rows.start :] = lowered[: rows.stop - first, columns, :3].transpose(2, 0, 1)
        paint *= 1.0 + np.tensordot(shape.furrows[i].astype(np.float32), self._furrows, 1)
        self._paint_nostrils(paint, shape, i)
        self._paint_brows(paint, shape, i)
        self._paint_eyes(paint, shape, i, pose[i, 5:7])
        self._paint_mouth(paint, shape, i)
        if self._glasses is not None:
            _cover(paint, self._glasses, (30.0, 28.0, 30.0))
        canvas[rows, columns, :3] = np.clip(paint, 0, 255, out=paint).transpose(1, 2, 0)
        return self._photograph(canvas, pose[i], rng)

    def _patch(self, left: float, right: float, top: float, bottom: float) -> Patch:
        """Return the part of the redrawn area between these limits, tilted like the face."""
        rows = slice(*np.searchsorted(self._gy[:, self._gy.shape[1] // 2], (top, bottom)).tolist())
        columns = slice(*np.searchsorted(self._gx[0], (left, right)).tolist())
        x = np.ascontiguousarray(self._gx[rows, columns])
        return Patch(rows, columns, x, np.ascontiguousarray(self._gy[rows, columns]), np.abs(x))

    def _drop_jaw(self, jaw: float) -> tuple[int, Array]:
        """Return the first row that moves, and the (rows, W, 4) head from that row on."""
        rows = len(self._y)
        first = int(np.searchsorted(self._y[:, 0], JAW_FROM))
        # Long hair below the chin is compressed, and its lower end stays in place.
        chin = self.look.chin + 0.05
        places = np.array([JAW_FROM, JAW_FROM + (chin - JAW_FROM) * (1.0 + jaw), BOTTOM])
        source = np.interp(self._y[first:, 0], places, np.array([JAW_FROM, chin, BOTTOM]))
        source = np.clip((source - TOP) * self.unit_px - 0.5, 0.0, rows - 1)
        above = source.astype(np.intp)
        share = (source - above).astype(np.float32)[:, None, None]
        upper, lower = self._head[above], self._head[np.minimum(above + 1, rows - 1)]
        lower -= upper
        lower *= share
        upper += lower
        return first, upper

    def _paint_nostrils(self, paint: Array, shape: Shape, i: int) -> None:
        look, at = self.look, self._nose_patch
        level = look.nose_y + 0.02 - shape.nose_up[i]
        dark = 0.75 * _bump(at.side - 0.095 * look.nose_w, at.y - level, 0.055, 0.028)
        wing = 0.28 * _bump(at.side - 0.205 * look.nose_w, at.y - level + 0.04, 0.022, 0.07)
        paint[:, at.rows, at.columns] *= 1.0 - np.maximum(dark, wing)

    def _paint_brows(self, paint: Array, shape: Shape, i: int) -> None:
        look, at = self.look, self._brow_patch
        inner, outer = _brow_ends(look, shape.brow_near[i : i + 1].astype(np.float32))
        t = (at.side - inner) / (outer - inner)
        middle = _brow(look, t[0], shape.brow_in[i], shape.brow_out[i]).astype(np.float32)
        thick = (look.brow_w * (1.15 - 0.75 * np.clip(t[0], 0, 1))).astype(np.float32)
        ends = np.clip(t[0] * 12 + 0.6, 0, 1) * np.clip((1 - t[0]) * 12 + 0.5, 0, 1)
        mask = _soft((thick - np.abs(at.y - middle)) * np.float32(self.unit_px * 0.7)) * ends
        mask *= self._brow_texture
        _cover(paint[:, at.rows, at.columns], mask, look.brow)

    def _paint_eyes(self, paint: Array, shape: Shape, i: int, gaze: Array) -> None:
        look, u, at = self.look, np.float32(self.unit_px), self._eye_patch
        x, y = at.x, at.y
        eyes = paint[:, at.rows, at.columns]
        s = (at.side[0] - look.eye_x) / look.eye_w
        curves = _lids(look, s, shape.open[i], shape.low[i], shape.closed[i])
        upper, lower = (curve.astype(np.float32) for curve in curves)
        within = _soft((1.0 - np.abs(s)) * u * 0.2)
        below_upper = y - upper
        fold = ((0.075 + 0.03 * shape.closed[i]) * np.clip(1.2 - s * s, 0, 1)).astype(np.float32)
        depth = (0.30 * (1.0 - 0.8 * shape.closed[i]) * within).astype(np.float32)
        eyes *= 1.0 - depth * np.exp(-(((below_upper + fold) * np.float32(1 / 0.022)) ** 2))
        wide = within * _soft((lower - upper) * u * 2 - 0.5)
        if wide.any():
            opening = _soft(below_upper * u) * _soft((lower - y) * u) * wide.astype(np.float32)
            shadow = opening * np.clip(0.70 + 4.0 * below_upper, 0.55, 1.0)
            eyes *= 1.0 - opening
            eyes += self._sclera * shadow
            aside = x - np.sign(x) * np.float32(look.eye_x) - np.float32(0.05 * gaze[0])
            distance = np.hypot(aside, y + np.float32(0.012 - 0.03 * gaze[1]))
            _cover(eyes, opening * _soft((0.098 - distance) * u), look.iris)
            _cover(eyes, opening * _soft((0.047 - distance) * u), (14.0, 12.0, 14.0))
            glint = np.hypot(aside - np.float32(0.05 * np.sign(look.light[0])), y + np.float32(0.05))
            _cover(eyes, opening * _soft((0.022 - glint) * u), (240.0, 240.0, 240.0))
        lash = _soft((0.020 - np.abs(below_upper + 0.006)) * u)
        rim = 0.35 * _soft((0.012 - np.abs(y - lower)) * u)
        _cover(eyes, np.maximum(lash, rim) * (0.85 * within).astype(np.float32), (38.0, 26.0, 24.0))

    def _paint_mouth(self, paint: Array, shape: Shape, i: int) -> None:
        look, u, at = self.look, np.float32(self.unit_px), self._mouth_patch
        x, y = at.x, at.y
        mouth = paint[:, at.rows, at.columns]
        s = x[0] / (look.mouth_w * shape.wide[i])
        corner, gap = shape.corner_up[i], shape.gap[i]
        edges = _lips(look, s, corner, shape.lip_up[i], gap)
        upper_out, upper_in, lower_in, lower_out = (edge.astype(np.float32) for edge in edges)
        within = _soft((1.0 - np.abs(s)) * u * 0.3).astype(np.float32)
        mouth *= 1.0 - 0.16 * _bump(x, y - lower_out - 0.05, 0.24, 0.045)
        lips = _soft((y - upper_out) * u) * _soft((lower_out - y) * u) * (0.85 * within)
        shine = 1.02 + 0.16 * np.exp(-(((y - 0.5 * (lower_in + lower_out)) * np.float32(1 / 0.03)) ** 2))
        light = np.where(y < 0.5 * (upper_in + lower_in), np.float32(0.84), shine)
        mouth *= 1.0 - lips
        mouth += self._lip_colour * (lips * light)
        if gap > 0.004:
            parted = within * _soft((lower_in - upper_in) * u * 2 - 0.5)
            cavity = _soft((y - upper_in) * u) * _soft((lower_in - y) * u) * parted
            _cover(mouth, cavity, (52.0, 20.0, 22.0))
            teeth = _soft((upper_in + 0.075 - y) * u) * (0.85 * _soft((0.75 - np.abs(s)) * u * 0.2))
            _cover(mouth, cavity * teeth.astype(np.float32), (214.0, 206.0, 194.0))
        line = 0.7 * _soft((0.013 - np.abs(y - upper_in)) * u) * within
        away = (np.abs(s) - 1.03).astype(np.float32)
        dimple = np.float32(0.22 + 2.2 * corner) * _bump(
            away, y - np.float32(look.mouth_y - 0.85 * corner), 0.09, 0.035
        )
        _cover(mouth, np.minimum(np.maximum(line, dimple), 1.0), (62.0, 30.0, 28.0))

    def _photograph(self, canvas: Array, pose: Array, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Pose the head in front of the background, and apply exposure and noise."""
        size = self.size_px
        matrix, offset = self.to_frame(pose[None])
        back = np.linalg.inv(matrix[0])
        corners = self._extent @ matrix[0].T + offset[0]
        x0, y0 = np.clip(np.floor(corners.min(axis=0)), 0, size).astype(int).tolist()
        x1, y1 = np.clip(np.ceil(corners.max(axis=0)), 0, size).astype(int).tolist()
        # Pillow needs the inverse transform, from output pixels to the canvas.
        start = (back @ (np.array([x0, y0]) - offset[0]) - [LEFT, TOP]) * self.unit_px
        (a, b), (d, e) = back * self.unit_px
        image = Image.frombuffer("RGBX", (canvas.shape[1], canvas.shape[0]), canvas, "raw", "RGBX", 0, 1)
        steps = (a, b, start[0], d, e, start[1])
        posed = image.transform((x1 - x0, y1 - y0), Image.Transform.AFFINE, steps, Image.Resampling.BILINEAR)
        picture = self._room.copy()
        picture.paste(posed.convert("RGB"), (x0, y0), posed.getchannel(3))
        # Limit the range, so that adding noise in uint8 cannot wrap around.
        curve = np.clip(np.arange(256) * pose[4], MAX_NOISE, 255 - MAX_NOISE).astype(np.uint8)
        exposed = curve.take(np.asarray(picture))
        ny, nx = rng.integers(0, 61), rng.integers(0, 67)
        frame: npt.NDArray[np.uint8] = exposed + self._noise[ny : ny + size, nx : nx + size]
        return frame

    def to_frame(self, poses: Array) -> tuple[Array, Array]:
        """Return (N, 2, 2) matrices and (N, 2) offsets from face units to pixels of the frame."""
        cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
        squeeze = self.unit_px * poses[:, 3, None]
        matrix = np.stack(
            [np.stack([cos, sin], axis=1) * squeeze, np.stack([-sin, cos], axis=1) * self.unit_px], axis=2
        )
        return matrix, (np.array(self.look.place) + poses[:, :2]) * self.size_px


def draw_poses(look: Look, times_s: Array, rng: np.random.Generator) -> Array:
    """Draw (N, 7): x and y shift in fractions of the frame, roll in radians, width, exposure, gaze x and y."""

    def sway(size: float, slowest_hz: float = 0.05, fastest_hz: float = 0.4) -> Array:
        hz, phase = rng.uniform(slowest_hz, fastest_hz, 3), rng.uniform(0, 2 * np.pi, 3)
        wave: Array = size * np.sin(2 * np.pi * hz * times_s[:, None] + phase).mean(axis=1)
        return wave

    m = look.motion
    return np.stack(
        [
            rng.normal(0, 0.008) + sway(0.018 * m),
            rng.normal(0, 0.008) + sway(0.014 * m),
            rng.normal(0, 0.03) + sway(0.09 * m),
            1.0 - np.abs(sway(0.06 * m)),
            rng.normal(1.0, 0.03) + sway(0.02, 0.5, 3.0),
            rng.normal(0, 0.25) + sway(0.6),
            rng.normal(0, 0.2) + sway(0.4),
        ],
        axis=1,
    )


def _planes(colour: tuple[float, float, float]) -> Array:
    return np.array(colour, np.float32)[:, None, None]


def _cover(paint: Array, mask: Array, colour: tuple[float, float, float]) -> None:
    """Blend a colour into planes (3, h, w) in place, by a mask (h, w)."""
    change = _planes(colour) - paint
    change *= mask
    paint += change


def _blend(under: Array, mask: Array, colour: Array | tuple[float, float, float]) -> Array:
    """Blend a colour into pixels (h, w, 3), by a mask (h, w)."""
    blended: Array = under + mask[..., None] * (np.asarray(colour, np.float32) - under)
    return blended
