"""Comparison of explanations with the regions in which a generated face shows pain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from painseq.explain.attribution import Attribution
from painseq.explain.frames import Frames
from painseq.faces.openface import nearest_rows
from painseq.video.generated import truth_of


@dataclass(frozen=True)
class TruthScores:
    """Agreement of one clip's map with the regions that pain moves, over the frames that show pain.

    Every frame has equal weight, so that only places are compared. In a sum over the clip, a few frames would dominate:
    a gradient is largest where the model is uncertain, which is where pain begins.

    Args:
        mass: share of the positive attribution in these regions (relevance mass, Arras et al. 2022).
        area: share of the pixels in these regions: the mass of a uniform map, and the chance level of pointing.
        pointing: share of the frames whose maximum is in these regions (pointing game, Zhang et al. 2018).
        frames: number of counted frames, which show pain and have a positive value.
        empty: number of frames that show pain but have no positive value; they are not counted above.
    """

    mass: float
    area: float
    pointing: float
    frames: int
    empty: int


def pain_regions(video: Path, clip: Frames, start_s: float = 0.0) -> Tensor | None:
    """Return the regions in which a generated face shows pain, for each frame.

    The generator records a box around each of brows, eyes, nose, cheeks and mouth, and the frames in which pain moves
    it at intensity A (1) or more. Movement without pain (blinks, smiles, talking) is not counted.

    Args:
        video: file or folder of images that the clip was read from.
        clip: crops with their boxes.
        start_s: start of the clip in the video, in seconds.

    Returns:
        (T, S, S) bool, the pixels of the crops whose centres are in a box that pain moves; False in frames without
        pain. None if the video has no generated truth.
    """
    path = truth_of(video)
    if path is None:
        return None
    if clip.boxes is None or not clip.are_pixels:
        raise ValueError("clip must have crops and their boxes in the video's frame.")
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        known_s, regions, active = (file.get_tensor(name) for name in ("times_s", "regions", "region_active"))
    rows, near = nearest_rows(known_s, start_s + clip.times_s.double().numpy())
    boxes = torch.from_numpy(regions[rows]).double()
    shown = torch.from_numpy(active[rows] & near[:, None])
    x, y = _pixels_in_video(clip.boxes.double(), clip.angles_rad, clip.x.shape[-1])
    inside = torch.zeros(x.shape, dtype=torch.bool)
    for region, there in zip(boxes.unbind(dim=1), shown.unbind(dim=1), strict=True):
        left, top, right, bottom = region[:, :, None, None].unbind(dim=1)
        inside |= (x >= left) & (x < right) & (y >= top) & (y < bottom) & there[:, None, None]
    return inside & clip.present[:, None, None]


def _pixels_in_video(boxes: Tensor, angles_rad: Tensor | None, side: int) -> tuple[Tensor, Tensor]:
    """Return where the centres of the pixels of crops lie in the video's frames: x and y, each (T, S, S)."""
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    left, top, right, bottom = boxes[..., None, None].unbind(dim=1)
    shape = (len(boxes), side, side)
    x = (left + (right - left) * centres).expand(shape)
    y = (top + (bottom - top) * centres[:, None]).expand(shape)
    if angles_rad is None:
        return x, y
    cos, sin = (part.double()[:, None, None] for part in (angles_rad.cos(), angles_rad.sin()))
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    x, y = x - middle_x, y - middle_y
    return middle_x + cos * x - sin * y, middle_y + sin * x + cos * y


def truth_scores(attribution: Attribution, regions: Tensor) -> TruthScores | None:
    """Compare a map with the truth.

    Only the positive part of the map counts, which contributes to the class. The explained class must be the one that
    shows pain.

    Args:
        attribution: has maps.
        regions: (T, S, S) bool from `pain_regions`, or any other truth of this shape.

    Returns:
        The scores; None if no frame with a face shows pain, or the map is empty in all frames that do.
    """
    maps = attribution.maps.clamp(min=0).double()
    if maps.shape != regions.shape:
        raise ValueError(f"The map has shape {tuple(maps.shape)}, but its truth (regions) {tuple(regions.shape)}.")
    painful = regions.flatten(1).any(dim=1) & attribution.present
    counted = painful & maps.flatten(1).any(dim=1)
    if not counted.any():
        return None
    maps, inside = maps[counted].flatten(1), regions[counted].flatten(1)
    # Equal maxima, as in a patch of occlusion, count in equal shares.
    highest = maps == maps.amax(dim=1, keepdim=True)
    hits = (highest & inside).sum(dim=1) / highest.sum(dim=1)
    return TruthScores(
        mass=float(((maps * inside).sum(dim=1) / maps.sum(dim=1)).mean()),
        area=float(inside.double().mean()),
        pointing=float(hits.mean()),
        frames=int(counted.sum()),
        empty=int((painful & ~counted).sum()),
    )
