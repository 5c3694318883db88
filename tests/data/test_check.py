"""Scars of a data set on disk, and what is said of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from painseq.data.check import EXPECTED, DataCheck, Expected, check_data
from painseq.data.datamodule import PainDataModule
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


def told(found: DataCheck, topic: str) -> dict[str, tuple[str, ...]]:
    """text -> items of the findings on a topic; the text begins with the severity."""
    return {f"{one.severity}: {one.text}": one.items for one in found.findings if one.topic == topic}


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
    assert rows["PA4 clips a subject"] == ("1", "20", False)
    assert rows["frame rate"] == ("4 fps", "25 fps", False) and rows["clip length"] == ("5.5 s", "5.5 s", True)
    assert {one.topic for one in found.findings} == {"published"}
    (items,) = told(found, "published").values()
    assert "subjects: 5, published: 87" in items


def test_a_data_set_as_published_has_no_finding(biovid, monkeypatch):
    published = Expected(
        subjects=5, videos=25, frames=550, clips_per_class={"BL1": 1, "PA4": 1}, fps=4.0, duration_s=5.5
    )
    monkeypatch.setitem(EXPECTED, "biovid", published)
    found = check_data(five(biovid))
    assert all(row.same for row in found.comparisons) and found.findings == ()


def test_hidden_labels_and_parts_of_ai4pain(ai4pain):
    found = check_data(AI4Pain(ai4pain))
    assert found.errors == 0
    rows = {row.what: (row.found, row.published) for row in found.comparisons}
    assert rows["subjects in train"] == ("4", "41") and rows["subjects in test"] == ("2", "12")
    assert rows["High_Pain clips a subject"] == ("1", "12")
    labels = {row.label: (row.class_name, row.clips) for row in found.labels}
    assert labels == {
        "No_Pain": ("no_pain", 9),
        "Low_Pain": ("low_pain", 5),
        "High_Pain": ("high_pain", 5),
        None: (None, 6),
    }
    (text,) = told(found, "classes")
    assert text.startswith("warning: 9 clips of no_pain, 5 of low_pain: train with --model.class_weights inverse_freq")


def test_unreadable_files_are_errors_with_their_reason(biovid):
    cut, empty = videos(biovid)[0, "BL1"], videos(biovid)[1, "PA2"]
    cut.write_bytes(cut.read_bytes()[:-200])
    empty.write_bytes(b"")
    found = check_data(five(biovid))
    (items,) = [items for text, items in told(found, "files").items() if text == "error: videos that cannot be read"]
    assert items[0].startswith(f"{cut.relative_to(biovid)}: cannot be read as a video by pyav: ")
    assert items[0].endswith(" Is the file complete? Copy or convert it again.")
    assert items[1].startswith(f"{empty.relative_to(biovid)}: cannot be read as a video by pyav: the file is empty.")
    assert found.errors == 1
    assert str(biovid) not in json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("number", "label", "expected"),
    [
        (1, "PA1", "error: the same video for several subjects, so one of them may be learned and scored"),
        (0, "PA4", "error: the same video under several labels"),
        (0, "PA1", "warning: the same video several times"),
    ],
)
def test_copies_of_a_video(biovid, number, label, expected):
    source, place = videos(biovid)[0, "PA1"], videos(biovid)[number, label]
    copy = place.with_name(f"{place.parent.name}-{label}-099.mp4")
    shutil.copy(source, copy)
    shutil.copy(source.with_suffix(".faces.safetensors"), copy.with_suffix(".faces.safetensors"))
    found = check_data(five(biovid))
    files = told(found, "files")
    assert list(files) == [expected]
    ((item,),) = files.values()
    names = {str(path.relative_to(biovid)) for path in (source, copy)}
    assert set(item.partition(" (")[0].split(" = ")) == names
    if number == 1:
        subjects = sorted(path.name for path in (biovid / "PartA" / "video").iterdir())
        assert item.endswith(f"(subjects {subjects[0]}, {subjects[1]})")
    if label == "PA4":
        assert item.endswith("(labels PA1 and PA4)")


def test_a_video_in_two_parts(ai4pain):
    source = ai4pain / "Train" / "S01" / "S01_Low_Pain_1.mp4"
    copy = ai4pain / "Validation" / "S01" / "S01_Low_Pain_1.mp4"
    copy.parent.mkdir()
    shutil.copy(source, copy)
    files = told(check_data(AI4Pain(ai4pain)), "files")
    assert files == {
        "error: the same video in several parts, so it may be learned and scored": (
            "Train/S01/S01_Low_Pain_1.mp4 = Validation/S01/S01_Low_Pain_1.mp4 (parts train, validation)",
        )
    }


def test_a_label_that_the_data_set_has_not(biovid):
    path = videos(biovid)[0, "PA4"]
    path.rename(path.with_name(path.name.replace("PA4", "PA7")))
    found = check_data(five(biovid))
    (text,) = told(found, "labels")
    assert text.startswith("error: biovid: unknown label 'PA7'. Found: BL1 (5 clips)") and found.errors == 1
    assert found.labels[-1].label == "PA7" and found.labels[-1].class_name is None


def test_every_label_as_a_class_of_its_own_is_checked_too(biovid):
    path = videos(biovid)[0, "PA4"]
    path.rename(path.with_name(path.name.replace("PA4", "PA7")))
    found = check_data(BioVid(biovid, DataOptions(labels="native")))
    (text,) = told(found, "labels")
    assert text.startswith("error: biovid: unknown label 'PA7'. Found: BL1 (5 clips)") and found.videos == 25
    assert {row.label: row.class_name for row in found.labels}["PA7"] is None
    assert "warning: subjects without clips of every class" in told(found, "classes")


def test_labels_that_are_words_have_no_order_of_their_own(tmp_path, blink):
    def labels_and_classes(*labels: str, classes: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
        clips = [Clip(f"clip{n}", f"S{n}", f"{n}.mp4", label) for n, label in enumerate(labels)]
        data = own(tmp_path, clips, DataOptions(labels="native"))
        data.classes = classes
        found = check_data(data)
        return told(found, "labels") | told(found, "classes")

    for number in range(3):
        blink(tmp_path / f"{number}.mp4", 8, 4, grey=20 * number)
    first, _ = labels_and_classes("no", "high", "low")
    assert first.startswith("warning: no order of pain is known, so the alphabet's stands for it, from no pain on: ")
    assert first.endswith(": high, low, no. List the labels in --data.classes, in order of pain")
    (only,) = labels_and_classes("0", "10", "2.5")
    assert only == "warning: subjects without clips of every class"
    assert "warning: no clip of class low" in labels_and_classes("no", "high", classes=("no", "low", "high"))
    (first, *_) = labels_and_classes("low", "Low", "no")
    assert first.startswith("error: own: labels 'Low' and 'low' differ in capitals, blanks or the encoding of a ")


def test_labels_that_disagree_are_errors_even_where_the_clips_cannot_be_listed(tmp_path, blink):
    data = own(tmp_path, [Clip("a", "S1", "a.mp4", "no"), Clip("b", "S1", "b.mp4", "yes")])
    blink(tmp_path / "a.mp4", 8, 4)
    blink(tmp_path / "b.mp4", 8, 4, grey=99)
    data.problems = (f"{tmp_path}/table.csv says yes of a, its name no.",)
    found = check_data(data)
    assert told(found, "labels") == {
        "error: labels that are missing or disagree": ("table.csv says yes of a, its name no.",)
    }
    assert found.clips == 2 and found.errors == 1
    data = own(tmp_path, [])
    data.problems = (f"{tmp_path}/table.csv says yes of a, its name no.",)

    def refuse() -> Manifest:
        raise PainseqError(f"{tmp_path}/table.csv and the names disagree.")

    data.read_manifest = refuse
    found = check_data(data)
    assert "error: so nothing else was looked at: table.csv and the names disagree." in told(found, "labels")
    assert (found.clips, found.errors) == (0, 2)
    data.problems = ()
    with pytest.raises(PainseqError, match="and the names disagree"):
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
    assert told(found, "lengths") == {
        "error: clips that begin after the end of their video": ("beyond: begins at 5.5 s of 5.00 s",),
        "warning: clips whose video ends before they do": ("cut: 4.00 s of 5.00 s",),
        "warning: clips shorter than half the median of their label": ("clip3: 2.00 s; median of no: 5.00 s",),
        "warning: videos at another frame rate than the median, 8 fps": ("4.mp4: 4 fps",),
    }


def test_classes_that_lack_clips(tmp_path, blink):
    clips = []
    for number, (subject, label) in enumerate([("A", "no"), ("A", "no"), ("A", "yes"), ("B", "no"), ("C", None)]):
        blink(tmp_path / f"{number}.mp4", 8, 4, grey=20 * number)
        clips.append(Clip(f"clip{number}", subject, f"{number}.mp4", label))
    classes = told(check_data(own(tmp_path, clips)), "classes")
    assert classes.pop("warning: subjects without clips of every class") == ("B: no high_pain",)
    (text,) = classes
    assert text.startswith("warning: 3 clips of no_pain, 1 of high_pain: ")
    only = told(check_data(own(tmp_path, clips[:2])), "classes")
    assert only == {"warning: no clip of class high_pain": ()}


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
    (text,) = told(check_data(own(tmp_path, clips)), "files")
    assert text.startswith("error: the same video for several subjects")
    (tmp_path / "seq0" / "seq0_2.png").write_bytes(b"no image")
    assert len(told(check_data(own(tmp_path, clips)), "files")) == 1
    deep = told(check_data(own(tmp_path, clips), deep=True), "files")
    (item,) = deep["error: videos that cannot be read"]
    assert item.startswith("seq0: seq0/seq0_2.png cannot be read as an image")


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
    with pytest.raises(PainseqError, match=r"No faces\.csv at .*tracks\. Write the tracks first: painseq faces --out"):
        check_data(own(tmp_path, clips), tracks)
    (tracks / "faces-1.csv").write_text("\n".join([rows[0], *rows[4:]]) + "\n")
    (tracks / "faces.csv").write_text("\n".join([rows[0], *rows[1:3]]) + "\n")
    found = check_data(own(tmp_path, clips), tracks)
    assert {row.label: row.faceless_share for row in found.labels} == {"no": 0.5, "yes": 0.25}
    assert found.faceless_by_subject == {"A": 0.25, "B": 0.0, "C": 1.0}
    assert told(found, "faces") == {
        "warning: clips without a row in faces.csv; run `painseq faces` again": ("clip2",),
        "warning: clips that could not be tracked": ("clip5: clip5 cannot be read as a video",),
        "warning: clips without any face": ("clip4",),
        "warning: labels under which faces are missing more often": ("no: 50.0%, all labels: 37.5%",),
        "warning: subjects with more than 20% of frames without a face": ("A: 25.0%", "C: 100.0%"),
    }
    (tracks / "faces.csv").write_text("clip_id,frames\nclip0,many\n")
    with pytest.raises(PainseqError, match=r"faces\.csv is damaged .* Run `painseq faces` again"):
        check_data(own(tmp_path, clips), tracks)


def test_what_cannot_be(biovid, tmp_path):
    with pytest.raises(PainseqError, match="--workers is 0"):
        check_data(five(biovid), workers=0)
    with pytest.raises(PainseqError, match="No BioVid clips at"):
        check_data(five(tmp_path))
