"""`painseq faces`: tracks of a data set, written once."""

import csv
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from painseq.cli.experiment import ExperimentCLI
from painseq.faces import FaceCrops


@pytest.fixture
def data(heat: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged: 25 clips, of which the second has no face in its first second."""
    shutil.copytree(heat, tmp_path / "heat")
    sidecar = sorted((tmp_path / "heat").rglob("*.faces.safetensors"))[1]
    tensors = load_file(sidecar)
    tensors["boxes"][tensors["times_s"] < 1] = np.nan
    save_file(tensors, sidecar)
    return tmp_path / "heat"


@pytest.fixture
def options(data: Path, tiny: str, tmp_path: Path) -> list[str]:
    labels = ["--data.options.labels", "five"]
    given = ["--config", "configs/data/biovid.yaml", "--config", tiny, "--data.root", str(data), *labels]
    return [*given, "--out", str(tmp_path / "tracks")]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_clip_has_a_track_and_a_row(painseq, options, tmp_path):
    out = tmp_path / "tracks"
    said = painseq("faces", *options)
    assert said.code == 0, said.err
    assert "25 clips: 25 tracked, 0 tracked before, 0 failed" in said.log
    rows = table(out / "faces.csv")
    assert len(rows) == 25 and all((out / row["track"]).is_file() for row in rows)
    (gap,) = [row for row in rows if row["faceless"] != "0"]
    assert gap["faceless_spans_s"] == "0.000-0.667" and gap["faceless"] == "3"
    assert float(gap["faceless_share"]) == pytest.approx(3 / int(gap["frames"]), abs=1e-4)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["clips"] == summary["found"] == 25 and summary["faceless"] == 3
    assert summary["frames"] == summary["frames_located"] == sum(int(row["frames"]) for row in rows)
    by_label = summary["faceless_by_label"]
    assert set(by_label) == {"no_pain", "mild_pain", "moderate_pain", "severe_pain", "extreme_pain"}
    assert sum(label["faceless"] for label in by_label.values()) == 3
    assert all(label["clips"] == 5 for label in by_label.values())
    assert summary["tracking"]["locator"]["class_path"] == "painseq.faces.sidecar.Sidecar"
    for file in ("faces.csv", "summary.json", "tracks.json"):
        assert str(tmp_path) not in (out / file).read_text()


def test_a_second_run_searches_nothing_and_its_tracks_are_taken(painseq, options, tmp_path, data, monkeypatch):
    monkeypatch.setattr("painseq.faces.Sidecar.needs_pixels", True)
    assert painseq("faces", *options).code == 0
    first = (tmp_path / "tracks" / "faces.csv").read_bytes()

    def never(*args: object) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr("painseq.faces.Sidecar.locate", never)
    said = painseq("faces", *options, "--workers", "3")
    assert said.code == 0 and "0 tracked, 25 tracked before" in said.log
    assert (tmp_path / "tracks" / "faces.csv").read_bytes() == first
    tracks = ["--data.options.face.init_args.tracks", str(tmp_path / "tracks")]
    config = ExperimentCLI("faces", [*options, *tracks])
    face, manifest = config.datamodule.options.face, config.datamodule.manifest
    assert isinstance(face, FaceCrops)
    assert next(iter(face.clip(manifest.path(manifest.clips[0]), fps=3))).reused_track


def test_extracting_with_tracks_of_another_frame_rate_tells_that_none_serves(painseq, options, tmp_path, monkeypatch):
    monkeypatch.setattr("painseq.faces.Sidecar.needs_pixels", True)
    assert painseq("faces", *options).code == 0
    tracks = ["--data.options.face.init_args.tracks", tmp_path / "tracks"]
    same = painseq("extract", *options[:-1], tmp_path / "same", *tracks)
    assert same.code == 0 and "25 clips from disk" in same.log and "No clip has a track" not in same.log
    other = painseq("extract", *options[:-1], tmp_path / "other", *tracks, "--data.options.fps", "2")
    assert other.code == 0 and "No clip has a track in" in other.log and "--data.options.fps 2" in other.log


def test_a_corrupt_clip_is_counted_and_tried_again(painseq, options, data, tmp_path):
    broken = sorted(data.rglob("*.mp4"))[3]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    said = painseq("faces", *options, "--workers", "2")
    assert said.code == 0 and "24 tracked, 0 tracked before, 1 failed" in said.log
    (row,) = [row for row in table(tmp_path / "tracks" / "faces.csv") if row["reason"]]
    assert "cannot be read as a video" in row["reason"] and row["track"] == ""
    assert row["clip_id"] in row["reason"] and str(tmp_path) not in row["reason"]
    broken.write_bytes(whole)
    assert "25 clips: 1 tracked, 24 tracked before, 0 failed" in painseq("faces", *options).log


def test_processes_share_the_clips(painseq, options, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, name in ((0, "faces.csv"), (1, "faces-1.csv")):
        monkeypatch.setenv("RANK", str(rank))
        assert painseq("faces", *options).code == 0
        assert len(table(tmp_path / "tracks" / name)) == 13 - rank
    assert (tmp_path / "tracks" / "summary-1.json").is_file()
    assert len(list((tmp_path / "tracks").glob("*.safetensors"))) == 25
    monkeypatch.undo()
    assert "0 tracked, 25 tracked before" in painseq("faces", *options).log


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_keeps_what_is_done(painseq, options, monkeypatch, tmp_path):
    sight, calls = FaceCrops.sight, iter(range(99))

    def interrupted(*args: object, **settings: object) -> object:
        if next(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return sight(*args, **settings)

    monkeypatch.setattr(FaceCrops, "sight", interrupted)
    said = painseq("faces", *options)
    assert said.code == 130 and "run the same command again" in said.err
    kept = len(list((tmp_path / "tracks").glob("*.safetensors")))
    assert kept >= 1
    assert painseq("faces", *options).code == 0
    assert len(table(tmp_path / "tracks" / "faces.csv")) == 25


def test_what_cannot_be(painseq, options, data, tmp_path):
    assert "--workers is 0" in painseq("faces", *options, "--workers", "0").err
    assert "--parts names 'trian'" in painseq("faces", *options, "--parts", "trian").err
    bare = painseq("faces", "--data", "BioVid", "--data.root", data, "--out", tmp_path / "tracks")
    assert bare.code == 1 and "needs a face crop" in bare.err
    assert painseq("faces", *options).code == 0
    other = painseq("faces", *options, "--data.options.face.init_args.max_gap_s", "0.1")
    assert other.code == 1 and "max_gap_s: 0.5, not 0.1" in other.err


def test_no_clip_that_can_be_read_and_no_face_at_all_are_errors(painseq, options, data):
    sidecars = sorted(data.rglob("*.faces.safetensors"))
    for sidecar in sidecars:
        tensors = load_file(sidecar)
        tensors["boxes"][:] = np.nan
        save_file(tensors, sidecar)
    nobody = painseq("faces", *options)
    assert nobody.code == 1 and "no face found in any of" in nobody.err
    for track in (data.parent / "tracks").glob("*.safetensors"):
        track.unlink()
    for sidecar in sidecars:
        sidecar.write_bytes(b"")
    unread = painseq("faces", *options)
    assert unread.code == 1 and "Not one of 25 clips could be read" in unread.err


def test_a_locator_that_is_not_installed_ends_the_run(painseq, options, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    said = painseq("faces", *options, "--data.options.face.init_args.locator", "painseq.faces.FaceAlignment")
    assert said.code == 1 and "painseq faces: The locator FaceAlignment needs the package" in said.err
    assert not (tmp_path / "tracks" / "faces.csv").exists()
