"""One HTML file for a run: everything in it, nothing fetched, readable without a network in ten years."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from painseq.evaluation.predictions import Predictions
from painseq.evaluation.published import Published
from painseq.evaluation.score import Evaluation
from painseq.report import tables
from painseq.report.charts import Row, learning_curves
from painseq.report.style import CSS

MAX_BYTES = 5_000_000
"""A page of this size still opens from a mail; pictures that would exceed it are left out, and named."""


@dataclass(frozen=True)
class Figure:
    """A picture of the run.

    Args:
        title: its heading.
        caption: what is seen, and what is not to be concluded from it; the text for those who cannot see it too.
        png: the bytes of a PNG file.
    """

    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Report:
    """What a page tells of a run; the texts are plain, not HTML.

    Args:
        title: of the page.
        subtitle: one line below it.
        dataset: what was scored, e.g. "generated faces"; published rows of any other are marked so.
        notes: what this run is, and what it is not.
        evaluations: by the model's name, of test subjects.
        predictions: by the model's name; drawn by subject.
        histories: by the model's name, a row an epoch: epoch, train_loss, val_loss, val_balanced_accuracy;
            values that are missing or not finite are not drawn.
        figures: pictures, in order.
        facts: versions, seed, device, backends, fingerprints, split sizes, durations.
        warnings: of the run, beside those of the evaluations.
        published: figures of others, shown apart.
    """

    title: str
    subtitle: str
    dataset: str
    notes: Sequence[str]
    evaluations: Mapping[str, Evaluation]
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    histories: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    figures: Sequence[Figure] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    published: Sequence[Published] = ()


def write_report(path: Path, report: Report) -> None:
    """Write the page, under `MAX_BYTES`; pictures that do not fit are left out, and the page names them."""
    path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The page as HTML."""
    sections = [
        _section("Scores", _scores(report)),
        _section("What the numbers mean", _meaning(report)),
        _section("Class by class", _classes(report)),
        _section("Subject by subject", _subjects(report)),
        _section("What was scored", _counted(report)),
        _section("Learning curves", _curves(report)),
    ]
    ending = [
        _section(_published_title(report), _published(report)),
        _section("About this run", _facts(report)),
    ]
    head = _header(report)
    room = MAX_BYTES - sum(len(part.encode()) for part in [*sections, *ending, head]) - len(CSS) - 2_000
    body = "\n".join([head, *sections, _section("Pictures", _figures(report.figures, room)), *ending])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n"
        "<footer>Written by painseq. Research software, no medical device: not for diagnosis, treatment or monitoring "
        "of anybody.</footer>\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _header(report: Report) -> str:
    parts = [f'<header>\n<h1>{escape(report.title)}</h1>\n<p class="subtitle">{escape(report.subtitle)}</p>\n</header>']
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


def _scores(report: Report) -> str:
    if not report.evaluations:
        return ""
    return (
        f"<p>On {escape(report.dataset)}. Below each score is its 95 % interval over subjects; the grey rows need no "
        f"model at all.</p>{tables.headline(report.evaluations)}"
    )


def _meaning(report: Report) -> str:
    if not report.evaluations:
        return ""
    terms = {
        "Accuracy": "The share of clips labelled right. Where one class is frequent, always naming that class already "
        "scores high: compare with the majority class.",
        "Balanced accuracy": "The mean of the classes' recalls, so that each class weighs the same. Guessing, or "
        "always naming one class, gives 1 divided by the number of classes.",
        "Macro F1": "The mean over classes of F1, which is high only if a class is both found and not named too often.",
        "Quadratic kappa": "Agreement with the truth beyond chance, in which taking no pain for high pain weighs "
        "more than taking low pain for high pain. 0 is chance, 1 is perfect.",
        "Interval": "How far the score would vary if other people of the same kind had been recorded: subjects are "
        "drawn again, with all their clips. It does not hold what training again would change. Two models whose "
        "intervals overlap may still differ; that takes a paired comparison.",
        "Clips without a face": "They get no prediction. They are left out of every score, and counted.",
        "Not a medical device": "This is research software. A face is not pain: some people show little of strong "
        "pain, and a score on a group says nothing certain of one person.",
    }
    items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in terms.items())
    return f'<dl class="terms">{items}</dl>'


def _classes(report: Report) -> str:
    if not report.evaluations:
        return ""
    matrices = "".join(
        f"<div><h3>{escape(model)}</h3>{tables.confusion(evaluation.scores)}</div>"
        for model, evaluation in report.evaluations.items()
    )
    return (
        "<p>Recall: the share of a class's clips that were recognised.</p>"
        f"{tables.per_class(report.evaluations)}"
        "<p>Counts of clips, and their share of the row; the darker, the larger the share. The frame marks "
        f'what is right.</p><div class="matrices">{matrices}</div>'
    )


def _subjects(report: Report) -> str:
    table = tables.by_subject(report.evaluations, report.predictions)
    if not table:
        return ""
    return (
        "<p>Balanced accuracy within each subject, over the classes that the subject has; a dot is a person, the "
        f"dashed line is chance.</p>{table}"
    )


def _counted(report: Report) -> str:
    return tables.counted(report.evaluations) if report.evaluations else ""


def _curves(report: Report) -> str:
    parts = []
    for model, history in report.histories.items():
        evaluation = report.evaluations.get(model)
        pictures = learning_curves(history, None if evaluation is None else tables.chance(evaluation))
        images = [
            f'<img alt="{escape(f"{title} of {model} over {len(history)} epochs")}" '
            f'src="data:image/svg+xml;base64,{picture}">'
            for title, picture in pictures
        ]
        if images:
            parts.append(f'<figure><h3>{escape(model)}</h3><div class="curves">{"".join(images)}</div></figure>')
    return "".join(parts)


def _figures(figures: Sequence[Figure], room: int) -> str:
    parts, left_out = [], []
    for figure in figures:
        part = (
            f"<figure><h3>{escape(figure.title)}</h3>"
            f'<img alt="{escape(figure.caption)}" src="data:image/png;base64,{base64.b64encode(figure.png).decode()}">'
            f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
        )
        title = f"<li>{escape(figure.title)}</li>"
        if len(part.encode()) > room:
            left_out.append(title)
            room -= len(title.encode())
        else:
            parts.append(part)
            room -= len(part.encode())
    if left_out:
        parts.append(f"<p>Left out, since the page would exceed 5 MB:</p><ul>{''.join(left_out)}</ul>")
    return "".join(parts)


def _published_title(report: Report) -> str:
    same = any(row.dataset == report.dataset for row in report.published)
    return "Published results" if same else "Published results, on other data sets"


def _published(report: Report) -> str:
    if not report.published:
        return ""
    return (
        "<p>What others reported, with their protocol. Only the same data set, the same part and the same split "
        f"make two figures comparable.</p>{tables.published(report.published, report.dataset)}"
    )


def _facts(report: Report) -> str:
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in report.facts.items())
    return f"<dl>{items}</dl>" if items else ""
