"""Blinks: found, and held against the explanation."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from painseq.data.labels import Scale
from painseq.data.streams.action_units import OPENFACE
from painseq.errors import PainseqError
from painseq.explain import Scorer, blink_check, blink_frames, check_blinks, explain, known_units
from painseq.explain.blinks import BlinkClip, blinks_from_landmarks, eye_aspect_ratio, without_eyes
from painseq.explain.regions import REGIONS, region_masks
from painseq.synthetic.clips import ClipJob, draw_clip
from painseq.synthetic.expression import AUS


def drawn(subject, level, fps, size_px=64):
    job = ClipJob(Path(), "a", "a", "a", "x", "electrical", level, 10.0, fps, size_px, 0, 2, subject, int(level))
    return draw_clip(job)


def test_the_aspect_ratio_is_that_of_the_paper():
    points = torch.zeros(2, 68, 2)
    eye = torch.tensor([[0.0, 0.0], [1.0, -1.0], [2.0, -1.0], [4.0, 0.0], [2.0, 1.0], [1.0, 0.5]])
    points[:, 36:42], points[:, 42:48] = eye, 3 * eye + 7
    points[1, 40] = float("nan")
    assert eye_aspect_ratio(points)[0] == pytest.approx((1.5 + 2.0) / (2 * 4.0))
    assert np.isnan(eye_aspect_ratio(points)[1])


@pytest.mark.parametrize("fps", [8.0, 25.0])
def test_blinks_of_generated_faces_are_found_from_landmarks(fps):
    found, true, possible = [], [], []
    for subject in range(8):
        for level in (0, 1, 2):
            drawing = drawn(subject, level, fps)
            au = {name: drawing.course.au[:, column] for column, name in enumerate(AUS)}
            found.append(
                blinks_from_landmarks(torch.from_numpy(drawing.landmarks), torch.from_numpy(drawing.course.times_s))
            )
            true.append(au["AU45"] >= 2.5)
            # Where pain or rest nearly shuts the eyes, a blink does not show.
            possible.append((au["AU43"] < 1) & (au["AU7"] < 3))
    found, true, possible = (np.concatenate(part) for part in (found, true, possible))
    assert true[found].mean() > 0.9
    assert found[true & possible].mean() > 0.85


def test_blinks_of_a_real_face_are_found_from_the_points_of_its_mesh(assets):
    """In the one of every fourth frame where the makers' runtime gives eyeBlink (columns 9, 10) its highest value."""
    with np.load(assets / "golden" / "golden_single_face_facelandmarker.npz") as golden:
        points, times_s = torch.from_numpy(golden["landmarks"]).float(), torch.from_numpy(golden["frame"] / 30)
        closed = golden["blendshapes"][:, [9, 10]].mean(axis=1)
    assert np.flatnonzero(blinks_from_landmarks(points, times_s)).tolist() == [closed.argmax()]
    assert np.corrcoef(eye_aspect_ratio(points), closed)[0, 1] < -0.95


def test_eyes_closed_for_long_are_no_blink_and_unknown_landmarks_none():
    drawing = drawn(0, 0, 25.0)
    points = torch.from_numpy(drawing.landmarks[:1]).repeat(60, 1, 1)
    shut = points[0].clone()
    for first in (36, 42):
        shut[first + 4 : first + 6] = shut[[first + 2, first + 1]] + 0.1
    points[10:15] = shut
    points[30:50] = shut
    points[55] = float("nan")
    times_s = torch.arange(60) / 25
    assert np.flatnonzero(blinks_from_landmarks(points, times_s)).tolist() == [10, 11, 12, 13, 14]
    assert not blinks_from_landmarks(points * float("nan"), times_s).any()
    assert not blinks_from_landmarks(points[:1], times_s[:1]).any()


def test_the_truth_of_a_generated_video_is_known(electrical):
    video = electrical / "Train" / "S01" / "S01_No_Pain_1.mp4"
    assert video.is_file()
    truth = load_file(electrical.parent / "electrical_truth" / "Train" / "S01" / "S01_No_Pain_1.safetensors")
    known = known_units(video, np.arange(20) / 3, start_s=10.0)
    assert known.source == "truth"
    assert np.allclose(known.pspi, truth["pspi"][30:50])
    assert np.array_equal(known.blinks, truth["au"][30:50, AUS.index("AU45")] >= 2.5)
    beyond = known_units(video, np.array([24.0, 99.0]))
    assert np.isnan(beyond.pspi[1]) and not beyond.blinks[1]


def openface(path, times_s, blinks):
    names = ["frame", "timestamp", "success", *(column.name for column in OPENFACE)]
    rows = [", ".join(names)]
    for number, (moment, blink) in enumerate(zip(times_s, blinks, strict=True), start=1):
        values = {"frame": number, "timestamp": round(moment, 3), "success": 1, "AU04_r": 2.0, "AU45_c": int(blink)}
        rows.append(", ".join(str(values.get(name, 0)) for name in names))
    path.write_text("\n".join(rows) + "\n")


def test_openfaces_table_beside_a_video_is_used(video, caplog):
    times_s = np.arange(9) / 3
    assert known_units(video, times_s) is None
    blinks = np.arange(9) == 7
    table = video.with_suffix(".csv")
    openface(table, times_s, blinks)
    known = known_units(video, times_s)
    assert known.source == "OpenFace" and np.array_equal(known.blinks, blinks)
    assert known.pspi.tolist() == (2.0 + blinks).tolist()
    openface(table, np.arange(90) / 30, np.isin(np.arange(90), [*range(5, 17), *range(30, 80)]))
    known = known_units(video, times_s, image_fps=25.0)
    # Twelve frames are 0.4 s and a blink; fifty are none.
    assert np.array_equal(known.blinks, times_s == times_s[1])
    table.write_text("name, price\ntea, 3\n")
    assert known_units(video, times_s) is None and str(table) in caplog.text
    with pytest.raises(PainseqError, match=r"(?s)clip\.csv.*name, price"):
        known_units(video, times_s, action_units=table)


@pytest.fixture
def blinking(made):
    """A model, its clip with landmarks, and frames of blinks, of which one has no face."""
    model, clip = made("lstm")
    points = torch.from_numpy(drawn(0, 0, 25.0, clip.x.shape[-1]).landmarks[: len(clip)])
    return model, dataclasses.replace(clip, landmarks=points), np.arange(len(clip)) % 4 == 3


def test_hidden_eyes_have_the_colour_of_the_face_and_nothing_else_changes(blinking):
    _, clip, blinks = blinking
    among = torch.from_numpy(blinks)
    x = without_eyes(clip, among)
    masks = region_masks(clip.landmarks, clip.x.shape[-1])
    eyes = torch.from_numpy(masks[:, REGIONS.index("eyes")])
    skin = ~eyes & ~torch.from_numpy(masks[:, REGIONS.index("outside the face")])
    changed = (x != clip.x.float()).any(dim=1)
    assert not (changed & ~eyes).any() and not changed[~(among & clip.present)].any()
    assert torch.allclose(x[3][:, eyes[3]], clip.x[3].float()[:, skin[3]].mean(dim=1, keepdim=True))


def test_scores_without_eyes_are_those_of_a_clip_without_eyes(blinking):
    model, clip, blinks = blinking
    found = explain(model, clip, "gradcam")
    found_blinks = check_blinks(model, found, blinks, "truth")
    # Frame 7 has no face; 0, 1, 4, 5, 6, 8 are the others, of which the first is one of evenly spaced one.
    assert (found_blinks.blink_frames, found_blinks.other_frames) == (1, 6)

    def change(among):
        hidden = dataclasses.replace(clip, x=without_eyes(clip, torch.as_tensor(among)))
        return Scorer(model, hidden, found.target).score - Scorer(model, clip, found.target).score

    assert found_blinks.change_all == pytest.approx(change(clip.present), abs=1e-5)
    assert found_blinks.change_blink == pytest.approx(change(blinks), abs=1e-5)
    assert found_blinks.change_other == pytest.approx(change(np.arange(9) == 0), abs=1e-5)
    eyes = region_masks(clip.landmarks, clip.x.shape[-1])[3, REGIONS.index("eyes")]
    heat = found.maps[3].numpy()
    assert found_blinks.share_blink == pytest.approx(heat[eyes].sum() / heat.sum(), abs=1e-6)


def test_a_clip_without_blinks_or_of_blinks_alone_takes_no_part(blinking):
    model, clip, blinks = blinking
    found = explain(model, clip, "gradcam")
    assert check_blinks(model, found, blinks & False, "truth") is None
    assert check_blinks(model, found, blinks | True, "truth") is None


def test_a_model_of_a_scale_has_no_label_to_change(made):
    model, clip = made("frame_ann", 1, loss="mse", class_names=(), scale=Scale("pspi", 0.0, 16.0))
    points = torch.from_numpy(drawn(0, 0, 25.0, clip.x.shape[-1]).landmarks[: len(clip)])
    clip = dataclasses.replace(clip, landmarks=points)
    found_blinks = check_blinks(model, explain(model, clip, "saliency"), np.arange(len(clip)) < 2, "truth")
    check = blink_check([found_blinks], ["a"])
    assert found_blinks.label_changes is None and check.label_changes.value is None and "label" not in check.figures


def test_blinks_come_from_the_best_source_there_is(blinking, electrical):
    _, clip, _ = blinking
    known = known_units(electrical / "Train" / "S01" / "S01_No_Pain_1.mp4", np.arange(9) / 3)
    assert "AU45" in blink_frames(clip, known)[1]
    assert "landmarks" in blink_frames(clip, None)[1]
    with pytest.raises(PainseqError, match="68"):
        blink_frames(dataclasses.replace(clip, landmarks=None), None)


def row(share_blink, change_blink):
    return BlinkClip("AU45, truth", 3, 20, share_blink, 0.1, 0.06, change_blink, 0.0, -0.1, False)


@pytest.mark.parametrize(
    ("share", "change", "reasons"),
    [
        (0.1, 0.0, ()),
        (0.3, 0.0, ("attribution",)),
        (0.05, 0.0, ()),
        (0.1, -1.0, ("score", "lower")),
        (0.1, 1.0, ("score", "higher")),
        (0.3, -1.0, ("attribution", "score", "lower")),
    ],
)
def test_what_is_a_worry_is_said(share, change, reasons):
    noise = np.random.default_rng(0).normal(0, 0.01, (12, 2))
    noise -= noise.mean(axis=0)

    def checked(share, change):
        clips = [row(share + a, change + b) for a, b in noise]
        return blink_check([*clips, None], [*map(str, range(12)), "x"])

    check = checked(share, change)
    assert (check.verdict == checked(0.1, 0.0).verdict) == (not reasons)
    if reasons:
        assert {w for w in ("attribution", "score", "lower", "higher") if w in check.verdict} == set(reasons)
    assert (check.clips, check.without_blinks, check.sources) == (12, 1, {"AU45, truth": 12})
    assert check.to_dict()["verdict"] == check.verdict
    assert all(figure in check.figures for figure in (f"{share:.2f}", "0.10", f"{change:+.3f}", "0%"))
    assert check.share_difference.value == pytest.approx(share - 0.1)


def test_too_little_to_say_anything():
    none, few = blink_check([None], ["a"]), blink_check([row(0.3, 1.0)] * 3, ["a"] * 3)
    assert "blink" in none.verdict and not none.figures
    assert "subjects" in few.verdict and "score" not in few.verdict


def test_tables_without_what_pspi_needs_give_none_and_say_so(video, caplog, tmp_path):
    """py-feat's probabilities are no intensities; its frames take their times from the video."""
    table = tmp_path / "feat.csv"
    table.write_text("frame,AU04,AU43\n" + "".join(f"{frame},0.5,0.5\n" for frame in range(20)))
    known = known_units(video, np.arange(5) / 30, action_units=table)
    assert known.source == "py-feat" and np.isnan(known.pspi).all() and not known.blinks.any()
    assert "AU4 as probability only" in caplog.text
