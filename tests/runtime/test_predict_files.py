"""Many videos: in several processes, and into a file that a later run resumes."""

import json
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from painseq.cli import main
from painseq.errors import PainseqError
from painseq.files import appending
from painseq.studies.model_files import ModelFiles
from painseq.studies.predict_files import all_videos, predict_in_processes, predict_to_file
from painseq.studies.predict_videos import VideoOptions

pytest.importorskip("onnxruntime")


@pytest.fixture
def models(write_folder) -> ModelFiles:
    return ModelFiles((write_folder(),), device="cpu")


@pytest.fixture
def videos(colours, tmp_path) -> Path:
    """A folder of three videos, of which one cannot be read."""
    folder = tmp_path / "videos"
    (folder / "deeper").mkdir(parents=True)
    shutil.copy(colours, folder / "a.mp4")
    shutil.copy(colours, folder / "deeper" / "b.mp4")
    (folder / "broken.mp4").write_bytes(colours.read_bytes()[:200])
    return folder


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_folders_are_searched_for_videos(videos, colours):
    assert all_videos([colours, videos, videos / "a.mp4"]) == [
        colours, videos / "a.mp4", videos / "broken.mp4", videos / "deeper" / "b.mp4",
    ]  # fmt: skip
    (videos.parent / "images").mkdir()
    assert all_videos([videos.parent / "images"]) == [videos.parent / "images"]


def test_several_processes_give_what_one_gives(models, videos):
    paths = all_videos([videos])
    alone = {results[0][1].video: results for results in predict_in_processes(models, paths)}
    together = {results[0][1].video: results for results in predict_in_processes(models, paths, jobs=2)}
    assert [*alone] == paths and {*together} == {*paths}
    for video, ((name, result),) in alone.items():
        ((same, other),) = together[video]
        assert name == same == str(models.paths[0]) and result.problem == other.problem
        if result.prediction is not None:
            assert result.prediction.to_dict() == other.prediction.to_dict()
    assert alone[videos / "broken.mp4"][0][1].problem is not None


def test_no_process_outlives_a_run_that_is_given_up(models, videos):
    run = predict_in_processes(models, all_videos([videos]), jobs=2)
    next(run)
    run.close()
    assert not multiprocessing.active_children()


KILLS = """
import os, signal
from painseq.faces import FullFrame
class Kills(FullFrame):
    def locate(self, images, times_s, video):
        if video.name == "a.mp4":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().locate(images, times_s, video)
"""


def test_a_video_that_kills_its_process_does_not_end_the_run(models, videos, tmp_path, monkeypatch):
    (tmp_path / "kills.py").write_text(KILLS)
    monkeypatch.syspath_prepend(tmp_path)
    from kills import Kills

    options = VideoOptions(locator=Kills())
    results = dict(
        result for (result,) in map(_by_video, predict_in_processes(models, all_videos([videos]), options, 2))
    )
    assert "-9" in results[videos / "a.mp4"].problem and results[videos / "deeper" / "b.mp4"].problem is None


def _by_video(results):
    return [(result.video, result) for _, result in results]


def test_models_that_cannot_be_loaded_end_the_run(models, videos, tmp_path):
    with pytest.raises(PainseqError, match="no folder"):
        list(predict_in_processes(replace(models, paths=(tmp_path / "no folder",)), all_videos([videos]), jobs=2))
    with pytest.raises(PainseqError, match="jobs"):
        list(predict_in_processes(models, [], jobs=0))


def test_a_file_is_resumed(models, videos, tmp_path):
    out = tmp_path / "out.jsonl"
    first = [result.video for _, result in predict_to_file(models, [videos], out)]
    assert first == all_videos([videos]) and len(lines(out)) == 3
    row = lines(out)[0]
    assert row["model"] == str(models.paths[0]) and row["frames"] == 12 and row["problem"] is None
    assert lines(out)[1]["problem"] and "frames" not in lines(out)[1]
    # What failed is tried again; what is there is not.
    again = [result.video for _, result in predict_to_file(models, [videos], out)]
    assert again == [videos / "broken.mp4"] and len(lines(out)) == 3
    shutil.copy(videos / "a.mp4", videos / "broken.mp4")
    counts = []
    again = list(
        predict_to_file(models, [videos], out, on_progress=lambda done, total, note="": counts.append((done, total)))
    )
    assert [result.problem for _, result in again] == [None] and counts == [(2, 3), (3, 3)]
    assert list(predict_to_file(models, [videos], out)) == []


def test_an_unfinished_line_is_predicted_again(models, videos, tmp_path):
    out = tmp_path / "out.jsonl"
    (videos / "broken.mp4").unlink()
    list(predict_to_file(models, [videos], out))
    whole = lines(out)
    out.write_bytes(out.read_bytes()[:-20])
    again = [result.video for _, result in predict_to_file(models, [videos], out)]
    assert again == [videos / "deeper" / "b.mp4"] and lines(out) == whole
    first, rest = out.read_bytes().split(b"\n", 1)
    out.write_bytes(first + b"\n{damaged\n" + rest)
    with pytest.raises(PainseqError, match="line 2"):
        list(predict_to_file(models, [videos], out))


def test_a_changed_video_is_predicted_again(models, videos, tmp_path, colours):
    out = tmp_path / "out.jsonl"
    list(predict_to_file(models, [videos / "a.mp4"], out))
    from painseq.video import open_video, write_video

    with open_video(colours) as opened:
        images = opened.frames(range(6))
    write_video(videos / "a.mp4", iter(images), 5)
    list(predict_to_file(models, [videos / "a.mp4"], out))
    assert [row["frames"] for row in lines(out)] == [6]


def test_lines_of_videos_that_are_not_named_or_gone_stay(models, videos, tmp_path, colours):
    out = tmp_path / "out.jsonl"
    (videos / "broken.mp4").unlink()
    list(predict_to_file(models, [videos], out))
    before = lines(out)
    (videos / "a.mp4").unlink()
    (videos / "deeper" / "b.mp4").write_bytes(b"changed")
    # Neither what is gone, nor what is not named.
    assert list(predict_to_file(models, [videos / "a.mp4"], out)) == [] and lines(out) == before
    assert [result.video for _, result in predict_to_file(models, [colours], out)] == [colours]
    assert lines(out)[:2] == before and len(lines(out)) == 3


@pytest.mark.parametrize("name", ["a.csv", "a.faces.safetensors"])
def test_a_video_whose_stored_faces_or_units_changed_is_predicted_again(models, videos, tmp_path, name):
    out = tmp_path / "out.jsonl"
    list(predict_to_file(models, [videos / "a.mp4"], out))
    for content in (b"first", b"second"):
        (videos / name).write_bytes(content)
        assert len(list(predict_to_file(models, [videos / "a.mp4"], out))) == len(lines(out)) == 1
    assert list(predict_to_file(models, [videos / "a.mp4"], out)) == []


def test_copies_of_a_model_are_told_apart(models, colours, tmp_path):
    shutil.copytree(models.paths[0], tmp_path / "copy")
    both, out = replace(models, paths=(*models.paths, tmp_path / "copy")), tmp_path / "out.jsonl"
    assert len(list(predict_to_file(both, [colours], out))) == 2
    assert list(predict_to_file(both, [colours], out)) == []
    assert [row["model"] for row in lines(out)] == [str(path) for path in both.paths]
    # Moved, it is the same model.
    moved = models.paths[0].rename(tmp_path / "moved")
    assert list(predict_to_file(replace(models, paths=(moved,)), [colours], out)) == []


@pytest.mark.parametrize("text", ["one line", "one line\n", '{"a": 1}', '{"model": "b", "video": "c"}\n'])
def test_files_of_other_content_are_kept(models, videos, tmp_path, text):
    out = tmp_path / "notes.txt"
    out.write_text(text)
    with pytest.raises(PainseqError, match=r"notes\.txt"):
        list(predict_to_file(models, [videos], out))
    assert out.read_text() == text


@pytest.mark.parametrize("text", ["", "{", '{"model": "b", "vi'])
def test_a_first_line_that_is_unfinished_is_predicted_again(models, colours, tmp_path, text):
    out = tmp_path / "out.jsonl"
    out.write_text(text)
    assert len(list(predict_to_file(models, [colours], out))) == len(lines(out)) == 1


def test_a_resumed_file_is_locked_from_the_first_look_on(models, videos, tmp_path):
    out = tmp_path / "out.jsonl"
    list(predict_to_file(models, [videos], out))
    run = predict_to_file(models, [videos], out, on_progress=lambda *told: other.append(_is_locked(out)))
    other: list[bool] = []
    list(run)
    assert other == [True, True]


def _is_locked(out) -> bool:
    try:
        with appending(out):
            return False
    except PainseqError:
        return True


def test_a_file_that_was_replaced_before_it_was_locked_is_not_written(tmp_path, monkeypatch):
    out, new = tmp_path / "out.jsonl", tmp_path / "new.jsonl"
    out.write_text("old\n")
    new.write_text("new\n")

    def replaced_and_locked(file):
        new.replace(out)
        return True

    monkeypatch.setattr("painseq.files.try_lock", replaced_and_locked)
    with pytest.raises(PainseqError, match=r"out\.jsonl"), appending(out):
        pass
    assert out.read_text() == "new\n"


@pytest.mark.parametrize("command", [[], ["--out", "out.jsonl"]])
def test_the_folder_of_a_run_is_told_apart(models, colours, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    assert main(["predict", str(colours), "--checkpoint", "run", "--device", "cpu", *command]) == 1
    assert "best.ckpt" in capsys.readouterr().err


LACKS = """
from painseq.studies.model_files import ModelFiles
class Lacks(ModelFiles):
    def load(self, threads=None):
        import torch_is_not_here
"""


def test_a_package_that_is_missing_is_named_by_several_processes_too(models, videos, tmp_path, monkeypatch):
    (tmp_path / "lacks.py").write_text(LACKS)
    monkeypatch.syspath_prepend(tmp_path)
    from lacks import Lacks

    with pytest.raises(ModuleNotFoundError) as raised:
        list(predict_in_processes(Lacks(models.paths), all_videos([videos]), jobs=2))
    assert raised.value.name == "torch_is_not_here"


@pytest.mark.parametrize("options", [VideoOptions(end_s=1.0), VideoOptions(min_face_share=0.1)])
def test_a_file_of_other_settings_is_refused(models, videos, tmp_path, options):
    out = tmp_path / "out.jsonl"
    list(predict_to_file(models, [videos / "a.mp4"], out))
    with pytest.raises(PainseqError, match=r"end_s|min_face_share"):
        list(predict_to_file(models, [videos / "a.mp4"], out, options))
    assert len(lines(out)) == 1


def test_a_file_of_another_model_or_kind_is_refused(models, videos, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text('{"frames": 3}\n')
    with pytest.raises(PainseqError, match=r"out\.jsonl"):
        list(predict_to_file(models, [videos], out))
    out.unlink()
    list(predict_to_file(models, [videos / "a.mp4"], out))
    text = out.read_text()
    digest = json.loads(text)["settings"]["model"]["sha256"][0]
    out.write_text(text.replace(digest, "0" * 64))
    with pytest.raises(PainseqError, match="sha256"):
        list(predict_to_file(models, [videos], out))


def test_two_processes_do_not_write_the_same_file(models, videos, tmp_path):
    out = tmp_path / "out.jsonl"
    with appending(out), pytest.raises(PainseqError, match=r"out\.jsonl"):
        list(predict_to_file(models, [videos], out))


def test_the_command_writes_and_resumes(models, videos, tmp_path, capsys):
    out, folder = tmp_path / "out.jsonl", str(models.paths[0])
    command = ["predict", str(videos), "--checkpoint", folder, "--device", "cpu", "--out", str(out), "--jobs", "2"]
    assert main(command) == 1 and len(lines(out)) == 3
    assert "broken.mp4" in capsys.readouterr().err
    (videos / "broken.mp4").unlink()
    assert main(command) == 0
    assert main(["predict", str(videos), "--checkpoint", folder, "--device", "cpu"]) == 0
    assert "b.mp4" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*command, "--json"])


@pytest.mark.parametrize(("flag", "value"), [("--average", []), ("--prior", ["a=1"])])
def test_what_needs_checkpoints_says_so(models, videos, capsys, flag, value):
    command = ["predict", str(videos), "--checkpoint", str(models.paths[0]), "--checkpoint", "b.ckpt", flag, *value]
    assert main(command) == 1 and flag in capsys.readouterr().err
