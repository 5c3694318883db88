"""A self-contained HTML page for a run, readable without a network.

Its layout is in `templates/page.html`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from painseq.evaluation.metrics import STATISTICS
from painseq.evaluation.published import REMARKS
from painseq.evaluation.score import TITLES, Evaluation, number, shared_baselines
from painseq.files import write_atomically
from painseq.report import inline, tables
from painseq.report.charts import learning_curves
from painseq.report.content import Block, Figure, Picture, Report
from painseq.report.probabilities import probability_block, subgroup_block, threshold_block

MAX_BYTES = 5_000_000
"""Largest size of a page, to be sent by mail; pictures that would exceed it are left out, and listed."""

MARKUP_BYTES = 300
"""Upper limit of the markup around one picture."""


@dataclass
class PictureSpace:
    """Space for pictures on a page.

    Args:
        left: remaining bytes.
    """

    left: int

    def fit(self, pictures: Sequence[Picture | Figure]) -> Images:
        """Reserve space for the pictures that fit, in order, and for the titles of the others."""
        images = Images()
        for picture in pictures:
            title, text, data = _parts(picture)
            size = len((tables.html(text) * 2 + tables.html(title)).encode()) + len(data) * 4 // 3 + MARKUP_BYTES
            if size <= self.left:
                images.shown.append(picture)
            else:
                images.left_out.append(title)
                size = len(tables.html(title).encode()) + MARKUP_BYTES
            self.left -= size
        return images


@dataclass(frozen=True)
class Images:
    """The pictures of one section that fit on the page, and the titles of the others."""

    shown: list[Picture | Figure] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def write_report(path: Path, report: Report) -> None:
    """Write a page of at most `MAX_BYTES`; pictures that do not fit are left out, and listed on the page.

    Example:
        >>> write_report(Path("report.html"), Report("Title", "Subtitle", "BioVid"))  # doctest: +SKIP
    """
    write_atomically(path, page(report).encode())


def page(report: Report) -> str:
    """Render the page as HTML."""
    template = _environment().get_template("page.html")
    derived = blocks_of(report)
    content = _content(report)

    def render(space: PictureSpace) -> str:
        return template.render(
            content,
            own_blocks=[(block, space.fit(block.pictures)) for block in report.blocks],
            derived_blocks=[(block, space.fit(block.pictures)) for block in derived],
            figures=space.fit(report.figures),
        )

    return render(PictureSpace(MAX_BYTES - len(render(PictureSpace(0)).encode())))


def blocks_of(report: Report) -> list[Block]:
    """Blocks made from evaluations and predictions, without the report's own blocks."""
    blocks = (
        threshold_block({model: each.threshold for model, each in report.evaluations.items()}),
        probability_block(report.evaluations, report.predictions),
        subgroup_block(report.evaluations),
    )
    return [block for block in blocks if block is not None]


def _content(report: Report) -> dict[str, object]:
    """Variables of the template, except blocks and figures."""
    chances = {model: tables.chance(evaluation) for model, evaluation in report.evaluations.items()}
    curves = {model: learning_curves(rows, chances.get(model)) for model, rows in report.histories.items()}
    baselines = shared_baselines(report.evaluations)
    return {
        "report": report,
        "warnings": [*report.warnings, *_model_warnings(report.evaluations)],
        "baselines": baselines,
        "rules": list(dict.fromkeys(f"{baseline.name}: {baseline.rule}" for _, baseline in baselines)),
        "subjects": tables.subject_score_rows(report.evaluations, report.predictions),
        "curves": {model: pictures for model, pictures in curves.items() if pictures},
    }


def _model_warnings(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Each warning once, with the names of its models unless it applies to all."""
    models: dict[str, list[str]] = {}
    for model, evaluation in evaluations.items():
        for line in evaluation.warnings:
            models.setdefault(line, []).append(model)
    return [line if len(names) == len(evaluations) else f"{', '.join(names)}: {line}" for line, names in models.items()]


def _parts(picture: Picture | Figure) -> tuple[str, str, bytes]:
    """Title, description and file content of a picture."""
    if isinstance(picture, Figure):
        return picture.title, picture.caption, picture.png
    return picture.alt, picture.alt, picture.svg


@cache
def _environment() -> Environment:
    """Load the templates with their filters and functions."""
    environment = Environment(
        loader=PackageLoader("painseq.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "html": tables.html,
        "number": number,
        "fmt": format,
        "span": tables.span,
        "as_printed": tables.as_printed,
        "base64": lambda data: base64.b64encode(data).decode(),
        "x": inline.x_of,
    }
    environment.globals |= {
        "statistics": list(STATISTICS),
        "titles": TITLES,
        "remarks": REMARKS,
        "chance": tables.chance,
        "scores_by_classes": tables.scores_by_classes,
        "shade_of_share": tables.shade_of_share,
        "text_columns": tables.text_columns,
        "number_and_brackets": tables.number_and_brackets,
        "stacked_dots": inline.stacked_dots,
        "chart_width": inline.WIDTH,
    }
    return environment
