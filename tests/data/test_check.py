"""Scars of a data set on disk, and what is said of them."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from painseq.data.check import DataCheck, check_data
from painseq.data.datamodule import PainDataModule
from painseq.data.facts import Expected
from painseq.data.options import DataOptions
from painseq.data_modules import AI4Pain, BioVid
from painseq.errors import PainseqError
from painseq.records import Clip, Manifest
from painseq.video import write_video


@pytest.fixture
def biovid(heat: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged: five people, one clip of each of five classes."""
    shutil.copytree(heat, tmp_path / "biovid")
    return tmp_path / "biovid"


@pytest.fixture
def ai4pain(electrical: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    shutil.copytree(electrical, tmp_path / "ai4pain")
    return tmp_path / "ai4pain"


class Own(PainDataModule):
    """A data set whose clips the test lists."""

    name = "own"
    listed: tuple[Clip, ...] = ()
    problems: tuple[str, ...] = ()

    def read_manifest(self) -> Manifest:
        return Manifest(self.name, self.root, self.listed)

    def label_problems(self) -> list[str]:
        return list(self.problems)


def own(root: Path, clips: list[Clip], options: DataOptions | None = None) -> Own:
    data = Own(root, options or DataOptions(labels={"no_pain": ["no"], "high_pain": ["yes"]}))
    data.listed = tuple(clips)
    return data


def five(root: Path) -> BioVid:
    return BioVid(root, DataOptions(labels="five"))


def videos(root: Path) -> dict[tuple[int, str], Path]:
    """(number of the subject, label) -> video of a BioVid tree."""
    subjects = sorted((root / "PartA" / "video").iterdir())
    return {
        (number, path.stem.split("-")[1]): path
        for number, subject in enumerate(subjects)
        for path in subject.glob("*.mp4")
    }


Told = tuple[str, str, tuple[str, ...]]


def told(found: DataCheck, topic: str) -> list[Told]:
    """(severity, text, items) of each finding on a topic."""
    return [(one.severity, one.text, one.items) for one in found.findings if one.topic == topic]


def values(text: str) -> set[str]:
    """The names and numbers of a text, amid its other words."""
    return set(re.findall(r"[\w./%-]*\w%?", text))


@pytest.fixture
def blink() -> Callable[[Path, int, float], Path]:
    """Writes a video of grey frames that get brighter."""

    def write(path: Path, frames: int, fps: float, grey: int = 0) -> Path:
        pictures = (np.full((48, 64, 3), grey + 4 * number, np.uint8) for number in range(frames))
        write_video(path, pictures, fps)
        return path

    return write


def test_a_whole_data_set_has_nothing_to_mend_and_its_figures_are_compared(biovid):
    found = check_data(five(biovid), workers=2)
    assert (found.clips, found.subjects, found.videos, found.errors) == (25, 5, 25, 0) and found.generated
    assert [(row.label, row.class_name, row.clips, row.subjects) for row in found.labels] == [
        ("BL1", "no_pain", 5, 5),
        ("PA1", "mild_pain", 5, 5),
        ("PA2", "moderate_pain", 5, 5),
        ("PA3", "severe_pain", 5, 5),
        ("PA4", "extreme_pain", 5, 5),
    ]
    for row in found.labels:
        assert row.fps is not None and row.fps.minimum == row.fps.median == row.fps.maximum == pytest.approx(4)
        assert row.duration_s is not None and row.duration_s.median == pytest.approx(5.5)
    rows = {row.what: (row.found, row.published, row.same) for row in found.comparisons}
    assert rows["subjects"] == ("5", "87", False) and rows["videos"] == ("25", "8,700", False)
    assert [row for what, row in rows.items() if "PA4" in what] == [("1", "20", False)]
    assert {("4 fps", "25 fps", False), ("5.5 s", "5.5 s", True)} <= {*rows.values()}
    assert {one.topic for one in found.findings} == {"published"}
    ((severity, _, items),) = told(found, "published")
    assert severity == "warning" and {"subjects", "5", "87"} <= values(items[0])


def test_a_data_set_as_published_has_no_finding(biovid, monkeypatch):
    published = Expected(
        subjects=5, videos=25, frames=550, clips_per_class={"BL1": 1, "PA4": 1}, fps=4.0, duration_s=5.5
    )
    monkeypatch.setattr(BioVid, "facts", replace(BioVid.facts, expected=published))
    found = check_data(five(biovid))
    assert all(row.same for row in found.comparisons) and found.findings == ()


def test_hidden_labels_and_parts_of_ai4pain(ai4pain):
    found = check_data(AI4Pain(ai4pain))
    assert found.errors == 0
    rows = [({*row.what.split()}, row.found, row.published) for row in found.comparisons]
    for named, *figures in (("train", "4", "41"), ("test", "2", "12"), ("High_Pain", "1", "12")):
        assert [row for what, *row in rows if named in what] == [figures]
    labels = {row.label: (row.class_name, row.clips) for row in found.labels}
    assert labels == {
        "No_Pain": ("no_pain", 9),
        "Low_Pain": ("low_pain", 5),
        "High_Pain": ("high_pain", 5),
        None: (None, 6),
    }
    ((severity, text, _),) = told(found, "classes")
    assert severity == "warning" and {"9", "no_pain", "5", "low_pain", "inverse_frequency"} <= values(text)


def test_unreadable_files_are_errors_with_their_reason(biovid):
    cut, empty = videos(biovid)[0, "BL1"], videos(biovid)[1, "PA2"]
    cut.write_bytes(cut.read_bytes()[:-200])
    empty.write_bytes(b"")
    found = check_data(five(biovid))
    ((severity, _, (first, second)),) = told(found, "files")
    assert severity == "error"
    assert {str(cut.relative_to(biovid)), "pyav"} <= values(first)
    assert {str(empty.relative_to(biovid)), "empty"} <= values(second)
    assert found.errors == 1
    assert str(biovid) not in json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("number", "label", "expected"),
    [(1, "PA1", "error"), (0, "PA4", "error"), (0, "PA1", "warning")],
    ids=["another subject", "another label", "the same subject and label"],
)
def test_copies_of_a_video(biovid, number, label, expected):
    source, place = videos(biovid)[0, "PA1"], videos(biovid)[number, label]
    copy = place.with_name(f"{place.parent.name}-{label}-099.mp4")
    shutil.copy(source, copy)
    shutil.copy(source.with_suffix(".faces.safetensors"), copy.with_suffix(".faces.safetensors"))
    found = check_data(five(biovid))
    ((severity, _, (item,)),) = told(found, "files")
    assert severity == expected
    names = {str(path.relative_to(biovid)) for path in (source, copy)}
    subjects = sorted(path.name for path in (biovid / "PartA" / "video").iterdir())
    shared = names | ({*subjects[:2]} if number == 1 else set()) | ({"PA1", "PA4"} if label == "PA4" else set())
    assert values(item) & (names | {*subjects, "PA1", "PA4"}) == shared


def test_a_video_in_two_parts(ai4pain):
    source = ai4pain / "Train" / "S01" / "S01_Low_Pain_1.mp4"
    copy = ai4pain / "Validation" / "S01" / "S01_Low_Pain_1.mp4"
    copy.parent.mkdir()
    shutil.copy(source, copy)
    ((severity, _, (item,)),) = told(check_data(AI4Pain(ai4pain)), "files")
    assert severity == "error"
    names = {"Train/S01/S01_Low_Pain_1.mp4", "Validation/S01/S01_Low_Pain_1.mp4"}
    assert names | {"train", "validation"} <= values(item)


def test_a_label_that_the_data_set_has_not(biovid):
    path = videos(biovid)[0, "PA4"]
    path.rename(path.with_name(path.name.replace("PA4", "PA7")))
    found = check_data(five(biovid))
    ((severity, text, _),) = told(found, "labels")
    assert severity == "error" and re.search(r"biovid.*'PA7'.*BL1\D*5\b", text) and found.errors == 1
    assert found.labels[-1].label == "PA7" and found.labels[-1].class_name is None


def test_every_label_as_a_class_of_its_own_is_checked_too(biovid):
    path = videos(biovid)[0, "PA4"]
    path.rename(path.with_name(path.name.replace("PA4", "PA7")))
    found = check_data(BioVid(biovid, DataOptions(labels="native")))
    ((severity, text, _),) = told(found, "labels")
    assert severity == "error" and re.search(r"biovid.*'PA7'.*BL1\D*5\b", text) and found.videos == 25
    assert {row.label: row.class_name for row in found.labels}["PA7"] is None
    ((severity, _, (lacking,)),) = [one for one in told(found, "classes") if one[2]]
    assert severity == "warning" and {path.parent.name, "PA4"} <= values(lacking)


def test_labels_that_are_words_have_no_order_of_their_own(tmp_path, blink):
    def labels_and_classes(*labels: str, classes: tuple[str, ...] = ()) -> tuple[list[Told], list[Told]]:
        clips = [Clip(f"clip{n}", f"S{n}", f"{n}.mp4", label) for n, label in enumerate(labels)]
        data = own(tmp_path, clips, DataOptions(labels="native"))
        data.classes = classes
        found = check_data(data)
        return told(found, "labels"), told(found, "classes")

    for number in range(3):
        blink(tmp_path / f"{number}.mp4", 8, 4, grey=20 * number)
    ((severity, text, _),), _ = labels_and_classes("no", "high", "low")
    assert severity == "warning" and re.search(r"\bhigh\W+low\W+no\b.*\bclasses\b", text)
    (of_labels, ((severity, _, items),)) = labels_and_classes("0", "10", "2.5")
    assert of_labels == [] and severity == "warning" and len(items) == 3
    _, of_classes = labels_and_classes("no", "high", classes=("no", "low", "high"))
    assert any(
        severity == "warning" and "low" in values(text) and "high" not in text for severity, text, _ in of_classes
    )
    ((severity, text, _), *_), _ = labels_and_classes("low", "Low", "no")
    assert severity == "error" and {"own", "Low", "low"} <= values(text)


def test_subjects_who_may_be_one_person_are_warned_of(tmp_path, blink, caplog):
    blink(tmp_path / "a.mp4", 8, 4)
    blink(tmp_path / "b.mp4", 8, 4, grey=99)
    data = own(tmp_path, [Clip("a", "p1", "a.mp4", "no"), Clip("b", "p01", "b.mp4", "yes")])
    ((severity, _, items),) = told(check_data(data), "subjects")
    assert severity == "warning" and "'p1'" in items[0] and "'p01'" in items[0]
    # Whoever reads the data set is warned too, once.
    assert data.manifest and data.whole_manifest
    assert [record.levelname for record in caplog.records if "'p01'" in record.getMessage()] == ["WARNING"]
    one, two = Clip("a", "p1", "a.mp4", "no", 0.0, 1.0), Clip("b", "p2", "a.mp4", "yes", 0.5, 1.5)
    with pytest.raises(PainseqError, match=r"'a'.*'p1'.*'b'.*'p2'.*a\.mp4"):
        check_data(own(tmp_path, [one, two]))


def test_labels_that_disagree_are_errors_even_where_the_clips_cannot_be_listed(tmp_path, blink):
    data = own(tmp_path, [Clip("a", "S1", "a.mp4", "no"), Clip("b", "S1", "b.mp4", "yes")])
    blink(tmp_path / "a.mp4", 8, 4)
    blink(tmp_path / "b.mp4", 8, 4, grey=99)
    data.problems = (f"{tmp_path}/table.csv says yes of a, its name no.",)
    found = check_data(data)
    ((severity, _, items),) = told(found, "labels")
    assert severity == "error" and items == ("table.csv says yes of a, its name no.",)
    assert found.clips == 2 and found.errors == 1
    data = own(tmp_path, [])
    data.problems = (f"{tmp_path}/table.csv says yes of a, its name no.",)

    def refuse() -> Manifest:
        raise PainseqError(f"{tmp_path}/table.csv and the names disagree.")

    data.read_manifest = refuse
    found = check_data(data)
    refusals = [text for severity, text, items in told(found, "labels") if severity == "error" and not items]
    assert len(refusals) == 1 and "table.csv and the names disagree." in refusals[0]
    assert str(tmp_path) not in refusals[0]
    assert (found.clips, found.errors) == (0, 2)
    data.problems = ()
    with pytest.raises(PainseqError, match=r"table\.csv"):
        check_data(data)


def test_short_clips_and_other_frame_rates(tmp_path, blink):
    clips = []
    for number, (frames, fps) in enumerate([(40, 8), (40, 8), (42, 8), (16, 8), (20, 4)]):
        blink(tmp_path / f"{number}.mp4", frames, fps, grey=10 * number)
        clips.append(Clip(f"clip{number}", f"S{number}", f"{number}.mp4", "no"))
    clips.append(Clip("beyond", "S0", "0.mp4", "yes", start_s=5.5))
    clips.append(Clip("cut", "S0", "0.mp4", "yes", start_s=1.0, end_s=6.0))
    clips.append(Clip("rounded", "S0", "0.mp4", "yes", start_s=1.0, end_s=5.1))
    found = check_data(own(tmp_path, clips))
    beyond, cut, short, rate = told(found, "lengths")
    for (severity, _, items), expected in (
        (beyond, ("error", {"beyond", "5.5", "5.00"})),
        (cut, ("warning", {"cut", "4.00", "5.00"})),
        (short, ("warning", {"clip3", "2.00", "no", "5.00"})),
        (rate, ("warning", {"4.mp4", "4"})),
    ):
        assert len(items) == 1 and severity == expected[0] and expected[1] <= values(items[0])
    assert "8" in values(rate[1])


def test_classes_that_lack_clips(tmp_path, blink):
    clips = []
    for number, (subject, label) in enumerate([("A", "no"), ("A", "no"), ("A", "yes"), ("B", "no"), ("C", None)]):
        blink(tmp_path / f"{number}.mp4", 8, 4, grey=20 * number)
        clips.append(Clip(f"clip{number}", subject, f"{number}.mp4", label))
    classes = told(check_data(own(tmp_path, clips)), "classes")
    (uneven,) = [(severity, text) for severity, text, items in classes if not items]
    assert uneven[0] == "warning" and {"3", "no_pain", "1", "high_pain"} <= values(uneven[1])
    ((severity, (lacking,)),) = [(severity, items) for severity, _, items in classes if items]
    assert severity == "warning" and {"B", "high_pain"} <= values(lacking) and "no_pain" not in lacking
    ((severity, text, items),) = told(check_data(own(tmp_path, clips[:2])), "classes")
    assert severity == "warning" and items == () and {"high_pain"} == values(text) & {"high_pain", "no_pain"}


def test_folders_of_images_are_read_and_deep_decodes_all_of_them(tmp_path):
    noise = np.random.default_rng(0)
    clips = []
    for number, label in enumerate(("no", "yes", "yes")):
        folder = tmp_path / f"seq{number}"
        folder.mkdir()
        for frame in range(5):
            Image.fromarray(noise.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / f"seq{number}_{frame}.png")
        clips.append(Clip(f"clip{number}", f"S{number}", f"seq{number}", label, fps=10.0))
    found = check_data(own(tmp_path, clips))
    assert found.errors == 0 and found.labels[0].fps is not None and found.labels[0].fps.median == pytest.approx(10)
    for frame in range(5):
        shutil.copy(tmp_path / "seq1" / f"seq1_{frame}.png", tmp_path / "seq2" / f"seq2_{frame}.png")
    ((severity, _, (item,)),) = told(check_data(own(tmp_path, clips)), "files")
    assert severity == "error" and {"S1", "S2"} <= values(item)
    (tmp_path / "seq0" / "seq0_2.png").write_bytes(b"no image")
    assert len(told(check_data(own(tmp_path, clips)), "files")) == 1
    deep = told(check_data(own(tmp_path, clips), deep=True), "files")
    assert [severity for severity, _, items in deep if any("seq0/seq0_2.png" in values(item) for item in items)] == [
        "error"
    ]


def test_faceless_shares_by_label_and_subject(tmp_path, blink):
    clips, rows = [], ["clip_id,track,frames,faceless,faceless_share,faceless_spans_s,reason"]
    for number, (subject, label, faceless) in enumerate(
        [("A", "no", 0), ("A", "yes", 4), ("B", "no", 0), ("B", "yes", 0), ("C", "no", 8), ("C", "yes", 8)]
    ):
        blink(tmp_path / f"{number}.mp4", 8, 4, grey=20 * number)
        clips.append(Clip(f"clip{number}", subject, f"{number}.mp4", label))
        rows.append(f"clip{number},x.safetensors,8,{faceless},{faceless / 8},,")
    rows[-1] = "clip5,,,,,,clip5 cannot be read as a video"
    tracks = tmp_path / "tracks"
    tracks.mkdir()
    with pytest.raises(PainseqError, match=r"faces\.csv.*tracks"):
        check_data(own(tmp_path, clips), tracks)
    (tracks / "faces-1.csv").write_text("\n".join([rows[0], *rows[4:]]) + "\n")
    (tracks / "faces.csv").write_text("\n".join([rows[0], *rows[1:3]]) + "\n")
    found = check_data(own(tmp_path, clips), tracks)
    assert {row.label: row.faceless_share for row in found.labels} == {"no": 0.5, "yes": 0.25}
    assert found.faceless_by_subject == {"A": 0.25, "B": 0.0, "C": 1.0}
    absent, failed, faceless, labels, subjects = told(found, "faces")
    assert {severity for severity, *_ in told(found, "faces")} == {"warning"}
    assert absent[2] == ("clip2",) and "faces.csv" in absent[1] and faceless[2] == ("clip4",)
    assert len(failed[2]) == 1 and "clip5" in values(failed[2][0])
    assert len(labels[2]) == 1 and {"no", "50.0%", "37.5%"} <= values(labels[2][0])
    assert "20%" in values(subjects[1])
    assert [values(item) for item in subjects[2]] == [{"A", "25.0%"}, {"C", "100.0%"}]
    (tracks / "faces.csv").write_text("clip_id,frames\nclip0,many\n")
    with pytest.raises(PainseqError, match=r"faces\.csv.*'many'"):
        check_data(own(tmp_path, clips), tracks)


def test_what_cannot_be(biovid, tmp_path):
    with pytest.raises(PainseqError, match=r"workers\D*\b0\b"):
        check_data(five(biovid), workers=0)
    with pytest.raises(PainseqError, match=re.escape(str(tmp_path))):
        check_data(five(tmp_path))


# ---- features alone ----

FRAMES = 10
TIMES_S = np.arange(FRAMES) / 5


@pytest.fixture
def features(tmp_path: Path) -> Callable[..., PainDataModule]:
    """Writes a folder of .npz for six clips of three people, some of them changed, and the data set without videos."""

    def make(changed: dict[str, dict[str, object]] | None = None, end_s: float | None = None) -> PainDataModule:
        store, clips = tmp_path / "npz", []
        store.mkdir()
        for number, (subject, label) in enumerate((s, label) for s in "abc" for label in ("no", "yes")):
            name = f"{subject}_{label}"
            values = np.random.default_rng(number).normal(size=(FRAMES, 3)).astype(np.float32)
            arrays = {"features": values, "present": np.ones(FRAMES, bool), "times_s": TIMES_S}
            np.savez(store / f"{name}.npz", **{**arrays, **(changed or {}).get(name, {})})
            clips.append(Clip(name, subject, f"{name}.mp4", label, end_s=end_s))
        labels = {"no_pain": ["no"], "high_pain": ["yes"]}
        return own(tmp_path / "absent", clips, DataOptions(labels=labels, store=store))

    return make


def items_of(found: DataCheck, topic: str, severity: str) -> list[str]:
    return [item for of, _, items in told(found, topic) if of == severity for item in items]


def test_features_are_checked_where_no_video_is_there(features):
    data = features(end_s=2.0)
    found = check_data(data, workers=2)
    assert not found.findings and found.features is not None
    assert (found.features.clips, found.features.frames, found.features.shape) == (6, 60, (3,))
    for row in found.labels:
        assert row.fps is not None and row.duration_s is not None and row.faceless_share == 0
        assert (row.fps.median, row.duration_s.median) == (pytest.approx(5), pytest.approx(2))
    assert data.options.store is not None
    plain = own(data.root, list(data.whole_manifest))
    assert {one.topic for one in check_data(plain).findings} == {"files"}


def test_wrong_features_are_told_by_clip(features):
    random = np.random.default_rng(9)
    wide, values = random.normal(size=(FRAMES, 4)), random.normal(size=(FRAMES, 3))
    data = features(
        {
            "a_no": {"features": wide},
            "a_yes": {"features": np.where(np.arange(30).reshape(FRAMES, 3) == 13, np.nan, values)},
            "b_no": {"times_s": TIMES_S[::-1]},
            "b_yes": {"present": np.zeros(FRAMES, bool)},
            "c_no": {"features": np.ones(3)},
        }
    )
    found = check_data(data)
    wrong = [item.partition(":")[0] for item in items_of(found, "features", "error")]
    assert sorted(wrong) == ["a_no", "a_yes", "b_no", "c_no"]
    assert [item for item in items_of(found, "features", "error") if {"4", "1"} <= values_of(item)]
    assert items_of(found, "faces", "warning")[0] == "b_yes"


def values_of(text: str) -> set[str]:
    return set(re.findall(r"\d+", text))


def test_columns_that_never_change_and_copies_are_told(features):
    values = np.random.default_rng(9).normal(size=(FRAMES, 3))
    values[:, 1] = 0.5
    names = [f"{subject}_{label}" for subject in "abc" for label in ("no", "yes")]
    other = {name: values + np.array([number, 0, 0]) for number, name in enumerate(names)}
    data = features({name: {"features": other["a_no"] if name == "b_no" else other[name]} for name in names})
    found = check_data(data)
    (constant,) = items_of(found, "features", "warning")
    assert {"1", "0.5"} <= set(re.findall(r"[\d.]+", constant))
    (copies,) = items_of(found, "features", "error")
    assert {"a_no", "b_no"} <= set(re.findall(r"\w+", copies))


def test_clips_and_features_that_lack_each_other_are_told(features):
    data = features()
    store = data.options.store
    assert store is not None
    (store / "a_no.npz").rename(store / "other.npz")
    found = check_data(data)
    assert (items_of(found, "features", "error"), items_of(found, "features", "warning")) == (["a_no"], ["other"])


def test_spans_that_do_not_fit_the_times_are_told(features):
    late = {"a_no": {"times_s": TIMES_S + 7}, "a_yes": {"times_s": TIMES_S / 4}}
    found = check_data(features(late, end_s=2.0))
    names = {item.partition(":")[0] for item in items_of(found, "lengths", "warning")}
    assert names == {"a_no", "a_yes"}


def test_spans_of_the_store_that_differ_are_errors(features):
    data = features(end_s=2.0)
    span = {"data_set": "own", "start_s": 0.0, "end_s": 3.0, "fps": 5.0, "image_fps": None}
    source = {"trained_on": [], "spans": {"a_no": span, "b_no": {**span, "end_s": 2.0}}}
    assert data.options.store is not None
    (data.options.store / "source.json").write_text(json.dumps(source))
    (item,) = items_of(check_data(data), "lengths", "error")
    assert item.startswith("'a_no'")
