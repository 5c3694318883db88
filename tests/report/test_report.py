import base64
import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from painseq.evaluation import PUBLISHED, Predictions, score
from painseq.evaluation.calibration import calibrate
from painseq.evaluation.people import Person
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.evaluation.value_scores import score_values
from painseq.report import Block, Figure, Picture, value_blocks, write_figures, write_report

HOSTILE = '<script>alert("x")</script> & "$\\frac{1$ \' --> ]]>'
VOID = {"meta", "img"}


class Elements(HTMLParser):
    """Elements and attributes of a page, and whether every element is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text, self.headings = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def parse(report, tmp_path) -> tuple[str, Elements, str]:
    path = tmp_path / "report.html"
    write_report(path, report)
    page = path.read_text(encoding="utf-8")
    elements = Elements()
    elements.feed(page)
    assert elements.open == []
    return page, elements, " ".join(" ".join(elements.text).split())


def in_order(text, *values) -> bool:
    """Whether the values follow each other, with no other number between."""
    return re.search(r"[^0-9]{1,40}".join(re.escape(value) for value in values), text) is not None


def test_the_page_holds_everything_and_fetches_nothing(tmp_path, a_report):
    page, elements, _ = parse(a_report(), tmp_path)
    assert not {tag for tag, _ in elements.seen} & {"script", "link", "iframe", "object", "base", "form"}
    for tag, attributes in elements.seen:
        for key in ("src", "href", "xlink:href", "srcset", "data"):
            assert attributes.get(key, "data:").startswith("data:"), (tag, key)
    assert not re.search(r"url\(|@import|https?://", page)
    assert len(page) < 1_000_000


def test_every_picture_has_a_text(tmp_path, a_report):
    _, elements, _ = parse(a_report(), tmp_path)
    pictures = [attributes for tag, attributes in elements.seen if tag == "img"]
    assert len(pictures) == 1 + 2 + 3
    assert all(attributes["alt"] for attributes in pictures)
    assert all(attributes["aria-label"] for tag, attributes in elements.seen if tag == "svg")


def test_the_numbers_are_there(tmp_path, a_report):
    report = a_report()
    evaluation = report.evaluations["LSTM"]
    _, _, text = parse(report, tmp_path)
    for name, interval in evaluation.intervals.items():
        assert f"{evaluation.value(name):.3f}" in text
        assert in_order(text, f"{interval.low:.3f}", f"{interval.high:.3f}")
    for row in evaluation.scores.confusion:
        for count in row:
            assert f" {count} " in text
    for recall in evaluation.scores.recall:
        assert f"{recall:.3f}" in text
    for words in (*(baseline.name for baseline in evaluation.baselines), "medical", *evaluation.warnings):
        assert words in text


def test_published_rows_stand_apart(tmp_path, a_report):
    def headings(page):
        return {name: re.search(rf"<h3>{name}.*?</h3>", page)[0] for name in ("AI4Pain 2024", "BioVid")}

    report = a_report()
    page, _, text = parse(report, tmp_path)
    assert text.index("AI4Pain 2024") > text.index(f"{report.evaluations['LSTM'].scores.accuracy:.3f}")
    assert all(row.standing in text for row in PUBLISHED)
    of_others = headings(page)
    page, _, _ = parse(a_report(dataset="AI4Pain 2024"), tmp_path)
    # The data set of the run itself is told from the others.
    assert headings(page)["AI4Pain 2024"] != of_others["AI4Pain 2024"]
    assert headings(page)["BioVid"] == of_others["BioVid"]


def test_names_from_outside_are_text_and_never_markup(tmp_path, a_report, predicted):
    names = (f"a{HOSTILE}", f"b{HOSTILE}", f"c{HOSTILE}")
    page, elements, text = parse(a_report(HOSTILE, HOSTILE, predicted(names=names), dataset=HOSTILE), tmp_path)
    assert "script" not in {tag for tag, _ in elements.seen}
    assert "<script" not in page
    assert " ".join(names[0].split()) in text
    assert not any(key.startswith("on") for _, attributes in elements.seen for key in attributes)


def test_pictures_that_do_not_fit_are_left_out_and_named(tmp_path, a_report, png):
    big = png(1100, 1000, noise=True)
    assert len(big) > 3_000_000
    figures = [Figure(f"figure-{n}", "x", made) for n, made in enumerate((big, big, png()), 1)]
    _, elements, text = parse(a_report(figures=figures), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    assert all(figure.title in text for figure in figures)
    inside = [a["src"] for tag, a in elements.seen if tag == "img" and a["src"].startswith("data:image/png")]
    assert [base64.b64decode(src.partition(",")[2]) for src in inside][1] == png()


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"evaluations": {}, "predictions": {}, "histories": {}, "figures": (), "facts": {}, "published": ()}, 10),
        ({"histories": {"LSTM": [{"epoch": 0.0, "train_loss": float("nan")}], "never ran": []}}, 1),
        ({"predictions": {}}, 1),
        ({"notes": [], "warnings": []}, 0),
    ],
)
def test_what_is_absent_has_no_heading(tmp_path, changes, absent, a_report):
    _, whole, _ = parse(a_report(), tmp_path)
    _, elements, text = parse(a_report(**changes), tmp_path)
    assert "nan" not in text.lower()
    assert len(set(whole.headings) - set(elements.headings)) == absent


def test_a_class_that_is_not_in_the_truth_has_no_recall(tmp_path, a_report, predicted):
    made = predicted()
    whole, _, _ = parse(a_report(made=made), tmp_path)
    page, _, _ = parse(a_report(made=made.only(made.truth != 2)), tmp_path)
    assert (whole.count("<td>–<"), page.count("<td>–<")) == (0, 1)


def test_an_interval_of_no_width_is_said_to_have_none(tmp_path, a_report, predicted):
    """Where all people score alike, two equal ends would look like certainty."""
    made = predicted(subjects=12).only(np.arange(9, 108))
    made = dataclasses.replace(made, label=made.truth, probabilities=np.eye(3)[made.truth])
    evaluation = score(made, {who: Person("fm"[n % 2]) for n, who in enumerate(sorted(set(made.subject_ids)))})
    _, _, text = parse(a_report(evaluations={"LSTM": evaluation}, predictions={"LSTM": made}), tmp_path)
    assert text.count("width") >= 2 and not re.search(r"1\.000 (to|–|-) 1\.000", text)


def test_nothing_scored_still_gives_a_page(tmp_path, a_report, predicted):
    made = predicted()
    report = a_report(made=made.only(made.label < 0))
    _, _, text = parse(report, tmp_path)
    assert report.evaluations["LSTM"].warnings[0] in text


def test_the_same_run_gives_the_same_page(tmp_path, a_report):
    assert parse(a_report(), tmp_path)[0] == parse(a_report(), tmp_path)[0]


def charts(elements) -> list[ElementTree.Element]:
    """The SVG files inside the page, parsed as XML."""
    sources = [attributes["src"] for tag, attributes in elements.seen if tag == "img"]
    head = "data:image/svg+xml;base64,"
    return [ElementTree.fromstring(base64.b64decode(src[len(head) :])) for src in sources if src.startswith(head)]


def test_charts_of_hostile_names_are_well_formed_and_fetch_nothing(tmp_path, a_report, predicted):
    names = (f"a{HOSTILE}", "_b\x00\u202e", f"c{HOSTILE}")
    _, elements, _ = parse(a_report(f"{HOSTILE}痛み", HOSTILE, predicted(names=names)), tmp_path)
    made = charts(elements)
    assert len(made) == 2 + 3
    for chart in made:
        for element in chart.iter():
            assert "script" not in element.tag
            for key, value in element.attrib.items():
                assert not key.startswith("on")
                assert not key.endswith("href") or value.startswith("#")


def test_probabilities_are_scored_and_drawn(tmp_path, a_report):
    report = a_report()
    evaluation = report.evaluations["LSTM"]
    page, _, text = parse(report, tmp_path)
    for name in ("auroc", "auprc", "brier", "ece"):
        interval = evaluation.intervals[name]
        assert in_order(text, f"{evaluation.value(name):.3f}", f"{interval.low:.3f}", f"{interval.high:.3f}")
    for name, area in zip(evaluation.scores.class_names, evaluation.probability.auroc_by_class, strict=True):
        assert f"{name} {area:.3f}" in page


def test_a_temperature_shows_the_scores_before_and_after(tmp_path, a_report, predicted):
    made = predicted()
    scaled, calibration = calibrate(made, dataclasses.replace(predicted(1), subject_ids=("other",) * len(made)))
    report = a_report(evaluations={"LSTM": score(scaled, calibration=calibration)}, predictions={"LSTM": scaled})
    _, _, text = parse(report, tmp_path)
    assert re.search(rf"temperature\D*{calibration.temperature:.2f}", text)
    assert in_order(text, f"{calibration.before.ece:.3f}", f"{calibration.after.ece:.3f}")


def test_groups_of_people_are_told_apart(tmp_path, a_report, predicted):
    made = predicted()
    people = {who: Person("fm"[i % 2], 20 + i) for i, who in enumerate(sorted(set(made.subject_ids)))}
    evaluation = score(made, people)
    _, _, text = parse(a_report(evaluations={"LSTM": evaluation}), tmp_path)
    women = evaluation.subgroups[0]
    interval = women.intervals["balanced_accuracy"]
    value = women.scores.balanced_accuracy
    assert in_order(text, "female", f"{value:.3f}", f"{interval.low:.3f}", f"{interval.high:.3f}", "11")
    (apart,) = (apart for apart in evaluation.subgroup_differences if apart.attribute == "sex")
    assert in_order(text, "female", "male", f"{apart.value:.3f}")


def test_blocks_stand_behind_the_scores_and_are_text(tmp_path, a_report):
    chart = Picture("what it shows", b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    block = Block(
        f"A title {HOSTILE}", f"One.\n\nTwo {HOSTILE}.", ["", HOSTILE], [[HOSTILE, "0.5 (0.4 to 0.6)"]], [chart]
    )
    report = a_report(blocks=[block])
    page, elements, text = parse(report, tmp_path)
    assert "<script" not in page
    assert [heading.startswith("A title") for heading in elements.headings].index(True) == 1
    assert text.index(f"{report.evaluations['LSTM'].scores.accuracy:.3f}") < text.index("A title")
    assert "0.5 0.4 to 0.6" in text
    assert "what it shows" in [attributes.get("alt") for _, attributes in elements.seen]


def test_leaky_is_framed_wherever_it_stands(tmp_path, a_report):
    block = Block("A LEAKY split", "LEAKY text", ["", "value"], [["LEAKY row", "LEAKY cell"]])
    report = a_report("LEAKY model", "LEAKY", blocks=[block])
    page, _, _ = parse(report, tmp_path)
    framed = '<strong class="leaky">LEAKY</strong>'
    assert page.count(framed) >= 10
    # The rest stands in attributes and in the page's title, where there is no markup.
    unframed = re.sub(r"<style>.*?</style>|<title>.*?</title>|<[^>]*>", "", page.replace(framed, ""), flags=re.S)
    assert "LEAKY" not in unframed


def test_charts_that_do_not_fit_are_left_out_and_named(tmp_path, a_report, png):
    big = b"<svg xmlns='http://www.w3.org/2000/svg'><!--" + b"x" * 2_500_000 + b"--></svg>"
    block = Block("Block", pictures=[Picture("chart-1", big), Picture("chart-2", big)])
    _, elements, text = parse(a_report(blocks=[block], figures=[Figure("small", "x", png())]), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    shown = {attributes.get("alt") for _, attributes in elements.seen}
    assert "chart-2" in text and "chart-2" not in shown and {"chart-1", "x"} <= shown


def without_probabilities(p):
    return dataclasses.replace(p, probabilities=np.full_like(p.probabilities, np.nan))


def certain(p):
    label = np.where(p.label < 0, 0, p.label)
    return dataclasses.replace(p, label=label, probabilities=np.eye(3)[label])


DEGENERATE = {
    "no probabilities": without_probabilities,
    "probabilities 0 and 1": certain,
    "one class in the truth": lambda p: p.only(p.truth == 1),
    "one subject": lambda p: p.only(np.array(p.subject_ids) == p.subject_ids[0]),
    "truth hidden": lambda p: dataclasses.replace(p, truth=np.full_like(p.truth, -1)),
    "no clip has a prediction": lambda p: p.only(p.label < 0),
    "one clip": lambda p: p.only([5]),
    "no clip": lambda p: p.only([]),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_predictions_give_a_page_and_figures(tmp_path, a_report, predicted, case):
    report = a_report(made=DEGENERATE[case](predicted()))
    _, elements, text = parse(report, tmp_path)
    charts(elements)
    assert not re.search(r"\bnan\b|\binf\b|None", text)
    write_figures(tmp_path / "figures", report)
    assert "NaN" not in (tmp_path / "figures" / "figures.json").read_text()


def test_two_classes_have_one_curve_each(tmp_path, a_report, predicted):
    p = predicted()
    two = np.stack([p.probabilities[:, :2].sum(1), p.probabilities[:, 2]], 1)
    made = Predictions(
        ("No Pain", "Pain"), p.clip_ids, p.subject_ids, p.truth // 2, p.label // 2, two, p.frames, p.faceless
    )
    _, elements, _ = parse(a_report(made=made), tmp_path)
    (roc,) = [a["alt"] for tag, a in elements.seen if tag == "img" and a["alt"].startswith("ROC")]
    assert re.findall(r"(\w+) (0\.[0-9]{3})\b", roc) == [("Pain", f"{score(made).probability.auroc_by_class[1]:.3f}")]


def test_a_run_of_values_has_scores_scatter_and_subjects(tmp_path, a_report):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 16, 60).astype(float)
    truth[0], value = np.nan, truth + rng.normal(size=60)
    value[1] = np.nan
    made = ValuePredictions(
        scale="pspi",
        clip_ids=tuple(f"c{i}" for i in range(60)),
        subject_ids=tuple(f"s{i // 10}" for i in range(60)),
        truth=truth,
        value=value,
        frames=np.full(60, 5),
        faceless=np.zeros(60, np.int64),
    )
    evaluation = score_values(made)
    blocks = value_blocks({"LSTM": evaluation}, {"LSTM": made})
    report = a_report(evaluations={}, predictions={}, blocks=blocks)
    _, _, text = parse(report, tmp_path)
    for name in ("mse", "mae", "pearson", "icc_3_1"):
        interval = evaluation.intervals[name]
        assert in_order(text, f"{evaluation.scores.value(name):.3f}", f"{interval.low:.3f}", f"{interval.high:.3f}")
    assert next(iter(evaluation.to_dict()["baselines"])) in text
    assert all(row.subject_id in text for row in evaluation.by_subject)
    (chart,) = blocks[0].pictures
    assert [row[2:] for row in chart.rows] == [(t, v) for t, v in zip(truth[2:], value[2:], strict=True)]
    nothing = made.only([0, 1])
    parse(a_report(evaluations={}, blocks=value_blocks({"x": score_values(nothing)}, {"x": nothing})), tmp_path)
