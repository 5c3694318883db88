"""OpenCV, imported when it is needed, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from painseq.errors import LocatorUnavailable

_ERRORS = 2


def import_cv2() -> Any:
    """Return the module `cv2`.

    Raises:
        LocatorUnavailable: it cannot be imported.
    """
    try:
        import cv2
    except ImportError as error:
        raise LocatorUnavailable(
            f"OpenCV cannot be imported: {error}. Install opencv-python-headless; opencv-python needs libraries of a "
            "screen (Debian: apt install libgl1 libglib2.0-0)."
        ) from error
    return cv2


@contextmanager
def errors_only(cv2: Any) -> Iterator[None]:
    """Silence OpenCV's warnings: version 5 warns at each load that its new engine has no targets."""
    # OpenCV 4 has these functions at its top level.
    log = getattr(cv2.utils, "logging", cv2)
    level = log.getLogLevel()
    log.setLogLevel(_ERRORS)
    try:
        yield
    finally:
        log.setLogLevel(level)
