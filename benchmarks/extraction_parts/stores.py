"""What extraction leaves behind and what it takes: memory, the store, several processes."""

import contextlib
import io
import json
import subprocess
import uuid
from collections.abc import Callable, Sequence

import numpy as np
import safetensors.torch
import torch
from extraction_parts.bench import BIOVID_FRAMES, Bench, in_turns, ratio, require_same, stored_features, table
from extraction_parts.extract_once import WOLFGANG, Job, Span
from heads import verdict
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from painseq.data.labels import label_scheme
from painseq.data.resident import resident_clips
from painseq.data.streams import CnnStream
from painseq.data_modules import BioVid
from painseq.extractors import Pixels
from painseq.faces import FaceCrops, Sidecar
from painseq.features import ClipFeatures, FeatureStore, StoreWriter, pipeline_spec
from painseq.records import Clip
from painseq.video import open_video, read_chunks, write_video


def memory(bench: Bench) -> str:
    """Peak memory of an extraction from a short and from a long video, each in its own process."""
    lengths = (1, 3) if bench.quick else (10, 60)
    rows, goals = [], []
    with bench.folder() as folder:
        with open_video(bench.assets / "videos" / "single_face.mp4") as video:
            pictures = np.concatenate([images for images, _ in read_chunks(video)])
        for length in lengths:
            # To and fro, so that the face does not jump.
            order = np.abs((np.arange(30 * length) + len(pictures) - 1) % (2 * len(pictures) - 2) - len(pictures) + 1)
            write_video(folder / f"{length}.mp4", (pictures[place] for place in order), 30)
        for name in ("pixels",) if bench.quick else ("resnet18", "pixels"):
            peaks = []
            for length in lengths:
                job = Job(
                    str(folder),
                    [(f"{length}.mp4", 0.0, None)],
                    str(bench.assets.resolve()),
                    name,
                    bench.size_px,
                    str(folder / f"{name}{length}"),
                    threads=torch.get_num_threads(),
                )
                (cost,) = in_processes([job])
                if cost["frames"] != 30 * length:
                    raise SystemExit(f"{cost['frames']} of {30 * length} frames were extracted.")
                size_mb = sum(file.stat().st_size for file in (folder / f"{name}{length}").rglob("*")) / 1e6
                peaks.append(cost["peak_mb"])
                rows.append(
                    f"| {name} | {length} | {cost['frames']:.0f} | {size_mb:.0f} | {cost['before_mb']:.0f} "
                    f"| {cost['peak_mb']:.0f} |"
                )
                print(f"  {rows[-1]}", flush=True)
            what = f"peak memory at {lengths[1]} s over {lengths[0]} s of video, {name}"
            goals.append(verdict(what, peaks[1] / peaks[0], 1.05, at_least=False))
    head = "| extractor | video, s | frames | store, MB | peak before, MB | peak, MB |"
    return "\n".join(["Videos of 640 x 360 pixels at 30 frames/s.", "", table(head, rows), "", *goals])


def in_processes(jobs: Sequence[Job]) -> list[dict[str, float]]:
    """What jobs cost that run side by side."""
    running = [subprocess.Popen(job.arguments(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for job in jobs]
    costs = []
    for process in running:
        out, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"An extraction failed:\n{errors.decode()}")
        costs.append(json.loads(out.splitlines()[-1]))
    return costs


def store(bench: Bench) -> str:
    """Reading a store, against a copy of as many bytes and against a file a clip."""
    count, frames, width, size = (32, 20, 64, 8) if bench.quick else (256, BIOVID_FRAMES, 1024, 32)
    random = np.random.default_rng(0)
    lengths = random.integers(frames * 9 // 10, frames + 1, count)
    extractor = Pixels(32)
    extractor.out_shape = (width,)  # `Pixels` has no weights, which the store would keep.
    clips = [Clip(f"clip{number}", "subject", "none.mp4", "BL1") for number in range(count)]
    scheme = label_scheme("biovid", "three", BioVid.facts)
    order = [part.tolist() for part in torch.from_numpy(random.permutation(count)).split(size)]
    with bench.folder() as folder:
        spec = pipeline_spec(extractor, FaceCrops(Sidecar(), size_px=32), None)
        with StoreWriter(folder / "store", spec, "float16", extractor) as writer:
            for clip, length in zip(clips, lengths.tolist(), strict=True):
                features = torch.randn(length, width).half()
                times_s = torch.arange(length, dtype=torch.float64) / 25
                present = torch.ones(length, dtype=torch.bool)
                writer.add(clip.clip_id, ClipFeatures(features, present, times_s), "source")
                np.save(folder / f"{clip.clip_id}.npy", features.numpy())
                safetensors.torch.save_file({"features": features}, folder / f"{clip.clip_id}.safetensors")
        held = resident_clips(clips, scheme, FeatureStore(folder / "store"), (CnnStream(),), folder)
        everything = held.resident.frames

        def npy(chosen: Sequence[int]) -> Tensor:
            return pad_sequence([torch.from_numpy(np.load(folder / f"clip{index}.npy")) for index in chosen], True)

        def safe(chosen: Sequence[int]) -> Tensor:
            each = [safetensors.torch.load_file(folder / f"clip{index}.safetensors") for index in chosen]
            return pad_sequence([tensors["features"] for tensors in each], True)

        def memcpy(chosen: Sequence[int]) -> Tensor:
            rows, first = size * int(lengths[chosen].max()), size * (chosen[0] % 4)
            # Into new memory, as a batch is.
            return everything[first : first + rows].clone()

        def resident(chosen: Sequence[int]) -> Tensor:
            features = held.batch(chosen).features
            assert features is not None
            return features

        for chosen in order:
            batches = [read(chosen) for read in (resident, npy, safe)]
            if not all(torch.equal(batches[0], other) for other in batches[1:]):
                raise SystemExit("The batches from files differ from those of the store.")
        batched = {"batches of the store": resident, ".npy a clip": npy, "safetensors a clip": safe, "memcpy": memcpy}

        def epoch(read: Callable[[Sequence[int]], Tensor]) -> Callable[[], None]:
            def run() -> None:
                for chosen in order:
                    read(chosen)

            return run

        def whole_npy() -> None:
            torch.cat([torch.from_numpy(np.load(folder / f"{clip.clip_id}.npy")) for clip in clips])

        with contextlib.redirect_stdout(io.StringIO()):
            rounds = 2 * bench.rounds
            seconds = in_turns({title: epoch(read) for title, read in batched.items()}, rounds)
            seconds |= in_turns(
                {
                    "the whole store, into memory": lambda: resident_clips(
                        clips, scheme, FeatureStore(folder / "store"), (CnnStream(),), folder
                    ),
                    "all .npy files, into memory": whole_npy,
                },
                rounds,
            )
    gigabytes = lengths.sum() * width * 2 / 1e9
    rows = [f"| {title} | {gigabytes / min(each):.2f} | {count / min(each):,.0f} |" for title, each in seconds.items()]
    return "\n".join(
        [
            f"{count} clips of up to {frames} frames, {width} float16 features, batches of {size}.",
            "",
            table("| read | GB/s | clips/s |", rows),
            "",
            verdict(
                "batches of a store over memcpy", ratio(seconds, "memcpy", "batches of the store"), 0.35, at_least=True
            ),
            verdict(
                "batches of a store over .npy",
                ratio(seconds, ".npy a clip", "batches of the store"),
                1.5,
                at_least=True,
            ),
        ]
    )


def ranks(bench: Bench) -> str:
    """Two processes of one thread each that fill one store, against one process of two threads."""
    length_s = 0.3 if bench.quick else 1.0
    spans: list[Span] = [(WOLFGANG, 2.0 * number, 2.0 * number + length_s) for number in range(2 if bench.quick else 8)]
    times: dict[int, list[float]] = {1: [], 2: []}
    frames, error = 0, 0.0
    for number in range(1 if bench.quick else 2):
        features = {}
        for count in times:
            run = uuid.uuid4().hex
            with bench.folder() as out:
                jobs = [
                    Job(
                        str((bench.assets / "videos").resolve()),
                        spans,
                        str(bench.assets.resolve()),
                        bench.name_of("vgg16"),
                        bench.size_px,
                        str(out / "s"),
                        dtype="float32",
                        threads=2 // count,
                        rank=rank,
                        count=count,
                        run=run,
                    )
                    for rank in range(count)
                ]
                costs = in_processes(jobs)
                features[count] = stored_features(out / "s")
            times[count].append(max(cost["seconds"] for cost in costs))
            print(f"  round {number + 1}: {count} processes: {times[count][-1]:.2f} s", flush=True)
        frames, error = len(features[1]), require_same("Two processes", features[2], features[1])
    rows = [
        f"| {count}, {2 // count} thread{'s' * (count == 1)} each | {frames / min(each):.1f} |"
        for count, each in times.items()
    ]
    faster = min(times[1]) / min(times[2])
    return "\n".join(
        [
            f"{frames} frames in {len(spans)} clips, VGG16, fp32. Features apart: {error:.0e}.",
            "",
            table("| processes | frames/s |", rows),
            "",
            f"Two processes over one: {faster:.2f} times as fast.",
        ]
    )
