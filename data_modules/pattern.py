"""Regular expressions for file names, given by users."""

from __future__ import annotations

import re

from painseq.errors import PainseqError


def compiled_pattern(pattern: str, *groups: str) -> re.Pattern[str]:
    """Compile a pattern, and check that it has these named groups.

    Raises:
        PainseqError: it is not a regular expression, or lacks a group.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise PainseqError(f"The pattern {pattern!r} is not a regular expression: {error}.") from error
    missing = [group for group in groups if group not in compiled.groupindex]
    if missing:
        raise PainseqError(f"The pattern {pattern!r} lacks the named group (?P<{missing[0]}>...).")
    return compiled
