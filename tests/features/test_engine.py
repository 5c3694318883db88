"""From videos to a store: what is extracted, skipped, counted, and survived."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from painseq.errors import LocatorUnavailable, PainseqError
from painseq.extractors import Pixels
from painseq.faces import CropChunk, FaceCrops, FullFrame
from painseq.features import (
    ExtractOptions,
    ExtractProgress,
    FeatureStore,
    VideoSpan,
    clip_features,
    extract,
    pipeline,
    pipeline_spec,
)
from painseq.features.network import choose_precision, has_bf16
from painseq.records import Clip, Manifest
from painseq.runs import Process
from painseq.video import write_video


def run(manifest, faces, extractor, out, precision="fp32", on_progress=None, **options):
    options = ExtractOptions(precision=precision, **options)
    return extract(manifest, faces, extractor, 10.0, out, options, on_progress)


def test_features_of_a_clip(faces, extractor, videos):
    video = videos("150 0 3 4 149").root / "v000.mp4"
    clip = clip_features(extractor, faces, VideoSpan(video, fps=10.0), "cpu")
    crops = clip_features(Pixels(32), faces, VideoSpan(video, fps=10.0), "cpu", batch_frames=7)
    assert clip.features.shape == (150, *extractor.out_shape) and clip.features.dtype == torch.float32
    assert crops.features.shape == (150, 3, 32, 32) and crops.features.dtype == torch.uint8
    assert (~clip.present).nonzero()[:, 0].tolist() == [0, 3, 4, 149]
    assert bool((clip.features[~clip.present] == 0).all())
    assert clip.times_s.dtype == torch.float64 and clip.times_s[10] == 1.0
    expected = extractor(crops.features[clip.present])
    torch.testing.assert_close(clip.features[clip.present], expected, rtol=1e-4, atol=1e-5)
    (clip.features * torch.ones(1, requires_grad=True)).sum().backward()  # It may take part in training.


def test_landmarks_come_with_the_features(with_points, extractor, videos):
    manifest = videos("40 0 3 39", "2 0 1")
    clip = clip_features(extractor, with_points, VideoSpan(manifest.root / "v000.mp4", fps=10.0), "cpu", batch_frames=7)
    assert clip.landmarks.shape == (40, 5, with_points.axes) and clip.landmarks.dtype == torch.float32
    assert torch.equal(clip.landmarks.isfinite().all(dim=2).all(dim=1), clip.present)
    (whole,) = with_points.clip(manifest.root / "v000.mp4", 0.0, None, 10.0, 64)
    np.testing.assert_array_equal(clip.landmarks, whole.landmarks)
    assert (
        clip_features(extractor, with_points, VideoSpan(manifest.root / "v001.mp4", fps=10.0), "cpu").landmarks is None
    )


def test_landmarks_are_stored_and_those_of_a_clip_without_any_face_are_nan(with_points, extractor, videos, tmp_path):
    manifest = videos("3 0 1 2", "4 1", "2")
    for maker in (extractor, Pixels(32)):
        out = tmp_path / type(maker).__name__
        run(manifest, with_points, maker, out)
        store = FeatureStore(out)
        assert store.landmarks == 5
        assert store["s0/clip 0"].landmarks.shape == (3, 5, with_points.axes) and bool(
            store["s0/clip 0"].landmarks.isnan().all()
        )
        there = store.frames("s1/clip 1", 1, 3).landmarks.isfinite().flatten(1)
        assert there.all(dim=1).tolist() == [False, True] == there.any(dim=1).tolist()
        (whole,) = with_points.clip(manifest.root / "v001.mp4", 0.0, None, 10.0, 64)
        kept_px = 0 if with_points.axes == 2 else 1 / 128 + 1e-4
        np.testing.assert_allclose(store["s1/clip 1"].landmarks, whole.landmarks, rtol=0, atol=kept_px)
        assert store.frames("s1/clip 1", landmarks=False).landmarks is None
        assert not store.check()


def test_a_clip_with_other_landmarks_is_a_failed_clip(with_points, extractor, videos, tmp_path):
    run(videos("3"), with_points, extractor, tmp_path / "s")
    with_points.points = 6
    summary = run(videos("3", "4"), with_points, extractor, tmp_path / "s")
    assert list(summary.failed) == ["s1/clip 1"] and "landmarks" in summary.failed["s1/clip 1"]


def test_a_clip_without_a_frame(faces, extractor, videos):
    with pytest.raises(PainseqError, match=r"(?s)(?=.*v000\.mp4)(?=.*\b3\b)(?=.*\b4\b)"):
        clip_features(extractor, faces, VideoSpan(videos("0").root / "v000.mp4", 3.0, 4.0, 10.0), "cpu")


def test_what_is_done_is_counted_and_not_done_again(faces, extractor, videos, tmp_path):
    manifest = videos("5", "4 0 1 2 3", "broken", "6 2")
    seen: list[ExtractProgress] = []
    first = run(manifest, faces, extractor, tmp_path / "s", on_progress=seen.append)
    assert [now.outcome for now in seen if now.outcome] == ["extracted", "extracted", "failed", "extracted"]
    assert (seen[-1].done, seen[-1].total, seen[-1].frames, seen[-1].faceless, seen[-1].failed) == (4, 4, 15, 5, 1)
    assert (first.extracted, first.skipped, first.redone, first.frames, first.faceless) == (3, 0, 0, 15, 5)
    assert first.clips_without_face == 1 and list(first.failed) == ["s2/clip 2"]
    assert first.backends["video"] == "fake"
    assert re.search(r"\b3\b", str(first)) and "'broken'" in str(first)

    (manifest.root / "v002.mp4").write_text("2")  # mended
    (manifest.root / "v000.mp4").write_text("7")  # another recording
    seen.clear()
    second = run(manifest, faces, extractor, tmp_path / "s", on_progress=seen.append)
    assert [now.outcome for now in seen if now.outcome] == ["redone", "skipped", "extracted", "skipped"]
    assert (second.extracted, second.redone, second.skipped, second.frames) == (2, 1, 2, 19)
    store = FeatureStore(tmp_path / "s")
    assert {id_: store.num_frames(id_) for id_ in store} == {
        "s0/clip 0": 7,
        "s1/clip 1": 4,
        "s2/clip 2": 2,
        "s0/clip 3": 6,
    }
    assert store.failed == {} and store.num_faceless("s0/clip 3") == 1
    assert run(manifest, faces, extractor, tmp_path / "s").skipped == 4


def test_a_video_that_cannot_be_reached_today_does_not_cost_its_features(faces, extractor, videos, tmp_path):
    manifest = videos("5", "6")
    run(manifest, faces, extractor, tmp_path / "s")
    (manifest.root / "v000.mp4").unlink()
    summary = run(manifest, faces, extractor, tmp_path / "s")
    assert list(summary.failed) == ["s0/clip 0"]
    store = FeatureStore(tmp_path / "s")
    assert store.num_frames("s0/clip 0") == 5 and not store.failed


def test_another_span_of_the_same_video_is_another_clip(faces, extractor, videos, tmp_path):
    manifest = videos("5")
    run(manifest, faces, extractor, tmp_path / "s")
    moved = manifest.only([type(manifest.clips[0])(**{**vars(manifest.clips[0]), "end_s": 4.0})])
    assert run(moved, faces, extractor, tmp_path / "s").redone == 1


def test_no_face_in_any_frame(faces, extractor, videos, tmp_path):
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\bface)(?=.*\b3\b)(?=.*\b2\b)"):
        run(videos("2 0 1", "1 0", "broken"), faces, extractor, tmp_path / "s")
    assert len(FeatureStore(tmp_path / "s")) == 2
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\bface)(?=.*\b3\b)(?=.*\b2\b)"):  # nor the second time
        run(videos("2 0 1", "1 0", "broken"), faces, extractor, tmp_path / "s")


def test_nothing_readable(faces, extractor, videos, tmp_path):
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\b2\b)(?=.*s0/clip 0)(?=.*no face at all)"):
        run(videos("no face at all", ""), faces, extractor, tmp_path / "s")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_locator_that_is_not_there_ends_the_run_at_the_first_clip(
    faces, extractor, videos, tmp_path, monkeypatch, workers
):
    def missing(*args: object) -> Iterator[CropChunk]:
        raise LocatorUnavailable("absent_package")

    told: list[ExtractProgress] = []
    manifest = videos("5", "5", "5")
    with monkeypatch.context() as patched, pytest.raises(LocatorUnavailable, match=r"absent_package"):
        patched.setattr(type(faces), "clip", missing)
        run(manifest, faces, extractor, tmp_path / "s", workers=workers, on_progress=told.append)
    assert not any(progress.outcome for progress in told) and not FeatureStore(tmp_path / "s").failed
    assert run(manifest, faces, extractor, tmp_path / "s").extracted == 3


def test_overflow_of_float16_is_a_failed_clip(faces, extractor, videos, tmp_path, monkeypatch):
    manifest = videos("1", "2")
    (chunk,) = faces.clip(manifest.root / "v000.mp4", 0.0, None, 10.0, 64)
    marked = int(chunk.crops.astype(np.int64).sum())

    def forward(self: object, x: torch.Tensor) -> torch.Tensor:
        large = x.to(torch.int64).sum(dim=(1, 2, 3)) == marked
        return torch.where(large, 7e4, 1.0)[:, None].expand(-1, 96)

    monkeypatch.setattr(type(extractor), "forward", forward)
    summary = run(manifest, faces, extractor, tmp_path / "half")
    assert {"float16", "65504", "float32"} <= set(re.findall(r"\w+", summary.failed["s0/clip 0"]))
    assert list(FeatureStore(tmp_path / "half")) == ["s1/clip 1"]
    assert not run(manifest, faces, extractor, tmp_path / "full", dtype="float32").failed


def test_pixels_are_stored_as_crops(faces, videos, tmp_path):
    manifest = videos("3 1")
    run(manifest, faces, Pixels(32), tmp_path / "s", dtype="float32")
    store = FeatureStore(tmp_path / "s")
    assert store.dtype == "uint8" and store.out_shape == (3, 32, 32)
    crops = next(iter(faces.clip(manifest.root / "v000.mp4", 0.0, None, 10.0, 64))).crops
    assert torch.equal(store["s0/clip 0"].features, torch.from_numpy(crops))


def test_crop_and_extractor_must_fit(faces, videos, tmp_path):
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\bsize_px\W+32\b)(?=.*\binput_size_px\W+48\b)"):
        run(videos("3"), faces, Pixels(48), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_other_sampling_or_crops_do_not_mix(faces, extractor, videos, tmp_path):
    run(videos("3"), faces, extractor, tmp_path / "s")
    with pytest.raises(PainseqError, match=r"(?s)(?=.*sampling\.fps)(?=.*\b10\.0\b)(?=.*\b25\.0\b)"):
        extract(videos("3"), faces, extractor, 25.0, tmp_path / "s")
    faces.spec = lambda: {"kind": "other", "size_px": 32}
    with pytest.raises(PainseqError, match=r"(?s)(?=.*face\.identity\.kind)(?=.*'fake')(?=.*'other')"):
        run(videos("3"), faces, extractor, tmp_path / "s")


def test_interrupted_it_goes_on(same_features, faces, extractor, videos, tmp_path, files):
    manifest = videos(*["2"] * 50)

    def stop(now: ExtractProgress) -> None:
        if now.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(manifest, faces, extractor, tmp_path / "s", on_progress=stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("reader", "writer"))]
    kept = len(FeatureStore(tmp_path / "s"))
    assert 3 <= kept < 50
    assert run(manifest, faces, extractor, tmp_path / "s").skipped == kept
    run(manifest, faces, extractor, tmp_path / "whole")
    same_features(tmp_path / "s", tmp_path / "whole")


def test_a_real_video_through_real_crops(extractor, tmp_path):
    rng = np.random.default_rng(0)
    frames = [
        np.kron(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8)) for _ in range(25)
    ]
    write_video(tmp_path / "a.mp4", frames, fps=25.0)
    clips = (Clip("late", "s", "a.mp4", start_s=0.5), Clip("whole", "s", "a.mp4"), Clip("no", "s", "b.mp4"))
    manifest = Manifest("m", tmp_path, clips)
    crops = FaceCrops(FullFrame(), size_px=32)
    summary = extract(manifest, crops, extractor, 10.0, tmp_path / "s", options=ExtractOptions(precision="fp32"))
    store = FeatureStore(tmp_path / "s")
    assert (store.num_frames("whole"), store.num_frames("late")) == (10, 5)
    torch.testing.assert_close(store["late"].features, store["whole"].features[5:], rtol=1e-2, atol=1e-3)
    assert "b.mp4" in summary.failed["no"] and summary.backends["locator"] == "FullFrame"
    # The decoder makes no other pipeline; the crop does. Crops come back from the store's own record.
    store.check_same(pipeline_spec(extractor, FaceCrops(FullFrame(), size_px=32, backend="pyav"), 10))
    store.check_same({**store.spec, "face": crops.spec()})
    with pytest.raises(PainseqError, match=r"(?s)(?=.*face\.margin)(?=.*\b0\.2\b)(?=.*\b0\.5\b)"):
        store.check_same({**store.spec, "face": FaceCrops(FullFrame(), size_px=32, margin=0.5).spec()})
    assert FaceCrops.from_spec(store.spec["face"]).fingerprint() == crops.fingerprint()


@pytest.fixture(scope="module")
def by_the_clip(extractor):
    """A maker of the features that a clip has when it goes through the network by itself."""

    def make(manifest: Manifest, faces: object) -> dict[str, torch.Tensor]:
        return {
            clip.clip_id: clip_features(
                extractor, faces, VideoSpan(manifest.path(clip), fps=10.0), "cpu", 1000
            ).features
            for clip in manifest
        }

    return make


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("batch_frames", "workers", "ranks"), [(1, 0, 1), (3, 1, 1), (7, 3, 1), (64, 2, 1), (5, 1, 2), (1000, 0, 3)]
)
def test_batches_threads_and_processes_do_not_matter(
    same_features, dtype, batch_frames, workers, ranks, tracked, extractor, videos, tmp_path, by_the_clip
):
    manifest = videos("40 0 3 39", "2 0 1", "1", "17 5", "16", "0 0", "33", "3")
    for rank in range(ranks):
        process = Process(rank, ranks, run="one launch")
        args = {"dtype": dtype, "batch_frames": batch_frames, "workers": workers, "process": process}
        run(manifest, tracked, extractor, tmp_path / "s", **args)
    run(manifest, tracked, extractor, tmp_path / "plain", dtype=dtype, workers=0)
    same_features(tmp_path / "s", tmp_path / "plain")
    store = FeatureStore(tmp_path / "s")
    assert list(store.failed) == ["s2/clip 5"]
    for clip_id, expected in by_the_clip(manifest.only(c for c in manifest if c.clip_id in store), tracked).items():
        rtol, atol = (1e-5, 1e-5) if dtype == "float32" else (2e-3, 1e-6)
        torch.testing.assert_close(store[clip_id].features.float(), expected, rtol=rtol, atol=atol)


def test_bf16_is_near_and_recorded(faces, extractor, videos, tmp_path):
    manifest = videos("20", "3")
    assert run(manifest, faces, extractor, tmp_path / "full").precision == "fp32"
    assert run(manifest, faces, extractor, tmp_path / "half", precision="bf16").precision == "bf16"
    full, half = (FeatureStore(tmp_path / name)["s0/clip 0"].features.float() for name in ("full", "half"))
    assert 0 < float((full - half).norm() / full.norm()) < 0.03
    # The weights that were given stay as they were.
    assert {p.dtype for p in extractor.parameters()} == {torch.float32}
    # A store is of one precision; "auto" completes it in its own.
    more = videos("20", "3", "4")
    assert run(more, faces, extractor, tmp_path / "half", precision="auto").precision == "bf16"
    with pytest.raises(PainseqError, match=r"(?s)(?=.*precision)(?=.*bf16)(?=.*fp32)"):
        run(more, faces, extractor, tmp_path / "half")
    assert choose_precision("auto", Pixels(32), "cpu") == "fp32"
    assert choose_precision("auto", extractor, "cpu") == ("bf16" if has_bf16("cpu") else "fp32")
    with pytest.raises(PainseqError, match=r"(?s)(?=.*'fp64')(?=.*\bauto\b)(?=.*\bfp32\b)(?=.*\bbf16\b)"):
        run(more, faces, extractor, tmp_path / "s", precision="fp64")


def test_a_clip_that_breaks_off_leaves_nothing(same_features, faces, extractor, videos, tmp_path, monkeypatch):
    whole = type(faces).clip

    def breaks_off(self, video, *args):
        for number, chunk in enumerate(whole(self, video, *args)):
            if video.name == "v001.mp4" and number == 1:
                raise PainseqError("frame 16 is damaged")
            yield chunk

    monkeypatch.setattr(type(faces), "clip", breaks_off)
    manifest = videos("40", "40", "40")
    summary = run(manifest, faces, extractor, tmp_path / "s", batch_frames=7)
    assert summary.failed == {"s1/clip 1": "frame 16 is damaged"} and summary.frames == 80
    assert not list((tmp_path / "s" / "pending").iterdir())
    store = FeatureStore(tmp_path / "s")
    assert set(store) == {"s0/clip 0", "s2/clip 2"} and store.failed == summary.failed
    monkeypatch.setattr(type(faces), "clip", whole)
    run(manifest, faces, extractor, tmp_path / "s")
    run(manifest, faces, extractor, tmp_path / "plain")
    same_features(tmp_path / "s", tmp_path / "plain")


def test_strict_ends_at_the_first_failure(faces, extractor, videos, tmp_path):
    manifest = videos("5", "broken", *["5"] * 30)
    with pytest.raises(PainseqError, match=r"(?s)(?=.*s1/clip 1)(?=.*strict)(?=.*'broken')"):
        run(manifest, faces, extractor, tmp_path / "s", strict=True)
    assert "s0/clip 0" in FeatureStore(tmp_path / "s")


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_fault_of_the_program_is_no_failed_clip(workers, faces, extractor, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(type(faces), "clip", lambda self, video, *args: iter([1 / 0]))
    with pytest.raises(ZeroDivisionError):
        run(videos("5", "5"), faces, extractor, tmp_path / "s", workers=workers)


def test_a_drive_that_fails_is_a_failed_clip(faces, extractor, videos, tmp_path, monkeypatch):
    whole = type(faces).clip

    def fails(self, video, *args):
        if video.name == "v000.mp4":
            raise OSError(5, "Input/output error", str(video))
        return whole(self, video, *args)

    monkeypatch.setattr(type(faces), "clip", fails)
    summary = run(videos("5", "6"), faces, extractor, tmp_path / "s")
    assert "Input/output error" in summary.failed["s0/clip 0"] and summary.frames == 6


def test_a_name_that_is_not_utf8_is_a_failed_clip(faces, extractor, videos, tmp_path):
    manifest = videos("5", "6")
    odd = replace(manifest.clips[0], clip_id="s0/m\udcfcller")
    summary = run(replace(manifest, clips=(odd, manifest.clips[1])), faces, extractor, tmp_path / "s")
    assert set(summary.failed) == {"s0/m\udcfcller"} and set(FeatureStore(tmp_path / "s")) == {"s1/clip 1"}


def test_where_the_time_went(faces, extractor, videos, tmp_path):
    summary = run(videos("20", "broken"), faces, extractor, tmp_path / "s", workers=0)
    assert set(summary.stages) == {"decode", "locate", "crop", "network", "write", "waiting for frames"}
    assert 0 < summary.stages["network"] <= summary.seconds and summary.frames_per_s > 0
    assert "network" in str(summary) and "fp32" in str(summary)


KILLED = """
import os, runpy, signal, sys
from pathlib import Path
import torch
from painseq.extractors import TimmBackbone
from painseq.features import ExtractOptions, extract
from painseq.records import Clip, Manifest
torch.set_num_threads(1)
conftest, root, out = sys.argv[1:4]
faces = runpy.run_path(conftest)["FakeFaces"](points=5)
clips = [Clip(f"s{n % 3}/clip {n}", f"s{n % 3}", f"v{n:03d}.mp4", end_s=5.0) for n in range(150)]

def stop(now):
    if now.done in (17, 41, 64, 90, 120, 149) and now.outcome == "extracted":
        os.kill(os.getpid(), signal.SIGKILL)

while True:
    child = os.fork()
    if child == 0:
        extractor = TimmBackbone("test_resnet", input_size_px=32)
        manifest = Manifest("fake", Path(root), tuple(clips))
        extract(manifest, faces, extractor, 10.0, Path(out), options=ExtractOptions(precision="fp32"), on_progress=stop)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(status)
    if status != signal.SIGKILL:
        break
"""


@pytest.mark.slow
def test_killed_six_times_it_gives_the_same_store(same_features, tracked, extractor, videos, tmp_path, files):
    manifest = videos(*[f"{1 + n % 4} 1" if n % 9 else "1 0" for n in range(150)])
    (manifest.root / "v020.mp4").write_text("broken")
    arguments = [Path(__file__).with_name("conftest.py"), manifest.root, tmp_path / "killed"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, arguments)], capture_output=True, text=True, check=True, timeout=900
    )
    assert done.stdout.split() == ["9"] * 6 + ["0"]
    summary = run(manifest, tracked, extractor, tmp_path / "whole")
    assert summary.extracted == 149 and list(summary.failed) == ["s2/clip 20"]
    killed, whole = files(tmp_path / "killed"), files(tmp_path / "whole")
    assert killed.keys() == whole.keys() and len([name for name in whole if name.startswith("shard")]) == 3
    same_features(tmp_path / "killed", tmp_path / "whole")


def test_a_share_of_which_nothing_comes_ends_no_launch(faces, extractor, videos, tmp_path, caplog):
    """torchrun ends the other processes if one fails."""
    manifest = videos("3", "broken", "2", "1 0")
    for rank in range(4):
        run(manifest, faces, extractor, tmp_path / "s", process=Process(rank, 4, run="launch"))
    unreadable, faceless = caplog.messages
    assert "s1/clip 1" in unreadable and "face" in faceless
    store = FeatureStore(tmp_path / "s")
    assert set(store) == {"s0/clip 0", "s2/clip 2", "s0/clip 3"} and list(store.failed) == ["s1/clip 1"]


def test_faceless_frames_do_not_pile_up(faces, extractor, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_WAITING", 10)
    longest = []
    forward = pipeline.Batches._forward

    def watched(self):
        forward(self)
        longest.append(len(self._waiting))

    monkeypatch.setattr(pipeline.Batches, "_forward", watched)
    manifest = videos("3", f"900 {' '.join(map(str, range(900)))}")
    summary = run(manifest, faces, extractor, tmp_path / "s", batch_frames=64)
    assert (summary.frames, summary.faceless) == (903, 900) and max(longest) <= 11


def test_other_files_beside_a_video_make_another_clip(faces, extractor, videos, tmp_path, monkeypatch):
    manifest = videos("3", "4")
    beside = manifest.root / "v000.faces"
    beside.write_text("here")
    monkeypatch.setattr(type(faces), "extra_files", lambda self, video: (beside,) if video.stem == "v000" else ())
    run(manifest, faces, extractor, tmp_path / "s")
    beside.write_text("there")
    summary = run(manifest, faces, extractor, tmp_path / "s")
    assert (summary.redone, summary.skipped) == (1, 1)


MEMORY = """
import re, sys
from pathlib import Path
import torch
from painseq.extractors import Pixels
from painseq.faces import CropChunk, FaceCrops, FullFrame
from painseq.features import extract
from painseq.records import Clip, Manifest
torch.set_num_threads(1)
root, out = map(Path, sys.argv[1:])
for name in ("short", "short", "long"):
    clips = (Clip(name, "s", f"{name}.mp4"),)
    extract(Manifest("m", root, clips), FaceCrops(FullFrame(), size_px=112), Pixels(112), None, out / f"{len(name)}")
    # Not getrusage's: a process begins with the peak of the one that started it.
    print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for name, frames in (("short", 400), ("long", 6000)):
        write_video(tmp_path / f"{name}.mp4", (picture for _ in range(frames)), fps=25.0)
    script = [sys.executable, "-c", MEMORY, str(tmp_path), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=True, timeout=900)
    _, short_kb, long_kb = map(int, done.stdout.split())
    # The crops of the long one are 226 MB, of which 211 MB beyond those of the short one. What waits between the stages
    # and what the allocator keeps is 30 to 80 MB, however long the video.
    assert long_kb - short_kb < 130_000
