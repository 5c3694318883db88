"""Streams: what a head is given of each frame, in the order in which the configuration names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from painseq.errors import PainseqError
from painseq.faces.landmarks import normalise
from painseq.features import ClipFeatures

Stream = Literal["cnn", "landmarks"]
"""`cnn`: the extractor's features, or crops for it. `landmarks`: the face track's, normalised frame by frame."""


def check_streams(streams: Sequence[str]) -> None:
    """Raise a PainseqError unless `streams` is a list of known ones, each once, the CNN's first."""
    known = get_args(Stream)
    unknown = [name for name in streams if name not in known]
    if unknown or not streams or len(set(streams)) < len(streams):
        raise PainseqError(f"streams is {list(streams)}; it lists each of {', '.join(known)} once at most.")
    if "cnn" in streams[1:]:
        raise PainseqError(f"streams is {list(streams)}: cnn comes first, and the others stand behind its features.")


def assemble(clip: ClipFeatures, streams: Sequence[str]) -> Tensor:
    """The features of a clip, stream behind stream.

    Returns:
        (T, *F): the stored features as they are where `cnn` is the only stream; else float32 (T, sum of the widths).

    Raises:
        PainseqError: landmarks are asked for, and the clip has none.
    """
    if tuple(streams) == ("cnn",):
        return clip.features
    parts = []
    for stream in streams:
        if stream == "cnn":
            parts.append(clip.features.float())
            continue
        seen = bool(clip.present.any())
        if clip.landmarks is None or (seen and not torch.isfinite(clip.landmarks[clip.present]).any()):
            raise PainseqError(
                "Landmarks are asked for, but a clip with a face has none. Choose a locator that finds them "
                "(FaceAlignment, or Sidecar; for a store, extract into a new folder), or leave them out of streams."
            )
        parts.append(normalise(clip.landmarks, clip.present))
    return torch.cat(parts, dim=-1)
