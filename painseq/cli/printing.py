"""What commands print on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from rich.console import Console

log = logging.getLogger("painseq")


def terminal(highlight: bool = True, soft_wrap: bool = False) -> Console:
    """Return a console that prints names as they are: rich takes brackets for markup, and colons for emoji."""
    return Console(markup=False, emoji=False, highlight=highlight, soft_wrap=soft_wrap)


def tell_of_training(details: Mapping[str, Any]) -> None:
    """Warn of an explanation of subjects whom the model has seen, or may have seen; `details` are those of a study."""
    seen = details["seen_in_training"]
    if seen["seen"]:
        log.warning("The model was fitted on %(seen)d of these %(subjects)d subjects.", seen)
    if seen["unknown"]:
        log.warning("The training subjects of %s are unknown.", ", ".join(seen["unknown"]))
