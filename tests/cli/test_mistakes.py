"""What the command line says of mistakes: one message, what to do, and an exit code that is not 0."""

import shlex

import pytest
import torch

LSTM = ["--config", "configs/head/lstm.yaml"]

FIRST_MESSAGES = [
    (
        "trian",
        "painseq: unknown command 'trian'. Commands: demo, synth, data, split, faces, extract, store, fit, evaluate, "
        "compare, crossval, transfer, audit, reproduce, movements, predict, export, live, serve, submit, explain.",
    ),
    (
        "fit {lstm} {out}",
        "painseq fit: the following arguments are required: data\n`painseq fit --help` lists every option and key.",
    ),
    ("fit {electrical} {out}", "painseq fit: No head to fit. Add one, e.g. --config configs/head/lstm.yaml."),
    (
        "fit {electrical} {lstm} {out} --bogus 1",
        "painseq fit: unrecognized arguments: --bogus 1\n`painseq fit --help` lists every option and key.",
    ),
    (
        "fit {electrical} {lstm} {out} --trainer.max_epochs two",
        "painseq fit: Parser key \"trainer.max_epochs\":\n    - Expected a <class 'int'>\n  Given value: two\n"
        "`painseq fit --help` lists every option and key.",
    ),
    (
        "fit --config nope.yaml {out}",
        "painseq fit: No configuration at nope.yaml. Shipped with painseq: configs/data, configs/demo, "
        "configs/extractor, configs/head, configs/reproduce.",
    ),
    (
        "fit {electrical} {lstm} {out} --data.options.labels four",
        "painseq fit: ai4pain has no label scheme 'four'; it has: binary, three.",
    ),
    (
        "fit {electrical} {lstm} {out} --data.options.store nowhere",
        "painseq fit: nowhere is neither a feature store (it has no store.json) nor a folder of .npz files. "
        "Create a store with `painseq extract`.",
    ),
    (
        "fit {electrical} {lstm} {out} --data.options.fps 5",
        "painseq fit: {store} holds features of another pipeline; one store cannot hold both. The store has\n  "
        "sampling.fps: 3.0, not 5.0\n"
        "where the second value is the requested one. Choose another folder, or the settings of the store.",
    ),
    (
        "fit {electrical} {lstm} {out} --data.options.split.validation_share 0",
        "painseq fit: There are no validation subjects for early stopping and for choosing the best epoch. Set "
        "--data.options.split.validation_share above 0, or fit for a fixed number of epochs: refit_epochs, or epochs "
        "of a fold (command line: --refit EPOCHS).",
    ),
    (
        "fit {electrical} {lstm} --out {fitted}",
        "painseq fit: {fitted} already holds a run, which is never overwritten. Choose another folder for --out.",
    ),
    ("fit {electrical} {lstm} {out} --resume", "painseq fit: Nothing to resume: no last.ckpt in {run}."),
    (
        "extract {electrical} {out} --data.root nowhere",
        "painseq extract: No AI4Pain data at nowhere: root (--data.root) must be the folder with Train.",
    ),
    (
        "extract {heat} {out} --data.root nowhere",
        "painseq extract: No BioVid clips at nowhere: no PartA/video/<subject>/<sample>.mp4 and no "
        "<class>/<sample>/img_00001.jpg. root (--data.root) must be the folder with PartA, or the one with the folders "
        "of images.",
    ),
    (
        "extract {electrical} {out} --parts tset",
        "painseq extract: parts names 'tset'; parts are train, validation, test.",
    ),
    (
        "evaluate {electrical} {out} --checkpoint none.ckpt",
        "painseq evaluate: No checkpoint at none.ckpt. `painseq fit` writes best.ckpt into its run folder.",
    ),
    ("evaluate {out} --predictions none.csv", "painseq evaluate: No predictions at none.csv."),
    ("predict none.mp4 --checkpoint {fitted}/best.ckpt", "none.mp4: No video at none.mp4."),
    (
        "predict {video} --checkpoint {fitted}/best.ckpt",
        "{video}: No sidecar with the faces of {video}: looked for {folder}/clip.faces.safetensors and "
        "{folder}/clip.csv. Add one, or detect faces in the frames: locator YuNet instead of Sidecar "
        "(`--locator yunet` in predict and explain).",
    ),
    (
        "explain {video} {out} --checkpoint {fitted}/best.ckpt --class-name joy",
        "painseq explain: No class 'joy'; this model's classes: no_pain, low_pain, high_pain.",
    ),
    (
        "reproduce prajod2024_lstm --root {data} {out}",
        "painseq reproduce: No weights file at weights/heat_vgg16.h5. Put it there, or name another one "
        "(for an extractor: --model.extractor.init_args.weights FILE). docs/biovid_to_ai4pain.md explains how to get "
        "VGG16's ImageNet weights.",
    ),
    (
        "submit --out s.csv",
        "painseq submit: A submission needs --predictions FILE, the predictions.csv of the test part.",
    ),
]
"""What those who begin are likely to meet, whole; elsewhere tests assert what a message names."""


@pytest.mark.parametrize(("command", "message"), FIRST_MESSAGES, ids=[command for command, _ in FIRST_MESSAGES])
def test_the_messages_that_users_meet_first(
    painseq, on_electrical, on_heat, electrical, store, lstm, video, tmp_path, command, message
):
    video.with_suffix(".faces.safetensors").unlink()
    parts = {
        "electrical": shlex.join([*on_electrical, "--data.options.store", str(store)]),
        "heat": shlex.join(on_heat),
        "lstm": shlex.join(LSTM),
        "out": f"--out {tmp_path / 'run'}",
        "store": store,
        "run": tmp_path / "run",
        "fitted": lstm.parent,
        "video": video,
        "folder": tmp_path,
        "data": electrical,
    }
    result = painseq(*shlex.split(command.format(**parts)))
    assert result.code in (1, 2) and result.err.strip() == message.format(**parts)


@pytest.mark.parametrize(
    ("yaml", "facts"),
    [
        ("modle: {x: 3}", ("modle.x",)),
        ("trainer: {max_epoch: 3}", ("trainer", "max_epoch")),
        ("data: {init_args: {optoins: {fps: 3}}}", ("data", "optoins.fps")),
        ("data: {init_args: {options: {split: {protocoll: official}}}}", ("data", "split.protocoll")),
        ("model: {head: {class_path: painseq.heads.LSTM, init_args: {unit: [3, 2]}}}", ("model.head", "unit")),
        ("model: {head: {class_path: painseq.heads.LTSM}}", ("model.head", "LTSM")),
        ("trainer: {max_epochs: two}", ("trainer.max_epochs", "two")),
        ("data: [unclosed", ("typo.yaml", "line 1", "column 7")),
    ],
)
@pytest.mark.parametrize("command", ["fit", "extract", "evaluate"])
def test_a_mistyped_configuration(painseq, on_electrical, tmp_path, command, yaml, facts):
    (tmp_path / "typo.yaml").write_text(f"{yaml}\n")
    more = ["--checkpoint", "none.ckpt"] if command == "evaluate" else []
    out = tmp_path / "out"
    result = painseq(command, *on_electrical, *LSTM, "--config", tmp_path / "typo.yaml", *more, "--out", out)
    assert result.code == 1 and result.err.startswith(f"painseq {command}: ") and result.err.names(*facts)
    assert "unclosed" in yaml or result.err.names(f"painseq {command} --help")
    assert "usage:" not in result.err
    assert "NoneType" not in result.err and "ai4pain" not in result.err  # not the types of a union, nor the whole value
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (["--config", "nope.yaml"], ("nope.yaml", "configs/data", "configs/head")),
        (["--config", "configs/head/ltsm.yaml"], ("configs/head/ltsm.yaml", "configs/head/lstm.yaml")),
        (["--bogus", "1"], ("--bogus", 1)),
        (["--data.options.labels", "four"], ("ai4pain", "four", "binary", "three")),
        (["--data.root", "nowhere"], ("nowhere", "--data.root", "Train")),
        (["--data.options.fps", "5"], ("sampling.fps", 3.0, 5.0)),
        (["--data.options.view", "pixels"], ("--data.options.view", "pixels", "features")),
        (["--data.options.store", "nowhere"], ("nowhere", "store.json", "painseq extract")),
        (["--data.options.split.validation_share", "0"], ("--data.options.split.validation_share", "--refit")),
        (["--model.extractor.init_args.seed", "7"], ("extractor.fingerprint",)),
        (["--trainer.devices", "0"], ("Lightning", "devices='0'")),
        (["--resume"], ("last.ckpt",)),
    ],
)
def test_a_fit_that_cannot_be(painseq, on_electrical, store, tmp_path, change, facts):
    good = [*on_electrical, *LSTM, "--data.options.store", store, "--out", tmp_path / "run"]
    result = painseq("fit", *good, *change)
    assert result.code == 1 and result.err.names(*facts)
    assert len(result.err.splitlines()) <= 6
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_a_fit_without_a_head_a_data_set_or_a_folder(painseq, on_electrical, store, tmp_path):
    out = ["--out", tmp_path / "run"]
    result = painseq("fit", *on_electrical, "--data.options.store", store, *out)
    assert result.code == 1 and result.err.names("head", "--config")
    assert painseq("fit", *LSTM, *out).err.names("required", "data")
    assert painseq("extract", *on_electrical).err.names("required", "out")


def test_an_empty_data_folder(painseq, on_electrical, on_heat, tmp_path):
    (tmp_path / "empty").mkdir()
    for args, folder in ((on_electrical, "Train"), (on_heat, "PartA")):
        result = painseq("extract", *args, "--data.root", tmp_path / "empty", "--out", tmp_path / "store")
        assert result.code == 1 and result.err.names(tmp_path / "empty", folder, "--data.root")


def test_a_run_folder_that_exists(painseq, on_electrical, store, lstm):
    result = painseq("fit", *on_electrical, *LSTM, "--data.options.store", store, "--out", lstm.parent)
    assert result.code == 1 and result.err.names(lstm.parent, "--out")


def test_extracting_into_another_pipelines_store(painseq, on_electrical, store):
    result = painseq("extract", *on_electrical, "--out", store, "--dtype", "float32", "--data.options.fps", "2")
    assert result.code == 1 and result.err.names(store, "sampling.fps", 3.0, 2.0)


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (["--parts", "tset"], ("parts", "tset", "train", "validation", "test")),
        (["--device", "gpu"], ("--device", "gpu")),
        (["--device", "vulkan"], ("--device", "vulkan")),
        (["--model.extractor.init_args.input_size_px", "64"], ("size_px", 32, "input_size_px", 64)),
    ],
)
def test_an_extraction_that_cannot_be(painseq, on_electrical, tmp_path, change, facts):
    result = painseq("extract", *on_electrical, "--out", tmp_path / "store", *change)
    assert result.code == 1 and result.err.names(*facts)


def test_extracting_some_parts_alone(painseq, on_electrical, tmp_path):
    result = painseq(
        "extract", *on_electrical, "--out", tmp_path / "store", "--parts", "test", "--export", tmp_path / "npz"
    )
    assert result.code == 0 and len((tmp_path / "store" / "manifest.csv").read_text().splitlines()) == 7
    assert len(list((tmp_path / "npz").glob("*.npz"))) == 6


def test_full_memory_of_a_gpu(painseq, on_electrical, store, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("painseq.training.classifier.PainClassifier.training_step", full)
    result = painseq("fit", *on_electrical, *LSTM, "--data.options.store", store, "--out", tmp_path / "run")
    assert result.code == 1 and result.err.names("GPU", "--data.options.batch_size", "2.00 GiB")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="It is there.")
def test_folds_on_a_device_that_is_not_there(painseq, on_electrical, store, tmp_path):
    folds = ["--data.options.split.protocol", "subject_kfold", "--data.options.split.folds", "2"]
    options = [*on_electrical, *LSTM, *folds, "--data.options.store", store, "--trainer.accelerator", "mps"]
    result = painseq("crossval", *options, "--out", tmp_path / "run")
    assert result.code == 1 and result.err.names("Lightning", "MPSAccelerator")


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
        result = painseq("fit", *args)
    assert result.code == 130 and result.err.names("--resume")
    again = painseq("fit", *args)
    assert again.code == 1 and again.err.names(tmp_path / "run", "--resume")
    assert painseq("fit", *args, "--resume").code == 0
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
        result = painseq("extract", *args)
    assert result.code == 130 and result.err.names("painseq extract")
    assert painseq("extract", *args).code == 0
    from painseq.features import FeatureStore

    assert len(FeatureStore(tmp_path / "store")) == 6
