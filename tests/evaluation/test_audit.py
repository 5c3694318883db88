"""The audit of leakage: folds that keep together what they should, and the inflation of a model that memorises."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data_modules import AI4Pain
from painseq.errors import LeakError, PainseqError
from painseq.evaluation import Predictions, score
from painseq.evaluation.audit import CLIP_FOLDS, FRAME_FOLDS, STATISTICS, SUBJECT_FOLDS, audit_of, by_vote, protocols_of
from painseq.heads import LSTM, FrameANN
from painseq.studies.audit_folds import audit_items, fit_protocol, folds_of, groups_of, overlap
from painseq.training.classifier import PainClassifier
from painseq.training.fitting import FitOptions

PROTOCOLS = (FRAME_FOLDS, CLIP_FOLDS, SUBJECT_FOLDS)


def people(subjects: int, clips: int, frames: int, classes: int) -> tuple[np.ndarray, list[str], list[str]]:
    """Target, clip and subject of each frame; the classes of a subject's clips in turn."""
    rows = [(c % classes, f"s{s}c{c}", f"s{s}") for s in range(subjects) for c in range(clips) for _ in range(frames)]
    target, clip, subject = zip(*rows, strict=True)
    return np.array(target), list(clip), list(subject)


def group_of(protocol, clip, subject):
    return {"frame": None, "clip": clip, "subject": subject}[protocol.together]


# ---- folds ----


@settings(max_examples=40, deadline=None)
@given(
    subjects=st.integers(4, 9),
    clips=st.integers(2, 6),
    frames=st.integers(1, 5),
    folds=st.integers(2, 4),
    seed=st.integers(0, 99),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_every_item_is_tested_once_and_each_fold_uses_every_item(subjects, clips, frames, folds, seed, protocol):
    target, clip, subject = people(subjects, clips, frames, 2)
    made = folds_of(target, group_of(protocol, clip, subject), folds, seed)
    assert len(made) == folds
    assert sorted(item for fold in made for item in fold.test) == list(range(len(target)))
    for fold in made:
        assert sorted((*fold.train, *fold.validation, *fold.test)) == list(range(len(target)))
        assert fold.train and fold.validation and fold.test


@settings(max_examples=40, deadline=None)
@given(
    target=st.lists(st.integers(0, 2), min_size=30, max_size=80),
    subjects=st.integers(6, 9),
    folds=st.integers(2, 3),
    seed=st.integers(0, 99),
)
def test_subject_folds_share_nobody_whatever_the_labels(target, subjects, folds, seed):
    subject = [f"s{item % subjects}" for item in range(len(target))]
    if min(Counter(target).values()) < folds:
        with pytest.raises(PainseqError, match=rf"(?s)\b{folds}\b.*folds"):
            folds_of(np.array(target), subject, folds, seed)
        return
    try:
        made = folds_of(np.array(target), subject, folds, seed)
    except PainseqError as error:
        assert "folds" in str(error) and str(folds) in str(error)
        return
    for fold in made:
        parts = [{subject[item] for item in part} for part in fold.parts.values()]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert overlap(made, subject, subject).subjects == 0


def test_what_each_protocol_keeps_together():
    target, clip, subject = people(subjects=6, clips=6, frames=8, classes=3)
    shares = {}
    for protocol in PROTOCOLS:
        made = folds_of(target, group_of(protocol, clip, subject), 3, seed=0)
        shares[protocol] = overlap(made, clip, subject)
    assert shares[FRAME_FOLDS].clips > 0.99 and shares[FRAME_FOLDS].subjects == 1
    assert shares[CLIP_FOLDS].clips == 0 and shares[CLIP_FOLDS].subjects == 1
    assert shares[SUBJECT_FOLDS].clips == shares[SUBJECT_FOLDS].subjects == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_early_stopping_is_drawn_with_the_same_grouping(protocol):
    target, clip, subject = people(subjects=8, clips=6, frames=6, classes=3)
    for fold in folds_of(target, group_of(protocol, clip, subject), 4, seed=1):
        shared_clips = {clip[i] for i in fold.train} & {clip[i] for i in fold.validation}
        shared_subjects = {subject[i] for i in fold.train} & {subject[i] for i in fold.validation}
        assert bool(shared_clips) == (protocol is FRAME_FOLDS)
        assert bool(shared_subjects) == (protocol is not SUBJECT_FOLDS)


def test_the_seed_decides_the_folds():
    target, clip, _ = people(subjects=6, clips=4, frames=2, classes=2)
    assert folds_of(target, clip, 3, seed=0) == folds_of(target, clip, 3, seed=0)
    assert folds_of(target, clip, 3, seed=0) != folds_of(target, clip, 3, seed=1)


@pytest.mark.parametrize(
    ("folds", "share", "parts"),
    [(1, 0.2, ("folds", "1")), (5, 0.2, ("5", "4")), (2, 0.0, ("validation_share", "0")), (2, 1.0, ("share", "1"))],
)
def test_folds_that_cannot_be_made_are_refused(folds, share, parts):
    target, _, subject = people(subjects=4, clips=2, frames=2, classes=2)
    with pytest.raises(PainseqError) as error:
        folds_of(target, subject, folds, 0, share)
    assert all(part in str(error.value) for part in parts)


def test_two_people_in_two_folds_leave_nobody_to_stop_early_on():
    target, _, subject = people(subjects=2, clips=2, frames=2, classes=2)
    with pytest.raises(PainseqError, match=r"\b2\b"):
        folds_of(target, subject, 2, 0)


# ---- inflation ----


def memorised(features: np.ndarray, target, clip, subject, protocol, folds: int = 4) -> Predictions:
    """What one nearest neighbour predicts in each fold: it knows nothing but what it has seen."""
    predicted = np.empty_like(target)
    for fold in folds_of(target, group_of(protocol, clip, subject), folds, seed=0):
        known = [*fold.train, *fold.validation]
        nearest = KNeighborsClassifier(1).fit(features[known], target[known])
        predicted[list(fold.test)] = nearest.predict(features[list(fold.test)])
    return Predictions(
        class_names=("no", "low", "high"),
        clip_ids=tuple(f"{name}@{n}" for n, name in enumerate(clip)),
        subject_ids=tuple(subject),
        truth=target,
        label=predicted,
        probabilities=np.eye(3)[predicted],
        frames=np.ones(len(target), np.int64),
        faceless=np.zeros(len(target), np.int64),
    )


@pytest.fixture(scope="module")
def of_faces():
    """Frames that show who somebody is, and which recording it is, and nothing of pain."""
    rng = np.random.default_rng(0)
    target, clip, subject = people(subjects=12, clips=6, frames=6, classes=3)
    of_subject = {name: rng.normal(size=8) for name in dict.fromkeys(subject)}
    of_clip = {name: rng.normal(size=8, scale=0.3) for name in dict.fromkeys(clip)}
    features = np.array([of_subject[s] + of_clip[c] for s, c in zip(subject, clip, strict=True)])
    features += rng.normal(size=features.shape, scale=0.02)
    clips = {f"{name}@{n}": name for n, name in enumerate(clip)}
    return {protocol: memorised(features, target, clip, subject, protocol) for protocol in PROTOCOLS}, clips


def test_a_model_that_memorises_faces_is_inflated_by_frame_folds(of_faces):
    predictions, clips = of_faces
    audit = audit_of(predictions, clips)
    for unit in ("frames", "clips"):
        found = audit.inflation(FRAME_FOLDS, unit, "balanced_accuracy")
        assert found.difference.first > 0.95 and found.difference.second < 0.5
        assert found.difference.interval.low > 0.4
        assert found.sentence().startswith("LEAKY")
        assert all(f"{value:.3f}" in found.sentence() for value in (found.difference.first, found.difference.value))
    assert audit.honest.protocol is SUBJECT_FOLDS
    assert audit.inflation(SUBJECT_FOLDS, "clips", "accuracy") is None


def test_inflation_is_the_difference_of_the_scores_of_each_protocol(of_faces):
    predictions, clips = of_faces
    audit = audit_of(predictions, clips)
    for found in audit.inflations:
        first, second = (
            p if found.unit == "frames" else by_vote(p, clips)
            for p in (predictions[found.protocol], predictions[SUBJECT_FOLDS])
        )
        expected = score(first).scores.value(found.statistic) - score(second).scores.value(found.statistic)
        assert found.difference.value == pytest.approx(expected)
    assert len(audit.inflations) == 2 * 2 * len(STATISTICS)


def test_a_model_that_ignores_who_is_seen_is_not_inflated(of_faces):
    predictions, clips = of_faces
    same = predictions[SUBJECT_FOLDS]
    audit = audit_of({protocol: same for protocol in PROTOCOLS}, clips)
    for found in audit.inflations:
        assert found.difference.value == 0
        assert "+0.000" in found.sentence()


def test_whatever_is_leaky_says_so_in_the_plain_values(of_faces):
    predictions, clips = of_faces
    content = audit_of(predictions, clips).to_dict()
    assert list(content["protocols"]) == ["frame_kfold_LEAKY", "clip_kfold_LEAKY", "subject_kfold"]
    assert {"protocols", "inflation_LEAKY_minus_subject_folds"} == set(content)


def test_with_one_subject_there_is_no_interval(of_faces):
    predictions, clips = of_faces
    alone = {p: each.only(np.array(each.subject_ids) == "s0") for p, each in predictions.items()}
    found = audit_of(alone, clips).inflation(FRAME_FOLDS, "frames", "accuracy")
    assert found.difference.interval.low is None and found.difference.interval.note in found.sentence()


def test_other_items_under_one_protocol_are_refused(of_faces):
    predictions, clips = of_faces
    fewer = {**predictions, CLIP_FOLDS: predictions[CLIP_FOLDS].only(np.arange(10))}
    with pytest.raises(PainseqError, match=r"(?s)\b422\b.*'s0c1@10'"):
        audit_of(fewer, clips)


# ---- votes ----


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 2)), min_size=1, max_size=25), st.integers(0, 9))
def test_votes_are_counted_and_ties_go_by_the_mean_probability(frames, seed):
    clip, label = zip(*frames, strict=True)
    rows = np.random.default_rng(seed).dirichlet(np.ones(3), len(frames))
    rows[np.array(label) < 0] = np.nan
    predictions = Predictions(
        class_names=("no", "low", "high"),
        clip_ids=tuple(f"f{n}" for n in range(len(frames))),
        subject_ids=tuple(f"s{c}" for c in clip),
        truth=np.array([c % 3 for c in clip]),
        label=np.array(label),
        probabilities=rows,
        frames=np.ones(len(frames), np.int64),
        faceless=(np.array(label) < 0).astype(np.int64),
    )
    voted = by_vote(predictions, {f"f{n}": f"c{c}" for n, c in enumerate(clip)})
    assert list(voted.clip_ids) == sorted({f"c{c}" for c in clip})
    for row, name in enumerate(voted.clip_ids):
        mine = [n for n, c in enumerate(clip) if f"c{c}" == name]
        ballots = Counter(label[n] for n in mine if label[n] >= 0)
        assert voted.frames[row] == len(mine) and voted.faceless[row] == len(mine) - ballots.total()
        if not ballots:
            assert voted.label[row] == -1 and np.isnan(voted.probabilities[row]).all()
            continue
        mean = np.mean([rows[n] for n in mine if label[n] >= 0], axis=0)
        most = max(ballots.values())
        winner = max((k for k in ballots if ballots[k] == most), key=lambda k: mean[k])
        assert voted.label[row] == winner
        np.testing.assert_allclose(voted.probabilities[row], mean)
        assert voted.truth[row] == int(name[1:]) % 3 and voted.subject_ids[row] == f"s{name[1:]}"


# ---- items and fitting ----


@pytest.fixture
def data(electrical, store):
    return AI4Pain(electrical, DataOptions(store=store, split=SplitOptions(protocol="official")))


def test_items_are_frames_with_a_face_of_clips_with_a_known_label(data):
    everything = audit_items(data, "frames")
    some = audit_items(data, "frames", frames_per_clip=4)
    labelled = {clip.clip_id for clip in data.manifest if clip.label is not None}
    assert {clip.clip_id for clip in everything.clips} == {clip.clip_id for clip in some.clips} == labelled
    assert set(Counter(clip.clip_id for clip in some.clips).values()) == {4}
    assert set(some.names) < set(everything.names) and len(set(some.names)) == len(some)
    moments = [float(name.rpartition("@")[2]) for name in some.names[:4]]
    assert moments == sorted(moments) and moments[-1] - moments[0] > 5
    assert len(audit_items(data, "clips")) == len(labelled)


def test_faceless_frames_are_no_items(data):
    clips = data.everything()
    present = clips.resident.present.clone()
    present[:3] = False
    data._resident = type(clips)(clips.items, replace(clips.resident, present=present), clips.scheme)
    assert len(audit_items(data, "frames")) == int(present.sum()) - sum(
        length for clip, _, length in clips.items if clip.label is None
    )


def test_what_cannot_be_divided_is_refused(data):
    with pytest.raises(PainseqError, match=r"frames.per.clip"):
        audit_items(data, "clips", frames_per_clip=4)
    with pytest.raises(PainseqError, match=r"(?s)frames.per.clip.*\b0\b"):
        audit_items(data, "frames", frames_per_clip=0)
    assert protocols_of("clips") == (CLIP_FOLDS, SUBJECT_FOLDS)


@pytest.mark.parametrize("unit", ["frames", "clips"])
def test_fitted_folds_predict_every_item_once_and_are_not_fitted_again(data, unit, tmp_path):
    head = FrameANN if unit == "frames" else LSTM
    made = []

    def make() -> PainClassifier:
        made.append(1)
        sizes = {"hidden": (8,)} if unit == "frames" else {}
        return PainClassifier(head=lambda in_shape, outputs: head(in_shape, outputs, **sizes))

    items = audit_items(data, unit, 3 if unit == "frames" else None)
    protocol = protocols_of(unit)[0]
    folds = folds_of(items.target.numpy(), groups_of(items, protocol), 2, seed=0)
    options = FitOptions(max_epochs=1, accelerator="cpu")
    before = fit_protocol(make, data, items, protocol, folds, tmp_path, options)
    assert sorted(before.clip_ids) == sorted(items.names)
    truth = dict(zip(items.names, items.target.tolist(), strict=True))
    assert [truth[name] for name in before.clip_ids] == before.truth.tolist()
    stamps = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("best.ckpt"))]
    again = fit_protocol(make, data, items, protocol, folds, tmp_path, options)
    np.testing.assert_array_equal(again.probabilities, before.probabilities)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("best.ckpt"))] == stamps
    splits = [json.loads(path.read_text())["data"]["split"] for path in tmp_path.rglob("run.json")]
    assert [split["protocol"] for split in splits] == 2 * [protocol.name] and "LEAKY" in protocol.name


def test_with_a_number_of_epochs_the_part_for_early_stopping_is_trained_on(data, tmp_path):
    items = audit_items(data, "clips")
    folds = folds_of(items.target.numpy(), groups_of(items, SUBJECT_FOLDS), 2, seed=0)

    def make() -> PainClassifier:
        return PainClassifier(head=lambda in_shape, outputs: LSTM(in_shape, outputs))

    options = FitOptions(max_epochs=9, accelerator="cpu")
    predictions = fit_protocol(make, data, items, SUBJECT_FOLDS, folds, tmp_path, options, epochs=1)
    assert sorted(predictions.clip_ids) == sorted(items.names)
    assert not any("LEAKY" in path.read_text() for path in tmp_path.rglob("run.json"))
    assert len(list(tmp_path.rglob("last.ckpt"))) == 2 and not list(tmp_path.rglob("best.ckpt"))


def test_an_extractor_that_saw_anybody_leaks_in_every_fold_and_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(type(data), "extractor_trained_on", ("ai4pain/S01",))
    items = audit_items(data, "clips")
    folds = folds_of(items.target.numpy(), groups_of(items, SUBJECT_FOLDS), 2, seed=0)

    def make() -> PainClassifier:
        return PainClassifier(head=lambda in_shape, outputs: LSTM(in_shape, outputs))

    with pytest.raises(LeakError, match="ai4pain/S01"):
        fit_protocol(make, data, items, SUBJECT_FOLDS, folds, tmp_path, FitOptions(max_epochs=1, accelerator="cpu"))
