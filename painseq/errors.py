"""The one exception that a person is meant to read.

The command line prints its text and exits with 1, without a traceback. Its text says what was wrong, the
value, and what to do.
"""

from __future__ import annotations


class PainseqError(Exception):
    """Something the user can mend: a path, a file, a label, a configuration."""


class LocatorUnavailable(PainseqError):
    """What finds the faces is not on this machine: its package, or its model. So it fails for every clip alike."""


class LeakError(PainseqError):
    """A subject stands on both sides: a model would be scored on somebody it was trained on."""
