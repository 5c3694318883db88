import csv
import hashlib
import json
import re
import shutil
from itertools import pairwise

import av
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from painseq.errors import PainseqError
from painseq.synthetic import AI4PainPlan, BioVidPlan, clips, write_ai4pain, write_biovid
from painseq.synthetic.ai4pain import ai4pain_jobs
from painseq.synthetic.biovid import biovid_jobs
from painseq.synthetic.expression import AUS, REGIONS, Course
from painseq.synthetic.writing import MARKER
from painseq.video import read_timeline
from painseq.video.generated import is_generated

HEAT = BioVidPlan(subjects=2, trials=1, levels=("BL1", "PA4"), fps=4.0, size_px=96)
SHOCK = AI4PainPlan(train=1, validation=1, test=1, trials=1, baseline_s=12.0, fps=4.0, size_px=96)


@pytest.fixture(scope="module")
def heat(tmp_path_factory):
    root = tmp_path_factory.mktemp("generated") / "heat"
    return root, write_biovid(root, HEAT, seed=0, workers=1)


@pytest.fixture(scope="module")
def shock(tmp_path_factory):
    root = tmp_path_factory.mktemp("generated") / "shock"
    seen = []
    truth = write_ai4pain(root, SHOCK, seed=0, workers=2, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 3 * (48 + 40 + 40)) and seen[-1][0] == seen[-1][1]
    assert all(before[0] < after[0] for before, after in pairwise(seen))
    return root, truth


def rows(path, delimiter=","):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def jobs_of(root, plan, seed):
    return (biovid_jobs if isinstance(plan, BioVidPlan) else ai4pain_jobs)(root, plan, seed)


def digest(job):
    total = hashlib.sha256()
    for frame in clips.draw_clip(job).frames:
        total.update(frame.tobytes())
    return total.hexdigest()


def pixels(video):
    """(N, 12, 12) means of small squares: the encoder itself may differ in single pixels."""
    with av.open(str(video)) as container:
        frames = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]).astype(float)
    return frames.reshape(len(frames), 12, 8, 12, 8).mean(axis=(2, 4))


def test_same_seed_same_frames_whatever_is_drawn_before(tmp_path):
    jobs = jobs_of(tmp_path, HEAT, 5)
    forwards = [digest(job) for job in jobs]
    clips._painter.cache_clear()
    assert [digest(job) for job in reversed(jobs)][::-1] == forwards
    assert len(set(forwards)) == len(jobs)
    assert digest(jobs_of(tmp_path, HEAT, 6)[0]) != forwards[0]


@pytest.mark.parametrize(
    ("plan", "clip", "au", "landmarks", "frame"),
    [
        (HEAT, 0, 0.180386, 50.1975, 59.438),
        (HEAT, 3, 0.0832546, 52.2363, 159.801),
        (SHOCK, 0, 0.221474, 53.7042, 120.247),
        (SHOCK, 2, 1.33556, 52.8916, 113.654),
    ],
)
def test_a_plan_and_a_seed_are_the_same_data_set_in_every_version(tmp_path, plan, clip, au, landmarks, frame):
    drawing = clips.draw_clip(jobs_of(tmp_path, plan, 5)[clip])
    # Means, since processors may differ in last digits. If the generator changes on purpose, so does its VERSION.
    assert drawing.course.au.mean() == pytest.approx(au, rel=1e-4)
    assert drawing.landmarks.mean() == pytest.approx(landmarks, rel=1e-4)
    assert next(drawing.frames).mean() == pytest.approx(frame, rel=1e-3)


def test_the_number_of_workers_changes_nothing(heat, tmp_path):
    root, truth = heat
    write_biovid(tmp_path / "heat", HEAT, seed=0, workers=2)
    for folder, other in ((root, tmp_path / "heat"), (truth, tmp_path / "heat_truth")):
        names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        assert names == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
        for name in names:
            if name.suffix == ".mp4":
                np.testing.assert_allclose(pixels(folder / name), pixels(other / name), atol=3.0)
            elif name.suffix == ".safetensors":
                known, again = load_file(folder / name), load_file(other / name)
                assert all((known[key] == again[key]).all() for key in known), name
            else:
                assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_biovid_layout(heat):
    root, _ = heat
    videos = sorted(root.rglob("*.mp4"))
    assert len(videos) == 4
    pattern = r"PartA/video/(\d{6}_[mw]_\d+)/\1-(BL1|PA1|PA2|PA3|PA4)-\d{3}\.mp4"
    assert all(re.fullmatch(pattern, path.relative_to(root).as_posix()) for path in videos)
    samples = rows(root / "samples.csv", "\t")
    assert list(samples[0]) == ["subject_id", "subject_name", "class_id", "class_name", "sample_id", "sample_name"]
    assert {row["sample_name"] for row in samples} == {path.stem for path in videos}
    assert {(row["class_id"], row["class_name"]) for row in samples} == {("0", "BL1"), ("4", "PA4")}


def test_ai4pain_layout_and_nameless_test_items(shock):
    root, _ = shock
    videos = [path.relative_to(root).as_posix() for path in root.rglob("*.mp4")]
    shown = [video for video in videos if not video.startswith("Test/")]
    hidden = [video for video in videos if video.startswith("Test/")]
    assert len(shown) == 6 and len(hidden) == 3
    pattern = r"(Train|Validation)/([^/]+)/\2_(No_Pain|Low_Pain|High_Pain)_\d+\.mp4"
    assert all(re.fullmatch(pattern, video) for video in shown)
    assert all(re.fullmatch(r"Test/([^/]+)/\1_\d+\.mp4", video) for video in hidden)


def test_nothing_in_the_tree_tells_of_test_labels(shock):
    root, truth = shock
    assert not truth.is_relative_to(root)
    below = [path for path in (root / "Test").rglob("*") if path.is_file()]
    assert not [path for path in below if re.search("pain|low|high|PA", path.name, re.IGNORECASE)]
    for path in root.rglob("*.safetensors"):
        assert set(load_file(path)) == {"times_s", "boxes", "scores", "landmarks"}
        with safe_open(path, framework="numpy") as file:
            assert not file.metadata()
    labels = rows(truth / "labels.csv")
    assert {row["label"] for row in labels if row["part"] == "test"} == {"No_Pain", "Low_Pain", "High_Pain"}
    assert {row["clip_id"] for row in labels} == {
        path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.mp4")
    }


def test_test_items_are_in_shuffled_order(tmp_path):
    jobs = jobs_of(tmp_path, AI4PainPlan(train=0, validation=0, test=6, trials=3), 0)
    first = [job.label for job in jobs if job.item.endswith("_1")]
    assert len(set(first)) > 1


def test_sidecar_and_truth_have_the_videos_frames(heat, shock):
    for root, truth in (heat, shock):
        for video in root.rglob("*.mp4"):
            item = video.relative_to(root).with_suffix("")
            sidecar = load_file(video.with_suffix(".faces.safetensors"))
            known = load_file(truth / f"{item}.safetensors")
            times_s = np.asarray(read_timeline(video).times_s)
            np.testing.assert_allclose(sidecar["times_s"], times_s, atol=1e-3)
            np.testing.assert_array_equal(known["times_s"], sidecar["times_s"])
            n = len(times_s)
            assert sidecar["times_s"].dtype == np.float64
            assert sidecar["boxes"].shape == (n, 4) and sidecar["boxes"].dtype == np.float32
            assert sidecar["scores"].shape == (n,) and sidecar["landmarks"].shape == (n, 68, 2)
            assert known["regions"].shape == (n, len(REGIONS), 4)
            au = known["au"].astype(float)
            np.testing.assert_allclose(known["pspi"], Course(times_s, au, au).pspi, atol=1e-5)
            with safe_open(truth / f"{item}.safetensors", framework="numpy") as file:
                assert tuple(file.metadata()["au"].split(",")) == AUS
                assert tuple(file.metadata()["regions"].split(",")) == REGIONS


def test_landmarks_and_regions_lie_on_the_face(heat):
    root, truth = heat
    for path in root.rglob("*.faces.safetensors"):
        faces = load_file(path)
        points, boxes = faces["landmarks"], faces["boxes"]
        inside = (points >= boxes[:, None, :2] - 4) & (points <= boxes[:, None, 2:] + 4)
        assert inside.all(axis=2).mean() > 0.98
        left_eye, right_eye, mouth = points[:, 36:42].mean(1), points[:, 42:48].mean(1), points[:, 48:60].mean(1)
        assert (left_eye[:, 0] < right_eye[:, 0]).all() and (mouth[:, 1] > left_eye[:, 1]).all()
        video = path.relative_to(root).as_posix().removesuffix(".faces.safetensors")
        regions = load_file(truth / f"{video}.safetensors")["regions"]
        eyes = regions[:, REGIONS.index("eyes")]
        assert (eyes[:, :2] < left_eye).all() and (eyes[:, 2:] > right_eye).all()


def test_runs_again_without_redoing_and_completes_what_is_missing(heat, tmp_path):
    root, truth = tmp_path / "heat", tmp_path / "heat_truth"
    shutil.copytree(heat[0], root)
    shutil.copytree(heat[1], truth)
    kept, lost = sorted(root.rglob("*.mp4"))[:2]
    before, content = kept.stat().st_mtime_ns, pixels(lost)
    lost.unlink()
    (root / ".unfinished" / "0_0").mkdir(parents=True)
    seen = []
    assert write_biovid(root, HEAT, 0, 1, lambda done, total: seen.append(done)) == truth
    assert kept.stat().st_mtime_ns == before
    np.testing.assert_allclose(pixels(lost), content, atol=3.0)
    assert seen == [66, 88]
    assert not (root / ".unfinished").exists()


def test_another_plan_or_seed_or_a_foreign_folder_is_refused(heat, tmp_path):
    root, _ = heat
    with pytest.raises(PainseqError, match=r"(?s)/heat\b.*seed\D*0\D*1"):
        write_biovid(root, HEAT, seed=1)
    with pytest.raises(PainseqError, match=r"(?s)data_set.*'biovid'.*'ai4pain'"):
        write_ai4pain(root, SHOCK, seed=0)
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("")
    with pytest.raises(PainseqError, match=r"/mine\b"):
        write_biovid(foreign, HEAT, seed=0)
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]


def test_generated_videos_are_known_as_such(heat, tmp_path):
    root, _ = heat
    assert is_generated(root) and all(map(is_generated, root.rglob("*.mp4")))
    assert not is_generated(tmp_path)
    record = json.loads((root / MARKER).read_text())
    assert record["seed"] == 0 and record["plan"]["fps"] == 4.0 and "patient" in record["about"]


def test_what_lies_below_a_generated_set_is_not_generated_for_that(heat, tmp_path):
    root = tmp_path / "heat"
    for folder in heat:
        shutil.copytree(folder, tmp_path / folder.name)
    one, other = sorted(root.rglob("*.mp4"))[:2]
    assert is_generated(one) and is_generated(other)
    shutil.copytree(root / "PartA", root / "real" / "PartA")
    below = root / "real" / one.relative_to(root)
    assert not is_generated(root / "real") and not is_generated(below) and not is_generated(one.with_name("no.mp4"))
    # Somebody's own video, in the place and under the name of a generated one.
    shutil.copy(other, one)
    assert not is_generated(one) and is_generated(other)
    third = sorted(root.rglob("*.mp4"))[2]
    (tmp_path / "heat_truth" / third.relative_to(root)).with_suffix(".safetensors").write_bytes(b"damaged")
    assert not is_generated(third)
    shutil.rmtree(tmp_path / "heat_truth")
    assert not is_generated(other) and is_generated(root)


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        (lambda: BioVidPlan(subjects=0), "subjects.*0"),
        (lambda: BioVidPlan(levels=("BL1", "PA9")), "levels.*BL1, PA9"),
        (lambda: BioVidPlan(size_px=97), "size_px.*97.*64.*1024"),
        (lambda: AI4PainPlan(fps=0), "fps.*0.*120"),
        (lambda: AI4PainPlan(baseline_s=3), "baseline_s.*3.*10"),
    ],
)
def test_impossible_plans_are_refused(plan, problem):
    with pytest.raises(PainseqError, match=f"(?s){problem}"):
        plan()


def test_yunet_finds_the_faces(assets, tmp_path):
    import cv2

    model = assets / "weights" / "detectors" / "face_detection_yunet_2023mar.onnx"
    detector = cv2.FaceDetectorYN.create(str(model), "", (192, 192), 0.6)
    overlaps = []
    count = 0
    heat = jobs_of(tmp_path, BioVidPlan(subjects=6, trials=1, levels=("PA4",), fps=2.0), 0)
    shock = jobs_of(tmp_path, AI4PainPlan(train=0, validation=0, test=3, trials=1, baseline_s=10.0, fps=2.0), 0)
    for job in (*heat, *shock):
        drawing = clips.draw_clip(job)
        for frame, box in zip(drawing.frames, drawing.boxes, strict=True):
            count += 1
            _, found = detector.detect(np.ascontiguousarray(frame[..., ::-1]))
            if found is not None:
                x, y, width, height = found[0, :4]
                overlaps.append(overlap(box, (x, y, x + width, y + height)))
    assert len(overlaps) >= 0.95 * count
    assert np.mean(overlaps) >= 0.8


def overlap(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)
