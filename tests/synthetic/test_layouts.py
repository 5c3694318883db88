import csv
import re
from collections import Counter

import av
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from painseq.errors import PainseqError
from painseq.faces.pspi import pspi
from painseq.records import read_manifest
from painseq.synthetic import (
    BioVidPlan,
    FolderPlan,
    MIntPAINPlan,
    UNBCPlan,
    XITEPlan,
    clips,
    write_biovid_frames,
    write_folder,
    write_mintpain,
    write_unbc,
    write_xite,
)
from painseq.synthetic.biovid import biovid_jobs
from painseq.synthetic.expression import by_unit
from painseq.synthetic.unbc import facs_of

FRAMES = BioVidPlan(subjects=2, trials=1, levels=("BL1", "PA4"), fps=2.0, size_px=64)
SHOULDER = UNBCPlan(subjects=3, sequences=3, frames=12, fps=6.0, size_px=64)
SWEEPS = MIntPAINPlan(subjects=2, trials=2, sweeps=4, clip_s=2.0, fps=1.0, size_px=64)
BOTH = XITEPlan(subjects=1, trials=1, phasic_s=1.0, tonic_s=2.0, fps=2.0, size_px=64)
OWN = FolderPlan(subjects=2, trials=2, clip_s=1.0, fps=2.0, size_px=64)
LAYOUTS = {
    "biovid-frames": (write_biovid_frames, FRAMES),
    "unbc": (write_unbc, SHOULDER),
    "mintpain": (write_mintpain, SWEEPS),
    "xite": (write_xite, BOTH),
    "folder": (write_folder, OWN),
}
REAL_UNBC = range(42, 125)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    below = tmp_path_factory.mktemp("layouts")
    for name, (write, plan) in LAYOUTS.items():
        write(below / name, plan, seed=0)
    return below


def rows(path, delimiter=","):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def read_numbers(path):
    return [[float(cell) for cell in line.split()] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_video_has_faces_and_truth(sets, name):
    root, truth = sets / name, sets / f"{name}_truth"
    subjects = rows(truth / "subjects.csv")
    assert list(subjects[0]) == ["subject_id", "sex", "age"]
    assert all(row["sex"] in ("f", "m") and 18 <= int(row["age"]) < 80 for row in subjects)
    labels = rows(truth / "labels.csv")
    assert {row["subject_id"] for row in labels} == {row["subject_id"] for row in subjects}
    sidecars = sorted(root.rglob("*.faces.safetensors"))
    assert len(sidecars) == len(labels)
    for sidecar in sidecars:
        video = sidecar.with_name(sidecar.name.removesuffix(".faces.safetensors"))
        if video.is_dir():
            count = sum(1 for _ in video.iterdir())
        else:
            with av.open(str(video.with_suffix(".mp4"))) as container:
                count = sum(1 for _ in container.decode(video=0))
        faces, known = load_file(sidecar), load_file(truth / f"{video.relative_to(root)}.safetensors")
        assert faces["boxes"].shape == (count, 4) and faces["landmarks"].shape == (count, 68, 2)
        assert len(known["au"]) == len(known["regions"]) == count
        np.testing.assert_array_equal(known["times_s"], faces["times_s"])


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_finished_set_is_left_as_it_is(sets, name):
    write, plan = LAYOUTS[name]
    before = {path: path.stat().st_mtime_ns for path in (sets / name).rglob("*") if path.suffix in (".mp4", ".png")}
    seen = []
    write(sets / name, plan, 0, 1, lambda done, total: seen.append((done, total)))
    assert len(seen) == 1 and seen[0][0] == seen[0][1]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_biovid_frames_show_the_clips_of_the_videos(sets, tmp_path):
    root = sets / "biovid-frames"
    jobs = biovid_jobs(tmp_path, FRAMES, 0)
    assert {path.relative_to(root).as_posix() for path in root.glob("*/*") if path.is_dir()} == {
        f"{job.label}/{job.clip_id}" for job in jobs
    }
    assert {row["sample_name"] for row in rows(root / "samples.csv", "\t")} == {job.clip_id for job in jobs}
    images = sorted((root / jobs[0].label / jobs[0].clip_id).iterdir())
    assert [image.name for image in images] == [f"img_{number:05d}.jpg" for number in range(1, 12)]
    for image, frame in zip(images, clips.draw_clip(jobs[0]).frames, strict=True):
        assert np.abs(np.asarray(Image.open(image)).astype(float) - frame).mean() < 6


def test_an_image_folder_that_lost_its_sidecar_is_made_anew(sets, tmp_path):
    root = tmp_path / "own"
    plan = BioVidPlan(subjects=1, trials=1, levels=("PA4",), fps=1.0, size_px=64)
    write_biovid_frames(root, plan, seed=0)
    (sidecar,) = root.rglob("*.faces.safetensors")
    folder = sidecar.with_name(sidecar.name.removesuffix(".faces.safetensors"))
    sidecar.unlink()
    (folder / "leftover.txt").write_text("")
    write_biovid_frames(root, plan, seed=0)
    assert sidecar.is_file() and len(list(folder.glob("*.jpg"))) == 6 and not (folder / "leftover.txt").exists()


def test_unbc_layout(sets):
    root = sets / "unbc"
    images = [path.relative_to(root).as_posix() for path in root.rglob("*.png")]
    assert len(images) == 3 * 3 * 12
    pattern = r"Images/(\d{3})-([a-z]{2}\1)/(\2t[12]a[abei](?:un)?aff)/\3\d{3}\.png"
    matches = [re.fullmatch(pattern, image) for image in images]
    assert all(matches)
    assert not {int(match[1]) for match in matches} & set(REAL_UNBC)
    for image in images:
        place = image.removeprefix("Images/").removesuffix(".png")
        assert len(read_numbers(root / "Frame_Labels" / "PSPI" / f"{place}_facs.txt")) == 1
        assert (root / "Frame_Labels" / "FACS" / f"{place}_facs.txt").is_file()
    scales = {"AFF": 15, "OPR": 5, "SEN": 15, "VAS": 10}
    for kind, most in scales.items():
        scores = [read_numbers(path)[0][0] for path in (root / "Sequence_Labels" / kind).glob("*/*.txt")]
        assert len(scores) == 9 and all(0 <= score <= most and score.is_integer() for score in scores)
    vas = [(path.parent.name, read_numbers(path)[0][0]) for path in (root / "Sequence_Labels" / "VAS").glob("*/*.txt")]
    assert all(len({score for subject, score in vas if subject == name}) == 3 for name in dict(vas))


def test_unbc_frames_are_scored_by_their_action_units_and_mostly_show_no_pain(sets):
    root = sets / "unbc"
    scores, empty = [], 0
    for path in (root / "Frame_Labels" / "PSPI").rglob("*.txt"):
        facs = root / "Frame_Labels" / "FACS" / path.relative_to(root / "Frame_Labels" / "PSPI")
        au = {int(row[0]): row[1] for row in read_numbers(facs)}
        empty += not facs.stat().st_size
        assert set(au) <= {4, 6, 7, 9, 10, 12, 25, 26, 43} and au.get(43, 1) == 1
        assert all(intensity in (1, 2, 3, 4, 5) for intensity in au.values())
        upper, nose = max(au.get(6, 0), au.get(7, 0)), max(au.get(9, 0), au.get(10, 0))
        assert read_numbers(path) == [[au.get(4, 0) + upper + nose + au.get(43, 0)]]
        scores += read_numbers(path)[0]
    assert empty > 0 and max(scores) > 3 and np.mean(np.equal(scores, 0)) > 0.5


def test_facs_has_whole_numbers_and_no_blinks():
    au = np.zeros((2, 10), np.float32)
    au[0] = [2.4, 2.6, 0.4, 0, 4.9, 0, 0, 0, 2.6, 5.0]
    assert facs_of(au)[0].tolist() == [2, 3, 0, 0, 5, 0, 0, 0, 1, 0]
    assert pspi(by_unit(facs_of(au))).tolist() == [2 + 3 + 5 + 1, 0]


def test_mintpain_layout(sets):
    root = sets / "mintpain"
    sequences = [path.parent.relative_to(root).as_posix() for path in root.rglob("RGB")]
    pattern = r"(Sub\d\d)/(Trial\d\d)/\1_\2_Sweep\d\d_Label([0-4])"
    found = Counter(re.fullmatch(pattern, sequence)[3] for sequence in sequences)
    assert found == {"0": 16, "1": 4, "2": 4, "3": 4, "4": 4}
    for sequence in sequences:
        for folder, suffix in (("RGB", "jpg"), ("D", "png"), ("T", "jpg")):
            names = sorted(path.name for path in (root / sequence / folder).iterdir())
            assert names == [f"frame_001.{suffix}", f"frame_002.{suffix}"]


def test_mintpain_cameras_see_one_head(sets):
    root = sets / "mintpain"
    folder = next(root.rglob("RGB")).parent
    colour, depth, heat = (
        np.asarray(Image.open(folder / name)) for name in ("RGB/frame_001.jpg", "D/frame_001.png", "T/frame_001.jpg")
    )
    assert (colour.shape, colour.dtype) == ((64, 64, 3), np.uint8)
    assert (depth.shape, depth.dtype.itemsize) == ((64, 64), 2) and (heat.shape, heat.dtype) == ((64, 64), np.uint8)
    points = load_file(folder / "D.faces.safetensors")["landmarks"][0]
    x, y = points[27].round().astype(int)
    assert 500 < depth[y, x] < depth[0, 0] - 500 and heat[y, x] > int(heat[0, 0]) + 50
    np.testing.assert_array_equal(points, load_file(folder / "RGB.faces.safetensors")["landmarks"][0])


def test_xite_layout_and_names_that_tell_no_label(sets):
    root = sets / "xite"
    videos = {path.relative_to(root).as_posix() for path in root.rglob("*.mp4")}
    frontal = {video for video in videos if re.fullmatch(r"fvf/(S\d{3})/\1_\d{4}\.mp4", video)}
    assert videos == frontal | {video.replace("fvf", "fvs") for video in frontal}
    labels = {row["segment"]: int(row["label"]) for row in rows(root / "labels.csv")}
    assert sorted(labels.values()) == list(range(-6, 7))
    assert {f"fvf/{segment[:4]}/{segment}.mp4" for segment in labels} == frontal
    assert list(labels.values()) != sorted(labels.values())
    for segment, label in labels.items():
        known = load_file(sets / "xite_truth" / "fvf" / segment[:4] / f"{segment}.safetensors")
        assert len(known["au"]) == (4 if abs(label) > 3 else 2)


def test_xites_view_from_the_side_is_narrower(sets):
    root = sets / "xite"
    front = next(root.rglob("fvf/*/*.mp4"))
    side = root / "fvs" / front.relative_to(root / "fvf")
    with av.open(str(front)) as a, av.open(str(side)) as b:
        assert (a.streams.video[0].width, b.streams.video[0].width) == (64, 38)
    boxes = [load_file(path.with_suffix(".faces.safetensors"))["boxes"] for path in (front, side)]
    np.testing.assert_allclose(boxes[0] * [38 / 64, 1, 38 / 64, 1], boxes[1], rtol=1e-5)


def test_folders_and_the_manifest_name_the_same_clips(sets):
    root = sets / "folder"
    manifest = read_manifest(root / "clips.csv", root, "mine")
    assert {clip.video for clip in manifest} == {path.relative_to(root).as_posix() for path in root.rglob("*.mp4")}
    assert all(clip.video == f"{clip.label}/{clip.subject_id}_{clip.video[-6:-4]}.mp4" for clip in manifest)
    assert Counter(clip.label for clip in manifest) == {"no_pain": 4, "low_pain": 4, "high_pain": 4}
    assert all(clip.sex in ("f", "m") and clip.age and clip.fps == 2 for clip in manifest)


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        (lambda: UNBCPlan(subjects=900), "subjects.*900.*799"),
        (lambda: UNBCPlan(sequences=17), "sequences.*17.*16"),
        (lambda: UNBCPlan(frames=1000), "frames.*1000.*999"),
        (lambda: MIntPAINPlan(sweeps=0), "sweeps.*0"),
        (lambda: XITEPlan(tonic_s=0), "tonic_s.*0"),
        (lambda: FolderPlan(clip_s=-1), "clip_s.*-1"),
    ],
)
def test_impossible_plans_are_refused(plan, problem):
    with pytest.raises(PainseqError, match=f"(?s){problem}"):
        plan()
