"""What commands print on the terminal."""

from __future__ import annotations

from rich.console import Console


def terminal(highlight: bool = True, soft_wrap: bool = False) -> Console:
    """Return a console that prints names as they are: rich takes brackets for markup, and colons for emoji."""
    return Console(markup=False, emoji=False, highlight=highlight, soft_wrap=soft_wrap)
