"""What an audit of a model writes: a page for reviewers, tables, predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from painseq.evaluation.audit import AUDIT_STATISTICS, Audit, FoldProtocol, Inflation
from painseq.evaluation.leaky import mark
from painseq.files import write_csv, write_json
from painseq.report import Block, Picture, Report, write_figures, write_report
from painseq.report.charts import interval_rows
from painseq.studies.audit_folds import Overlap

COLUMNS = ("protocol", "score of", "statistic", "score", "95 % interval", "inflation", "its 95 % interval", "subjects")
NOTES = (
    "The same model was fitted on the same items under several protocols. Nothing differs but what is kept together in "
    "a fold: not the head, the settings, the seed or the number of folds.",
    "Only the figures of subject folds say something of a new person. Whatever is marked LEAKY is what the model would "
    "have claimed under a protocol that puts people on both sides; it is no score to be cited.",
)
QUESTIONS = (
    "Which units were dealt out to the folds: frames, clips or people? Stratified folds are no subject folds unless "
    "the paper says so.",
    "Was anybody who is tested seen by early stopping, a scaler, class weights, or the extractor?",
    "Is the score above always naming the most frequent class, and is its interval over subjects?",
)


def write_audit(out: Path, audit: Audit, overlaps: Mapping[FoldProtocol, Overlap], facts: Mapping[str, str]) -> None:
    """Write report.html with its figures, audit.csv, predictions_<protocol>.csv and, last of all, audit.json."""
    for result in audit.results:
        path = out / f"predictions_{result.protocol.name}.csv"
        result.predictions[audit.unit].write_csv(path)
        mark(path, "protocol", result.protocol.name)
    head = [*COLUMNS[:4], "low", "high", "inflation", "inflation_low", "inflation_high", "subjects"]
    write_csv(out / "audit.csv", [head, *_rows(audit)])
    report = _report(audit, overlaps, facts)
    write_report(out / "report.html", report)
    write_figures(out / "figures", report)
    shares = {
        protocol.name: {"of_items_tested_clip_trained_on": shared.clips, "person_trained_on": shared.subjects}
        for protocol, shared in overlaps.items()
    }
    write_json(out / "audit.json", {**audit.to_dict(), "overlap": shares, "facts": dict(facts)})


Row = tuple[str, str, str, float | None, float | None, float | None, float | None, float | None, float | None, int]


def _rows(audit: Audit) -> list[Row]:
    """Title, unit, statistic, score, low, high, inflation, its low, its high, subjects."""
    rows: list[Row] = []
    for name in AUDIT_STATISTICS:
        for unit in audit.subject_folds.evaluations:
            for result in audit.results:
                found, own = result.evaluations[unit], result.evaluations[unit].intervals[name]
                more = audit.inflation(result.protocol, unit, name)
                above = None if more is None else more.difference
                rows.append(
                    (
                        result.protocol.title,
                        unit,
                        name,
                        found.scores.value(name),
                        own.low,
                        own.high,
                        None if above is None else above.value,
                        None if above is None else above.interval.low,
                        None if above is None else above.interval.high,
                        own.subjects,
                    )
                )
    return rows


def audit_cells(audit: Audit) -> list[list[str]]:
    """`_rows` in words, as `COLUMNS`."""

    def number(value: float | None, sign: str = "") -> str:
        return "" if value is None else f"{value:{sign}.3f}"

    def interval(low: float | None, high: float | None, sign: str = "") -> str:
        return "" if low is None or high is None else f"{low:{sign}.3f} to {high:{sign}.3f}"

    return [
        [
            title,
            unit,
            name.replace("_", " "),
            number(value),
            interval(low, high),
            number(more, "+"),
            interval(more_low, more_high, "+"),
            str(subjects),
        ]
        for title, unit, name, value, low, high, more, more_low, more_high, subjects in _rows(audit)
    ]


def headlines(audit: Audit) -> list[Inflation]:
    """The inflations of balanced accuracy."""
    return [found for found in audit.inflations if found.statistic == "balanced_accuracy"]


def _report(audit: Audit, overlaps: Mapping[FoldProtocol, Overlap], facts: Mapping[str, str]) -> Report:
    honest = audit.subject_folds
    divided = [
        [protocol.title, protocol.together, f"{shared.clips:.0%}", f"{shared.subjects:.0%}"]
        for protocol, shared in overlaps.items()
    ]
    claims = Block(
        "What leakage would have claimed",
        "\n\n".join(found.sentence() for found in headlines(audit))
        + "\n\nInflation is the score under the leaky protocol minus that under subject folds, paired by subject. "
        "Clips are labelled by the majority vote of their frames.",
        COLUMNS,
        audit_cells(audit),
        [_chart(audit, unit) for unit in honest.evaluations],
    )
    division = Block(
        "How the items were divided",
        "The share of the items tested whose clip, or whose person, was trained on as well. Those of early stopping "
        "were drawn from the training side in the same way.",
        ("protocol", "kept together", "clip trained on", "person trained on"),
        divided,
    )
    return Report(
        title=f"Leakage audit of {facts['head']}",
        subtitle=f"{facts['data']}: {facts['items']}; {facts['folds']} folds of each protocol",
        dataset=facts["data"],
        notes=NOTES,
        evaluations={honest.protocol.title: honest.evaluations["clips"]},
        predictions={honest.protocol.title: honest.predictions["clips"]},
        facts=facts,
        blocks=[claims, division, Block("What to ask of a published score", "\n\n".join(QUESTIONS))],
    )


def _chart(audit: Audit, unit: str) -> Picture:
    rows = [
        (title, value, low, high)
        for title, of, name, value, low, high, *_ in _rows(audit)
        if of == unit and name == "balanced_accuracy"
    ]
    scores = "; ".join(f"{title} {value:.3f}" for title, value, _, _ in rows if value is not None)
    chance = 1 / len(audit.subject_folds.predictions["clips"].class_names)
    drawn = interval_rows(rows, chance, f"balanced accuracy over {unit}")
    return Picture(f"Balanced accuracy over {unit}: {scores}", drawn, ("protocol", "score", "low", "high"), rows)
