"""Load on `painseq serve`: streams of a video on two cores, with idle connections beside them.

    painseq export runs/resnet18_lstm/best.ckpt --out exported/resnet18_lstm
    python benchmarks/serve.py --model exported/resnet18_lstm --video face.mp4             # 8 streams, 10 minutes
    python benchmarks/serve.py --model exported/resnet18_lstm --video face.mp4 --write     # and record it in RESULTS.md

The service runs in a process of its own, held to `--cores`; the clients, which send JPEGs of 640 x 480 pixels with at
most two unanswered, run beside it, so leave them other cores if there are any. Told are: the round trip from capture to
answer at the client, and the lag in the service alone; how many pictures were answered, and by how much the streams
differ; memory, open files and threads after a warm-up and at the end. Idle connections are streams that have shown
their token and send nothing. Limits of rate, number and silence are lifted, since all clients have one address.
"""

import argparse
import asyncio
import io
import itertools
import json
import os
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from PIL import Image
from results import RESULTS, machine, write_between
from websockets.asyncio.client import connect

TOKEN = "token-of-the-benchmark"
WARM_UP_S = 10.0
SIZE = (640, 480)
MOST_PICTURES = 300


def run_service(args: argparse.Namespace) -> None:
    """What the process of the service does."""
    os.sched_setaffinity(0, args.cores)
    import painseq.runtime
    from painseq.live import LiveSettings, Skipping
    from painseq.runs import short_names
    from painseq.serve import ServeOptions, serve

    names = short_names([Path(model) for model in args.model])
    loaded = [painseq.runtime.load(path, threads=args.model_threads) for path in args.model]
    for model in loaded:
        model.fps = None  # Every picture, whatever rate the model was fitted at.
    models = dict(zip(names, loaded, strict=True))
    options = ServeOptions(
        TOKEN,
        requests_per_s=1e6,
        burst=10**6,
        idle_s=1e6,
        max_sessions=args.streams + args.idle,
        threads=args.threads,
        live=LiveSettings(skipping=Skipping(args.skipping)),
    )
    serve(models, options, port=0, on_start=lambda address: print(address, flush=True))


@dataclass
class Answers:
    """What one client was told."""

    sent: int = 0
    round_trip_ms: list[float] = field(default_factory=list)
    lag_ms: list[float] = field(default_factory=list)
    predicted: int = 0
    skipped: int = 0


async def open_stream(url: str):
    socket = await connect(url, max_queue=None)
    await socket.send(json.dumps({"token": TOKEN}))
    told = json.loads(await socket.recv())
    assert told["type"] == "ready", told
    return socket


async def stream(url: str, pictures: list[bytes], args: argparse.Namespace, begins: float) -> Answers:
    """Send pictures at the rate of a camera, and take the answers of those after the warm-up."""
    socket = await open_stream(url)
    answers, pending, first_ms = Answers(), [], 1000 * (begins + WARM_UP_S)

    async def listen() -> None:
        async for text in socket:
            told, now_ms = json.loads(text), 1000 * time.time()
            if told["type"] != "reading" or told["lag_ms"] is None:
                continue
            pending[:] = [captured for captured in pending if captured > told["captured_ms"]]
            if told["captured_ms"] >= first_ms:
                answers.round_trip_ms.append(now_ms - told["captured_ms"])
                answers.lag_ms.append(told["lag_ms"])
                answers.predicted += all(said["state"] == "ok" for said in told["models"].values())
            answers.skipped += all(said["skipped"] for said in told["models"].values())

    listening = asyncio.create_task(listen())
    for i in itertools.count():
        due = begins + i / args.fps
        if due > begins + args.seconds:
            break
        await asyncio.sleep(max(0.0, due - time.time()))
        captured_ms = 1000 * time.time()
        answers.sent += captured_ms >= first_ms
        if len(pending) < 2:
            pending.append(captured_ms)
            await socket.send(struct.pack("<d", captured_ms) + pictures[i % len(pictures)])
    await asyncio.sleep(2)
    await socket.close()
    await listening
    return answers


def taken(pid: int) -> dict[str, int]:
    """Memory in MiB, open files and threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "memory, MiB": int(status["VmRSS"].split()[0]) // 1024,
        "open files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(status["Threads"]),
    }


async def load(url: str, pid: int, pictures: list[bytes], args: argparse.Namespace) -> str:
    idle = []
    for _ in range(args.idle):
        idle.append(await open_stream(url))
    begins = time.time() + 1
    streams = [asyncio.create_task(stream(url, pictures, args, begins + i / 37)) for i in range(args.streams)]
    await asyncio.sleep(1 + WARM_UP_S)
    before = taken(pid)
    found = await asyncio.gather(*streams)
    after = taken(pid)
    for socket in idle:
        await socket.close()
    return told(found, before, after, args)


def told(found: list[Answers], before: dict[str, int], after: dict[str, int], args: argparse.Namespace) -> str:
    trips = np.concatenate([answers.round_trip_ms for answers in found])
    lags = np.concatenate([answers.lag_ms for answers in found])
    shares = [len(answers.lag_ms) / max(1, answers.sent) for answers in found]
    predicted = sum(answers.predicted for answers in found) / max(1, len(lags))
    ran = 1 - sum(answers.skipped for answers in found) / max(1, len(lags))
    worst = max(float(np.percentile(answers.round_trip_ms, 95)) for answers in found)
    rows = {
        "round trip, ms: median, p95": f"{np.median(trips):.0f}, {np.percentile(trips, 95):.0f}",
        "round trip of the worst stream, ms: p95": f"{worst:.0f}",
        "lag in the service, ms: median, p95": f"{np.median(lags):.0f}, {np.percentile(lags, 95):.0f}",
        "pictures answered": f"{len(lags)}",
        "share of a stream's pictures that was answered: least, most": f"{min(shares):.2f}, {max(shares):.2f}",
        "share of answers with a prediction": f"{predicted:.2f}",
        "share of answers for which a network ran": f"{ran:.2f}",
    }
    rows |= {f"{name}: after the warm-up, at the end": f"{before[name]}, {after[name]}" for name in before}
    models = ", ".join("/".join(Path(model).parts[-2:]) for model in args.model)
    return "\n".join(
        [
            f"{models}; {args.streams} streams at {args.fps:g} pictures a second for {args.seconds:g} s, {args.idle} "
            f"idle connections; skipping {args.skipping}; service on {len(args.cores)} cores, {args.threads} threads. "
            f"{machine()}",
            "",
            "| measure | value |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows.items()),
        ]
    )


def pictures_of(video: str) -> list[bytes]:
    """The first frames of a video, as a browser sends them."""
    found = []
    with av.open(video) as container:
        for frame in itertools.islice(container.decode(video=0), MOST_PICTURES):
            image = frame.to_image()
            image.thumbnail(SIZE)
            whole = Image.new("RGB", SIZE)
            whole.paste(image, ((SIZE[0] - image.width) // 2, (SIZE[1] - image.height) // 2))
            held = io.BytesIO()
            whole.save(held, "JPEG", quality=80)
            found.append(held.getvalue())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, help="exported folder")
    parser.add_argument("--video", required=True, help="shows a face that the model's locator finds")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model-threads", type=int, default=1)
    parser.add_argument("--skipping", choices=("none", "face"), default="face", help="frames that no network sees")
    parser.add_argument("--cores", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--service", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.service:
        return run_service(args)
    service = subprocess.Popen([sys.executable, *sys.argv, "--service"], stdout=subprocess.PIPE, text=True)
    try:
        address = service.stdout.readline().partition("#")[0]
        url = f"{address.replace('http', 'ws', 1)}stream"
        text = asyncio.run(load(url, service.pid, pictures_of(args.video), args))
    finally:
        service.terminate()
        service.wait(30)
    print(text)
    if args.write:
        write_between(RESULTS, "serve" if args.skipping == "face" else "serve_all", text)
    return None


if __name__ == "__main__":
    main()
