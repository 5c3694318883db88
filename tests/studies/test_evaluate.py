"""Scoring from Python: a model on a data set, and predictions without a model."""

import csv
import json
import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml

import painseq
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data_modules import AI4Pain
from painseq.errors import LeakError, PainseqError
from painseq.evaluation import Person, Predictions, read_predictions, with_temperature
from painseq.studies.evaluate import EvaluateOptions, evaluate, evaluate_models
from painseq.studies.evaluate_predictions import PredictionsOptions, evaluate_predictions
from painseq.studies.experiment import read_experiment


@pytest.fixture
def data(electrical, store):
    return AI4Pain(electrical, DataOptions(split=SplitOptions(protocol="official_inner"), store=store))


@pytest.fixture(scope="module")
def truth(electrical):
    """Native labels by clip id."""
    with (electrical.parent / "electrical_truth" / "labels.csv").open(newline="") as file:
        return {row["clip_id"]: row["label"] for row in csv.DictReader(file) if row["part"] == "test"}


def test_a_model_is_scored_with_a_truth_from_elsewhere(lstm, data, truth, tmp_path):
    done = []
    options = EvaluateOptions(truth=truth, checkpoints=(lstm,))
    model = painseq.load(lstm)
    result = evaluate(model, data, tmp_path / "out", options, on_progress=lambda *now: done.append(now))
    assert isinstance(result.predictions, Predictions) and result.calibration is None
    assert done[-1] == (6, 6, "test")
    written = read_predictions(tmp_path / "out" / "predictions.csv")
    assert written.probabilities == pytest.approx(result.predictions.probabilities, abs=0)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["models"] == {result.name: json.loads(json.dumps(result.evaluation.to_dict()))}
    assert metrics["checkpoints"] == [str(lstm)] and metrics["device"] == "cpu" and metrics["prior"] == []
    assert not (tmp_path / "out" / "config.yaml").exists() and (tmp_path / "out" / "report.html").is_file()
    with pytest.raises(PainseqError):
        evaluate(model, data, tmp_path / "out", options)


def test_unknown_training_subjects_are_told_in_every_output(lstm, data, truth, tmp_path, caplog):
    model = painseq.load(lstm)
    evaluate(model, data, tmp_path / "known", EvaluateOptions(truth=truth))
    assert not any("unknown" in record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    metrics = json.loads((tmp_path / "known" / "metrics.json").read_text())
    assert metrics["fitted_on"] == {"subjects": len(model.fitted_on), "unknown": []}
    model.record = replace(model.record, unknown_people=("w.pth",))
    data.store.people_known = False
    evaluate(model, data, tmp_path / "out", EvaluateOptions(truth=truth))
    assert re.search(r"w\.pth, the extractor are unknown", caplog.text)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["fitted_on"]["unknown"] == ["w.pth", "the extractor"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.search(r"unknown subjects of w\.pth, the extractor", page)


def test_hidden_labels_a_prior_and_the_configuration(lstm, electrical, store, tiny, tmp_path):
    init_args = {"root": str(electrical), "options": {"store": str(store)}}
    experiment = read_experiment("configs/data/ai4pain.yaml", tiny, {"data": {"init_args": init_args}})
    prior = {"no_pain": 0.2, "low_pain": 0.4, "high_pain": 0.4}
    model = painseq.load(lstm)
    result = evaluate(model, experiment.data(), tmp_path / "out", EvaluateOptions(prior=prior), experiment)
    assert result.evaluation is None and not (tmp_path / "out" / "report.html").exists()
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config["data"]["init_args"]["root"] == str(electrical) and config["evaluate"]["part"] == "test"
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["prior"][0] == "no_pain=0.2"
    evaluate(model.with_prior(prior), experiment.data(), tmp_path / "corrected")
    assert json.loads((tmp_path / "corrected" / "metrics.json").read_text())["prior"][0] == "no_pain=0.2"
    plain = evaluate(model, experiment.data(), tmp_path / "plain")
    assert not np.allclose(plain.predictions.probabilities, result.predictions.probabilities)


def test_a_part_that_was_seen_is_not_scored(lstm, data, tmp_path):
    with pytest.raises(LeakError):
        evaluate(painseq.load(lstm), data, tmp_path / "out", EvaluateOptions(part="train"))
    with pytest.raises(PainseqError, match=r"calibrate.*validation"):
        evaluate(painseq.load(lstm), data, tmp_path / "b", EvaluateOptions("validation", calibrate=True))


def test_a_model_that_is_refused_leaves_no_folder(lstm, data, tmp_path):
    new, seen = painseq.load(lstm), painseq.load(lstm)
    person = f"{data.name}/{data.split.test[0]}"
    seen.record = replace(seen.record, fitted_on=(*seen.record.fitted_on, person))
    with pytest.raises(LeakError, match=data.split.test[0]):
        evaluate_models({"a/best.ckpt": new, "b/best.ckpt": seen}, data, tmp_path / "out")
    with pytest.raises(LeakError):
        evaluate(seen, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = evaluate_models({"a/best.ckpt": new, "b/best.ckpt": painseq.load(lstm)}, data, tmp_path / "out")
    assert set(done) == {"a", "b"}


def test_predictions_at_hand_are_scored_without_a_folder(tmp_path):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet((1, 1), 40)
    truth = (rng.random(40) < probabilities[:, 1]).astype(np.int64)
    ids = tuple(f"c{i}" for i in range(40))
    unknown = np.full(40, -1, np.int64)
    predictions = Predictions(
        class_names=("calm", "pain"),
        clip_ids=ids,
        subject_ids=tuple(f"s{i % 8}" for i in range(40)),
        truth=unknown,
        label=probabilities.argmax(axis=1),
        probabilities=probabilities,
        frames=unknown,
        faceless=unknown,
    )
    with pytest.raises(PainseqError):
        evaluate_predictions(predictions)
    named = {clip: ("calm", "pain")[index] for clip, index in zip(ids, truth, strict=True)}
    subjects = {f"s{i}": Person("f" if i % 2 else "m", 20 + i) for i in range(8)}
    options = PredictionsOptions(truth=named, subjects=subjects)
    result = evaluate_predictions(predictions, tmp_path / "out", options, name="mine")
    assert result.name == "mine" and result.evaluation.subgroups
    assert result.evaluation.scores.accuracy == pytest.approx((predictions.label == truth).mean())
    assert list(json.loads((tmp_path / "out" / "metrics.json").read_text())["models"]) == ["mine"]
    again = evaluate_predictions(tmp_path / "out" / "predictions.csv")
    assert again.name == "out" and again.evaluation.scores == result.evaluation.scores


def test_predictions_are_calibrated_on_those_of_other_people(lstm, data, truth, tmp_path):
    options = EvaluateOptions(truth=truth, calibrate=True)
    result = evaluate(painseq.load(lstm), data, tmp_path / "out", options)
    plain = evaluate(painseq.load(lstm), data, tmp_path / "plain", EvaluateOptions(truth=truth))
    scaled = with_temperature(plain.predictions, result.calibration.temperature)
    assert result.predictions.probabilities == pytest.approx(scaled.probabilities)
