"""Augmentation of crops: one random transformation per clip, which preserves the face's motion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from painseq.errors import PainseqError

_CELLS = 5
_INNER = (2, _CELLS - 1, _CELLS - 1)
# Small chunks stay in the processor's cache, which is faster.
_CHUNK_VALUES = 2**18


@dataclass(frozen=True)
class Transformation:
    """Transformation of every frame of a clip: flip, then rotation and zoom about its centre, shift, distortion.

    Args:
        angle_deg: clockwise.
        zoom: factor; above 1 enlarges.
        shift: to the right and down, as shares of width and height.
        brightness: factor.
        flip: whether to mirror left and right.
        corners: (2, 4, 4), displacement of each inner corner of the grid in x and y, as shares of a cell.
    """

    angle_deg: float
    zoom: float
    shift: tuple[float, float]
    brightness: float
    flip: bool
    corners: Tensor

    def apply(self, video: Tensor) -> Tensor:
        """Transform (T, C, H, W) uint8 frames; bilinear, black outside the picture."""
        out = torch.empty_like(video)
        grid = self._grid(*video.shape[-2:]).to(video.device)
        chunk = max(1, _CHUNK_VALUES // max(1, video[:1].numel()))
        for first in range(0, len(video), chunk):
            frames = video[first : first + chunk].float()
            moved = F.grid_sample(frames, grid.expand(len(frames), -1, -1, -1), align_corners=False)
            out[first : first + chunk] = (moved * self.brightness).round_().clamp_(0, 255)
        return out

    def _grid(self, height: int, width: int) -> Tensor:
        """Return (1, H, W, 2), the source of each pixel in the coordinates of `grid_sample`."""
        size = torch.tensor([width, height], dtype=torch.float64)
        x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
        y = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
        source = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        source = source + self._displacement(height, width) * size / _CELLS
        source = source - size * torch.tensor(self.shift, dtype=torch.float64)
        angle = math.radians(self.angle_deg)
        rotation = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        source = source @ torch.tensor(rotation, dtype=torch.float64).T / self.zoom
        if self.flip:
            source = source * torch.tensor([-1.0, 1.0], dtype=torch.float64)
        return (source * 2 / size).float()[None]

    def _displacement(self, height: int, width: int) -> Tensor:
        """Return (H, W, 2) displacement in shares of a cell, interpolated between the corners of the cells."""
        corners = F.pad(self.corners.to(torch.float64), (1, 1, 1, 1))
        x = (torch.arange(width, dtype=torch.float64) * 2 + 1) / width - 1
        y = (torch.arange(height, dtype=torch.float64) * 2 + 1) / height - 1
        at = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        return F.grid_sample(corners[None], at[None], align_corners=True)[0].permute(1, 2, 0)


class Augment:
    """Random transformation of a clip's crops, the same for all frames, as in El-Ghaish et al. 2025.

    Each parameter is drawn uniformly from its range, once per clip. Pixels from outside the image are black, as in
    crops.

    The paper gives 3 degrees, 3 %, 5 % and 0.9 to 1.1. It mentions flips without a probability, and elastic deformation
    and grid distortion without a strength; one distorted grid implements both here. It does not state whether the
    frames of a clip share one draw. Here one factor zooms both axes, so that a face keeps its proportions.

    Args:
        rotation_deg: largest angle in either direction, degrees.
        shift: largest shift along x and along y, as a share of width and height.
        zoom: largest change of size, as a share: 0.05 draws factors from 0.95 to 1.05.
        brightness: lowest and highest factor of the pixel values, which are clipped at 255.
        flip: probability of mirroring left and right.
        grid_distortion: the image is divided into 5 x 5 cells, and each inner corner moves along x and along y by at
            most this share of a cell's width and height; displacements are interpolated between corners. 0.1 is 2 %
            of the image's side. At most 0.25, since the image can fold above that.

    Raises:
        PainseqError: a value outside its range.
    """

    def __init__(
        self,
        rotation_deg: float = 3.0,
        shift: float = 0.03,
        zoom: float = 0.05,
        brightness: tuple[float, float] = (0.9, 1.1),
        flip: float = 0.5,
        grid_distortion: float = 0.1,
    ) -> None:
        ranges = {
            "rotation_deg": (rotation_deg, 180.0),
            "shift": (shift, 1.0),
            "zoom": (zoom, 0.9),
            "flip": (flip, 1.0),
            "grid_distortion": (grid_distortion, 0.25),
        }
        for name, (value, highest) in ranges.items():
            if not 0 <= value <= highest:
                raise PainseqError(f"Augment: {name} is {value}; it must lie between 0 and {highest:g}.")
        if len(brightness) != 2 or not 0 <= brightness[0] <= brightness[1] < math.inf:
            raise PainseqError(
                f"Augment: brightness is {brightness}; it must be the lowest and the highest factor, such as 0.9, 1.1."
            )
        self.rotation_deg = rotation_deg
        self.shift = shift
        self.zoom = zoom
        self.brightness = tuple(brightness)
        self.flip = flip
        self.grid_distortion = grid_distortion

    def __call__(self, video: Tensor, generator: torch.Generator) -> tuple[Tensor, bool]:
        """Transform one clip.

        Args:
            video: (T, 3, H, W) uint8.
            generator: source of all random numbers; each call draws the same number of them.

        Returns:
            (T, 3, H, W) uint8, and whether the clip was mirrored, so that landmarks can be mirrored too (they are
            normalised for position and size, and are not rotated or distorted).
        """
        if video.dtype != torch.uint8 or video.ndim != 4:
            raise ValueError(f"video is {video.dtype} of shape {tuple(video.shape)}; it must be uint8 (T, 3, H, W).")
        drawn = self.draw(generator)
        return drawn.apply(video), drawn.flip

    def draw(self, generator: torch.Generator) -> Transformation:
        """Draw a transformation for one clip."""
        drawn = torch.rand(6 + math.prod(_INNER), generator=generator, dtype=torch.float64, device=generator.device)
        angle, zoom, right, down, bright, flip = drawn[:6].tolist()
        low, high = self.brightness
        return Transformation(
            angle_deg=self.rotation_deg * (2 * angle - 1),
            zoom=1 + self.zoom * (2 * zoom - 1),
            shift=(self.shift * (2 * right - 1), self.shift * (2 * down - 1)),
            brightness=low + (high - low) * bright,
            flip=flip < self.flip,
            corners=self.grid_distortion * (2 * drawn[6:].reshape(_INNER).cpu() - 1),
        )
