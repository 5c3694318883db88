"""The files of an audit: report, tables and predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from painseq.evaluation.audit import AUDIT_STATISTICS, Audit, FoldProtocol, Inflation
from painseq.evaluation.leaky import mark
from painseq.files import write_csv, write_json
from painseq.report import Block, Picture, Report, write_figures, write_report
from painseq.report.charts import interval_rows
from painseq.report.probabilities import threshold_block
from painseq.studies.audit_folds import Overlap

COLUMNS = ("protocol", "score of", "statistic", "score", "95 % interval", "inflation", "its 95 % interval", "subjects")
NOTES = (
    "The same model was fitted on the same items under several protocols. Only what is kept together in a fold "
    "differs; "
    "head, settings, seed and number of folds are the same.",
    "Only the scores of subject folds hold for new subjects. Scores marked LEAKY are from protocols with the same "
    "subjects in training and test; do not cite them.",
)
QUESTIONS = (
    "Which units were divided into folds: frames, clips or subjects? Stratified folds are not subject folds unless the "
    "paper says so.",
    "Were any test subjects used for early stopping, a scaler, class weights, or the extractor?",
    "Is the score above always predicting the most frequent class, and is its interval over subjects?",
)


def write_audit(out: Path, audit: Audit, overlaps: Mapping[FoldProtocol, Overlap], facts: Mapping[str, str]) -> None:
    """Write report.html with its figures, audit.csv, predictions_<protocol>.csv and, as the last file, audit.json."""
    for result in audit.results:
        path = out / f"predictions_{result.protocol.name}.csv"
        result.predictions[audit.unit].write_csv(path)
        mark(path, "protocol", result.protocol.name)
    head = [*COLUMNS[:4], "low", "high", "inflation", "inflation_low", "inflation_high", "subjects"]
    write_csv(out / "audit.csv", [head, *_rows(audit)], spreadsheet=True)
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
    """Return rows of title, unit, statistic, score, low, high, inflation, its low, its high, subjects."""
    rows: list[Row] = []
    for name in AUDIT_STATISTICS:
        for unit in audit.subject_folds.evaluations:
            for result in audit.results:
                evaluation, interval = result.evaluations[unit], result.evaluations[unit].intervals[name]
                inflation = audit.inflation(result.protocol, unit, name)
                difference = None if inflation is None else inflation.difference
                rows.append(
                    (
                        result.protocol.title,
                        unit,
                        name,
                        evaluation.scores.value(name),
                        interval.low,
                        interval.high,
                        None if difference is None else difference.value,
                        None if difference is None else difference.interval.low,
                        None if difference is None else difference.interval.high,
                        interval.subjects,
                    )
                )
    return rows


def audit_cells(audit: Audit) -> list[list[str]]:
    """Return `_rows` as text, with the columns `COLUMNS`."""

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
            number(inflation, "+"),
            interval(inflation_low, inflation_high, "+"),
            str(subjects),
        ]
        for title, unit, name, value, low, high, inflation, inflation_low, inflation_high, subjects in _rows(audit)
    ]


def headlines(audit: Audit) -> list[Inflation]:
    """Return the inflations of balanced accuracy."""
    return [inflation for inflation in audit.inflations if inflation.statistic == "balanced_accuracy"]


def _report(audit: Audit, overlaps: Mapping[FoldProtocol, Overlap], facts: Mapping[str, str]) -> Report:
    subject_folds = audit.subject_folds
    divided = [
        [protocol.title, protocol.together, f"{shared.clips:.0%}", f"{shared.subjects:.0%}"]
        for protocol, shared in overlaps.items()
    ]
    claims = Block(
        "What leakage would have claimed",
        "\n\n".join(inflation.sentence() for inflation in headlines(audit))
        + "\n\nInflation is the score under the leaky protocol minus that under subject folds, paired by subject. "
        "Clips are labelled by the majority vote of their frames.",
        COLUMNS,
        audit_cells(audit),
        [_chart(audit, unit) for unit in subject_folds.evaluations],
    )
    division = Block(
        "How the items were divided",
        "The share of test items whose clip, or subject, was also trained on. Items for early stopping were drawn from "
        "the training side in the same way.",
        ("protocol", "kept together", "clip trained on", "subject trained on"),
        divided,
    )
    of_items = {result.protocol.title: result.evaluations[audit.unit].threshold for result in audit.results}
    tuned = threshold_block(of_items)
    thresholds = [] if tuned is None else [replace(tuned, title="Tuned threshold, by protocol")]
    return Report(
        title=f"Leakage audit of {facts['head']}",
        subtitle=f"{facts['data']}: {facts['items']}; {facts['folds']} folds of each protocol",
        dataset=facts["data"],
        notes=NOTES,
        evaluations={subject_folds.protocol.title: subject_folds.evaluations["clips"]},
        predictions={subject_folds.protocol.title: subject_folds.predictions["clips"]},
        facts=facts,
        blocks=[claims, *thresholds, division, Block("What to ask of a published score", "\n\n".join(QUESTIONS))],
    )


def _chart(audit: Audit, unit: str) -> Picture:
    rows = [
        (title, value, low, high)
        for title, scored_unit, name, value, low, high, *_ in _rows(audit)
        if scored_unit == unit and name == "balanced_accuracy"
    ]
    scores = "; ".join(f"{title} {value:.3f}" for title, value, _, _ in rows if value is not None)
    chance = 1 / len(audit.subject_folds.predictions["clips"].class_names)
    drawn = interval_rows(rows, chance, f"balanced accuracy over {unit}")
    return Picture(f"Balanced accuracy over {unit}: {scores}", drawn, ("protocol", "score", "low", "high"), rows)
