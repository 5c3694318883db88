"""How a file's stored pictures are to be shown: turned or mirrored, with square pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from av import VideoFrame

_ASPECT_TOLERANCE = 0.01
_MAX_ASPECT = 8
_MAX_SKEW = 0.02
_HDR = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}


@dataclass(frozen=True)
class Display:
    """How stored pictures become shown ones.

    Pictures whose pixels are not square are enlarged along their short side, so that nothing is lost. Pixels within 1 %
    of square are left as they are.

    Args:
        width: of the stored picture, in pixels.
        height: of the stored picture, in pixels.
        pixel_aspect: width of a stored pixel divided by its height.
        transposed: rows become columns, before mirroring.
        flip_x: left and right are exchanged.
        flip_y: top and bottom are exchanged.
        hdr: name of the transfer function of high dynamic range; empty for ordinary videos.
        interlaced: whether a picture holds two moments, in alternating lines.
    """

    width: int
    height: int
    pixel_aspect: Fraction = Fraction(1)
    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False
    hdr: str = ""
    interlaced: bool = False

    @property
    def is_turned(self) -> bool:
        """Whether pictures are stored otherwise than upright."""
        return self.transposed or self.flip_x or self.flip_y

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) shown, in pixels."""
        aspect = float(self.pixel_aspect)
        if abs(aspect - 1) < _ASPECT_TOLERANCE:
            aspect = 1.0
        size = round(self.width * max(aspect, 1.0)), round(self.height / min(aspect, 1.0))
        return size[::-1] if self.transposed else size

    def show(self, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a stored (height, width, 3) picture into the shown one."""
        image = stored.swapaxes(0, 1) if self.transposed else stored
        image = image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        if image.shape[1::-1] == self.size:
            return image
        return np.asarray(Image.fromarray(image).resize(self.size, Image.Resampling.BILINEAR), dtype=np.uint8)

    def unturned(self, turned: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the stored picture, given the one that a decoder turned by the angle of the file's display matrix.

        The angle alone does not say that a picture is mirrored.
        """
        if self.transposed:
            return np.rot90(turned, -1 if self.flip_y else 1)
        return np.rot90(turned, 2) if self.flip_x else turned

    def fits(self, width: int, height: int) -> bool:
        """Whether a picture of another size shows the same view: it has the same shape."""
        return abs(width * self.height - height * self.width) <= 0.02 * width * self.height


def read_display(picture: VideoFrame, pixel_aspect: Fraction | None, transfer: int) -> Display:
    """Return how the pictures of a file are shown.

    Args:
        picture: the first one, decoded.
        pixel_aspect: width of a pixel divided by its height; None if the file does not say.
        transfer: number of the transfer function (H.273).

    Raises:
        ValueError: the picture is to be turned by other than quarter turns, or its pixels are absurdly narrow.
    """
    aspect = pixel_aspect or Fraction(1)
    if not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
        raise ValueError(f"its pixels are {float(aspect):g} times as wide as high")
    hdr = _HDR.get(transfer, "")
    plain = Display(picture.width, picture.height, aspect, hdr=hdr, interlaced=bool(picture.interlaced_frame))
    side_data: Any = picture.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return plain
    # Stored (x, y) is shown at (a x + c y, b x + d y).
    (a, b), (c, d) = np.frombuffer(bytes(side_data), np.int32).reshape(3, 3)[:2, :2] / 65536
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    x, y = (c, b) if transposed else (a, d)
    rest = (abs(a) + abs(d)) if transposed else (abs(b) + abs(c))
    if not (x or y):
        return plain
    if rest > _MAX_SKEW * (abs(x) + abs(y)) or not (x and y):
        raise ValueError(f"it is to be turned by {picture.rotation} degrees, and only quarter turns are possible")
    return replace(plain, transposed=bool(transposed), flip_x=bool(x < 0), flip_y=bool(y < 0))
