"""How large a picture may be before it is decoded: small files can hold pictures that fill the memory."""

from __future__ import annotations

import os
from pathlib import Path

from painseq.errors import PainseqError

MAX_PIXELS = 50_000_000
VARIABLE = "PAINSEQ_MAX_PIXELS"


def max_pixels() -> int:
    """Return the largest number of pixels of a picture: `$PAINSEQ_MAX_PIXELS`, or `MAX_PIXELS`.

    Raises:
        PainseqError: the variable is not a whole number above 0.
    """
    text = os.environ.get(VARIABLE, str(MAX_PIXELS))
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31):
        raise PainseqError(f"The environment variable {VARIABLE} is {text!r}; it must be a whole number above 0.")
    return int(text)


def check_pixels(path: Path, width: int, height: int) -> None:
    """Raise a PainseqError if a picture of this size is larger than `max_pixels`."""
    if width * height > max_pixels():
        raise too_many_pixels(path, f"{width} x {height} pixels")


def too_many_pixels(path: Path, size: str) -> PainseqError:
    """Return the error for a picture that is too large; it names file, size and limit."""
    return PainseqError(
        f"{path} is too large: {size}. Pictures of more than {max_pixels()} pixels are not read, since they can fill "
        f"the memory. Scale it down, or allow more with the environment variable {VARIABLE}."
    )
