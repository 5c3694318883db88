import dataclasses
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from painseq.evaluation.probability import probability_scores
from painseq.report.canvas import DASHES, LINES, MARKERS, line_look, luminance, readable, shades_of
from painseq.report.charts import heat_map, interval_curves, interval_rows
from painseq.report.curves import rank_curves


def texts(svg: bytes) -> list[str]:
    """The texts of an SVG file, which must be well-formed."""
    return [
        "".join(element.itertext()) for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")
    ]


@pytest.mark.parametrize("kind", ["random", "ties", "certain"])
@pytest.mark.parametrize("seed", range(3))
def test_curves_and_areas_are_those_of_scikit_learn(predicted, kind, seed):
    p = predicted(seed)
    if kind == "ties":
        p = p.only(p.scored)
        p = dataclasses.replace(p, probabilities=np.array([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]])[p.label % 2])
    if kind == "certain":
        p = dataclasses.replace(p, probabilities=np.where(p.label[:, None] < 0, np.nan, np.eye(3)[p.label]))
    rows = p.scored
    curves = rank_curves(p)
    scores = probability_scores(p)
    assert [curve.class_name for curve in curves] == list(p.class_names)
    for index, curve in enumerate(curves):
        positive, probability = p.truth[rows] == index, p.probabilities[rows, index]
        false_rate, true_rate, _ = roc_curve(positive, probability)
        np.testing.assert_allclose(curve.false_positive_rate, false_rate)
        np.testing.assert_allclose(curve.true_positive_rate, true_rate)
        precision, recall, _ = precision_recall_curve(positive, probability, drop_intermediate=True)
        np.testing.assert_allclose(curve.precision, precision)
        np.testing.assert_allclose(curve.recall, recall)
        assert curve.share == positive.mean()
        # What the chart prints is what the table beside it says.
        assert curve.auroc == pytest.approx(roc_auc_score(positive, probability))
        assert curve.auroc == pytest.approx(scores.auroc_by_class[index])
        assert curve.auprc == pytest.approx(average_precision_score(positive, probability))
        assert curve.auprc == pytest.approx(scores.auprc_by_class[index])


def test_classes_that_none_or_all_clips_have_get_no_curve(predicted):
    p = predicted()
    assert [curve.class_name for curve in rank_curves(p.only(p.truth != 0))] == ["Low Pain", "High Pain"]
    assert rank_curves(p.only(p.truth == 1)) == []
    assert rank_curves(p.only([])) == []


def test_shades_grow_lighter_with_the_value_and_keep_their_text_readable():
    shades = shades_of(np.linspace(-0.2, 1.2, 300), 0, 1)
    grey = [luminance(shade) for shade in shades]
    assert np.all(np.diff(grey) >= 0)
    assert grey[250] - grey[50] > 0.4
    for light, shade in zip(grey, shades, strict=True):
        ink = 0.0 if readable(shade) == "#000000" else 1.0
        assert (max(light, ink) + 0.05) / (min(light, ink) + 0.05) >= 4.5


def test_lines_differ_without_their_colour():
    assert len(LINES) == len(DASHES) == len(MARKERS)
    for first, second in combinations(range(len(LINES)), 2):
        assert line_look(first)[0] != line_look(second)[0]
        assert line_look(first)[1] != line_look(second)[1]


def test_a_heat_map_prints_each_number_and_a_dash_for_none():
    svg = heat_map(
        [[0.123, np.nan], [0.9, 2.0]], ["a", "$x_1$"], ["b", "_c"], 0, 1, "title", [["n1", "n2"], ["", "n4"]]
    )
    shown = texts(svg)
    for text in ("0.123", "–", "0.900", "2.000", "n1", "n2", "n4", "a", "$x_1$", "b", "_c", "title"):
        assert text in shown
    assert b"<image" not in svg


@pytest.mark.parametrize("values", [[[0.5]], [[np.nan]], [[0.5, 0.5], [0.5, 0.5]], [[-1e9, 1e9]]])
def test_heat_maps_of_odd_numbers_are_drawn(values):
    names = [str(n) for n in range(2)]
    assert texts(heat_map(values, names[: len(values)], names[: len(values[0])], 0.5, 0.5, ""))


def test_curves_take_missing_intervals_and_gaps():
    nan = np.nan
    svg = interval_curves(
        {"_one": ([1, 2, 4], [0.3, nan, 0.5], [0.2, nan, nan], [0.4, nan, nan]), "two": ([1], [0.5], None, None)},
        "subjects",
        "score",
        0.33,
    )
    shown = texts(svg)
    for text in ("_one", "two", "chance", "subjects", "score", "1", "2", "4"):
        assert text in shown
    assert "chance" not in texts(interval_curves({"two": ([1], [0.5], None, None)}, "x", "y"))
    assert "chance" in texts(interval_curves({}, "x", "y", 0.0))


def test_rows_without_a_value_or_an_interval_are_named():
    shown = texts(interval_rows([("all", 0.5, 0.4, 0.6), ("no interval", 0.5, None, None), ("nothing",) + (None,) * 3]))
    assert {"all", "no interval", "nothing"} <= set(shown)
    assert interval_rows([])


def test_leaky_values_are_drawn_otherwise():
    for draw in (
        lambda name: interval_rows([(name, 0.5, 0.4, 0.6)]),
        lambda name: interval_curves({name: ([1, 2], [0.5, 0.6], None, None)}, "x", "y"),
    ):
        assert draw("LEAKY").replace(b"LEAKY", b"CLEAN") != draw("CLEAN")


@pytest.mark.parametrize("name", ["a long name " * 12 + "(LEAKY)", "my_network_in_frame_kfold_LEAKY_of_2024"])
def test_leaky_stays_in_a_name_that_is_cut_or_divided(name):
    def words(chart):
        return " ".join(texts(chart))

    assert "LEAKY" in words(interval_rows([(name, 0.5, 0.4, 0.6)]))
    assert "LEAKY" in words(interval_curves({name: ([1, 2], [0.5, 0.6], None, None)}, "x", "y"))
    assert "LEAKY" in words(heat_map([[0.1]], ["r"], [name], 0, 1, "t"))


def test_the_same_numbers_give_the_same_file():
    def draw():
        return heat_map([[0.1, 0.2]], ["a"], ["b", "c"], 0, 1, "t") + interval_rows([("a", 0.5, 0.4, 0.6)], 0.3, "x")

    assert draw() == draw()
