"""`painseq explain --score`."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from painseq.cli import explain_scores
from painseq.explain import randomisation, ranking


@pytest.fixture
def score(painseq, on_electrical):
    def call(checkpoint, out, *more):
        few = ["--clips", 2, "--most-steps", 8]
        return painseq("explain", "--score", *on_electrical, "--checkpoint", checkpoint, "--out", out, *few, *more)

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
    said = score(lstm, tmp_path / "out", "--class-name", "high_pain", "--methods", *few)
    assert said.code == 0, said.err
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
        assert facts["verdict"][kind] in " ".join(said.out.split())
    assert (facts["clips"], facts["most_steps"], facts["seed"], facts["device"]) == (2, 8, 0, "cpu")
    assert facts["seen_in_training"] == {"subjects": 2, "seen": 0} and facts["versions"]["painseq"]
    assert "at most 8 gradients" in said.log and "Places in the face: 2 clips of 2 people" in said.out
    assert Image.open(tmp_path / "out" / "scores.png").format == "PNG"
    assert "insertion" in (tmp_path / "out" / "scores.svg").read_text()


def test_interrupted_it_goes_on_at_the_clip_where_it_was(score, quick, ann, tmp_path, monkeypatch):
    usual, seen = ranking.score_methods, []

    def stopped(model, clip, kind, *more):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(kind)
        return usual(model, clip, kind, *more)

    wish = ("--methods", "saliency", "votes", "--part", "train")
    monkeypatch.setattr(ranking, "score_methods", stopped)
    said = score(ann, tmp_path / "out", *wish)
    assert said.code == 130 and "finished clips are kept" in said.err
    first = rows_of(tmp_path / "out")
    assert {row["method"] for row in first} == {"saliency", "votes", "random"} and len(first) == 5
    monkeypatch.setattr(ranking, "score_methods", lambda *args: seen.append("again") or usual(*args))
    said = score(ann, tmp_path / "out", *wish)
    assert said.code == 0, said.err
    assert seen == ["space", "time", "again", "again"] and rows_of(tmp_path / "out")[:5] == first
    assert "fitted on 2 of these 2 people" in said.log
    whole = json.loads((tmp_path / "out" / "scores.json").read_text())
    # Whole already: nothing is done again, and the answer is the same.
    said = score(ann, tmp_path / "out", *wish)
    assert said.code == 0 and len(seen) == 4
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == whole
    said = score(ann, tmp_path / "out", *wish, "--most-steps", 16)
    assert said.code == 1 and "holds another run" in said.err and "most_steps: 8, not 16" in said.err


def test_a_clip_with_one_frame_of_a_face_is_skipped_where_a_method_cannot_explain_it(
    score, quick, lstm, tmp_path, monkeypatch
):
    usual, seen = explain_scores.frames_of_clip, []

    def of_clip(model, data, clip):
        seen.append(clip.clip_id)
        frames = usual(model, data, clip)
        return frames if clip.clip_id != seen[0] else replace(frames, present=torch.arange(len(frames)) == 3)

    monkeypatch.setattr(explain_scores, "frames_of_clip", of_clip)
    said = score(lstm, tmp_path / "out", "--methods", "frame_occlusion")
    assert said.code == 0, said.err
    assert f"Skipped {seen[0]}: Frame occlusion leaves 1 frame(s) out" in said.log
    facts = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert facts["clips"] == 1 and list(facts["skipped"]) == [seen[0]]
    assert seen[0] not in {row["clip_id"] for row in rows_of(tmp_path / "out")}


def test_weights_are_randomised_anew_where_other_clips_can_be_read(score, quick, ann, tmp_path, monkeypatch):
    from painseq.errors import PainseqError

    usual, seen = explain_scores.frames_of_clip, []

    def at_first_not(model, data, clip):
        seen.append(clip.clip_id)
        if clip.clip_id == seen[0]:
            raise PainseqError("the disk is away")
        return usual(model, data, clip)

    wish, path = ("--methods", "votes"), tmp_path / "out" / "randomised" / "time-votes.json"
    monkeypatch.setattr(explain_scores, "frames_of_clip", at_first_not)
    assert score(ann, tmp_path / "out", *wish).code == 0
    before = json.loads(path.read_text())
    assert (before["method"], before["of"], before["class"], before["seed"]) == ("votes", "time", None, 0)
    assert before["clip_ids"] == [name for name in dict.fromkeys(seen) if name != seen[0]] and before["clips"] == 1
    monkeypatch.setattr(explain_scores, "frames_of_clip", usual)
    assert score(ann, tmp_path / "out", *wish).code == 0
    after = json.loads(path.read_text())
    assert after["clip_ids"] == list(dict.fromkeys(seen)) and after["clips"] == 2
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["randomisation"]["time"]["votes"] == after


def test_the_class_that_is_asked_for_is_explained_of_random_models_too(score, quick, ann, tmp_path, monkeypatch):
    usual, seen = randomisation.randomisation_check, []
    monkeypatch.setattr(
        randomisation, "randomisation_check", lambda *args, **more: seen.append(more["target"]) or usual(*args, **more)
    )
    wish = ("--methods", "votes", "--clips", 1)
    assert score(ann, tmp_path / "asked", *wish, "--class-name", "high_pain").code == 0
    assert score(ann, tmp_path / "predicted", *wish).code == 0
    assert seen == [2, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--methods", "rollout"], "--methods rollout does not fit this model; those that do: gradcam"),
        (["--class-name", "joy"], "No class 'joy'"),
        (["--clips", 0], "--clips is 0"),
        (["--most-steps", 2], "--most-steps is 2"),
    ],
)
def test_a_wish_that_does_not_fit_leaves_no_folder(score, lstm, tmp_path, change, message):
    said = score(lstm, tmp_path / "out", *change)
    assert said.code == 1 and message in said.err and not (tmp_path / "out").exists()


def test_a_folder_of_another_command_is_left_as_it_is(score, lstm, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    said = score(lstm, tmp_path)
    assert said.code == 1 and "nothing is overwritten. Give --out another folder" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def scores(method, gain):
    curve = [0.5, 0.5]
    return ranking.MethodScores(method, 0.0, gain, gain, None, None, None, None, None, [0.0, 1.0], curve, curve)


def test_the_verdict_names_the_best_method_that_reads_the_model():
    people = [f"S{number}" for number in range(6)]
    wobble = [0.01, -0.02, 0.0, 0.02, 0.01, -0.02]
    clips = [
        [scores("good", 0.3 + w), scores("better", 0.5 - w), scores("edges", 0.9), scores("random", w)] for w in wobble
    ]
    ranks = ranking.rank(clips, people, {"good": False, "better": None, "edges": True})
    assert [one.method for one in ranks] == ["better", "good", "random", "edges"]
    said = ranking.verdict(ranks)
    assert said.startswith("Use better: it beats a random explanation by a gain of 0.5 (0.4")
    assert "So does good, by less on average." in said and said.endswith("the weights are randomised: edges.")
    nothing = [[scores("good", w), scores("random", -w)] for w in wobble]
    assert ranking.verdict(ranking.rank(nothing, people, {})).startswith("No method is told from a random")
    best_is_flagged = [[one for one in clip if one.method != "good"] for clip in clips]
    said = ranking.verdict(ranking.rank(best_is_flagged, people, {"edges": True}))
    assert "No other that changes with the weights does. Not to be trusted" in said
    said = ranking.verdict(ranking.rank(best_is_flagged, people, {"edges": True, "better": True}))
    assert said.startswith("No method that changes with the weights is told from a random")
    alone = ranking.rank(clips[:2], ["S0", "S0"], {})
    assert ranking.verdict(alone).startswith("One person has no interval")


def test_subjects_count_once_however_many_clips_they_have():
    clips = [[scores("m", 0.0), scores("random", 0.0)]] * 3 + [[scores("m", 1.0), scores("random", 0.5)]]
    of = {one.method: one for one in ranking.rank(clips, ["a", "a", "a", "b"], {})}
    assert of["m"].means["gain"].value == 0.5 and of["m"].above_random.value == 0.25
    assert of["m"].means["truth_mass"].value is None and of["random"].above_random is None
