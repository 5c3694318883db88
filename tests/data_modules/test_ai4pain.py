"""AI4Pain's layout, and the protocol of Prajod et al. 2024."""

from pathlib import Path

import pytest

from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data_modules import AI4Pain
from painseq.errors import LeakError, PainseqError
from painseq.faces import FaceCrops, FullFrame

OFFICIAL = SplitOptions(protocol="official")


def options(**more: object) -> DataOptions:
    """Whole pictures of 96 pixels, 30 a second."""
    face = FaceCrops(FullFrame(), size_px=96, margin=0.0)
    return DataOptions(split=OFFICIAL, view="pixels", face=face, **{"fps": 30.0, **more})


def numbers(data: AI4Pain, part: str, number_of) -> dict[str, list[int]]:
    items = data.dataset(part)
    return {sample.clip_id: number_of(sample.x.numpy()) for sample in (items[i] for i in range(len(items)))}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, coded_video) -> Path:
    root = tmp_path_factory.mktemp("recordings")
    coded_video(root / "Train" / "S01" / "S01_No_Pain_1.mp4", 630, 30)
    coded_video(root / "Train" / "S01" / "S01_Low_Pain_1.mp4", 300, 30)
    coded_video(root / "Validation" / "S02" / "S02_No_Pain_1.mp4", 330, 30)
    coded_video(root / "Test" / "S03" / "S03_1.mp4", 310, 30)
    return root


@pytest.mark.parametrize("fps", [30.0, None])
def test_training_recordings_are_cut_and_the_first_300_frames_taken_otherwise(recordings, number_of, fps):
    data = AI4Pain(recordings, options(fps=fps))
    first = list(range(300))
    # The board holds nine bits: frame 512 shows 0 again.
    second = [number % 512 for number in range(300, 600)]
    assert numbers(data, "train", number_of) == {
        "Train/S01/S01_No_Pain_1#0": first,
        "Train/S01/S01_No_Pain_1#1": second,
        "Train/S01/S01_Low_Pain_1": first,
    }
    assert numbers(data, "validation", number_of) == {"Validation/S02/S02_No_Pain_1": first}
    assert numbers(data, "test", number_of) == {"Test/S03/S03_1": first}


@pytest.mark.parametrize(("frames", "pieces"), [(599, 2), (590, 1), (600, 2), (80, 1)])
def test_an_incomplete_last_piece_is_dropped(tmp_path, coded_video, frames, pieces):
    coded_video(tmp_path / "Train" / "S01" / "S01_No_Pain_1.mp4", frames, 30)
    clips = AI4Pain(tmp_path).read_manifest().clips
    assert [(clip.start_s, clip.end_s) for clip in clips] == [(10.0 * n, 10.0 * n + 10.0) for n in range(pieces)]


def test_pieces_may_have_another_length(tmp_path, coded_video):
    coded_video(tmp_path / "Train" / "S01" / "S01_No_Pain_1.mp4", 25, 5)
    assert [clip.start_s for clip in AI4Pain(tmp_path, segment_s=2.0).read_manifest()] == [0.0, 2.0]


def test_a_generated_tree_is_read_as_a_real_one(electrical):
    data = AI4Pain(electrical, DataOptions(split=OFFICIAL))
    assert {part: len(data.split.subjects(part)) for part in ("train", "validation", "test")} == {
        "train": 4,
        "validation": 1,
        "test": 2,
    }
    # Of 25 s without pain, two pieces; one clip of low and one of high pain.
    assert data.train_counts() == {"no_pain": 8, "low_pain": 4, "high_pain": 4}
    assert [clip.label for clip in data.split.clips(data.manifest, "test")] == [None] * 6
    inner = AI4Pain(electrical, DataOptions(split=SplitOptions(protocol="official_inner"))).split
    assert len(inner.train) == 3 and not {*inner.train, *inner.validation} & {"S05", *inner.test}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("Validation/P1/P1_Low_Pain_1", "Validation/P1/P1_No_Pain_1", "Test/P2/P2_High_Pain_1", "Test/P2/x"):
        path = tmp_path / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_a_label_is_never_read_from_a_test_files_name(tree):
    clips = [clip for clip in AI4Pain(tree).read_manifest() if clip.part == "test"]
    assert [(clip.clip_id, clip.subject_id, clip.label) for clip in clips] == [
        ("Test/P2/P2_High_Pain_1", "P2", None),
        ("Test/P2/x", "P2", None),
    ]


def test_patterns_follow_the_users_names(tree):
    for path in [*tree.rglob("P*.mp4"), tree / "Test" / "P2" / "x.mp4"]:
        path.unlink()
    (tree / "Validation" / "P1" / "video_07_Low_Pain.mp4").touch()
    (tree / "Test" / "item 12 of P9.mp4").touch()
    data = AI4Pain(
        tree,
        pattern=r"(?P<subject>\w+)/video_\d+_(?P<label>\w+)\.mp4",
        test_pattern=r"item \d+ of (?P<subject>\w+)\.mp4",
    )
    assert [(clip.subject_id, clip.label) for clip in data.read_manifest()] == [("P1", "Low_Pain"), ("P9", None)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pattern": r"(?P<subject>\w+)/.*"}, r"\(\?P<label>"),
        ({"test_pattern": r".*"}, r"\(\?P<subject>"),
        ({"pattern": r"(?P<subject>"}, r"'\(\?P<subject>'.*position 0"),
    ],
)
def test_a_pattern_that_cannot_work_is_an_error(tree, change, message):
    with pytest.raises(PainseqError, match=f"(?s){message}"):
        AI4Pain(tree, **change)


def test_a_file_named_otherwise_is_an_error_that_names_the_option(tree):
    (tree / "Validation" / "P1" / "P7_Low_Pain_1.mp4").touch()
    with pytest.raises(PainseqError, match=r"(?s)Validation/P1/P7_Low_Pain_1\.mp4.*\bpattern"):
        AI4Pain(tree).read_manifest()
    with pytest.raises(PainseqError, match=r"(?s)Test/P2/P2_High_Pain_1\.mp4.*\btest_pattern.*/x\.mp4"):
        AI4Pain(
            tree, pattern=r"(?P<subject>P\d).*_(?P<label>\w+)_\d\.mp4", test_pattern=r"(?P<subject>.*)/x.mp4"
        ).read_manifest()


def test_an_unknown_label_is_an_error_with_those_found(tree):
    (tree / "Validation" / "P1" / "P1_Huge_Pain_1.mp4").touch()
    with pytest.raises(PainseqError, match=r"(?s)'Huge_Pain'.*Huge_Pain \(1\D*Low_Pain \(1"):
        _ = AI4Pain(tree).manifest


@pytest.mark.parametrize("below", [".", "Test", "nowhere"])
def test_the_wrong_root_is_an_error_that_says_which_folder_is_meant(tmp_path, below):
    (tmp_path / "Test" / "P1").mkdir(parents=True)
    with pytest.raises(PainseqError, match=r"(?s)(?<!of-)\broot\b.*Train|Train.*(?<!of-)\broot\b"):
        AI4Pain(tmp_path / below).read_manifest()


@pytest.mark.parametrize("protocol", ["official", "official_inner"])
def test_a_subject_in_train_and_test_is_a_leak(tree, coded_video, protocol):
    for subject in ("P2", "P3", "P4"):
        coded_video(tree / "Train" / subject / f"{subject}_No_Pain_1.mp4", 3, 1)
    with pytest.raises(LeakError, match=r"(?s)\bP2\b.*train.*test"):
        for seed in range(4):
            _ = AI4Pain(tree, DataOptions(split=SplitOptions(protocol=protocol, seed=seed))).split


def test_a_table_of_clips_stands_for_the_scan(tree, tmp_path):
    table = tmp_path / "clips.csv"
    table.write_text("clip_id,subject_id,video,label,part,start_s,end_s\na,P1,any/where.mp4,High_Pain,train,2,12\n")
    (clip,) = AI4Pain(tree, manifest=table).manifest
    assert (clip.clip_id, clip.video, clip.start_s, clip.end_s, clip.part) == ("a", "any/where.mp4", 2, 12, "train")


def test_suffixes_count_in_any_case_and_hidden_files_not_at_all(tree, coded_video):
    before = {clip.clip_id for clip in AI4Pain(tree, options()).read_manifest()}
    test = next((tree / "Test").rglob("*.mp4"))
    (test.parent / f"._{test.name}").write_bytes(b"resource fork")
    assert {clip.clip_id for clip in AI4Pain(tree, options()).read_manifest()} == before
    test.rename(test.with_suffix(".MP4"))
    assert {clip.clip_id for clip in AI4Pain(tree, options()).read_manifest()} == before
