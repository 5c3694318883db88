"""AdaBoost on a deep head: no feature of a training subject comes from a head that saw it; one checkpoint predicts."""

import json
from dataclasses import replace

import pytest
import torch

from painseq.data.options import DataOptions
from painseq.data.out_of_fold import out_of_fold
from painseq.data.protocols import SplitOptions
from painseq.data_modules import AI4Pain
from painseq.errors import PainseqError
from painseq.heads import LSTM, DeepAdaBoost, FrameANN, HistogramBoosting
from painseq.heads.trees import AdaBoost
from painseq.model.checkpoint import load, read_checkpoint
from painseq.studies.experiment import read_experiment
from painseq.studies.predict_part import predict_part
from painseq.training import FitOptions, PainClassifier, ThresholdTuning, fit, fit_fold
from painseq.training.boosting import agreement, penultimate_rows
from painseq.training.rows import rows_of

OPTIONS = FitOptions(max_epochs=2, accelerator="cpu")


def data_of(electrical, store, labels="three"):
    return AI4Pain(electrical, DataOptions(labels=labels, split=SplitOptions("official"), store=store, batch_size=5))


@pytest.fixture
def data(electrical, store):
    return data_of(electrical, store)


def on_lstm(in_shape, outputs):
    return DeepAdaBoost(in_shape, outputs, lambda shape, n: LSTM(shape, n, units=(4, 4), dense=4), 5, inner_folds=2)


def on_frames(in_shape, outputs):
    return DeepAdaBoost(in_shape, outputs, lambda shape, n: FrameANN(shape, n, (8, 4)), trees=5, inner_folds=2)


@pytest.mark.parametrize(("head", "normalise"), [(on_lstm, "none"), (on_lstm, "train"), (on_frames, "none")])
def test_no_feature_of_a_training_subject_comes_from_a_head_that_saw_it(data, tmp_path, monkeypatch, head, normalise):
    given = []
    fitted = AdaBoost.fit_rows
    monkeypatch.setattr(AdaBoost, "fit_rows", lambda self, *rows: (given.append(rows), fitted(self, *rows))[1])
    model = fit(PainClassifier(head=head, normalise=normalise), data, tmp_path / "run", OPTIONS)
    (train, validation), folder = given[0], tmp_path / "run" / "penultimate"
    told = json.loads((folder / "folds.json").read_text())
    notes = told["folds"]
    assert sorted(subject for note in notes for subject in note["held_out"]) == sorted(data.split.train)
    bound = PainClassifier(head=head, normalise=normalise)
    bound.bind(data)
    expected, same = [], []
    whole = load(folder / "all" / "best.ckpt").head
    for number, (fold, note) in enumerate(zip(out_of_fold(data, 2), notes, strict=True)):
        inner = load(folder / f"fold-{number}" / "best.ckpt")
        assert not set(inner.record.fitted_on) & {f"ai4pain/{subject}" for subject in note["held_out"]}
        assert set(fold.held_out.split.validation) == set(note["held_out"])
        rows = rows_of(bound, fold.held_out, "validation")
        expected.append(penultimate_rows(inner.head, rows).x)
        same.append(penultimate_rows(whole, rows).x)
        assert note["rows"] == len(expected[-1])
    torch.testing.assert_close(train.x, torch.cat(expected))
    assert len(train.x) == len(rows_of(bound, data, "train").x)
    assert told["agreement"] == pytest.approx(agreement(train.x, torch.cat(same)), abs=1e-3)
    torch.testing.assert_close(validation.x, penultimate_rows(whole, rows_of(bound, data, "validation")).x)
    deep = model.head.head.deep if normalise == "train" else model.head.deep
    own = whole.head if normalise == "train" else whole
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in deep.state_dict().items())


def test_one_checkpoint_predicts_and_names_both_heads(data, video, tmp_path):
    model = fit(PainClassifier(head=on_lstm), data, tmp_path / "run", OPTIONS)
    loaded = load(tmp_path / "run" / "best.ckpt")
    assert loaded.record == model.record and loaded.head.name == "DeepAdaBoost" and loaded.head.deep.name == "LSTM"
    batch = next(iter(data.loader("test")))
    assert torch.equal(loaded.decide(batch).probabilities, model.decide(batch).probabilities)
    assert loaded.predict(video).label in data.scheme.class_names
    assert set(predict_part(loaded, data, "test").clip_ids) == {clip.clip_id for clip in data.clips("test")}


def test_all_deep_heads_start_from_the_same_weights(data, tmp_path, monkeypatch):
    starts = []
    bind = PainClassifier.bind

    def noted(self, fold):
        bind(self, fold)
        starts.append([value.clone() for value in self.head.state_dict().values()])

    monkeypatch.setattr(PainClassifier, "bind", noted)
    fit(PainClassifier(head=lambda shape, n: on_lstm(shape, n).deep), data, tmp_path / "plain", OPTIONS)
    starts.clear()
    fit(PainClassifier(head=on_lstm), data, tmp_path / "run", OPTIONS)
    # Lightning binds a model again; one that is bound is left as it is.
    first, *others = [start for start in starts if len(start) == len(starts[-1])]
    assert len(starts) > 3 and all(map(torch.equal, first, others[0]))


def test_a_threshold_is_tuned_over_whole_fits(electrical, store, tmp_path):
    data = data_of(electrical, store, "binary")
    options = replace(OPTIONS, tune_threshold=ThresholdTuning("balanced_accuracy", 2))
    model = fit_fold(lambda: PainClassifier(head=on_lstm), data, tmp_path / "fold", options)
    assert model.record.threshold.subjects == len(data.split.train)
    assert (tmp_path / "fold" / "threshold" / "fold-1" / "penultimate" / "all" / "best.ckpt").is_file()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"start_from": "other.ckpt"}, "start_from"), ({"loss": "corn"}, "corn")],
)
def test_what_would_flatter_or_has_no_classes_is_refused(data, tmp_path, monkeypatch, arguments, named):
    monkeypatch.setattr(
        "painseq.training.classifier.start_from", lambda head, sources: __import__("painseq.records").records.Seen()
    )
    with pytest.raises(PainseqError, match=named):
        fit(PainClassifier(head=on_lstm, **arguments), data, tmp_path / "run", OPTIONS)
    with pytest.raises(PainseqError, match="HistogramBoosting"):
        DeepAdaBoost((3,), 2, HistogramBoosting)
    with pytest.raises(PainseqError, match="inner_folds"):
        DeepAdaBoost((3,), 2, FrameANN, inner_folds=1)


def test_yaml_names_the_deep_head(data, tmp_path):
    deep = {"class_path": "painseq.heads.FrameANN", "init_args": {"hidden": [6, 4]}}
    head = {"class_path": "painseq.heads.DeepAdaBoost", "init_args": {"deep": deep, "trees": 3, "inner_folds": 2}}
    experiment = read_experiment({"model": {"head": head}, "trainer": {"max_epochs": 1, "accelerator": "cpu"}})
    assert experiment.needs_inner_fits and experiment.fits_at_once
    fit(experiment.classifier(), data, tmp_path / "run", experiment.fit_options())
    recorded = read_checkpoint(tmp_path / "run" / "best.ckpt").record.head
    assert recorded["init_args"]["deep"]["init_args"]["hidden"] == [6, 4]
    assert load(tmp_path / "run" / "best.ckpt").head.deep.hidden == (6, 4)


def test_agreement_is_a_correlation_of_units():
    a = torch.randn(20, 3)
    assert agreement(a, 2 * a + 1) == pytest.approx(1)
    assert agreement(a, -a) == pytest.approx(-1)
    assert agreement(a, torch.zeros(20, 3)) is None
