"""The recipes of `configs/reproduce`: complete configurations with notes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from painseq.errors import PainseqError
from painseq.files import read_yaml, shipped_configs

OWN_KEY = "reproduce"
"""What a recipe tells `reproduce` alone; other commands skip it."""
LEAKY_HOLDOUT = "clip_holdout_LEAKY"
"""A random split of clips, balanced by class, with the shares and the seed of the split's options."""


@dataclass(frozen=True)
class Notes:
    """A heading and its points in the comment at the top of a recipe."""

    heading: str
    points: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """A complete configuration with notes.

    Args:
        name: name of the file without suffix; decides the phases.
        path: the YAML file.
        title: first paragraph of the comment at the top.
        notes: what the paper states, what had to be chosen, what deviates, what is unavailable.
        leaky: whether single clips are split at random, as the paper did, with subjects on both sides.
    """

    name: str
    path: Path
    title: str
    notes: tuple[Notes, ...]
    leaky: bool = False


def shipped_recipes() -> list[str]:
    """Return the names of the recipes in `configs/reproduce`."""
    return sorted(path.stem for path in (shipped_configs() / "reproduce").glob("*.yaml"))


def read_recipe(name: str | Path) -> Recipe:
    """Read a shipped recipe by name, or any recipe by path.

    Raises:
        PainseqError: no such recipe.
    """
    path = Path(name)
    if str(name) in shipped_recipes():
        path = shipped_configs() / "reproduce" / f"{name}.yaml"
    elif not path.is_file():
        raise PainseqError(
            f"No recipe {str(name)!r}. Recipes: {', '.join(shipped_recipes())}; or give the path of a YAML file."
        )
    title, notes = parse_comment(path.read_text(encoding="utf-8"))
    own = read_yaml(path).get(OWN_KEY, {})
    if own not in ({}, {"split": LEAKY_HOLDOUT}):
        raise PainseqError(
            f"{path}: {OWN_KEY} is {own}; a recipe can only have `{OWN_KEY}: {{split: {LEAKY_HOLDOUT}}}`."
        )
    return Recipe(path.stem, path, title, notes, leaky=bool(own))


def parse_comment(text: str) -> tuple[str, tuple[Notes, ...]]:
    """Parse the title and the notes in the comment at the top of a recipe.

    Its paragraphs are separated by a line `#`. The first is the title, the second the commands; all others are notes,
    whose points, if any, begin with `  - `.
    """
    comment = re.match(r"(?:#.*\n)*", text)
    lines = [line.removeprefix("#").removeprefix(" ") for line in (comment.group() if comment else "").splitlines()]
    paragraphs = [part.splitlines() for part in re.split(r"\n\s*\n", "\n".join(lines)) if part.strip()]
    notes = []
    for paragraph in paragraphs[2:]:
        heading, points = [], []
        for line in paragraph:
            if line.startswith("  - "):
                points.append([line[4:]])
            elif points:
                points[-1].append(line.strip())
            else:
                heading.append(line.strip())
        notes.append(Notes(" ".join(heading), tuple(" ".join(point) for point in points)))
    return " ".join(paragraphs[0]) if paragraphs else "", tuple(notes)
