"""Int8: on whom it is calibrated and measured, what it changes, and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from painseq.errors import PainseqError
from painseq.export import Int8, OpenVino, export
from painseq.export.int8 import calibration_of, crops_of_model, evenly
from painseq.export.measuring import concordance
from painseq.heads import LinearProbe
from painseq.model import load
from painseq.model.record import SplitRecord
from painseq.runtime import load as load_exported
from painseq.runtime.folder import EXTRACTOR, OPENVINO_EXTRACTOR, ExtractorRecord, read_folder

SIZE_PX = 96
FLOOR = 0.9
"""Of twelve clips, one may get another label."""


@pytest.fixture(scope="module")
def of_people(tiny, work):
    """Options for nine people, two clips each of no pain and of much; three for validation, one to test on."""
    from painseq.synthetic import BioVidPlan, write_biovid

    write_biovid(work / "two_classes", BioVidPlan(9, 2, ("BL1", "PA4"), fps=4, size_px=128), seed=0)
    larger = work / "larger.yaml"
    larger.write_text(Path(tiny).read_text().replace("size_px: 32", f"size_px: {SIZE_PX}"))
    own = ["--config", "configs/data/biovid.yaml", "--config", str(larger), "--data.root", str(work / "two_classes")]
    return [*own, "--data.options.split.validation_share", "0.34", "--data.options.split.test_share", "0.12"]


@pytest.fixture(scope="module")
def of_data(of_people, work):
    """Options for their crops."""
    from painseq.cli.extract import main as extract

    pixels = f'{{"class_path": "painseq.extractors.Pixels", "init_args": {{"input_size_px": {SIZE_PX}}}}}'
    extract([*of_people, "--model.extractor", pixels, "--out", str(work / "two_crops")])
    return [*of_people, "--data.options.view", "pixels", "--data.options.store", str(work / "two_crops")]


@pytest.fixture(scope="module")
def checkpoint(of_people, work):
    """A head that was fitted on features of a small network until it tells the classes apart."""
    from painseq.cli.extract import main as extract
    from painseq.cli.fit import fit

    extract([*of_people, "--out", str(work / "two_features"), "--dtype", "float32", "--precision", "fp32"])
    head = ["--config", "configs/head/frame_ann.yaml"]
    epochs = ["--trainer.max_epochs", "60", "--early_stopping.patience", "60"]
    store = ["--data.options.store", str(work / "two_features")]
    return fit([*of_people, *head, *epochs, *store, "--out", str(work / "two_run")]) / "last.ckpt"


@pytest.fixture(scope="module")
def graphs(checkpoint, work):
    """The same in fp32."""
    export(checkpoint, work / "fp32")
    return work / "fp32"


@pytest.fixture
def ready(graphs, monkeypatch):
    """Exports take the graphs that are there, instead of writing them anew."""

    def copied(job, on_written):
        for path in map(Path, job.files.values()):
            shutil.copy(graphs / path.name, path)

    monkeypatch.setattr("painseq.export.graph_process.run", copied)
    return graphs


def data_of(of_data, *more):
    from painseq.cli.experiment import ExperimentCLI

    return ExperimentCLI("export", [*of_data, *more]).data()


@pytest.fixture
def data(of_data):
    return data_of(of_data)


@pytest.fixture
def quantised(ready, checkpoint, data, tmp_path):
    export(checkpoint, tmp_path / "int8", extractor=Int8(data, people=3, frames=40, floor=FLOOR))
    return tmp_path / "int8"


def test_labels_of_a_fitted_model_stay_and_what_changes_is_recorded(quantised, ready, checkpoint, data):
    record = read_folder(quantised)
    assert record.extractor == ExtractorRecord("int8", "onnxruntime")
    exact, small = load_exported(ready), load_exported(quantised)
    labels, changes, leads = [], [], []
    own = crops_of_model(load(checkpoint), data)
    for number in range(len(own.dataset("validation"))):
        sample = own.dataset("validation")[number]
        rows = [model.features(sample.video.numpy()) for model in (exact, small)]
        answers = [
            model.answer(x[None], sample.present.numpy()[None]) for model, x in zip((exact, small), rows, strict=True)
        ]
        labels.append([int(answer.label[0]) for answer in answers])
        changes.append(np.abs(answers[0].probabilities - answers[1].probabilities))
        top, second = sorted(answers[0].probabilities[0].tolist(), reverse=True)[:2]
        leads += [top - second] if labels[-1][0] != labels[-1][1] else []
        assert not np.array_equal(*rows)
    labels, found = np.array(labels), record.int8
    assert set(labels[:, 0]) == {0, 1}, "a model that tells the classes apart"
    assert found.clips == len(labels) == 12 and found.floor == FLOOR
    assert found.agreement == pytest.approx((labels[:, 0] == labels[:, 1]).mean()) and found.agreement >= FLOOR
    assert found.mean_change == pytest.approx(np.mean(changes), abs=1e-6)
    assert found.largest_change == pytest.approx(np.max(changes), abs=1e-6) and 0 < found.largest_change < 0.2
    assert found.changed_lead == pytest.approx(max(leads), abs=1e-6) if leads else found.changed_lead is None
    accuracy = found.balanced_accuracy
    assert accuracy.change == pytest.approx(accuracy.int8 - accuracy.fp32) and accuracy.subjects == 3
    assert accuracy.low <= accuracy.change <= accuracy.high


def test_training_subjects_alone_calibrate_and_validation_subjects_alone_are_measured(quantised):
    record = read_folder(quantised)
    split, int8 = record.record.data.split, record.int8
    assert len(int8.calibrated_on) == 3 and int8.frames <= 40
    assert set(int8.calibrated_on) < {f"biovid/{subject}" for subject in split.train}
    assert set(int8.measured_on) == {f"biovid/{subject}" for subject in split.validation}


def test_the_split_is_the_models_whatever_that_of_the_data(checkpoint, of_data):
    other = data_of(of_data, "--data.options.split.seed", "7")
    model = load(checkpoint)
    own = crops_of_model(model, other)
    assert (own.split.train, own.split.test) == (model.record.data.split.train, model.record.data.split.test)
    assert own.split.train != other.split.train
    dataset, read = own.dataset("train"), []
    own._datasets["train"] = Watched(dataset, read)
    found = calibration_of(own, Int8(other, people=2, frames=9))
    assert set(read) == set(found.people) <= set(own.split.train) and len(found.people) == 2
    assert len(found.crops) <= 9 and found.crops.dtype == np.uint8 and found.crops.shape[1:] == (3, SIZE_PX, SIZE_PX)


class Watched:
    """Clips that note whose they are when they are read."""

    def __init__(self, dataset, read):
        self.dataset, self.clips, self.read = dataset, dataset.clips, read

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        self.read.append(self.clips[index].subject_id)
        return self.dataset[index]


def test_too_little_agreement_is_refused_and_nothing_stays(ready, checkpoint, data, tmp_path, monkeypatch):
    from painseq.export import quantising

    def spoil(path, crops):
        quantise(path, np.zeros_like(crops))

    quantise = quantising.quantise
    monkeypatch.setattr(quantising, "quantise", spoil)
    with pytest.raises(PainseqError, match=r"\b0\.99\b"):
        export(checkpoint, tmp_path / "out", extractor=Int8(data, people=1, frames=4, floor=0.99))
    assert not list(tmp_path.iterdir())


def test_data_and_models_that_int8_cannot_be_measured_on_are_refused(ready, checkpoint, of_data, data, tmp_path):
    model = load(checkpoint)
    fit = model.record.data
    for record, fact in (
        (replace(model.record, data=replace(fit, fingerprint="0" * 16)), "fingerprint"),
        (replace(model.record, normalise=("subject",)), "subject"),
        (replace(model.record, data=replace(fit, split=SplitRecord("all", fit.split.train, (), ()))), "validation"),
        (replace(model.record, data=replace(fit, split=replace(fit.split, protocol="frames_LEAKY"))), "LEAKY"),
    ):
        changed = load(checkpoint)
        changed.record = record
        with pytest.raises(PainseqError, match=fact):
            export(changed, tmp_path / "out", extractor=Int8(data))
    with pytest.raises(PainseqError, match="view"):
        export(model, tmp_path / "out", extractor=Int8(data_of(of_data, "--data.options.view", "features")))
    bare = load(checkpoint)
    bare.extractor, bare.head = None, LinearProbe((3,), 2)
    for extractor in (Int8(data), OpenVino()):
        with pytest.raises(PainseqError, match="--int8"):
            export(bare, tmp_path / "out", extractor=extractor)
    assert not list(tmp_path.iterdir())


def test_settings_that_mean_nothing_are_refused(data):
    for settings, fact in (({"people": 0}, "people"), ({"frames": -1}, "frames"), ({"floor": 1.5}, r"1\.5")):
        with pytest.raises(PainseqError, match=fact):
            Int8(data, **settings)


def test_items_are_chosen_evenly():
    assert evenly(range(10), 4) == [0, 3, 6, 9]
    assert evenly(range(3), 5) == [0, 1, 2] and evenly([], 5) == []
    assert evenly(range(9), 1) == [0]


def test_concordance_sees_offsets_and_factors():
    values = np.random.default_rng(0).normal(3, 2, 50)
    assert concordance(values, values) == pytest.approx(1) == concordance(np.ones(3), np.ones(3))
    assert concordance(values, -values) < 0 == concordance(np.ones(3), np.zeros(3))
    spread = values.var()
    assert concordance(values, values + 1) == pytest.approx(2 * spread / (2 * spread + 1))
    mean = values.mean()
    assert concordance(values, 2 * values) == pytest.approx(4 * spread / (5 * spread + mean**2))


def test_openvino_runs_the_extractor(ready, checkpoint, data, tmp_path):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    pytest.importorskip("nncf", reason="nncf is not installed")
    crops = np.random.default_rng(0).integers(0, 256, (5, 3, SIZE_PX, SIZE_PX), np.uint8)
    wanted = load_exported(ready).features(crops)
    int8 = OpenVino(Int8(data, people=3, frames=40, floor=FLOOR))
    for name, extractor, tolerance in (("fp32", OpenVino(), 1e-4), ("bf16", OpenVino("bf16"), 0.05), ("int8", int8, 1)):
        record = export(checkpoint, tmp_path / name, extractor=extractor)
        assert record.extractor == ExtractorRecord(name, "openvino") and EXTRACTOR not in record.files
        assert {OPENVINO_EXTRACTOR, "extractor.bin", "head.onnx"} == set(record.files)
        found = load_exported(tmp_path / name).features(crops)
        assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()
        assert (record.int8 is not None) == (name == "int8")
    assert record.int8.agreement >= FLOOR and record.int8.largest_change > 0
    assert {"openvino", "nncf"} <= set(record.versions)


def test_openvino_is_asked_for_where_it_is_missing(checkpoint, tmp_path, monkeypatch):
    import importlib.metadata

    version = importlib.metadata.version

    def without(name):
        if name == "openvino":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("importlib.metadata.version", without)
    with pytest.raises(PainseqError, match="openvino"):
        export(checkpoint, tmp_path / "out", extractor=OpenVino())
    assert not list(tmp_path.iterdir())
