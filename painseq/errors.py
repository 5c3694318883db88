"""Exceptions whose text is written for the user.

The command line prints its text and exits with 1, without a traceback. Its text says what was wrong, the
value, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable


class PainseqError(Exception):
    """Something the user can fix: a path, a file, a label, a configuration."""


class LocatorUnavailable(PainseqError):
    """The face locator's package or model is missing on this machine, so locating fails for every clip."""


CLIP_FAILURES = (PainseqError, OSError, MemoryError, UnicodeError)
"""What fails one clip and not the run; pass it to `reason_of`. Errors of decoders are `PainseqError` by then."""


def reason_of(error: Exception) -> str:
    """Return why a clip failed: never empty, and text that every file and terminal takes.

    Raises:
        LocatorUnavailable: the error itself, since it is not a fault of the clip.
    """
    if isinstance(error, LocatorUnavailable):
        raise error
    reason = "the memory does not suffice" if isinstance(error, MemoryError) else str(error) or type(error).__name__
    return printable(reason)


def printable(text: str) -> str:
    r"""Return a text with the bytes of a file name that are not UTF-8 written as `\udcfc`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class UntrustedClass(PainseqError):
    """A file names a class of a package that the caller does not trust."""


class LeakError(PainseqError):
    """A subject is on both sides of a split: the model would be scored on a person it was trained on."""


def first_few(names: Iterable[str], most: int = 20, separator: str = ", ") -> str:
    """Join the first names of a list and the number of the others, so that no message has a million names.

    Example:
        >>> first_few(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return separator.join(listed[:most]) + more
