"""The page's tables, as HTML; every text that comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from painseq.evaluation.metrics import STATISTICS, Scores, balanced_accuracy, confusion_by_subject
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.published import REMARKS, Published
from painseq.evaluation.score import TITLES, Evaluation, number, shared_baselines
from painseq.report.canvas import readable
from painseq.report.inline import axis, dot_chart, interval_chart


def _scroll(table: str) -> str:
    return f'<div class="scroll">{table}</div>'


def _head(cells: Sequence[str]) -> str:
    """A head row of cells that are HTML already."""
    return "<thead><tr>" + "".join(f'<th scope="col">{cell}</th>' for cell in cells) + "</tr></thead>"


def words(text: str) -> str:
    """A text from outside as HTML; the word LEAKY stands in a frame, which is seen without colour too."""
    return escape(text).replace("LEAKY", '<strong class="leaky">LEAKY</strong>')


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts as they are; the first of each row names it, and columns of numbers stand to the right."""
    kinds = ["" if all(_numeric(cell) for cell in column) else ' class="text"' for column in zip(*rows, strict=True)]
    head = "".join(f'<th scope="col"{kind}>{words(name)}</th>' for kind, name in zip(kinds, columns, strict=True))
    lines = []
    for name, *cells in rows:
        shown = "".join(
            f"<td{kind}>{words(cell) if kind else _stacked(cell)}</td>"
            for kind, cell in zip(kinds[1:], cells, strict=True)
        )
        lines.append(f'<tr><th scope="row">{words(name)}</th>{shown}</tr>')
    return _scroll(f'<table class="wide rows"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>')


def _numeric(cell: str) -> bool:
    """Whether a cell begins as a number does, whatever follows it."""
    return cell in ("", "–") or cell.lstrip("+-−")[:1].isdigit()


def _stacked(cell: str) -> str:
    """A number, and below it what stands in brackets behind it, such as its interval."""
    value, bracket, behind = cell.partition(" (")
    if not bracket or not behind.endswith(")"):
        return words(cell)
    return f'{words(value)}<span class="small keep">{words(behind[:-1])}</span>'


def headline(evaluations: Mapping[str, Evaluation]) -> str:
    """A row a model with its intervals, then the baselines; balanced accuracy is drawn too."""
    rows = []
    for model, evaluation in evaluations.items():
        cells = []
        for name in STATISTICS:
            interval = evaluation.intervals.get(name)
            span = "no interval"
            if interval is not None and interval.low is not None:
                span = f"{number(interval.low)} to {number(interval.high)}"
                if interval.low == interval.high:
                    # Subjects without a difference tell nothing of how far others would lie apart.
                    span = "interval of no width"
            value = number(evaluation.scores.value(name))
            cells.append(f'<td><b>{value}</b><span class="small keep">{span}</span></td>')
        rows.append(f'<tr><th scope="row">{words(model)}</th>{"".join(cells)}<td>{_drawn(evaluation)}</td></tr>')
    for name, baseline in shared_baselines(evaluations):
        values = "".join(f"<td>{number(baseline.scores.value(key))}</td>" for key in STATISTICS)
        rows.append(f'<tr class="baseline"><th scope="row">{escape(name)}</th>{values}<td></td></tr>')
    rules = dict.fromkeys(f"{baseline.name}: {baseline.rule}" for _, baseline in shared_baselines(evaluations))
    columns = [TITLES[name] for name in STATISTICS]
    drawn = f"Balanced accuracy, dashed: chance{axis('scale from 0 to 1')}"
    table = f'<table class="wide rows">{_head(["", *columns, drawn])}<tbody>{"".join(rows)}</tbody></table>'
    return f'{_scroll(table)}<p class="aside">{escape("; ".join(rules))}.</p>'


def _drawn(evaluation: Evaluation) -> str:
    value, interval = evaluation.scores.balanced_accuracy, evaluation.intervals.get("balanced_accuracy")
    if value is None:
        return ""
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return interval_chart(value, low, high, chance(evaluation))


def chance(evaluation: Evaluation) -> float | None:
    """Balanced accuracy of guessing."""
    return next((b.scores.balanced_accuracy for b in evaluation.baselines if b.name == "chance"), None)


def per_class(evaluations: Mapping[str, Evaluation]) -> str:
    """Recall of each class as a bar, precision and F1 below it."""
    tables = []
    for class_names, models in _by_classes(evaluations).items():
        rows = []
        for model, scores in models.items():
            cells = []
            for recall, precision, f1, support in zip(
                scores.recall, scores.precision, scores.f1, scores.support, strict=True
            ):
                if not support:
                    cells.append('<td>–<span class="small">not in the truth</span></td>')
                    continue
                zero = ' class="zero"' if recall == 0 else ""
                cells.append(
                    f'<td><span{zero}>{recall:.3f}</span> <span class="of">of {support:g}</span>'
                    f'<span class="bar"><span style="width:{recall:.1%}"></span></span>'
                    f'<span class="small">precision {precision:.2f}, F1 {f1:.2f}</span></td>'
                )
            rows.append(f'<tr><th scope="row">{words(model)}</th>{"".join(cells)}</tr>')
        head = _head(["Recall of", *map(escape, class_names)])
        tables.append(_scroll(f'<table class="wide rows">{head}<tbody>{"".join(rows)}</tbody></table>'))
    return "".join(tables)


def _by_classes(evaluations: Mapping[str, Evaluation]) -> dict[tuple[str, ...], dict[str, Scores]]:
    groups: dict[tuple[str, ...], dict[str, Scores]] = {}
    for model, evaluation in evaluations.items():
        groups.setdefault(evaluation.scores.class_names, {})[model] = evaluation.scores
    return groups


def confusion(scores: Scores) -> str:
    """Counts, with the share of the row by shade: from white to dark, so that grey keeps the order."""
    rows = []
    for i, (name, counts) in enumerate(zip(scores.class_names, scores.confusion, strict=True)):
        total = sum(counts)
        cells = []
        for j, count in enumerate(counts):
            share = count / total if total else 0.0
            red, green, blue = (round(255 + share * (dark - 255)) for dark in (12, 52, 92))
            ink = readable((red / 255, green / 255, blue / 255))
            hit = ' class="hit"' if i == j else ""
            percent = f"{share:.0%}" if total else "–"
            cells.append(
                f'<td{hit} style="background:rgb({red},{green},{blue});color:{ink}">{count:,}'
                f'<span class="small">{percent}</span></td>'
            )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    head = _head(["truth ↓ &nbsp; said →", *map(escape, scores.class_names)])
    return _scroll(f'<table class="matrix">{head}<tbody>{"".join(rows)}</tbody></table>')


def by_subject(evaluations: Mapping[str, Evaluation], predictions: Mapping[str, Predictions]) -> str:
    """A strip of dots a model, one dot a subject, with the lowest, median and highest subject."""
    rows = []
    for model, said in predictions.items():
        values = subject_scores(said)
        if not values:
            continue
        ordered = sorted(values.values())
        middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        reference = chance(evaluations[model]) if model in evaluations else None
        behind = "" if reference is None else f"{sum(value <= reference + 1e-9 for value in ordered)} of {len(ordered)}"
        cells = "".join(f"<td>{value:.3f}</td>" for value in (ordered[0], middle, ordered[-1]))
        rows.append(
            f'<tr><th scope="row">{words(model)}</th><td>{dot_chart(values, reference)}</td>{cells}'
            f"<td>{behind or '–'}</td></tr>"
        )
    if not rows:
        return ""
    head = _head(["", axis("scale from 0 to 1"), "Lowest", "Median", "Highest", "At or below chance"])
    return _scroll(f'<table class="wide rows">{head}<tbody>{"".join(rows)}</tbody></table>')


def subject_scores(predictions: Predictions) -> dict[str, float]:
    """Balanced accuracy of each subject with a scored clip, over the classes that the subject has."""
    subjects, matrices = confusion_by_subject(
        predictions.truth, predictions.label, predictions.subject_ids, len(predictions.class_names)
    )
    return dict(zip(subjects, balanced_accuracy(matrices).tolist(), strict=True))


def counted(evaluations: Mapping[str, Evaluation]) -> str:
    """How many clips were scored, and which were not."""
    rows = []
    for model, evaluation in evaluations.items():
        counts = evaluation.counts
        missing = [
            f'<span class="keep">{escape(name)} {n}</span>'
            for name, n in counts.without_prediction_by_class.items()
            if n
        ]
        per_class = f'<span class="small">{", ".join(missing)}</span>' if missing else ""
        people = len(counts.without_prediction_by_subject)
        whose = f'<span class="small">of {people} subject{"s" if people > 1 else ""}</span>' if people else ""
        faceless = "not known"
        if counts.frames is not None and counts.faceless is not None:
            faceless = f"{counts.faceless:,} of {counts.frames:,}"
        rows.append(
            f'<tr><th scope="row">{words(model)}</th><td>{counts.clips:,}</td><td>{counts.scored:,}</td>'
            f"<td>{counts.subjects:,}</td><td>{counts.without_prediction:,}{per_class}{whose}</td>"
            f"<td>{counts.hidden:,}</td><td>{faceless}</td></tr>"
        )
    columns = ["", "Clips", "Scored", "Subjects", "Without a prediction", "Truth hidden", "Frames without a face"]
    return _scroll(f'<table class="wide rows">{_head(columns)}<tbody>{"".join(rows)}</tbody></table>')


def published(rows: Sequence[Published], dataset: str) -> str:
    """A table for each data set, each headed by whether it is this run's."""
    parts = []
    for name in dict.fromkeys(row.dataset for row in rows):
        same = name == dataset
        standing = "the data set of this run; compare part and protocol first" if same else "another data set"
        parts.append(f"<h3>{escape(name)} <em>({standing})</em></h3>")
        if name in REMARKS:
            parts.append(f"<p>{escape(REMARKS[name])}</p>")
        lines = [
            f'<tr><th scope="row">{escape(row.name)}<span class="small">{escape(row.protocol)}</span></th>'
            f'<td class="text">{escape(row.modality)}</td><td class="text">{escape(row.part or "–")}</td>'
            f'<td class="text">{escape(row.metric)}</td><td>{_as_printed(row.value)}{_remark(row)}</td>'
            f'<td class="text">{escape(_source(row))}</td></tr>'
            for row in rows
            if row.dataset == name
        ]
        head = _head(["Entry, protocol", "Modality", "Part", "Metric", "Value", "Source"])
        parts.append(_scroll(f'<table class="wide published">{head}<tbody>{"".join(lines)}</tbody></table>'))
    return "".join(parts)


def _remark(row: Published) -> str:
    return f'<span class="small">{escape(row.against_majority)}</span>' if row.against_majority else ""


def _as_printed(value: float) -> str:
    return f"{value:.2f}" if round(value, 2) == value else f"{value:g}"


def _source(row: Published) -> str:
    return row.source if row.standing in row.source else f"{row.source} ({row.standing})"
