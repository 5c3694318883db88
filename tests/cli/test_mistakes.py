"""What the command line says of mistakes: one message, what to do, and an exit code that is not 0."""

import pytest
import torch

LSTM = ["--config", "configs/head/lstm.yaml"]


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("modle: {x: 3}", "Option 'modle.x' is not accepted"),
        ("trainer: {max_epoch: 3}", "'trainer' does not accept option 'max_epoch'"),
        ("data: {init_args: {optoins: {fps: 3}}}", "Option 'optoins.fps' is not accepted"),
        ("data: {init_args: {options: {split: {protocoll: official}}}}", "does not accept option 'split.protocoll'"),
        ("model: {head: {class_path: painseq.heads.LSTM, init_args: {unit: [3, 2]}}}", "'unit' is not accepted"),
        ("model: {head: {class_path: painseq.heads.LTSM}}", "no attribute 'LTSM'"),
        ("trainer: {max_epochs: two}", "Given value: two"),
        ("data: [unclosed", "Problems parsing config"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "extract", "evaluate"])
def test_a_mistyped_configuration(painseq, on_electrical, tmp_path, command, yaml, message):
    (tmp_path / "typo.yaml").write_text(f"{yaml}\n")
    more = ["--checkpoint", "none.ckpt"] if command == "evaluate" else []
    out = tmp_path / "out"
    said = painseq(command, *on_electrical, *LSTM, "--config", tmp_path / "typo.yaml", *more, "--out", out)
    assert said.code == 1 and said.err.startswith(f"painseq {command}: ") and message in said.err
    assert f"`painseq {command} --help`" in said.err and "usage:" not in said.err
    assert "NoneType" not in said.err and "ai4pain" not in said.err  # not the types of a union, nor the whole value
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--config", "nope.yaml"], "No configuration at nope.yaml. Shipped with painseq: configs/data, configs/demo,"),
        (
            ["--config", "configs/head/ltsm.yaml"],
            "Shipped with painseq: configs/head/attention_mil.yaml, configs/head/",
        ),
        (["--bogus", "1"], "unrecognized arguments: --bogus 1"),
        (["--data.options.labels", "four"], "ai4pain has no label scheme 'four'; it has: binary, three"),
        (["--data.root", "nowhere"], "No AI4Pain data at nowhere: --data.root is the folder that holds Train"),
        (["--data.options.fps", "5"], "sampling.fps: 3.0, not 5.0"),
        (["--data.options.view", "pixels"], "holds features, but --data.options.view is pixels"),
        (["--data.options.store", "nowhere"], "nowhere is neither a feature store"),
        (["--data.options.split.validation_share", "0"], "nothing to stop early on"),
        (["--model.extractor.init_args.seed", "7"], "extractor.fingerprint: "),
        (["--trainer.devices", "0"], "Lightning refuses these settings of the trainer: "),
        (["--resume", "true"], "Nothing to resume: no last.ckpt"),
    ],
)
def test_a_fit_that_cannot_be(painseq, on_electrical, store, tmp_path, change, message):
    good = [*on_electrical, *LSTM, "--data.options.store", store, "--out", tmp_path / "run"]
    said = painseq("fit", *good, *change)
    assert said.code == 1 and message in said.err
    assert len(said.err.splitlines()) <= 6
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_a_fit_without_a_head_a_data_set_or_a_folder(painseq, on_electrical, store, tmp_path):
    out = ["--out", tmp_path / "run"]
    said = painseq("fit", *on_electrical, "--data.options.store", store, *out)
    assert said.code == 1 and "No head to fit. Add one, e.g. --config configs/head/lstm.yaml" in said.err
    assert "arguments are required: data" in painseq("fit", *LSTM, *out).err
    assert "arguments are required: out" in painseq("extract", *on_electrical).err


def test_an_empty_data_folder(painseq, on_electrical, on_heat, tmp_path):
    (tmp_path / "empty").mkdir()
    for args, message in ((on_electrical, "holds no videos in Train"), (on_heat, "No BioVid clips at")):
        said = painseq("extract", *args, "--data.root", tmp_path / "empty", "--out", tmp_path / "store")
        assert said.code == 1 and message in said.err and "--data.root is the folder that holds" in said.err


def test_a_run_folder_that_exists(painseq, on_electrical, store, lstm):
    said = painseq("fit", *on_electrical, *LSTM, "--data.options.store", store, "--out", lstm.parent)
    assert said.code == 1 and "holds a run already, and nothing is overwritten" in said.err


def test_extracting_into_another_pipelines_store(painseq, on_electrical, store):
    said = painseq("extract", *on_electrical, "--out", store, "--dtype", "float32", "--data.options.fps", "2")
    assert said.code == 1 and "the two never mix" in said.err and "sampling.fps: 3.0, not 2.0" in said.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--parts", "tset"], "--parts names 'tset'; parts are train, validation, test"),
        (["--device", "gpu"], "--device gpu: no such device"),
        (["--device", "vulkan"], "--device vulkan: no such device here"),
        (["--model.extractor.init_args.input_size_px", "64"], "size_px 32 and the extractor input_size_px 64"),
    ],
)
def test_an_extraction_that_cannot_be(painseq, on_electrical, tmp_path, change, message):
    said = painseq("extract", *on_electrical, "--out", tmp_path / "store", *change)
    assert said.code == 1 and message in said.err


def test_extracting_some_parts_alone(painseq, on_electrical, tmp_path):
    said = painseq(
        "extract", *on_electrical, "--out", tmp_path / "store", "--parts", "test", "--export", tmp_path / "npz"
    )
    assert said.code == 0 and len((tmp_path / "store" / "manifest.csv").read_text().splitlines()) == 7
    assert len(list((tmp_path / "npz").glob("*.npz"))) == 6


def test_full_memory_of_a_gpu(painseq, on_electrical, store, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("painseq.training.classifier.PainClassifier.training_step", full)
    said = painseq("fit", *on_electrical, *LSTM, "--data.options.store", store, "--out", tmp_path / "run")
    assert said.code == 1 and "The GPU's memory is full. Smaller batches need less" in said.err
    assert "Tried to allocate 2.00 GiB" in said.err and "Traceback" not in said.err


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="It is there.")
def test_folds_on_a_device_that_is_not_there(painseq, on_electrical, store, tmp_path):
    folds = ["--data.options.split.protocol", "subject_kfold", "--data.options.split.folds", "2"]
    options = [*on_electrical, *LSTM, *folds, "--data.options.store", store, "--trainer.accelerator", "mps"]
    said = painseq("crossval", *options, "--out", tmp_path / "run")
    assert said.code == 1 and "Lightning refuses these settings of the trainer" in said.err


def test_an_interrupted_fit_tells_how_to_go_on(painseq, on_electrical, store, tmp_path, monkeypatch):
    from painseq.training.classifier import PainClassifier

    train = PainClassifier.training_step

    def interrupted(self, batch, batch_idx):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return train(self, batch, batch_idx)

    args = [
        *on_electrical,
        *LSTM,
        "--data.options.store",
        store,
        "--out",
        tmp_path / "run",
        "--trainer.max_epochs",
        "2",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(PainClassifier, "training_step", interrupted)
        said = painseq("fit", *args)
    assert said.code == 130 and "to go on, add --resume true --out FOLDER" in said.err
    again = painseq("fit", *args)
    assert again.code == 1 and "holds a run that was interrupted. Add --resume true" in again.err
    assert painseq("fit", *args, "--resume", "true").code == 0
    assert (tmp_path / "run" / "run.json").is_file()


def test_an_interrupted_extraction_is_completed_by_the_same_command(painseq, on_electrical, tmp_path, monkeypatch):
    from painseq.features.network import Network

    run, calls = Network.__call__, []

    def interrupted(self, crops):
        calls.append(len(crops))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return run(self, crops)

    args = [*on_electrical, "--out", tmp_path / "store", "--parts", "test"]
    with monkeypatch.context() as patch:
        patch.setattr(Network, "__call__", interrupted)
        said = painseq("extract", *args)
    assert said.code == 130 and "to go on, run the same command again" in said.err
    assert painseq("extract", *args).code == 0
    from painseq.features import FeatureStore

    assert len(FeatureStore(tmp_path / "store")) == 6
