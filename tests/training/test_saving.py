"""Runs that are killed, run out of disk, or meet another run in their folder."""

import errno
import json
import os
import re
import resource
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

from painseq.cli import main
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data_modules import AI4Pain
from painseq.errors import PainseqError
from painseq.heads import FrameANN
from painseq.model.checkpoint import read_checkpoint
from painseq.runs import locked_folder, read_history
from painseq.training.classifier import PainClassifier
from painseq.training.fitting import FitOptions, fit
from painseq.training.saving import AtomicCheckpointIO

OPTIONS = FitOptions(max_epochs=2, accelerator="cpu")


@pytest.fixture
def data(electrical: Path, store: Path) -> AI4Pain:
    return AI4Pain(electrical, DataOptions(store=store, split=SplitOptions(protocol="official_inner")))


def weights(run: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    return read_checkpoint(run / name).head


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@contextmanager
def largest_file(size_bytes: int):
    """Files cannot grow beyond this size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_nothing_is_written_outside_the_run_folder(data, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    fit(PainClassifier(head=FrameANN), data, tmp_path / "run", OPTIONS)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_a_full_disk_leaves_the_last_checkpoint_whole_and_the_run_goes_on(data, tmp_path, monkeypatch):
    fit(PainClassifier(head=FrameANN), data, tmp_path / "whole", OPTIONS)
    fit(PainClassifier(head=FrameANN), data, tmp_path / "run", FitOptions(max_epochs=1, accelerator="cpu"))
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    with largest_file(len(before) // 2), pytest.raises(OSError, match=r"run/(last|best)\.ckpt") as caught:
        fit(PainClassifier(head=FrameANN), data, tmp_path / "run", OPTIONS, resume=True)
    assert caught.value.errno == errno.EFBIG
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*.partial"))
    fit(PainClassifier(head=FrameANN), data, tmp_path / "run", OPTIONS, resume=True)
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert len(read_history(tmp_path / "run")) == 2


class Killed(BaseException):
    """Ends a fit as Ctrl-C does."""


def test_a_run_that_ends_before_its_first_checkpoint_starts_anew(data, tmp_path, monkeypatch, caplog):
    fit(PainClassifier(head=FrameANN), data, tmp_path / "whole", OPTIONS)
    save = AtomicCheckpointIO.save_checkpoint

    def ended(self, checkpoint, path, storage_options=None):
        if Path(path).name == "last.ckpt":
            raise Killed
        save(self, checkpoint, path, storage_options)

    for number, resume in enumerate((False, True)):
        run = tmp_path / f"run{number}"
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(AtomicCheckpointIO, "save_checkpoint", ended)
            fit(PainClassifier(head=FrameANN), data, run, OPTIONS)
        assert (run / "config.yaml").is_file() and not (run / "last.ckpt").exists()
        caplog.clear()
        fit(PainClassifier(head=FrameANN), data, run, OPTIONS, resume=resume)
        assert str(run) in caplog.text
        assert same(weights(run), weights(tmp_path / "whole"))
        assert json.loads((run / "run.json").read_text())["epochs"] == 2
        assert not (run / ".lock").exists()


def test_a_run_that_ends_between_early_stopping_and_its_record_is_not_trained_on(data, tmp_path, monkeypatch):
    options = FitOptions(max_epochs=60, patience=2, accelerator="cpu")

    def model() -> PainClassifier:
        return PainClassifier(head=FrameANN, optimizer=partial(torch.optim.Adam, lr=0.1))

    def ended(*_: object) -> None:
        raise Killed

    fit(model(), data, tmp_path / "whole", options)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("painseq.training.fitting._finish_run", ended)
        fit(model(), data, tmp_path / "run", options)
    fit(model(), data, tmp_path / "run", options, resume=True)
    epochs = [json.loads((tmp_path / name / "run.json").read_text())["epochs"] for name in ("whole", "run")]
    assert epochs[0] == epochs[1] < 60
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert same(weights(tmp_path / "run", "best.ckpt"), weights(tmp_path / "whole", "best.ckpt"))


@pytest.mark.parametrize("resume", [False, True])
def test_files_of_ones_own_are_no_interrupted_run(data, tmp_path, resume):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("mine")
    with pytest.raises(PainseqError, match="run"):
        fit(PainClassifier(head=FrameANN), data, tmp_path / "run", OPTIONS, resume=resume)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]
    assert (tmp_path / "run" / "config.yaml").read_text() == "mine"


def test_a_second_fit_in_a_folder_is_refused(data, tmp_path):
    with (
        locked_folder(tmp_path / "run"),
        pytest.raises(PainseqError, match=rf"{os.getpid()}.*{re.escape(str(tmp_path / 'run'))}"),
    ):
        fit(PainClassifier(head=FrameANN), data, tmp_path / "run", OPTIONS)
    assert not (tmp_path / "run").exists()


def test_a_damaged_last_checkpoint_is_told(data, tmp_path):
    fit(PainClassifier(head=FrameANN), data, tmp_path / "run", OPTIONS)
    last = tmp_path / "run" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(PainseqError, match=re.escape(str(last))):
        fit(PainClassifier(head=FrameANN), data, tmp_path / "run", FitOptions(max_epochs=3), resume=True)


def test_the_command_tells_of_a_full_disk(on_electrical, store, tmp_path, capsys):
    args = [*on_electrical, "--config", "configs/head/frame_ann.yaml", "--data.options.store", str(store)]
    with largest_file(20_000):
        code = main(["fit", *args, "--trainer.max_epochs", "1", "--out", str(tmp_path / "run")])
    assert code == 1 and re.search(r"run/best\.ckpt", capsys.readouterr().err)
