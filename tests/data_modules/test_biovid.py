"""BioVid's layouts: videos, and folders of images derived from them."""

import csv
import json
import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data_modules import BioVid
from painseq.data_modules.biovid import LABELS, LOW_EXPRESSIVE, TRAINING, VALIDATION, disagreeing_rows, read_samples
from painseq.errors import PainseqError
from painseq.faces import Face, FaceCrops, Locator
from painseq.faces.tracks import TrackFolder
from painseq.features import FeatureStore
from painseq.video import open_video

NAMES = ("071309_w_21", "082414_m_64")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two real names, one clip a class; a scan reads names alone, so the files are empty."""
    for subject in NAMES:
        folder = tmp_path / "PartA" / "video" / subject
        folder.mkdir(parents=True)
        for number, label in enumerate(("BL1", "PA1", "PA2", "PA3", "PA4"), start=81):
            (folder / f"{subject}-{label}-{number:03d}.mp4").touch()
    return tmp_path


def test_a_clip_tells_who_it_shows_and_what_hurt(tree):
    clips = {clip.clip_id: clip for clip in BioVid(tree).read_manifest()}
    assert len(clips) == 10
    clip = clips["071309_w_21-BL1-081"]
    assert (clip.subject_id, clip.label, clip.sex, clip.age, clip.stimulus) == ("071309_w_21", "BL1", "f", 21, "heat")
    assert clip.video == "PartA/video/071309_w_21/071309_w_21-BL1-081.mp4" and clip.end_s is None and clip.fps is None
    assert (clips["082414_m_64-PA4-085"].sex, clips["082414_m_64-PA4-085"].age) == ("m", 64)


@pytest.mark.parametrize("labels", BioVid.facts.schemes)
def test_each_scheme_takes_its_native_labels(tree, labels):
    data = BioVid(tree, DataOptions(labels=labels))
    natives = [native for natives in BioVid.facts.schemes[labels].values() for native in natives]
    assert sorted(clip.label for clip in data.manifest) == sorted(natives * 2)
    assert data.scheme.counts(data.manifest) == dict.fromkeys(BioVid.facts.schemes[labels], 2)


def test_a_generated_tree_is_read_as_a_real_one(heat):
    manifest = BioVid(heat).read_manifest()
    assert len(manifest) == 25 and len(manifest.subjects) == 5
    assert all(manifest.path(clip).is_file() for clip in manifest)


@pytest.mark.parametrize(
    "name", ["holiday.mp4", "071309_w_21-BL1.mp4", "071309_w_21-BL1-081 (copy).mp4", "082414_m_64-BL1-001.mp4"]
)
def test_a_file_named_otherwise_is_an_error_that_says_how(tree, name):
    (tree / "PartA" / "video" / "071309_w_21" / name).touch()
    expected = rf"{re.escape(name)}.*071309_w_21-<BL1\|PA1\.\.PA4>-<number>\.mp4"
    with pytest.raises(PainseqError, match=expected):
        BioVid(tree).read_manifest()


def test_other_files_are_left_alone(tree):
    for name in (".DS_Store", "notes.csv", *(f"PartA/video/071309_w_21/{name}" for name in ("notes.txt", "._x.mp4"))):
        (tree / name).touch()
    (tree / "PartA" / "biosignals_raw" / "071309_w_21").mkdir(parents=True)
    assert len(BioVid(tree).read_manifest()) == 10


def test_a_label_that_biovid_has_not_is_an_error_with_those_found(tree):
    (tree / "PartA" / "video" / NAMES[0] / f"{NAMES[0]}-PA7-099.mp4").touch()
    with pytest.raises(PainseqError, match=r"(?s)'PA7'.*BL1 \(2\b.*PA7 \(1\b.*BL1, PA1"):
        _ = BioVid(tree).manifest


@pytest.mark.parametrize("below", ["PartA", "PartA/video", "nowhere"])
def test_the_wrong_root_is_an_error_that_says_which_folder_is_meant(tree, below):
    with pytest.raises(PainseqError, match=r"(?s)(?<!of-)\broot\b.*PartA"):
        BioVid(tree / below).read_manifest()


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "PartA" / "video").mkdir(parents=True)
    with pytest.raises(PainseqError, match=r"(?s)PartA/video/<subject>/<sample>\.mp4.*<class>/<sample>/img_00001\.jpg"):
        BioVid(tmp_path).read_manifest()


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """The derived layout: two real names, one folder a class, each with one image."""
    for subject in NAMES:
        for number, label in enumerate(LABELS, start=81):
            folder = tmp_path / "frames" / label / f"{subject}-{label}-{number:03d}"
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / "img_00001.jpg")
    return tmp_path / "frames"


def write_table(path: Path, names: list[str], **changed: dict[str, str]) -> None:
    """A samples.csv with trailing blanks; `changed` maps a column to cells of its own, by sample."""
    columns = ("subject_id", "subject_name", "class_id", "class_name", "sample_id", "sample_name")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(columns)
        for number, name in enumerate(names, start=1):
            subject, label, _ = name.split("-")
            cells = dict(zip(columns, (1, subject, LABELS.index(label), label, number, name), strict=True))
            cells |= {column: cells_of[name] for column, cells_of in changed.items() if name in cells_of}
            writer.writerow([f"{cells[column]} " for column in columns])


def test_folders_of_images_are_clips_whose_rate_is_said(frames):
    videos = {clip.clip_id: clip for clip in BioVid(frames).read_manifest()}
    assert len(videos) == 10 and {clip.fps for clip in videos.values()} == {25.0}
    clip = videos["071309_w_21-PA4-085"]
    assert clip.video == "PA4/071309_w_21-PA4-085" and (clip.subject_id, clip.label) == ("071309_w_21", "PA4")
    assert (clip.sex, clip.age, clip.stimulus) == ("f", 21, "heat")
    assert {clip.fps for clip in BioVid(frames, fps=12.5).read_manifest()} == {12.5}
    with pytest.raises(PainseqError, match=r"(?s)\bfps\b.*\b0"):
        BioVid(frames, fps=0)


@pytest.mark.parametrize("folder", ["4", "high_pain", "."])
def test_a_folder_of_any_other_name_says_nothing_of_the_class(tmp_path, folder):
    (tmp_path / folder / "071309_w_21-PA4-085").mkdir(parents=True)
    (clip,) = BioVid(tmp_path).read_manifest()
    assert clip.label == "PA4" and clip.video == (Path(folder) / "071309_w_21-PA4-085").as_posix()


def test_both_layouts_in_one_folder_need_a_word(tree, frames):
    frames.rename(tree / "PA_frames")
    (tree / "PA_frames" / "BL1").rename(tree / "BL1")
    with pytest.raises(PainseqError, match=r"(?s)BL1/071309_w_21-BL1-081.*\blayout\b"):
        BioVid(tree).read_manifest()
    assert len(BioVid(tree, layout="videos").read_manifest()) == 10
    assert [clip.label for clip in BioVid(tree, layout="images").read_manifest()] == ["BL1", "BL1"]


def test_a_layout_that_is_not_there_is_an_error(tree, frames):
    with pytest.raises(PainseqError, match=r"(?s)PartA/video/<subject>/<sample>\.mp4.*(?<!of-)\broot\b"):
        BioVid(frames, layout="videos").read_manifest()
    with pytest.raises(PainseqError, match=r"(?s)<class>/<sample>/img_00001\.jpg.*(?<!of-)\broot\b"):
        BioVid(tree, layout="images").read_manifest()


def test_a_folder_named_otherwise_beside_clips_is_an_error(frames):
    (frames / "PA1" / "071309_w_21").mkdir()
    with pytest.raises(PainseqError, match=r"(?s)PA1/071309_w_21\b.*<subject>-<BL1\|PA1\.\.PA4>-<number>"):
        BioVid(frames).read_manifest()


def test_a_clip_in_the_folder_of_another_class_is_an_error(frames):
    (frames / "PA4" / "071309_w_21-PA4-085").rename(frames / "BL1" / "071309_w_21-PA4-085")
    data = BioVid(frames)
    (problem,) = data.label_problems()
    assert re.search(r"^BL1/071309_w_21-PA4-085\b.*\bBL1\b.*\bPA4\b", problem)
    with pytest.raises(PainseqError, match=re.escape(problem)):
        data.read_manifest()


@pytest.mark.parametrize("place", ["samples.csv", "PartA/samples.csv"])
def test_the_table_agrees_in_spite_of_blanks(tree, place, caplog):
    names = [clip.clip_id for clip in BioVid(tree).read_manifest()]
    write_table(tree / place, names)
    assert BioVid(tree).label_problems() == [] and len(BioVid(tree).read_manifest()) == 10
    assert not caplog.messages


def test_a_table_that_disagrees_is_an_error_with_what_it_says(tree):
    names = [clip.clip_id for clip in BioVid(tree).read_manifest()]
    wrong = {"class_name": {names[0]: "PA4"}, "class_id": {names[1]: "3"}, "subject_name": {names[2]: "072514_m_27"}}
    write_table(tree / "samples.csv", names, **wrong)
    expected = [
        (names[0], "class_name", "PA4", "BL1"),
        (names[1], "class_id", "3", "1"),
        (names[2], "subject_name", "072514_m_27", "071309_w_21"),
    ]
    rows = disagreeing_rows(read_samples(tree / "samples.csv"))
    problems = BioVid(tree).label_problems()
    for row, problem, parts in zip(rows, problems, expected, strict=True):
        assert all(part in row for part in parts) and row in problem and "samples.csv" in problem
    with pytest.raises(PainseqError, match=rf"(?s)\b3\b.*{re.escape(problems[0])}"):
        BioVid(tree).read_manifest()
    (tree / "samples.csv").write_text("sample,label\n1,2\n")
    with pytest.raises(PainseqError, match=r"(?s)\bsample_name\b.*\bsample,label\b"):
        BioVid(tree).read_manifest()


def test_clips_that_only_the_table_or_only_the_disk_has_are_counted(tree, caplog):
    names = [clip.clip_id for clip in BioVid(tree).read_manifest()]
    write_table(tree / "samples.csv", [*names[1:], "072514_m_27-BL1-081", "072514_m_27-BL1-082"])
    assert len(BioVid(tree).read_manifest()) == 10
    absent, unlisted = caplog.messages
    assert all(part in absent for part in ("biovid", "2 clips", "samples.csv", "072514_m_27-BL1-081"))
    assert all(part in unlisted for part in ("biovid", "1 clip", "samples.csv", names[0]))


def published(root: Path, subjects: frozenset[str]) -> Path:
    for subject in subjects:
        folder = root / "PartA" / "video" / subject
        folder.mkdir(parents=True)
        for label in ("BL1", "PA4"):
            (folder / f"{subject}-{label}-081.mp4").touch()
    return root


def test_the_official_split_is_that_of_the_makers(tmp_path):
    assert (len(TRAINING), len(VALIDATION), len(LOW_EXPRESSIVE)) == (61, 26, 20)
    assert not TRAINING & VALIDATION and len(LOW_EXPRESSIVE & VALIDATION) == 5
    root = published(tmp_path, TRAINING | VALIDATION)
    split = BioVid(root, DataOptions(labels="binary", split=SplitOptions(protocol="official"))).split
    assert (set(split.train), set(split.validation), split.test) == (TRAINING, VALIDATION, ())


def test_generated_subjects_have_no_official_split(heat):
    data = BioVid(heat, DataOptions(labels="binary", split=SplitOptions(protocol="official")))
    with pytest.raises(PainseqError, match=r"(?s)biovid.*official.*subject_holdout"):
        _ = data.split


def test_a_stranger_among_the_87_leaves_no_official_split(tmp_path, caplog):
    root = published(tmp_path, TRAINING | VALIDATION | {"010203_m_30"})
    assert {clip.part for clip in BioVid(root).read_manifest()} == {None}
    assert re.search(r"\b1 of 88\b.*\b010203_m_30\b.*\b87\b", caplog.text)


@pytest.mark.parametrize(("subjects", "left"), [("without_low_expressive", 67), ("only_low_expressive", 20)])
def test_leaving_out_who_shows_little_is_said(tmp_path, caplog, subjects, left):
    root = published(tmp_path, TRAINING | VALIDATION)
    manifest = BioVid(root, subjects=subjects).read_manifest()
    assert len(manifest.subjects) == left
    assert (set(manifest.subjects) <= LOW_EXPRESSIVE) == (subjects == "only_low_expressive")
    assert f"{left} of 87" in caplog.text and re.search(r"\b87\D+67\b", caplog.text)


def test_nobody_left_is_an_error(heat):
    with pytest.raises(PainseqError, match=r"(?s)\bsubjects\b.*\bonly_low_expressive\b.*\b5\b"):
        BioVid(heat, subjects="only_low_expressive").read_manifest()


@pytest.fixture(scope="session")
def derived(heat: Path, work: Path) -> Path:
    """The generated heat data as folders of images, as sharp as the videos, sidecars beside them."""
    root = work / "derived"
    for clip in BioVid(heat).read_manifest():
        folder, video = root / clip.label / clip.clip_id, heat / clip.video
        folder.mkdir(parents=True)
        with open_video(video) as opened:
            for number, image in enumerate(opened.frames(np.arange(len(opened))), start=1):
                Image.fromarray(image).save(folder / f"img_{number:05d}.png")
        sidecar = video.with_suffix(".faces.safetensors")
        (folder.parent / sidecar.name).write_bytes(sidecar.read_bytes())
    return root


def summary_of(store):
    return json.loads((store / "run.json").read_text())["summary"]


def test_images_give_the_features_of_their_videos(on_heat, heat, derived, tmp_path, capsys):
    from painseq.cli.extract import main as extract

    shared = ["--dtype", "float32", "--precision", "fp32", "--data.options.labels", "binary"]
    extract([*on_heat, *shared, "--out", str(tmp_path / "videos")])
    of_images = ["--data.root", str(derived), "--data.fps", "4", "--out", str(tmp_path / "images")]
    extract([*on_heat, *shared, *of_images])
    first = summary_of(tmp_path / "images")
    one, other = FeatureStore(tmp_path / "videos"), FeatureStore(tmp_path / "images")
    assert set(one) == set(other) and len(one) == 10
    for clip_id in one:
        np.testing.assert_allclose(one[clip_id].features, other[clip_id].features, atol=1e-5)
        np.testing.assert_allclose(one[clip_id].times_s, other[clip_id].times_s)
    capsys.readouterr()
    extract([*on_heat, *shared, *of_images, "--json"])
    again = json.loads(capsys.readouterr().out)
    assert (first["extracted"], again["extracted"], again["skipped"]) == (10, 0, 10)
    extract([*on_heat, *shared, *of_images, "--data.fps", "8"])
    assert summary_of(tmp_path / "images")["redone"] == 10


def test_a_fit_a_score_and_a_prediction_on_images(on_heat, heat, derived, tmp_path, capsys):
    from painseq.cli import main
    from painseq.cli.evaluate import main as evaluate
    from painseq.cli.extract import main as extract
    from painseq.cli.fit import fit
    from painseq.model.checkpoint import load

    data = [*on_heat, "--data.root", str(derived), "--data.fps", "4", "--data.options.labels", "binary"]
    extract([*data, "--out", str(tmp_path / "store")])
    data += ["--data.options.store", str(tmp_path / "store")]
    head = ["--config", "configs/head/frame_ann.yaml", "--trainer.max_epochs", "1"]
    checkpoint = fit([*data, *head, "--out", str(tmp_path / "run")]) / "best.ckpt"
    evaluate([*data, "--checkpoint", str(checkpoint), "--out", str(tmp_path / "score")])
    assert (tmp_path / "score" / "metrics.json").is_file()

    clip = BioVid(heat).read_manifest().clips[0]
    model, folder = load(checkpoint), derived / str(clip.label) / clip.clip_id
    of_video, of_images = model.predict(heat / clip.video), model.predict(folder, image_fps=4.0)
    assert of_video.probabilities == pytest.approx(of_images.probabilities, abs=1e-5)
    assert of_images.backends["video"] == "images" and of_images.frames == of_video.frames
    capsys.readouterr()
    assert main(["predict", str(folder), "--checkpoint", str(checkpoint)]) == 1
    assert "--image-fps" in capsys.readouterr().err
    assert main(["predict", str(folder), "--checkpoint", str(checkpoint), "--image-fps", "4"]) == 0


def test_faces_in_images_are_tracked(on_heat, derived, tmp_path):
    from painseq.cli.faces import main as faces

    data = [*on_heat, "--data.root", str(derived), "--data.fps", "4", "--data.options.labels", "binary"]
    for more, key in (([], "found"), ([], "found_before"), (["--data.fps", "8"], "found")):
        faces([*data, *more, "--out", str(tmp_path)])
        assert json.loads((tmp_path / "summary.json").read_text())[key] == 10


class Centre(Locator):
    """A face in the middle of every picture."""

    needs_pixels: ClassVar[bool] = True

    def locate(self, images, times_s, video):
        return [[Face(np.array([16, 16, 48, 48], np.float32), 1.0)] for _ in times_s]


def test_a_track_of_images_is_used_at_their_rate_alone(derived, tmp_path):
    face = FaceCrops(Centre(), size_px=32, tracks=tmp_path)
    data = BioVid(derived, DataOptions(labels="binary", view="pixels", face=face, fps=3.0), fps=4.0)
    folder = data.manifest.path(data.manifest.clips[0])
    tracks = TrackFolder(tmp_path, face.tracking())
    tracks.begin()
    tracks.write(tracks.place(folder, 0.0, None, 3.0, 4.0), face.find_track(folder, fps=3.0, image_fps=4.0))
    for image_fps, reused in ((4.0, True), (8.0, False)):
        assert next(iter(face.clip(folder, fps=3.0, image_fps=image_fps))).reused_track == reused
    sample = data.dataset("train")[0]
    assert sample.video is not None and sample.video.shape == (17, 3, 32, 32)
