"""`painseq faces`: tracks of a data set, written once."""

import csv
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from painseq.cli.experiment import ExperimentCLI
from painseq.errors import PainseqError
from painseq.faces import FaceCrops, Sidecar
from painseq.features import lock
from painseq.runs import Process
from painseq.studies.tracks import track_faces


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


def counts(result) -> tuple[int, ...]:
    """Clips, tracked now, tracked before, failed: the first numbers of the line that sums the run up."""
    (line,) = [line for line in result.log.splitlines() if line[:1].isdigit()]
    return tuple(int(number) for number in re.findall(r"\d+", line)[:4])


def test_every_clip_has_a_track_and_a_row(painseq, options, tmp_path):
    out = tmp_path / "tracks"
    result = painseq("faces", *options)
    assert result.code == 0, result.err
    assert counts(result) == (25, 25, 0, 0)
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
    assert summary["tracking"]["locator"]["class_path"] == "painseq.faces.Sidecar"
    for file in ("faces.csv", "summary.json", "tracks.json"):
        assert str(tmp_path) not in (out / file).read_text()


def test_another_person_followed_is_told_by_every_command(painseq, options, data, tmp_path):
    sidecar = sorted(data.rglob("*.faces.safetensors"))[1]
    tensors = load_file(sidecar)
    times_s, boxes = tensors["times_s"], tensors["boxes"]
    late = times_s >= 1
    boxes[late, 2:] = (boxes[late, :2] + boxes[late, 2:]) / 2
    boxes[times_s < 0.3] = boxes[~np.isnan(boxes[:, 0])][-1] * 2
    save_file(tensors, sidecar)
    result = painseq("faces", *options)
    assert result.code == 0 and "another person" in result.log
    rows = {row["clip_id"]: row["switched_s"] for row in table(tmp_path / "tracks" / "faces.csv")}
    ((clip_id, times),) = [(clip_id, times) for clip_id, times in rows.items() if times]
    assert float(times) == pytest.approx(1, abs=0.4)
    assert json.loads((tmp_path / "tracks" / "summary.json").read_text())["switched"] == {clip_id: times}
    extracted = painseq("extract", *options[:-1], tmp_path / "store", "--json")
    assert extracted.code == 0 and extracted.log.names(clip_id, "another person")
    assert json.loads(extracted.out)["switched"] == {clip_id: [pytest.approx(float(times), abs=1e-3)]}
    checked = painseq("data", "check", *options[: options.index("--out")], "--tracks", tmp_path / "tracks")
    assert checked.out.names(clip_id, "another person", times)


def test_a_second_run_searches_nothing_and_its_tracks_are_taken(painseq, options, tmp_path, data, monkeypatch):
    monkeypatch.setattr("painseq.faces.Sidecar.needs_pixels", True)
    assert painseq("faces", *options).code == 0
    first = (tmp_path / "tracks" / "faces.csv").read_bytes()

    def never(*args: object) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr("painseq.faces.Sidecar.locate", never)
    result = painseq("faces", *options, "--workers", "3")
    assert result.code == 0 and counts(result) == (25, 0, 25, 0)
    assert (tmp_path / "tracks" / "faces.csv").read_bytes() == first
    tracks = ["--data.options.face.init_args.tracks", str(tmp_path / "tracks")]
    flags = [str(option) for option in options[: options.index("--out")]]
    module = ExperimentCLI("evaluate", [*flags, *tracks]).datamodule
    face, manifest = module.options.face, module.manifest
    assert isinstance(face, FaceCrops)
    assert next(iter(face.clip(manifest.path(manifest.clips[0]), fps=3))).reused_track


def test_extracting_with_tracks_of_another_frame_rate_tells_that_none_serves(painseq, options, tmp_path, monkeypatch):
    monkeypatch.setattr("painseq.faces.Sidecar.needs_pixels", True)
    assert painseq("faces", *options).code == 0
    tracks = ["--data.options.face.init_args.tracks", tmp_path / "tracks"]
    same = painseq("extract", *options[:-1], tmp_path / "same", *tracks)
    assert same.code == 0 and not same.log.names(tmp_path / "tracks", "fps")
    other = painseq("extract", *options[:-1], tmp_path / "other", *tracks, "--data.options.fps", "2")
    assert other.code == 0 and other.log.names(tmp_path / "tracks", "fps", 2)


def test_a_corrupt_clip_is_counted_and_tried_again(painseq, options, data, tmp_path):
    broken = sorted(data.rglob("*.mp4"))[3]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    result = painseq("faces", *options, "--workers", "2")
    assert result.code == 0 and counts(result) == (25, 24, 0, 1)
    (row,) = [row for row in table(tmp_path / "tracks" / "faces.csv") if row["reason"]]
    assert row["track"] == ""
    assert row["clip_id"] in row["reason"] and str(tmp_path) not in row["reason"]
    broken.write_bytes(whole)
    assert counts(painseq("faces", *options)) == (25, 1, 24, 0)


def test_processes_share_the_clips(painseq, options, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, name in ((0, "faces.csv"), (1, "faces-1.csv")):
        monkeypatch.setenv("RANK", str(rank))
        assert painseq("faces", *options).code == 0
        assert len(table(tmp_path / "tracks" / name)) == 13 - rank
    assert (tmp_path / "tracks" / "summary-1.json").is_file()
    assert len(list((tmp_path / "tracks").glob("*.safetensors"))) == 25
    monkeypatch.undo()
    assert counts(painseq("faces", *options)) == (25, 0, 25, 0)


@pytest.mark.parametrize("other", [Process(), Process(1, 2, run="b")])
def test_a_second_launch_is_refused_and_writes_nothing(painseq, options, tmp_path, monkeypatch, other):
    out, locate, told = tmp_path / "tracks", Sidecar.locate, []
    data = ExperimentCLI("evaluate", options[: options.index("--out")]).datamodule
    monkeypatch.setattr(lock, "WAIT_S", 0.05)

    def while_another_starts(self, *args):
        if not told:
            told.append(None)
            before = sorted(out.iterdir())
            with pytest.raises(PainseqError, match=re.escape(str(out))):
                track_faces(data, out, process=other)
            told.append(sorted(out.iterdir()) == before)
        return locate(self, *args)

    monkeypatch.setattr(Sidecar, "locate", while_another_starts)
    result = painseq("faces", *options)
    assert result.code == 0 and told == [None, True], result.err
    assert painseq("faces", *options).code == 0


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_keeps_what_is_done(painseq, options, monkeypatch, tmp_path):
    sight, calls = FaceCrops.find_track, iter(range(99))

    def interrupted(*args: object, **settings: object) -> object:
        if next(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return sight(*args, **settings)

    monkeypatch.setattr(FaceCrops, "find_track", interrupted)
    result = painseq("faces", *options)
    assert result.code == 130 and result.err.names("painseq faces")
    kept = len(list((tmp_path / "tracks").glob("*.safetensors")))
    assert kept >= 1
    assert painseq("faces", *options).code == 0
    assert len(table(tmp_path / "tracks" / "faces.csv")) == 25


def test_what_cannot_be(painseq, options, data, tmp_path):
    assert painseq("faces", *options, "--workers", "0").err.names("workers", 0)
    assert painseq("faces", *options, "--parts", "trian").err.names("parts", "trian", "train")
    bare = painseq("faces", "--data", "BioVid", "--data.root", data, "--out", tmp_path / "tracks")
    assert bare.code == 1 and bare.err.names("face")
    assert painseq("faces", *options).code == 0
    other = painseq("faces", *options, "--data.options.face.init_args.max_gap_s", "0.1")
    assert other.code == 1 and re.search(r"max_gap_s\b.*\b0\.5\b.*\b0\.1\b", other.err)


def test_no_clip_that_can_be_read_and_no_face_at_all_are_errors(painseq, options, data):
    sidecars = sorted(data.rglob("*.faces.safetensors"))
    for sidecar in sidecars:
        tensors = load_file(sidecar)
        tensors["boxes"][:] = np.nan
        save_file(tensors, sidecar)
    nobody = painseq("faces", *options)
    assert nobody.code == 1 and nobody.err.names("face", 425)
    for track in (data.parent / "tracks").glob("*.safetensors"):
        track.unlink()
    for sidecar in sidecars:
        sidecar.write_bytes(b"")
    unread = painseq("faces", *options)
    assert unread.code == 1 and unread.err.names(25) and not unread.err.names("face")


def test_a_locator_that_is_not_installed_ends_the_run(painseq, options, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    result = painseq("faces", *options, "--data.options.face.init_args.locator", "painseq.faces.FaceAlignment")
    assert result.code == 1 and result.err.names("painseq faces", "FaceAlignment")
    assert not (tmp_path / "tracks" / "faces.csv").exists()
