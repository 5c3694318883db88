"""Exceptions whose text is written for the user.

The command line prints its text and exits with 1, without a traceback. Its text says what was wrong, the
value, and what to do.
"""

from __future__ import annotations


class PainseqError(Exception):
    """Something the user can fix: a path, a file, a label, a configuration."""


class LocatorUnavailable(PainseqError):
    """The face locator's package or model is missing on this machine, so locating fails for every clip."""


class LeakError(PainseqError):
    """A subject is on both sides of a split: the model would be scored on a person it was trained on."""
