"""What a fit says of its probabilities: the measures of evaluation, on the validation clips of the weights it keeps."""

import json
from dataclasses import replace

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data_modules import AI4Pain
from painseq.evaluation.probability import overconfidence, probability_scores
from painseq.heads import LSTM, FrameANN
from painseq.heads.trees import GradientBoosting
from painseq.model.averaging import AveragedModel
from painseq.model.checkpoint import load, read_checkpoint, rewrite_record
from painseq.studies.predict_part import predict_validation
from painseq.training import FitOptions, PainClassifier, fit, fit_fold
from painseq.training.calibration import measure_calibration

OPTIONS = FitOptions(max_epochs=3, accelerator="cpu")


@pytest.fixture
def data(electrical, store):
    return AI4Pain(electrical, DataOptions(split=SplitOptions(protocol="official"), store=store, batch_size=5))


@pytest.mark.parametrize("head", [LSTM, FrameANN, GradientBoosting])
def test_it_is_that_of_evaluation_on_the_kept_weights(head, data, tmp_path):
    options = OPTIONS if head.fitted_by_gradients else FitOptions(accelerator="cpu")
    fitted = fit(PainClassifier(head=head), data, tmp_path / "run", options)
    found, loaded = fitted.record.calibration, load(tmp_path / "run" / "best.ckpt")
    assert found is not None and loaded.record == fitted.record
    assert json.loads((tmp_path / "run" / "run.json").read_text())["calibration"] == found.to_dict()
    predictions = predict_validation(loaded, data)
    scores = probability_scores(predictions)
    assert (found.ece, found.brier) == pytest.approx((scores.ece, scores.brier))
    assert found.overconfidence == pytest.approx(overconfidence(predictions)[0])
    assert (found.clips, found.subjects) == (scores.clips, len(data.split.validation))
    independent = multiclass_calibration_error(
        torch.from_numpy(predictions.probabilities[predictions.scored]),
        torch.from_numpy(predictions.truth[predictions.scored]),
        len(data.scheme.class_names),
    )
    assert found.ece == pytest.approx(float(independent), abs=1e-6)


def test_nothing_else_in_the_checkpoint_changes(data, tmp_path):
    fit(PainClassifier(head=LSTM), data, tmp_path / "run", OPTIONS)
    path = tmp_path / "run" / "best.ckpt"
    before = torch.load(path, weights_only=True)
    record = replace(read_checkpoint(path).record, calibration=None)
    rewrite_record(path, record)
    after = torch.load(path, weights_only=True)
    assert before.keys() == after.keys() and read_checkpoint(path).record == record
    assert all(repr(before[key]) == repr(after[key]) for key in before if key not in ("state_dict", "painseq"))
    for kept, again in zip(before["state_dict"].values(), after["state_dict"].values(), strict=True):
        assert torch.equal(kept, again)


def test_where_it_says_nothing_there_is_none(data, tmp_path):
    model = fit(PainClassifier(head=FrameANN), data, tmp_path / "run", OPTIONS)
    assert measure_calibration(model, data) == model.record.calibration
    assert AveragedModel([model, model]).record.calibration is None
    assert fit_fold(lambda: PainClassifier(head=FrameANN), data, tmp_path / "fold", OPTIONS).record.calibration is None
    refitted = fit(PainClassifier(head=FrameANN), data, tmp_path / "refit", OPTIONS, refit_epochs=1)
    assert refitted.record.calibration is None
    for changed in (
        replace(model.record, validation_seen_by_extractor=("ai4pain/S05",)),
        replace(model.record, validation_seen_by_start=("ai4pain/S05",)),
        replace(
            model.record,
            data=replace(model.record.data, split=replace(model.record.data.split, protocol="clips_LEAKY")),
        ),
    ):
        model.record = changed
        assert measure_calibration(model, data) is None
