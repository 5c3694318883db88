"""The audit of leakage: folds that keep together what they should, and the inflation of a model that memorises."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from painseq.errors import PainseqError
from painseq.evaluation import Predictions, score
from painseq.evaluation.audit import AUDIT_STATISTICS, CLIP_FOLDS, FRAME_FOLDS, SUBJECT_FOLDS, audit_of, by_vote
from painseq.studies.audit_folds import folds_of, overlap

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
    assert audit.subject_folds.protocol is SUBJECT_FOLDS
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
    assert len(audit.inflations) == 2 * 2 * len(AUDIT_STATISTICS)


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
