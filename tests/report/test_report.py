import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from painseq.evaluation import PUBLISHED, Predictions, score
from painseq.report import Figure, Report, write_report

HOSTILE = '<script>alert("x")</script> & "$\\frac{1$ \' --> ]]>'
VOID = {"meta", "img"}


def png(width=8, height=8, noise=False) -> bytes:
    pixels = np.zeros((height, width, 3), np.uint8)
    if noise:
        pixels = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def said(seed=0, names=("No Pain", "Low Pain", "High Pain"), subjects=22) -> Predictions:
    rng = np.random.default_rng(seed)
    n = subjects * 9
    truth = np.arange(n) % 3
    label = np.where(rng.random(n) < 0.5, truth, rng.integers(0, 3, n))
    probabilities = np.eye(3)[label]
    label[0], probabilities[0] = -1, np.nan
    return Predictions(
        class_names=names,
        clip_ids=tuple(f"c{i}" for i in range(n)),
        subject_ids=tuple(f"{names[0]} s{i // 9}" for i in range(n)),
        truth=truth,
        label=label,
        probabilities=probabilities,
        frames=np.full(n, 80),
        faceless=np.zeros(n, np.int64),
    )


def a_report(name="LSTM", text="a note", made=None, **changes) -> Report:
    made = made or said()
    history = [
        {"epoch": float(e), "train_loss": 1 / (e + 1), "val_loss": 1.0, "val_balanced_accuracy": 0.5} for e in range(4)
    ]
    values = {
        "title": text,
        "subtitle": text,
        "dataset": "generated faces",
        "notes": [text],
        "evaluations": {name: score(made)},
        "predictions": {name: made},
        "histories": {name: history},
        "figures": [Figure(text, text, png())],
        "facts": {text: text},
        "warnings": [text],
        "published": PUBLISHED,
    }
    return Report(**{**values, **changes})


class Elements(HTMLParser):
    """Elements and attributes of a page, and whether every element is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

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


def parse(report, tmp_path) -> tuple[str, Elements, str]:
    path = tmp_path / "report.html"
    write_report(path, report)
    page = path.read_text(encoding="utf-8")
    elements = Elements()
    elements.feed(page)
    assert elements.open == []
    return page, elements, " ".join(" ".join(elements.text).split())


def test_the_page_holds_everything_and_fetches_nothing(tmp_path):
    page, elements, _ = parse(a_report(), tmp_path)
    assert not {tag for tag, _ in elements.seen} & {"script", "link", "iframe", "object", "base", "form"}
    for tag, attributes in elements.seen:
        for key in ("src", "href", "xlink:href", "srcset", "data"):
            assert attributes.get(key, "data:").startswith("data:"), (tag, key)
    assert not re.search(r"url\(|@import|https?://", page)
    assert len(page) < 1_000_000


def test_every_picture_has_a_text(tmp_path):
    _, elements, _ = parse(a_report(), tmp_path)
    pictures = [attributes for tag, attributes in elements.seen if tag == "img"]
    assert len(pictures) == 3
    assert all(attributes["alt"] for attributes in pictures)
    assert all(attributes["aria-label"] for tag, attributes in elements.seen if tag == "svg")


def test_the_numbers_are_there(tmp_path):
    report = a_report()
    evaluation = report.evaluations["LSTM"]
    _, _, text = parse(report, tmp_path)
    for name, interval in evaluation.intervals.items():
        assert f"{evaluation.scores.value(name):.3f}" in text
        assert f"{interval.low:.3f} to {interval.high:.3f}" in text
    for row in evaluation.scores.confusion:
        for count in row:
            assert f" {count} " in text
    for recall in evaluation.scores.recall:
        assert f"{recall:.3f}" in text
    for words in ("majority class", "chance", "no medical device", *evaluation.warnings):
        assert words in text


def test_published_rows_stand_apart(tmp_path):
    _, _, text = parse(a_report(), tmp_path)
    assert text.index("Published results, on other data sets") > text.index("Scores")
    assert "AI4Pain 2024 (another data set)" in text
    assert "second hand" in text
    _, _, text = parse(a_report(dataset="AI4Pain 2024"), tmp_path)
    assert "AI4Pain 2024 (the data set of this run" in text
    assert "BioVid (another data set)" in text


def test_names_from_outside_are_text_and_never_markup(tmp_path):
    names = (f"a{HOSTILE}", f"b{HOSTILE}", f"c{HOSTILE}")
    page, elements, text = parse(a_report(HOSTILE, HOSTILE, said(names=names), dataset=HOSTILE), tmp_path)
    assert "script" not in {tag for tag, _ in elements.seen}
    assert "<script" not in page
    assert " ".join(names[0].split()) in text
    assert not any(key.startswith("on") for _, attributes in elements.seen for key in attributes)


def test_pictures_that_do_not_fit_are_left_out_and_named(tmp_path):
    big = png(1100, 1000, noise=True)
    assert len(big) > 3_000_000
    figures = [Figure("first", "x", big), Figure("second", "x", big), Figure("third", "x", png())]
    _, elements, text = parse(a_report(figures=figures), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    assert "Left out, since the page would exceed 5 MB: second" in text
    inside = [a["src"] for tag, a in elements.seen if tag == "img" and a["src"].startswith("data:image/png")]
    assert [base64.b64decode(src.partition(",")[2]) for src in inside][1] == png()


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluations": {}, "predictions": {}, "histories": {}, "figures": (), "facts": {}, "published": ()},
        {"histories": {"LSTM": [{"epoch": 0.0, "train_loss": float("nan")}], "never ran": []}},
        {"predictions": {}},
        {"notes": [], "warnings": []},
    ],
)
def test_what_is_absent_has_no_heading(tmp_path, changes):
    _, _, text = parse(a_report(**changes), tmp_path)
    assert "nan" not in text.lower()
    if "histories" in changes:
        assert "Learning curves" not in text
    if "predictions" in changes:
        assert "Subject by subject" not in text


def test_a_class_that_is_not_in_the_truth_has_no_recall(tmp_path):
    made = said()
    _, _, text = parse(a_report(made=made.only(made.truth != 2)), tmp_path)
    assert "not in the truth" in text


def test_nothing_scored_still_gives_a_page(tmp_path):
    made = said()
    _, _, text = parse(a_report(made=made.only(made.label < 0)), tmp_path)
    assert "nothing was scored" in text


def test_the_same_run_gives_the_same_page(tmp_path):
    assert parse(a_report(), tmp_path)[0] == parse(a_report(), tmp_path)[0]
