"""Shared by all charts: figures, colours, line styles and SVG files.

Colour is never the only cue: line styles, markers or printed numbers repeat it, for greyscale prints. Lines use the
colours of Okabe and Ito (2008), which colour-blind readers can distinguish; heat maps use cividis (Nuñez et al. 2018),
whose lightness increases steadily. matplotlib is imported when the first chart is drawn.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

BLUE, INK, GREY = "#1f5a8c", "#23272b", "#8b949b"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (9, 3)), (0, (3, 1, 1, 1, 1, 1)), "-")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def shades_of(values: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    """Cividis colours (..., 3) in 0..1 of values between `low` and `high`; grey for NaN."""
    import matplotlib
    from matplotlib.colors import Normalize

    norm = Normalize(low, high if high > low else low + 1, clip=True)
    cells = np.asarray(values, np.float64)
    shades: NDArray[np.float64] = matplotlib.colormaps["cividis"](norm(np.nan_to_num(cells, nan=low)))[..., :3]
    shades[np.isnan(cells)] = 0.9
    return shades


def luminance(shade: ArrayLike) -> float:
    """Relative luminance in 0..1 of an sRGB colour, after WCAG 2.2."""
    parts = np.asarray(shade, np.float64)
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def readable(shade: ArrayLike) -> str:
    """Black or white, whichever contrasts more."""
    # At this luminance the contrast (L1 + 0.05) / (L2 + 0.05) is the same with black and with white.
    return "#000000" if luminance(shade) > 0.1791 else "#ffffff"


def line_look(number: int) -> tuple[str, str, str | tuple[int, tuple[float, ...]]]:
    """Colour, marker and dashes of the n-th line."""
    return LINES[number % len(LINES)], MARKERS[number % len(MARKERS)], DASHES[number % len(DASHES)]


def style() -> AbstractContextManager[None]:
    """matplotlib's settings while a chart is made and written."""
    import matplotlib

    return matplotlib.rc_context(
        {
            "font.size": 10,
            "axes.edgecolor": GREY,
            "text.color": INK,
            "axes.labelcolor": INK,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "axes.titlesize": 10,
            # With a fixed salt, the same chart gives the same file.
            "svg.hashsalt": "painseq",
            # Use the reader's fonts, which may have more letters than matplotlib's; a third of the size.
            "svg.fonttype": "none",
            # Names come from files: a dollar sign is not a formula.
            "text.parse_math": False,
        }
    )


def new_canvas(width: float, height: float, fill: bool = False) -> tuple[Canvas, Axes]:
    """Create a figure of `width` x `height` inches; if the axes `fill` it, their labels are outside."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(width, height), layout=None if fill else "constrained")
    axes = canvas.add_axes((0, 0, 1, 1)) if fill else canvas.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return canvas, axes


def svg(canvas: Canvas, tight: bool = True) -> bytes:
    """Render a figure as SVG; with `tight`, the size is that of the drawn content, not of the figure."""
    file = io.BytesIO()
    metadata = {"Date": None, "Creator": None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        canvas.savefig(file, format="svg", bbox_inches="tight" if tight else None, pad_inches=0.05, metadata=metadata)
    return file.getvalue()


def wrapped(text: str, width: int, lines: int = 3) -> str:
    """Wrap a text to at most `lines` lines of `width` letters; letters that XML does not allow are replaced.

    The word LEAKY is neither cut off nor divided.
    """
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))
    filled = textwrap.fill(shown, width, max_lines=lines, placeholder=" …")
    if "LEAKY" in shown and "LEAKY" not in filled:
        filled = textwrap.fill(f"LEAKY: {shown}", width, max_lines=lines, placeholder=" …")
    return filled


def legend(axes: Axes, handles: Sequence[Artist], names: Sequence[str], font_size: float = 9) -> None:
    """Add a legend of these lines where it covers least."""
    # Set the names afterwards: a legend leaves out names that begin with an underscore.
    numbers = [str(number) for number in range(len(names))]
    box = axes.legend(handles, numbers, fontsize=font_size, framealpha=0.85, edgecolor="none")
    for text, name in zip(box.get_texts(), names, strict=True):
        text.set_text(wrapped(name, 32))
