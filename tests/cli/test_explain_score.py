"""`painseq explain score`."""

import csv
import json
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from painseq.explain import ranking
from painseq.studies import score_methods


@pytest.fixture
def score(painseq, on_electrical):
    def call(checkpoint, out, *more):
        few = ["--clips", 2, "--most-steps", 8]
        return painseq("explain", "score", *on_electrical, "--checkpoint", checkpoint, "--out", out, *few, *more)

    return call


def rows_of(out):
    with (out / "scores.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def quick(monkeypatch):
    """Fewer steps, boxes and noisy copies."""
    from painseq.explain import faithfulness, perturbation

    monkeypatch.setattr(faithfulness, "BOXES", 3)
    monkeypatch.setattr(faithfulness, "NOISY_CLIPS", 1)
    monkeypatch.setattr(ranking, "perturbation_curves", lambda *args, **more: perturbation.perturbation_curves(
        *args, **{**more, "steps": 4}))  # fmt: skip


def test_the_methods_of_a_checkpoint_are_ranked(score, quick, lstm, tmp_path):
    few = ("gradcam", "saliency", "gradient_x_input", "frame_occlusion")
    result = score(lstm, tmp_path / "out", "--class-name", "high_pain", "--methods", *few)
    assert result.code == 0, result.err
    rows = rows_of(tmp_path / "out")
    maps = ["gradcam", "gradient_x_input", "saliency", "random"]
    curves = ["gradient_x_input", "saliency", "frame_occlusion", "random"]
    for subject in ("S06", "S07"):
        of = [row for row in rows if row["subject_id"] == subject]
        assert [row["method"] for row in of if row["of"] == "space"] == maps
        assert [row["method"] for row in of if row["of"] == "time"] == curves
    for row in rows:
        assert row["explained"] == "high_pain"
        assert float(row["gain"]) == pytest.approx(float(row["insertion"]) - float(row["deletion"]), abs=2e-6)
        assert (row["sensitivity"] == "") == (row["method"] == "random") or row["method"] == "gradcam"
        assert row["of"] == "space" or row["truth_mass"] == ""
    facts = json.loads((tmp_path / "out" / "scores.json").read_text())
    for kind, names in (("space", maps), ("time", curves)):
        ranked = facts["ranking"][kind]
        assert sorted(one["method"] for one in ranked) == sorted(names)
        kept = [one["gain"]["value"] for one in ranked if not one["survives"]]
        assert kept == sorted(kept, reverse=True)
        assert [bool(one["survives"]) for one in ranked] == sorted(bool(one["survives"]) for one in ranked)
        assert set(facts["randomisation"][kind]) == set(names) - {"random"}
        assert facts["verdict"][kind] in " ".join(result.out.split())
    assert (facts["clips"], facts["most_steps"], facts["seed"], facts["device"]) == (2, 8, 0, "cpu")
    assert facts["seen_in_training"] == {"subjects": 2, "seen": 0, "unknown": []} and facts["versions"]["painseq"]
    assert result.log.names(8) and re.search(r"\b2\b\D+\b2\b", result.out)
    assert Image.open(tmp_path / "out" / "scores.png").format == "PNG"
    assert "insertion" in (tmp_path / "out" / "scores.svg").read_text()


@pytest.mark.slow
def test_interrupted_it_goes_on_at_the_clip_where_it_was(score, quick, ann, tmp_path, monkeypatch):
    usual, seen = score_methods.method_scores, []

    def stopped(scorer, kind, *more):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(kind)
        return usual(scorer, kind, *more)

    wish = ("--methods", "saliency", "votes", "--part", "train")
    monkeypatch.setattr(score_methods, "method_scores", stopped)
    result = score(ann, tmp_path / "out", *wish)
    assert result.code == 130 and result.err.names("painseq explain")
    first = rows_of(tmp_path / "out")
    assert {row["method"] for row in first} == {"saliency", "votes", "random"} and len(first) == 5
    monkeypatch.setattr(score_methods, "method_scores", lambda *args: seen.append("again") or usual(*args))
    result = score(ann, tmp_path / "out", *wish)
    assert result.code == 0, result.err
    assert seen == ["space", "time", "again", "again"] and rows_of(tmp_path / "out")[:5] == first
    whole = json.loads((tmp_path / "out" / "scores.json").read_text())
    # Whole already: nothing is done again, and the answer is the same.
    result = score(ann, tmp_path / "out", *wish)
    assert result.code == 0 and len(seen) == 4
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == whole
    result = score(ann, tmp_path / "out", *wish, "--most-steps", 16)
    assert result.code == 1 and result.err.names(tmp_path / "out", "most_steps", 8, 16)


def test_a_clip_with_one_frame_of_a_face_is_skipped_where_a_method_cannot_explain_it(
    score, quick, lstm, tmp_path, monkeypatch
):
    usual, seen = score_methods.frames_of_clip, []

    def of_clip(model, data, clip):
        seen.append(clip.clip_id)
        frames = usual(model, data, clip)
        return frames if clip.clip_id != seen[0] else replace(frames, present=torch.arange(len(frames)) == 3)

    monkeypatch.setattr(score_methods, "frames_of_clip", of_clip)
    result = score(lstm, tmp_path / "out", "--methods", "frame_occlusion")
    assert result.code == 0, result.err
    assert result.log.names(seen[0])
    facts = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert facts["clips"] == 1 and list(facts["skipped"]) == [seen[0]]
    assert seen[0] not in {row["clip_id"] for row in rows_of(tmp_path / "out")}


def test_weights_are_randomised_anew_where_other_clips_can_be_read(score, quick, ann, tmp_path, monkeypatch):
    from painseq.errors import PainseqError

    usual, seen = score_methods.frames_of_clip, []

    def at_first_not(model, data, clip):
        seen.append(clip.clip_id)
        if clip.clip_id == seen[0]:
            raise PainseqError("the disk is away")
        return usual(model, data, clip)

    wish, path = ("--methods", "votes"), tmp_path / "out" / "randomised" / "time-votes.json"
    monkeypatch.setattr(score_methods, "frames_of_clip", at_first_not)
    assert score(ann, tmp_path / "out", *wish).code == 0
    before = json.loads(path.read_text())
    assert (before["method"], before["of"], before["class"], before["seed"]) == ("votes", "time", None, 0)
    assert before["clip_ids"] == [name for name in dict.fromkeys(seen) if name != seen[0]] and before["clips"] == 1
    monkeypatch.setattr(score_methods, "frames_of_clip", usual)
    assert score(ann, tmp_path / "out", *wish).code == 0
    after = json.loads(path.read_text())
    assert after["clip_ids"] == list(dict.fromkeys(seen)) and after["clips"] == 2
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["randomisation"]["time"]["votes"] == after


def test_the_class_that_is_asked_for_is_explained_of_random_models_too(score, quick, ann, tmp_path, monkeypatch):
    usual, seen = score_methods.randomisation_check, []
    monkeypatch.setattr(score_methods, "randomisation_check", lambda *args: seen.append(args[4].target) or usual(*args))
    wish = ("--methods", "votes", "--clips", 1)
    assert score(ann, tmp_path / "asked", *wish, "--class-name", "high_pain").code == 0
    assert score(ann, tmp_path / "predicted", *wish).code == 0
    assert seen == [2, None]


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (["--methods", "rollout"], ("methods", "rollout", "gradcam")),
        (["--class-name", "joy"], ("joy", "no_pain", "low_pain", "high_pain")),
        (["--clips", 0], ("clips", 0)),
        (["--most-steps", 2], ("most_steps", 2)),
    ],
)
def test_a_wish_that_does_not_fit_leaves_no_folder(score, lstm, tmp_path, change, facts):
    result = score(lstm, tmp_path / "out", *change)
    assert result.code == 1 and result.err.names(*facts) and not (tmp_path / "out").exists()


def test_a_folder_of_another_command_is_left_as_it_is(score, lstm, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    result = score(lstm, tmp_path)
    assert result.code == 1 and result.err.names(tmp_path, "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
