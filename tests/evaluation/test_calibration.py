import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

from painseq.errors import LeakError, PainseqError
from painseq.evaluation import Predictions, calibrate, fit_temperature, score, with_temperature
from painseq.evaluation.calibration import HIGHEST, LOWEST

NAMES = ("No Pain", "Low Pain", "High Pain")


def clips_of(seed: int, temperature: float = 1.0, n: int = 1500, who: str = "v") -> Predictions:
    """Clips whose truth is drawn from their probabilities, which are then sharpened by a factor on their logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3)) * 1.5
    truth = np.array([rng.choice(3, p=row) for row in softmax(logits, axis=1)], np.int64)
    probabilities = softmax(logits * temperature, axis=1)
    return Predictions(
        class_names=NAMES,
        clip_ids=tuple(f"{who}{i}" for i in range(n)),
        subject_ids=tuple(f"{who}{i % 25}" for i in range(n)),
        truth=truth,
        label=probabilities.argmax(1),
        probabilities=probabilities,
        frames=np.full(n, 10, np.int64),
        faceless=np.zeros(n, np.int64),
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    assert fit_temperature(clips_of(0, temperature)) == pytest.approx(temperature, rel=0.12)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_temperature_has_a_lower_log_loss_by_scikit_learn(seed):
    clips = clips_of(seed, 2.0, n=80)

    def loss(temperature: float) -> float:
        return log_loss(clips.truth, with_temperature(clips, temperature).probabilities, labels=[0, 1, 2])

    found = fit_temperature(clips)
    other = minimize_scalar(loss, bounds=(LOWEST, HIGHEST), method="bounded", options={"xatol": 1e-8}).x
    assert found == pytest.approx(other, rel=1e-2)
    assert loss(found) <= min(loss(t) for t in np.geomspace(LOWEST, HIGHEST, 200)) + 1e-7


def test_scaling_is_dividing_the_logits_and_keeps_labels_votes_and_missing_rows():
    clips = clips_of(1, n=6)
    logits = np.log(clips.probabilities)
    assert with_temperature(clips, 2.5).probabilities == pytest.approx(softmax(logits / 2.5, axis=1))
    assert with_temperature(clips, 1.0).probabilities == pytest.approx(clips.probabilities)
    probabilities, label = clips.probabilities.copy(), (clips.label + 1) % 3
    probabilities[2], label[3], probabilities[3] = np.nan, -1, np.nan
    votes = np.full((6, 3), 1 / 3)
    odd = dataclasses.replace(clips, probabilities=probabilities, label=label, votes=votes)
    scaled = with_temperature(odd, 0.5)
    assert np.isnan(scaled.probabilities[2:4]).all() and not np.isnan(scaled.probabilities[[0, 1, 4, 5]]).any()
    assert scaled.label.tolist() == label.tolist() and scaled.votes is votes
    with pytest.raises(PainseqError, match=r"(?s)temperature.*\b0"):
        with_temperature(clips, 0.0)


def test_probabilities_of_0_and_1_do_not_make_an_infinite_loss():
    clips = clips_of(2, n=200)
    certain = dataclasses.replace(clips, probabilities=np.eye(3)[clips.label])
    temperature = fit_temperature(certain)
    assert 1 < temperature < HIGHEST
    assert np.isfinite(with_temperature(certain, temperature).probabilities).all()


def test_calibration_is_fitted_on_others_and_told_before_and_after():
    test, validation = clips_of(3, 3.0, who="t"), clips_of(4, 3.0, who="v")
    scaled, calibration = calibrate(test, validation)
    assert calibration.temperature == pytest.approx(3, rel=0.1) and calibration.caution is None
    assert calibration.fitted_on == tuple(sorted({f"v{i}" for i in range(25)})) and calibration.clips == 1500
    assert calibration.before.ece > 0.1 > 0.04 > calibration.after.ece
    assert calibration.before.brier > calibration.after.brier
    evaluation = score(scaled, calibration=calibration)
    assert evaluation.probability == calibration.after
    assert evaluation.scores == score(test).scores
    assert evaluation.to_dict()["calibration"]["temperature"] == calibration.temperature
    before, after = (f"{scores.brier:.3f}" for scores in (calibration.before, calibration.after))
    assert not any(before in line and after in line for line in evaluation.warnings)
    assert len(score(test).warnings) == len(evaluation.warnings) + 1
    scaled, calibration = calibrate(test, clips_of(5, 0.3, who="v"))
    before, after = (f"{scores.brier:.3f}" for scores in (calibration.before, calibration.after))
    assert any(before in line and after in line for line in score(scaled, calibration=calibration).warnings)


def test_nothing_is_fitted_on_those_who_are_scored():
    test = clips_of(0, n=50)
    with pytest.raises(LeakError, match=r"(?s)\b25\b.*\bv0\b"):
        calibrate(test, test)
    with pytest.raises(LeakError, match=r"(?s)\b1\b.*\bt3\b"):
        calibrate(clips_of(0, n=50, who="t"), dataclasses.replace(clips_of(1, n=1), subject_ids=("t3",)))
    # Nor where another program wrote the name in capitals.
    with pytest.raises(LeakError, match=r"(?s)\b1\b.*\bt3\b"):
        calibrate(clips_of(0, n=50, who="t"), dataclasses.replace(clips_of(1, n=1), subject_ids=(" T3",)))


def test_what_nothing_can_be_fitted_on_is_refused():
    test, other = clips_of(0, n=50, who="t"), clips_of(1, n=50)
    hidden = dataclasses.replace(other, truth=np.full(50, -1))
    bare = dataclasses.replace(other, probabilities=np.full((50, 3), np.nan))
    for validation in (hidden, bare, other.only([])):
        with pytest.raises(PainseqError, match="validation"):
            calibrate(test, validation)
    # Nor is a temperature reported that scaled nothing.
    with pytest.raises(PainseqError, match="probabilities"):
        calibrate(dataclasses.replace(test, probabilities=np.full((50, 3), np.nan)), other)
    with pytest.raises(PainseqError, match=r"(?s)a, b, c.*No Pain, Low Pain, High Pain"):
        calibrate(test, dataclasses.replace(other, class_names=("a", "b", "c")))


def test_an_end_of_the_range_is_told():
    always_right = clips_of(1, n=50)
    always_right = dataclasses.replace(always_right, truth=always_right.label)
    scaled, calibration = calibrate(clips_of(0, n=50, who="t"), always_right)
    assert calibration.temperature < LOWEST * 1.01
    assert f"{calibration.temperature:g}" in calibration.caution
    assert any(calibration.caution in line for line in score(scaled, calibration=calibration).warnings)


def test_a_hidden_truth_is_scaled_all_the_same():
    test = dataclasses.replace(clips_of(0, n=50, who="t"), truth=np.full(50, -1))
    scaled, calibration = calibrate(test, clips_of(1, 3.0))
    assert calibration.before is None and calibration.after is None
    assert scaled.probabilities.max() < test.probabilities.max()
