"""A model audited from Python: its items, its folds, and what is written; people on both sides of splits."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.splits import LeakySplit, Split
from painseq.data_modules import AI4Pain
from painseq.errors import LeakError, PainseqError
from painseq.evaluation import read_predictions
from painseq.evaluation.audit import CLIP_FOLDS, SUBJECT_FOLDS, protocols_of
from painseq.heads import LSTM, FrameANN
from painseq.studies.audit import AuditOptions, audit_model
from painseq.studies.audit_check import audit_predictions, audit_split
from painseq.studies.audit_folds import ProtocolFolds, audit_items, fit_protocol, folds_of, groups_of
from painseq.studies.fold_fits import Candidate
from painseq.training.classifier import PainClassifier
from painseq.training.fitting import FitOptions
from painseq.training.tuning import ThresholdTuning

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
    candidate = Candidate(head.__name__, make, FitOptions(max_epochs=1, accelerator="cpu"))
    before = fit_protocol(candidate, data, items, ProtocolFolds(protocol, folds), tmp_path)
    assert sorted(before.clip_ids) == sorted(items.names)
    truth = dict(zip(items.names, items.target.tolist(), strict=True))
    assert [truth[name] for name in before.clip_ids] == before.truth.tolist()
    stamps = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("best.ckpt"))]
    again = fit_protocol(candidate, data, items, ProtocolFolds(protocol, folds), tmp_path)
    np.testing.assert_array_equal(again.probabilities, before.probabilities)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("best.ckpt"))] == stamps
    splits = [json.loads(path.read_text())["data"]["split"] for path in tmp_path.rglob("run.json")]
    assert [split["protocol"] for split in splits] == 2 * [protocol.name] and "LEAKY" in protocol.name


def test_with_a_number_of_epochs_the_part_for_early_stopping_is_trained_on(data, tmp_path):
    items = audit_items(data, "clips")
    folds = folds_of(items.target.numpy(), groups_of(items, SUBJECT_FOLDS), 2, seed=0)

    def make() -> PainClassifier:
        return PainClassifier(head=lambda in_shape, outputs: LSTM(in_shape, outputs))

    candidate = Candidate("LSTM", make, FitOptions(max_epochs=9, accelerator="cpu"))
    predictions = fit_protocol(candidate, data, items, ProtocolFolds(SUBJECT_FOLDS, folds), tmp_path, epochs=1)
    assert sorted(predictions.clip_ids) == sorted(items.names)
    assert not any("LEAKY" in path.read_text() for path in tmp_path.rglob("run.json"))
    assert len(list(tmp_path.rglob("last.ckpt"))) == 2 and not list(tmp_path.rglob("best.ckpt"))


def test_an_extractor_that_saw_anybody_leaks_in_every_fold_and_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(type(data), "extractor_trained_on", ("ai4pain/S01",))
    items = audit_items(data, "clips")
    folds = folds_of(items.target.numpy(), groups_of(items, SUBJECT_FOLDS), 2, seed=0)

    def make() -> PainClassifier:
        return PainClassifier(head=lambda in_shape, outputs: LSTM(in_shape, outputs))

    candidate = Candidate("LSTM", make, FitOptions(max_epochs=1, accelerator="cpu"))
    with pytest.raises(LeakError, match="ai4pain/S01"):
        fit_protocol(candidate, data, items, ProtocolFolds(SUBJECT_FOLDS, folds), tmp_path)


def small_ann() -> PainClassifier:
    return PainClassifier(head=lambda in_shape, outputs: FrameANN(in_shape, outputs, hidden=(8,)))


def test_a_model_of_ones_own_is_audited(data, tmp_path):
    candidate = Candidate("mine", small_ann, FitOptions(max_epochs=1, accelerator="cpu"))
    seen = []
    audit = audit_model(
        candidate,
        data,
        tmp_path / "audit",
        AuditOptions(folds=2, frames_per_clip=2),
        on_progress=lambda done, total, note="": seen.append((done, total)),
    )
    written = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert written["protocols"] == json.loads(json.dumps(audit.to_dict()))["protocols"]
    assert written["facts"]["head"] == "mine" and audit.unit == "frames"
    assert seen[-1] == (6, 6)
    for result in audit.results:
        table = read_predictions(
            tmp_path / "audit" / f"predictions_{result.protocol.name}.csv", data.scheme.class_names
        )
        assert table.clip_ids == result.predictions["frames"].clip_ids
    with pytest.raises(PainseqError, match="finished"):
        audit_model(candidate, data, tmp_path / "audit", AuditOptions(folds=2, frames_per_clip=2))


def test_a_split_with_somebody_on_both_sides():
    assert audit_split(Split("loso", ("S01",), ("S02",), ("S03",))) == ()
    (finding,) = audit_split(LeakySplit("clip_kfold_LEAKY", ("S01",), (), ("s01 ",), {}))
    assert finding.severity == "leak" and len(finding.items) == 1


def test_predictions_of_people_the_model_has_seen(lstm, tmp_path):
    for subject, leaks in (("S06", 0), ("S01", 1)):
        path = tmp_path / f"{subject}.csv"
        path.write_text(f"clip_id,subject_id,label\nc,{subject},No\n")
        found = audit_predictions(read_predictions(path, ["No", "Low"]), lstm)
        assert sum(finding.severity == "leak" for finding in found) == leaks


def test_a_threshold_is_tuned_under_each_protocol_on_its_own_training_items(electrical, store, tmp_path):
    data = AI4Pain(electrical, DataOptions(labels="binary", store=store, split=SplitOptions(protocol="official")))
    options = FitOptions(max_epochs=1, accelerator="cpu", tune_threshold=ThresholdTuning("weighted_f1", 2))
    audit = audit_model(Candidate("ann", small_ann, options), data, tmp_path, AuditOptions(folds=4, frames_per_clip=2))
    for result in audit.results:
        compared = result.evaluations["frames"].threshold
        assert compared is not None and compared.clips == len(result.predictions["frames"])
        assert compared.tuned.sensitivity is not None and compared.at_half.specificity is not None
        for number in range(2):
            fold = tmp_path / result.protocol.name / f"fold_{number}"
            assert json.loads((fold / "run.json").read_text())["threshold"]["inner_folds"] == 2
            inner = json.loads((fold / "threshold" / "fold-0" / "run.json").read_text())["data"]["split"]
            assert ("LEAKY" in inner["protocol"]) is result.protocol.leaky
    page = (tmp_path / "report.html").read_text()
    assert "Tuned threshold, by protocol" in page and "Sensitivity" in page
    three = AI4Pain(electrical, DataOptions(store=store, split=SplitOptions(protocol="official")))
    with pytest.raises(PainseqError, match="3 classes"):
        audit_model(Candidate("ann", small_ann, options), three, tmp_path / "three", AuditOptions(folds=2))
    assert not (tmp_path / "three").exists()
