"""Live use on real videos: what skipping costs in agreement and saves in work, lag, and memory over time.

    python benchmarks/live.py --assets ASSETS --parts agreement lag soak [--minutes 20] [--write]

ASSETS holds videos and weights (see tests/conftest.py).

agreement: an LSTM on the features of the real VGG16 is fitted here to tell the expressions (neutral, happy, others; as
a published network of expressions tells them) of three real videos, so that its label changes with the face. It is then
run live on the same videos at their own rates, with each rule of skipping; every prediction is compared with that of
the run that skips nothing. Features of a crop are computed once for all runs, which changes no figure.

lag: a real video is played in real time, again and again; each picture's time from its capture to the prediction, by
network and rule, on two threads. Exported folders can be named with --model, such as those that
`benchmarks/export.py --work FOLDER` leaves: FOLDER/resnet18/int8.

soak: the same with a small network for --minutes, with the resident memory over time.
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from results import RESULTS, machine, write_between
from torch.nn import functional as F

from painseq.extractors import VGG16, TimmBackbone
from painseq.faces import FaceCrops, FaceFollower, FaceMesh, Locator, YuNet
from painseq.heads import LSTM
from painseq.live import LivePredictor, LiveSession, LiveSettings, Reader, Reading, Skipping
from painseq.model.pain_model import PainModel
from painseq.model.predictor import Predictor
from painseq.model.record import DataRecord, ModelRecord, SplitRecord, StreamRecord
from painseq.runtime import load
from painseq.video.sources import FileSource, Picture

VIDEOS = ("single_face.mp4", "WolfgangLanger_Pexels.mp4", "face_noface.mov")
CLASSES = ("neutral", "happy", "other")
CLIP_S = 2.0
BY_LANDMARKS = {
    "none": Skipping("none"),
    "face, 0.01 (default)": Skipping("face"),
    "face, 0.01, dropped": Skipping("face", drop=True),
    "face, 0.02": Skipping("face", 0.02),
    "face, 0.005": Skipping("face", 0.005),
    "paper, 0.05": Skipping("paper"),
    "paper, 0.05, dropped": Skipping("paper", drop=True),
    "paper, 0.01": Skipping("paper", 0.01),
}
BY_CROPS = {
    "none": Skipping("none"),
    "face, crops 0.02 (default)": Skipping("face"),
    "face, crops 0.02, dropped": Skipping("face", drop=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", default=["agreement", "lag"], choices=["agreement", "lag", "soak"])
    parser.add_argument("--minutes", type=float, default=20.0, help="length of the soak")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each measurement of lag")
    parser.add_argument("--model", type=Path, nargs="+", default=[], help="exported folders to measure the lag of, too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="record the tables in RESULTS.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    weights = args.assets / "weights"
    yunet = YuNet(str(weights / "detectors" / "face_detection_yunet_2023mar.onnx"))
    mesh = FaceMesh(str(weights / "face_mesh" / "face_landmarker.task"), yunet.model)
    tables = {
        "agreement": lambda: agreement(args.assets, mesh, yunet),
        "lag": lambda: lag(args.assets, yunet, mesh, args.seconds, args.model, args.threads),
        "soak": lambda: soak(args.assets, yunet, args.minutes),
    }
    for part in args.parts:
        text = f"{machine()}\n\n{tables[part]()}"
        print(text)
        if args.write:
            write_between(RESULTS, f"live_{part}", text)


def model_of(extractor: torch.nn.Module, head: LSTM, locator: Locator, fps: float | None) -> PainModel:
    record = ModelRecord(
        CLASSES, None, {"class_path": "painseq.heads.LSTM"}, "cross_entropy", head.in_shape, None, None, fps,
        (StreamRecord("cnn", {}),), 0, (1 / 3,) * 3,
        DataRecord("benchmark", "three", "", SplitRecord("none", (), (), ()), {}, None), (), (), (), (), (),
    )  # fmt: skip
    return PainModel(record, head, extractor, FaceCrops(locator))


class Remembering:
    """Features of crops, each computed once."""

    def __init__(self, extractor: VGG16) -> None:
        self.extractor = extractor.eval()
        self.known: dict[bytes, NDArray[np.float32]] = {}

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack([self.one(crop) for crop in crops])

    def one(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        key = crop.tobytes()
        if key not in self.known:
            with torch.inference_mode():
                self.known[key] = self.extractor(torch.from_numpy(crop[None].copy()))[0].numpy()
        return self.known[key]


def pictures(path: Path) -> Iterator[Picture]:
    return (event for event in FileSource(path) if isinstance(event, Picture))


def agreement(assets: Path, mesh: FaceMesh, yunet: YuNet) -> str:
    """Agreement of each rule with no skipping, by locator."""
    weights = assets / "weights"
    vgg16 = VGG16(str(weights / "backbone" / "vgg16_imagenet_features_tvnorm_fp16.safetensors"))
    features = Remembering(vgg16)
    head = fitted(assets, yunet, features)
    lines = [
        "| locator | rule | processed | labels equal | mean difference of probabilities |",
        "|---|---|---|---|---|",
    ]
    for name, locator, rules in (("FaceMesh", mesh, BY_LANDMARKS), ("YuNet", yunet, BY_CROPS)):
        model = model_of(vgg16, head, locator, None)
        model.features = features  # type: ignore[method-assign]
        found = {}
        for rule, skipping in rules.items():
            runs = [said(model, skipping, assets / "videos" / video) for video in VIDEOS]
            found[rule] = [reading for readings, _, _ in runs for reading in readings]
            processed = sum(count for _, count, _ in runs) / sum(faces for _, _, faces in runs)
            pairs = [(a, b) for a, b in zip(found["none"], found[rule], strict=True) if "ok" == a.state == b.state]
            equal = np.mean([a.label == b.label for a, b in pairs])
            apart = np.mean([np.abs(shares(a) - shares(b)).mean() for a, b in pairs])
            lines.append(f"| {name} | {rule} | {processed:.2f} | {equal:.3f} | {apart:.3f} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def said(model: PainModel, skipping: Skipping, video: Path) -> tuple[list[Reading], int, int]:
    """Readings of a video, frames processed, and frames with a face."""
    live = LivePredictor(model, LiveSettings(window_s=CLIP_S, warm_up_s=0.5, skipping=skipping))
    readings = [reading for picture in pictures(video) for reading in live.push(picture.image, picture.time_s)]
    return readings, live.counts.processed, sum(reading.box is not None for reading in readings)


def shares(reading: Reading) -> NDArray[np.float64]:
    return np.array([*reading.probabilities.values()])


def fitted(assets: Path, locator: Locator, features: Remembering) -> LSTM:
    """An LSTM that tells the expression at the end of clips of `CLIP_S`, fitted on the videos themselves."""
    import onnxruntime

    net = onnxruntime.InferenceSession(str(assets / "weights" / "expression" / "faceapi_expression7.onnx"))
    clips, targets = [], []
    for video in VIDEOS:
        follower = FaceFollower(FaceCrops(locator))
        rows, labels, times_s = [], [], []
        for picture in pictures(assets / "videos" / video):
            face = follower.push(picture.image, picture.time_s)
            if face.present:
                small = Image.fromarray(face.crop.transpose(1, 2, 0)).resize((112, 112))
                x = np.asarray(small).transpose(2, 0, 1)[None].astype(np.float32)
                logits = net.run(None, {net.get_inputs()[0].name: x})[0][0]
                labels.append(min(2, int(logits.argmax())))
                rows.append(features.one(face.crop))
                times_s.append(face.time_s)
        for end in range(5, len(rows), 2):
            first = int(np.searchsorted(times_s, times_s[end] - CLIP_S * (0.3 + 0.7 * (end % 7) / 6)))
            clips.append(torch.from_numpy(np.stack(rows[first : end + 1])))
            targets.append(labels[end])
    torch.manual_seed(0)
    head = LSTM(clips[0].shape[1:], len(CLASSES)).train()
    x = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    mask = torch.arange(x.shape[1]) < torch.tensor([len(clip) for clip in clips])[:, None]
    target = torch.tensor(targets)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.01)
    for _ in range(15):
        for part in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(head(x[part], mask[part]), target[part]).backward()
            optimizer.step()
    head.eval()
    with torch.inference_mode():
        right = (head(x, mask).argmax(dim=1) == target).float().mean()
    print(f"{len(x)} clips, of which the LSTM tells {right:.2f}; classes {np.bincount(targets).tolist()}.", flush=True)
    return head


def lag(assets: Path, yunet: YuNet, mesh: FaceMesh, seconds: float, exported: list[Path], threads: int) -> str:
    """Lag, rate and CPU time of a video in real time, by network and rule."""
    video = assets / "videos" / "WolfgangLanger_Pexels.mp4"
    networks: dict[str, Predictor] = {}
    for folder in exported:
        model = load(folder, threads=threads)
        model.fps = None  # Every frame, as the others.
        networks[f"{folder.parent.name}/{folder.name}, {model.engines['engine']}"] = model
    for name, extractor in (("resnet18, fp32, torch", TimmBackbone("resnet18")), ("VGG16, fp32, torch", VGG16(None))):
        torch.manual_seed(0)
        networks[name] = model_of(extractor, LSTM(extractor.out_shape, 3).eval(), yunet, None)
    lines = [
        "| network | locator | rule | frames a second | processed | lag: median / 95 % ms | dropped | CPU s a minute |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, model in networks.items():
        for locator, rule in ((yunet, "none"), (yunet, "face"), (mesh, "face")):
            live = LivePredictor(model, LiveSettings(window_s=CLIP_S, skipping=Skipping(rule)), locator=locator)  # type: ignore[arg-type]
            lags_s, cpu_s, dropped, read = played(live, video, seconds)
            rate, (median, high) = len(lags_s) / seconds, np.percentile(lags_s, [50, 95]) * 1000
            processed = live.counts.processed / max(1, live.counts.samples)
            lines.append(
                f"| {name} | {type(locator).__name__} | {rule} | {rate:.1f} | {processed:.2f} "
                f"| {median:.0f} / {high:.0f} | {dropped / read:.0%} | {cpu_s / seconds * 60:.0f} |"
            )
            print(lines[-1], flush=True)
    return "\n".join(lines)


def played(live: LivePredictor, video: Path, seconds: float) -> tuple[list[float], float, int, int]:
    """Lags, CPU seconds, and pictures dropped and read, of a video in real time."""
    lags_s: list[float] = []
    with Reader(FileSource(video, paced=True, loop=True)) as reader, LiveSession(live) as session:
        for event in reader:
            if isinstance(event, Picture) and event.time_s < 3:  # The first pictures wait for the networks to start.
                begun_cpu_s, read, dropped = time.process_time(), reader.read, reader.dropped
                for _ in session.take(event):
                    pass
                continue
            lags_s += [update.reading.lag_s or 0.0 for update in session.take(event)]
            if isinstance(event, Picture) and event.time_s > 3 + seconds:
                break
        cpu_s = time.process_time() - begun_cpu_s
    return lags_s, cpu_s, reader.dropped - dropped, reader.read - read


def soak(assets: Path, yunet: YuNet, minutes: float) -> str:
    """Resident memory over time of a looped video, with log and notifications."""
    from painseq.live import LiveLog, Notifier, NotifySettings, Run

    extractor = TimmBackbone("test_resnet")
    live = LivePredictor(model_of(extractor, LSTM(extractor.out_shape, 3).eval(), yunet, None), LiveSettings())
    video = assets / "videos" / "WolfgangLanger_Pexels.mp4"
    sizes: list[tuple[float, float]] = []
    notifier = Notifier(NotifySettings(), CLASSES)
    with (
        Reader(FileSource(video, paced=True, loop=True)) as reader,
        Path(os.devnull).open("w") as nowhere,
        LiveSession(live, notifier, LiveLog(nowhere)) as session,
    ):
        assert session.log is not None
        session.log.start(Run("benchmark", video.name, CLASSES, None, {}))
        for event in reader:
            for update in session.take(event):
                if not sizes or update.reading.time_s - sizes[-1][0] >= 10:
                    sizes.append((update.reading.time_s, resident_mib()))
            if isinstance(event, Picture) and event.time_s > 60 * minutes:
                break
    times_s, mib = np.array(sizes).T
    later = times_s > min(120, times_s[-1] / 3)
    slope = np.polyfit(times_s[later] / 3600, mib[later], 1)[0] if later.sum() > 2 else float("nan")
    lines = ["| minutes | memory, MiB |", "|---|---|"]
    lines += [f"| {time_s / 60:.1f} | {size:.1f} |" for time_s, size in sizes[:: max(1, len(sizes) // 10)]]
    counts = live.counts
    told = f"{counts.samples} frames, {counts.processed} processed, {reader.dropped} pictures dropped of {reader.read}"
    return "\n".join([*lines, "", f"{told}. Growth after the beginning: {slope:.1f} MiB an hour."])


def resident_mib() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
