import csv
import dataclasses
import json
import math

import numpy as np
import pytest

from painseq.evaluation import probability_scores, score
from painseq.evaluation.people import Person
from painseq.report import Block, Picture, write_figures
from painseq.report.curves import DRAWN_POINTS, rank_curves
from painseq.report.page import blocks_of
from painseq.report.tables import subject_scores


@pytest.fixture
def written(tmp_path, a_report, predicted):
    made = predicted()
    people = {who: Person("fm"[i % 2], 30) for i, who in enumerate(sorted(set(made.subject_ids)))}
    block = Block(
        "Transfer: A → B", "", ["", "score"], [["a", "0.5"]], [Picture("x", b"<svg/>", ("k", "score"), [(1, 0.5)])]
    )
    report = a_report(
        evaluations={"LSTM": score(made, people)},
        predictions={"LSTM": made},
        blocks=[block, block, Block("Scores", columns=["", "x"], rows=[["a", "b"]])],
    )
    write_figures(tmp_path / "figures", report)
    return tmp_path / "figures", report


def read(folder, name):
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_and_json_hold_the_same_numbers(written):
    folder, _ = written
    content = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    assert {path.stem for path in folder.glob("*.csv")} == set(content)
    for name, table in content.items():
        with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        assert head == table["columns"]
        assert rows == [["" if cell is None else str(cell) for cell in row] for row in table["rows"]]
        assert all(len(row) == len(head) for row in rows)


def test_every_number_of_the_evaluation_is_there_at_full_precision(written):
    folder, report = written
    evaluation = report.evaluations["LSTM"]
    scores = {row["statistic"]: row for row in read(folder, "scores")}
    for name, interval in evaluation.intervals.items():
        if name in scores:
            shown = [float(scores[name][key]) for key in ("value", "low", "high")]
            assert shown == [evaluation.value(name), interval.low, interval.high]
    assert {"accuracy", "balanced_accuracy", "auroc", "ece"} <= set(scores)
    counts = [float(row["clips"]) for row in read(folder, "confusion")]
    assert counts == [count for row in evaluation.scores.confusion for count in row]
    assert [float(row["recall"]) for row in read(folder, "by_class")] == list(evaluation.scores.recall)
    people = {row["subject_id"]: float(row["balanced_accuracy"]) for row in read(folder, "by_subject")}
    assert people == subject_scores(report.predictions["LSTM"])
    assert [float(row["train_loss"]) for row in read(folder, "learning_curves")] == [1, 1 / 2, 1 / 3, 1 / 4]
    (first, *_) = read(folder, "subgroups")
    assert (first["group"], float(first["value"])) == ("f", evaluation.subgroups[0].scores.accuracy)


def test_every_chart_of_a_block_has_its_numbers_and_its_svg(written):
    folder, report = written
    content = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    for block in blocks_of(report):
        for number, picture in enumerate(block.pictures, 1):
            (name,) = [name for name, table in content.items() if table["title"] == picture.alt]
            assert name.endswith(f"-chart-{number}")
            assert len(content[name]["rows"]) == len(picture.rows) > 0
            assert (folder / f"{name}.svg").read_bytes() == picture.svg


def test_reliability_and_curves_are_those_of_the_evaluation(written):
    folder, report = written
    evaluation = report.evaluations["LSTM"]
    bins = read(folder, "probabilities-chart-3")
    diagram = evaluation.probability.reliability
    assert [int(row["clips"]) for row in bins] == list(diagram.clips)
    assert [row["accuracy"] for row in bins] == ["" if value is None else str(value) for value in diagram.accuracy]
    roc = [row for row in read(folder, "probabilities-chart-1") if row["class"] == "High Pain"]
    x, y = ([float(row[f"{kind} positive rate"]) for row in roc] for kind in ("false", "true"))
    area = sum((b - a) * (u + v) / 2 for a, b, u, v in zip(x, x[1:], y, y[1:], strict=False))
    assert area == pytest.approx(evaluation.probability.auroc_by_class[2])
    # The first threshold, above every probability, is infinite.
    assert roc[0]["threshold"] == ""
    assert all(math.isfinite(float(row["threshold"])) for row in roc[1:])


def test_blocks_of_one_title_do_not_overwrite_each_other(written):
    folder, _ = written
    assert len(list(folder.glob("transfer_a_b*.csv"))) == 4
    assert len(list(folder.glob("transfer_a_b*.svg"))) == 2
    assert read(folder, "scores-2") == [{"": "a", "x": "b"}]


def test_what_the_page_does_not_show_has_no_file(tmp_path, a_report):
    write_figures(tmp_path, a_report(evaluations={}, predictions={}, histories={}, published=()))
    assert list(tmp_path.glob("*.csv")) == []
    assert json.loads((tmp_path / "figures.json").read_text()) == {}


def test_names_that_a_spreadsheet_would_run_are_text(tmp_path, a_report, predicted):
    made = predicted(names=("=1+1", "Low Pain", "High Pain"))
    write_figures(tmp_path / "figures", a_report("@model", made=made))
    assert {row["model"] for row in read(tmp_path / "figures", "scores")} == {"'@model"}
    assert read(tmp_path / "figures", "by_class")[0]["class"] == "'=1+1"
    assert all(row["subject_id"].startswith("'=") for row in read(tmp_path / "figures", "by_subject"))


def test_curves_of_many_clips_have_a_limit_of_points_and_the_areas_of_all(predicted):
    made = predicted(subjects=800)
    noise = np.random.default_rng(1).dirichlet([1, 1, 1], len(made))
    made = dataclasses.replace(made, probabilities=(made.probabilities + noise) / 2)
    for curve, area in zip(rank_curves(made), probability_scores(made).auprc_by_class, strict=True):
        assert len(curve.recall) == DRAWN_POINTS and len(curve.false_positive_rate) <= DRAWN_POINTS
        assert (curve.recall[0], curve.recall[-1], curve.precision[-1]) == (1, 0, 1)
        assert curve.auprc == pytest.approx(area, abs=1e-12)
