"""The engine: videos through face crops and an extractor into a feature store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from painseq.errors import PainseqError
from painseq.extractors import Extractor, Pixels
from painseq.faces import FaceCrops
from painseq.features.store import ClipFeatures, Dtype, StoreWriter
from painseq.records import Clip, Manifest
from painseq.spec import Spec, digest
from painseq.video import video_digest

# VGG16 at 224 pixels on a CPU peaks at 1.6 GB with 32 frames, at 2.5 GB with 64, and is no faster.
BATCH_FRAMES = 32

Outcome = Literal["extracted", "redone", "skipped", "failed"]
_OUTCOME: dict[str, Outcome] = {"new": "extracted", "changed": "redone", "done": "skipped"}


@dataclass(frozen=True)
class ExtractProgress:
    """Where an extraction stands after a clip.

    Args:
        done: clips dealt with so far, of `total`: extracted, failed, or in the store already.
        clip_id: the last of them.
        outcome: what became of it.
        frames: frames extracted in this run.
        faceless: those without a face.
        failed: clips that failed in this run.
        frames_per_s: frames extracted a second in this run.
    """

    done: int
    total: int
    clip_id: str
    outcome: Outcome
    frames: int
    faceless: int
    failed: int
    frames_per_s: float


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did.

    Args:
        clips: clips asked for.
        extracted: clips extracted in this run; `redone` of them because their video or span had changed.
        redone: see `extracted`.
        skipped: clips that were done before.
        failed: clip id -> reason; these are tried again in the next run.
        frames: frames of all these clips in the store, those done before included.
        faceless: frames among them without a face.
        clips_without_face: clips without any face.
        seconds: this run took.
        backends: video reader, locator, device.
    """

    clips: int
    extracted: int
    redone: int
    skipped: int
    failed: Mapping[str, str]
    frames: int
    faceless: int
    clips_without_face: int
    seconds: float
    backends: Mapping[str, str]

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        text = (
            f"{self.clips} clips: {self.extracted} extracted ({self.redone} of them redone, their video had changed), "
            f"{self.skipped} done before, {len(self.failed)} failed; {self.frames} frames, {self.faceless} of them "
            f"without a face, {self.clips_without_face} clips without any; {self.seconds:.1f} s"
        )
        return "\n  ".join([text, *(f"failed: {clip_id}: {reason}" for clip_id, reason in self.failed.items())])


@dataclass
class _Frames:
    frames: int = 0
    faceless: int = 0
    clips_without_face: int = 0

    def count(self, frames: int, faceless: int) -> None:
        self.frames += frames
        self.faceless += faceless
        self.clips_without_face += frames == faceless


def pipeline_spec(extractor: Extractor, faces: FaceCrops, fps: float | None) -> Spec:
    """What a store records of how its features are made.

    Returns:
        {"extractor": {class_path, init_args, fingerprint}, "face": {class_path, init_args, identity},
        "sampling": {fps}}, in plain values.
    """
    return {
        "extractor": {**extractor.spec(), "fingerprint": extractor.fingerprint()},
        "face": faces.record(),
        "sampling": {"fps": None if fps is None else float(fps)},
    }


def clip_features(
    extractor: Extractor,
    faces: FaceCrops,
    video: Path,
    start_s: float,
    end_s: float | None,
    fps: float | None,
    device: torch.device | str,
    batch_frames: int = BATCH_FRAMES,
) -> ClipFeatures:
    """Features of a span of a video: float32, or uint8 crops for `Pixels`; on the CPU, with the face's landmarks.

    Only frames with a face go through the network; the others are zero. Frames pass in batches, so that memory
    does not grow with the clip's length but for the features themselves. The extractor is put into eval mode and
    on `device`.

    Args:
        fps: sampled frames a second; None takes every frame.
        batch_frames: frames at once.

    Raises:
        PainseqError: the video cannot be read, or no frame lies in the span.
    """
    features, _ = _read_clip(extractor, faces, video, start_s, end_s, fps, device, batch_frames)
    return features


def _read_clip(
    extractor: Extractor,
    faces: FaceCrops,
    video: Path,
    start_s: float,
    end_s: float | None,
    fps: float | None,
    device: torch.device | str,
    batch_frames: int,
) -> tuple[ClipFeatures, str]:
    """`clip_features`, and which video reader decoded the clip."""
    extractor.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    backend = ""
    dtype = torch.uint8 if isinstance(extractor, Pixels) else torch.float32
    features, present, times_s, landmarks = [], [], [], []
    for chunk in faces.clip(video, start_s, end_s, fps, batch_frames):
        found = torch.from_numpy(chunk.present)
        out = torch.zeros((len(found), *extractor.out_shape), dtype=dtype)
        if bool(found.any()):
            crops = torch.from_numpy(chunk.crops)[found].to(device, memory_format=torch.channels_last)
            # Around the network only: what is returned may later take part in training.
            with torch.inference_mode():
                result = extractor(crops)
            out[found] = result.to("cpu", dtype)
        features.append(out)
        present.append(found)
        times_s.append(torch.from_numpy(chunk.times_s))
        if chunk.landmarks is not None:
            landmarks.append(torch.from_numpy(chunk.landmarks))
        backend = chunk.backend
    if not sum(len(part) for part in present):
        raise PainseqError(
            f"{video} has no frame between {start_s} s and {'its end' if end_s is None else f'{end_s} s'}."
        )
    clip = ClipFeatures(
        torch.cat(features),
        torch.cat(present),
        torch.cat(times_s).to(torch.float64),
        torch.cat(landmarks) if landmarks else None,
    )
    return clip, backend


def extract(
    manifest: Manifest,
    faces: FaceCrops,
    extractor: Extractor,
    fps: float | None,
    out: Path,
    dtype: Literal["float16", "float32"] = "float16",
    device: torch.device | str = "cpu",
    on_progress: Callable[[ExtractProgress], None] | None = None,
) -> ExtractSummary:
    """Extract every clip of a manifest into the store at `out`, which is made or completed.

    Clips that are in the store are skipped, unless their video or span has changed since. A clip that cannot be
    read is counted with its reason and does not stop the others. Killed or interrupted, the next call goes on
    behind the last finished clip. `Pixels` keeps uint8 crops whatever `dtype` says.

    Raises:
        PainseqError: the store there is of another pipeline; crop and extractor differ in size; the disk is full; at
            the end: not one clip could be read, or no face was found in any frame (the store is kept).
    """
    if faces.size_px != extractor.input_size_px:
        raise PainseqError(
            f"The face crop has size_px {faces.size_px} and the extractor input_size_px {extractor.input_size_px}; "
            "they must be the same."
        )
    started = time.perf_counter()
    kept: Dtype = "uint8" if isinstance(extractor, Pixels) else dtype
    digests: dict[Path, str] = {}
    outcomes: Counter[Outcome] = Counter()
    failed: dict[str, str] = {}
    in_store = _Frames()
    fresh = _Frames()
    readers: set[str] = set()
    with StoreWriter(out, pipeline_spec(extractor, faces, fps), kept, extractor) as writer:
        for done, clip in enumerate(manifest, start=1):
            video = manifest.path(clip)
            features = None
            outcome: Outcome
            state: Literal["new", "done", "changed"] = "new"
            try:
                source = _source(video, clip, digests)
                state = writer.state(clip.clip_id, source)
                if state != "done":
                    features, reader = _read_clip(
                        extractor, faces, video, clip.start_s, clip.end_s, fps, device, BATCH_FRAMES
                    )
                    features = writer.fitting(clip.clip_id, features)
                    readers.add(reader)
            except PainseqError as error:
                outcome = "failed"
                failed[clip.clip_id] = str(error)
                writer.fail(clip.clip_id, str(error), changed=state == "changed")
            else:
                outcome = _OUTCOME[state]
                if features is not None:
                    # Not in the `try`: a full disk is no fault of the clip, and ends the run.
                    writer.add(clip.clip_id, features, source)
                    fresh.count(*writer.counts(clip.clip_id))
                in_store.count(*writer.counts(clip.clip_id))
            outcomes[outcome] += 1
            if on_progress is not None:
                on_progress(
                    ExtractProgress(
                        done=done,
                        total=len(manifest),
                        clip_id=clip.clip_id,
                        outcome=outcome,
                        frames=fresh.frames,
                        faceless=fresh.faceless,
                        failed=len(failed),
                        frames_per_s=fresh.frames / max(time.perf_counter() - started, 1e-9),
                    )
                )
    summary = ExtractSummary(
        clips=len(manifest),
        extracted=outcomes["extracted"] + outcomes["redone"],
        redone=outcomes["redone"],
        skipped=outcomes["skipped"],
        failed=failed,
        frames=in_store.frames,
        faceless=in_store.faceless,
        clips_without_face=in_store.clips_without_face,
        seconds=time.perf_counter() - started,
        backends={
            "video": ", ".join(sorted(readers)) or "not used",
            "locator": type(faces.locator).__name__,
            "device": str(device),
        },
    )
    if failed and len(failed) == len(manifest):
        first = next(iter(failed.items()))
        raise PainseqError(f"Not one of {len(manifest)} clips could be extracted. The first, {first[0]}: {first[1]}")
    if in_store.frames and in_store.frames == in_store.faceless:
        raise PainseqError(
            f"{manifest.name}: no face found in any frame ({summary.frames} frames of {summary.clips_without_face} "
            f"clips, locator {summary.backends['locator']}). Look at a video: is a face in it, upright and large "
            "enough? Another locator or a lower min_score may find it."
        )
    return summary


def _source(video: Path, clip: Clip, digests: dict[Path, str]) -> str:
    if video not in digests:
        digests[video] = video_digest(video)
    return digest([digests[video], clip.start_s, clip.end_s])
