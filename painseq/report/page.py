"""One HTML file for a run: everything in it, nothing fetched, readable without a network in ten years."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from painseq.evaluation.score import Evaluation
from painseq.report import sections, tables
from painseq.report.content import Block, Figure, Picture, Report
from painseq.report.probabilities import probability_block, subgroup_block
from painseq.report.style import CSS
from painseq.report.tables import words

__all__ = ["Block", "Figure", "Picture", "Report", "blocks_of", "page", "write_report"]

MAX_BYTES = 5_000_000
"""A page of this size still opens from a mail; pictures that would exceed it are left out, and named."""


def write_report(path: Path, report: Report) -> None:
    """Write the page, under `MAX_BYTES`; pictures that do not fit are left out, and the page names them."""
    path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The page as HTML."""
    parts: list[str | Block] = [
        _header(report),
        _section("Scores", sections.scores(report)),
        *report.blocks,
        _section("What the numbers mean", sections.meaning(report)),
        _section("Class by class", sections.classes(report)),
        *blocks_of(report),
        _section("Subject by subject", sections.subjects(report)),
        _section("What was scored", sections.counted(report)),
        _section("Learning curves", sections.curves(report)),
    ]
    ending = [
        _section(sections.published_title(report), sections.published(report)),
        _section("About this run", sections.facts(report)),
    ]
    texts = [_block_text(part) if isinstance(part, Block) else part for part in [*parts, *ending]]
    room = MAX_BYTES - sum(len(text.encode()) for text in texts) - len(CSS) - 2_000
    shown = []
    for part in parts:
        if isinstance(part, Block):
            pictures, room = _fitting([(picture.alt, _picture(picture)) for picture in part.pictures], room)
            part = _block_text(part, f'<div class="charts">{pictures}</div>' if pictures else "")
        shown.append(part)
    figures, _ = _fitting([(figure.title, _figure(figure)) for figure in report.figures], room)
    body = "\n".join([*shown, _section("Pictures", figures), *ending])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n"
        "<footer>Written by painseq. Research software, no medical device: not for diagnosis, treatment or monitoring "
        "of anybody.</footer>\n</main>\n</body>\n</html>\n"
    )


def blocks_of(report: Report) -> list[Block]:
    """The blocks that follow from evaluations and predictions; the report's own are not among them."""
    made = (probability_block(report.evaluations, report.predictions), subgroup_block(report.evaluations))
    return [block for block in made if block is not None]


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{words(title)}</h2>\n{content}\n</section>" if content else ""


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{words(line)}</li>" for line in lines) + "</ul>"


def _header(report: Report) -> str:
    parts = [f'<header>\n<h1>{words(report.title)}</h1>\n<p class="subtitle">{words(report.subtitle)}</p>\n</header>']
    if report.notes:
        parts.append(
            f'<div class="notes"><strong>What this run is, and what it is not</strong>{_list(report.notes)}</div>'
        )
    warnings = [*report.warnings, *_model_warnings(report.evaluations)]
    if warnings:
        parts.append(f'<div class="warnings"><strong>Warnings</strong>{_list(warnings)}</div>')
    return "\n".join(parts)


def _model_warnings(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Each warning once, with the models it is of, unless it is of all."""
    models: dict[str, list[str]] = {}
    for model, evaluation in evaluations.items():
        for line in evaluation.warnings:
            models.setdefault(line, []).append(model)
    return [line if len(names) == len(evaluations) else f"{', '.join(names)}: {line}" for line, names in models.items()]


def _block_text(block: Block, pictures: str = "") -> str:
    paragraphs = "".join(f"<p>{words(text)}</p>" for text in block.text.split("\n\n") if text.strip())
    table = tables.plain(block.columns, block.rows) if block.rows else ""
    return _section(block.title, f"{paragraphs}{pictures}{table}" or "<p>Nothing to show.</p>")


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.svg).decode()
    return f'<div class="scroll"><img alt="{escape(picture.alt)}" src="data:image/svg+xml;base64,{data}"></div>'


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.png).decode()
    return (
        f'<figure><h3>{words(figure.title)}</h3><img alt="{escape(figure.caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{words(figure.caption)}</figcaption></figure>"
    )


def _fitting(pictures: Sequence[tuple[str, str]], room: int) -> tuple[str, int]:
    """Those pictures (title, HTML) that fit, the titles of the others behind them, and the bytes that remain."""
    parts: list[str] = []
    left_out: list[str] = []
    for title, part in pictures:
        line = f"<li>{words(title)}</li>"
        fits = len(part.encode()) <= room
        (parts if fits else left_out).append(part if fits else line)
        room -= len((part if fits else line).encode())
    if left_out:
        parts.append(f"<p>Left out, since the page would exceed 5 MB:</p><ul>{''.join(left_out)}</ul>")
    return "".join(parts), room
