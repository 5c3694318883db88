"""Whether an explanation lies where a generated face shows the pain: its error, known where the truth is."""

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
    """How one clip's map lies to the regions that pain moves, over the frames that show pain.

    Every frame counts alike, so that these speak of places alone. Summed over the clip, a map would be judged by the
    few frames that it dwells on: a gradient is largest where the model is in doubt, which is where pain begins.

    Args:
        mass: share of what speaks for the class that lies in these regions (relevance mass, Arras et al. 2022).
        area: share of the pixels that lies there: the mass of a map that knows nothing, and the chance of pointing.
        pointing: share of the frames whose strongest place lies there (pointing game, Zhang et al. 2018).
        frames: that count: they show pain, and something in them speaks for the class.
        empty: frames that show pain, and nothing in them speaks for the class. They count for none of the above.
    """

    mass: float
    area: float
    pointing: float
    frames: int
    empty: int


def pain_regions(video: Path, clip: Frames, start_s: float = 0.0) -> Tensor | None:
    """Where a generated face shows pain, frame by frame.

    The generator tells a box around each of brows, eyes, nose, cheeks and mouth, and in which frames pain moves it at
    intensity A (1) or more. What moves without pain (blinks, smiles, talking) is not counted.

    Args:
        video: the file or folder of images that the clip was read from.
        clip: crops, with their boxes.
        start_s: of the clip in the video.

    Returns:
        (T, S, S) bool, the pixels of the crops in a box that pain moves, by their centres; all false in frames without
        pain. None where there is no generated truth.
    """
    path = truth_of(video)
    if path is None:
        return None
    if clip.boxes is None or not clip.are_pixels:
        raise ValueError("The true regions need crops and their boxes in the video's frame.")
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        known_s, regions, active = (file.get_tensor(name) for name in ("times_s", "regions", "region_active"))
    rows, near = nearest_rows(known_s, start_s + clip.times_s.double().numpy())
    boxes = torch.from_numpy(regions[rows]).double()
    shown = torch.from_numpy(active[rows] & near[:, None])
    side = clip.x.shape[-1]
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    left, top, right, bottom = clip.boxes.double().unbind(dim=1)
    x, y = left[:, None] + (right - left)[:, None] * centres, top[:, None] + (bottom - top)[:, None] * centres
    across = (x[:, None] >= boxes[..., 0, None]) & (x[:, None] < boxes[..., 2, None])
    down = (y[:, None] >= boxes[..., 1, None]) & (y[:, None] < boxes[..., 3, None])
    inside = across[:, :, None, :] & down[..., None] & shown[..., None, None]
    return inside.any(dim=1) & clip.present[:, None, None]


def truth_scores(attribution: Attribution, regions: Tensor) -> TruthScores | None:
    """Hold a map beside the truth.

    Only the positive part of the map counts: what speaks for the class, and what is drawn. The class to explain is the
    one that shows pain.

    Args:
        attribution: with maps.
        regions: (T, S, S) of `pain_regions`, or any other truth of this shape.

    Returns:
        None where no frame with a face shows pain, or the map is empty in all that do.
    """
    maps = attribution.maps.clamp(min=0).double()
    if maps.shape != regions.shape:
        raise ValueError(f"The map is {tuple(maps.shape)}, and its truth {tuple(regions.shape)}.")
    painful = regions.flatten(1).any(dim=1) & attribution.present
    counted = painful & maps.flatten(1).any(dim=1)
    if not counted.any():
        return None
    maps, inside = maps[counted].flatten(1), regions[counted].flatten(1)
    # Of equal maxima, as occlusion has all over a patch, each counts its share.
    highest = maps == maps.amax(dim=1, keepdim=True)
    hits = (highest & inside).sum(dim=1) / highest.sum(dim=1)
    return TruthScores(
        mass=float(((maps * inside).sum(dim=1) / maps.sum(dim=1)).mean()),
        area=float(inside.double().mean()),
        pointing=float(hits.mean()),
        frames=int(counted.sum()),
        empty=int((painful & ~counted).sum()),
    )
