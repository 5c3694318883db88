"""Streams: what a head is given of each frame, in the order in which the configuration names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from painseq.data.action_units import COLUMNS
from painseq.errors import PainseqError
from painseq.faces import landmarks
from painseq.features import ClipFeatures

Stream = Literal["cnn", "landmarks", "action_units"]
"""`cnn`: the extractor's features, or crops for it. `landmarks`: the face track's, normalised frame by frame.
`action_units`: of OpenFace's tables, see `painseq.data.action_units`."""


def check_streams(streams: Sequence[str]) -> None:
    """Raise a PainseqError unless `streams` is a list of known ones, each once, the CNN's first."""
    known = get_args(Stream)
    unknown = [name for name in streams if name not in known]
    if unknown or not streams or len(set(streams)) < len(streams):
        raise PainseqError(f"streams is {list(streams)}; it lists each of {', '.join(known)} once at most.")
    if "cnn" in streams[1:]:
        raise PainseqError(f"streams is {list(streams)}: cnn comes first, and the others stand behind its features.")


def assemble(clip: ClipFeatures, streams: Sequence[str], action_units: Tensor | None = None) -> Tensor:
    """The features of a clip, stream behind stream.

    Args:
        action_units: (T, len(COLUMNS)), where they are among the streams.

    Returns:
        (T, *F): the stored features as they are where `cnn` is the only stream; else float32 (T, sum of the widths).

    Raises:
        PainseqError: landmarks or action units are asked for, and the clip has none.
    """
    if tuple(streams) == ("cnn",):
        return clip.features
    parts = []
    for stream in streams:
        if stream == "cnn":
            parts.append(clip.features.float())
        elif stream == "action_units":
            if action_units is None:
                raise PainseqError("Action units are asked for, but no OpenFace table is given for this clip.")
            parts.append(action_units)
        else:
            parts.append(_landmarks(clip))
    return torch.cat(parts, dim=-1)


def _landmarks(clip: ClipFeatures) -> Tensor:
    seen = bool(clip.present.any())
    if clip.landmarks is None or (seen and not torch.isfinite(clip.landmarks[clip.present]).any()):
        raise PainseqError(
            "Landmarks are asked for, but a clip with a face has none. Choose a locator that finds them "
            "(FaceAlignment, or Sidecar; for a store, extract into a new folder), or leave them out of streams."
        )
    return landmarks.normalise(clip.landmarks, clip.present)


def mirror(extra: Tensor, streams: Sequence[str]) -> Tensor:
    """What the streams beside mirrored crops are: landmarks change sides, action units have none.

    Args:
        extra: (T, E), as `assemble` puts `streams` together.
        streams: without `cnn`.

    Raises:
        PainseqError: landmarks whose left and right are not known.
    """
    units = len(COLUMNS) if "action_units" in streams else 0
    widths = [units if stream == "action_units" else extra.shape[-1] - units for stream in streams]
    parts = zip(streams, torch.split_with_sizes(extra, widths, dim=-1), strict=True)
    return torch.cat([landmarks.mirror(part) if stream == "landmarks" else part for stream, part in parts], dim=-1)
