"""Every head of configs/head: does training cost more than it must, and what does each head reach on generated data?

    python benchmarks/heads.py            # speed and memory: checked against a plain loop, then timed; some minutes
    python benchmarks/heads.py --all      # `fit` and `evaluate` with every head on the generated electrical set

`--write` records the tables of speed in benchmarks/RESULTS.md; `--all` writes that of docs/heads.md. Interrupted,
`--all` goes on where it was; `--all --quick` shows in two minutes that everything runs, on data too few to mean
anything, and writes nothing.
"""

import argparse
import copy
import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import safetensors.torch
import torch
import yaml
from results import RESULTS, ROOT, machine, write_between
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from painseq.data.datamodule import PainDataModule
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.resident import Resident, ResidentClips
from painseq.data.streams import CnnStream, LandmarkStream, Stream
from painseq.data_modules import BioVid
from painseq.evaluation import Evaluation
from painseq.heads import Head
from painseq.heads.standardised import Standardised
from painseq.model.decision import decide
from painseq.records import Clip, Manifest
from painseq.spec import build, spec_of
from painseq.training.classifier import PainClassifier

PAGE = ROOT / "docs" / "heads.md"
YAMLS = {path.stem: path for path in sorted((ROOT / "configs" / "head").glob("*.yaml"))}

# Heads that look at pixels are published for crops of 224 pixels, with 88 million weights; that takes days on two
# cores. So they get small crops here, a network that is small to match, and, since that starts from random weights, the
# learning rate of one.
SMALL_CROPS_PX = 48
TINY = {"width": 64, "depth": 4, "heads": 4}
TINY_LR = 5e-4

# ---- Speed ----

CLIPS, FRAMES, WIDTH, LANDMARKS, BATCH = 256, 138, 1024, 68, 32  # a clip of BioVid at 25 frames a second
ROUNDS = 5
SEED = 1
LABELS = ("BL1", "PA1", "PA4")


class RandomClips(PainDataModule):
    """Clips of random features in memory, for training alone; classes differ in number, some frames have no face."""

    name, facts = "biovid", BioVid.facts

    def __init__(self, in_shape: tuple[int, ...], frames: int, clips: int = CLIPS) -> None:
        streams = ("cnn", "landmarks") if in_shape[0] > WIDTH else ("cnn",)
        split = SplitOptions("official")
        super().__init__(Path(), DataOptions(batch_size=BATCH, seed=SEED, split=split, streams=streams))
        self.shape = in_shape
        random = np.random.default_rng(0)
        self.lengths = random.integers(frames * 9 // 10, frames + 1, clips)
        self.lengths[0] = frames
        labels = random.choice(LABELS, clips, p=(0.5, 0.3, 0.2))
        self.made = tuple(
            Clip(f"clip{i}", f"subject{i % 20}", f"none{i % 20}.mp4", str(labels[i]), part="train")
            for i in range(clips)
        )
        total = int(self.lengths.sum())
        # Streams beside the CNN's come as float32, so that landmarks keep their precision.
        kind = torch.float16 if in_shape[0] in (3, WIDTH) else torch.float32
        values = torch.zeros((total + 1, *in_shape), dtype=kind)
        torch.manual_seed(0)
        for rows in values[:-1].split(1024):
            rows.copy_(torch.rand(rows.shape) * 255 if len(in_shape) == 3 else torch.randn(rows.shape))
        present = torch.rand(total + 1) > 0.02
        firsts = np.cumsum(self.lengths) - self.lengths
        present[torch.from_numpy(firsts)] = True
        present[-1] = False
        values[~present] = 0
        items = [(c, int(f), int(n)) for c, f, n in zip(self.made, firsts, self.lengths, strict=True)]
        resident = Resident(values, present, torch.zeros(total + 1, dtype=torch.float64))
        self.resident = ResidentClips(items, resident, self.scheme)

    def read_manifest(self) -> Manifest:
        return Manifest(self.name, Path(), self.made)

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self.shape

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (CnnStream(), LandmarkStream(LANDMARKS))[: len(self.options.streams)]

    def dataset(self, part: str) -> ResidentClips:
        return self.resident


def configured(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(YAMLS[name].read_text(encoding="utf-8")))


def data_options(name: str) -> dict[str, Any]:
    """What a head's YAML asks of the data."""
    return dict(configured(name).get("data", {}).get("init_args", {}).get("options", {}))


def takes_pixels(name: str) -> bool:
    return data_options(name).get("view") == "pixels"


def title_of(name: str) -> str:
    return f"{name} (tiny, {SMALL_CROPS_PX} pixels)" if takes_pixels(name) else name


def shape_of(name: str) -> tuple[tuple[int, ...], int]:
    """Shape of a frame for a head, and frames a clip."""
    if takes_pixels(name):
        return (3, SMALL_CROPS_PX, SMALL_CROPS_PX), 30
    streams = data_options(name).get("streams", ["cnn"])
    return (WIDTH * ("cnn" in streams) + 2 * LANDMARKS * ("landmarks" in streams),), FRAMES


def head_factory(name: str) -> Callable[[tuple[int, ...], int], Head]:
    spec = configured(name)["model"]["head"]
    init_args = {**spec.get("init_args", {}), **(TINY if takes_pixels(name) else {})}

    def make(in_shape: tuple[int, ...], num_classes: int) -> Head:
        given = {"in_shape": in_shape, "num_classes": num_classes, **init_args}
        return build({"class_path": spec["class_path"], "init_args": given}, Head)

    return make


class PlainLoop:
    """Training written out: padded features in one tensor, cross entropy, backward, step. Nothing of painseq's."""

    def __init__(self, head: Head, optimizer: torch.optim.Optimizer, data: RandomClips, device: torch.device) -> None:
        self.head, self.optimizer = head, optimizer
        clips = [data.resident[index] for index in range(len(data.resident))]
        self.x = pad_sequence([clip.x for clip in clips], batch_first=True).to(device)
        self.mask = pad_sequence([clip.present for clip in clips], batch_first=True).to(device)
        self.lengths = torch.from_numpy(data.lengths)
        target = torch.tensor([LABELS.index(str(clip.label)) for clip in data.made])
        counts = target.bincount().float()
        self.weights, self.target = (len(target) / (len(LABELS) * counts)).to(device), target.to(device)

    def epoch(self, number: int, seed: int, bf16: bool) -> list[Tensor]:
        """One epoch; the losses of its steps."""
        torch.manual_seed(int(np.random.SeedSequence([seed, number, 0]).generate_state(1)[0]))
        losses = []
        for chosen in torch.from_numpy(np.random.default_rng([SEED, number]).permutation(len(self.x))).split(BATCH):
            longest, on_device = int(self.lengths[chosen].max()), chosen.to(self.x.device, non_blocking=True)
            x, mask, target = self.x[on_device, :longest], self.mask[on_device, :longest], self.target[on_device]
            with torch.autocast(self.x.device.type, torch.bfloat16, enabled=bf16):
                logits = self.head(x.float(), mask)
            if self.head.level == "frame":
                logits, target = logits.flatten(0, 1), torch.where(mask, target[:, None], -100).flatten()
            loss = F.cross_entropy(logits.float(), target, self.weights)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return losses


class Interleaved(pl.Callback):
    """After each epoch of Lightning's, the same epoch in a plain loop, which started from the same weights.

    Times both; whatever Lightning does between two epochs counts as its own.
    """

    def __init__(self, data: RandomClips, bf16: bool = False, forbid_synchronisation: bool = False) -> None:
        self.data, self.bf16, self.forbid = data, bf16, forbid_synchronisation
        self.seconds: list[tuple[float, float]] = []
        self.losses: list[Tensor] = []
        self.apart = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, PainClassifier) and pl_module.head is not None
        head = copy.deepcopy(pl_module.head)
        self.plain = PlainLoop(head, pl_module.optimizer_factory(head.parameters()), self.data, pl_module.device)
        self.start = self._now(pl_module.device)

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.forbid and trainer.current_epoch:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any) -> None:
        if self.forbid:
            torch.cuda.set_sync_debug_mode("default")
        self.losses.append(outputs["loss"].detach())

    def on_exception(self, *args: Any) -> None:
        if self.forbid:
            torch.cuda.set_sync_debug_mode("default")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, PainClassifier)
        middle = self._now(pl_module.device)
        losses = self.plain.epoch(trainer.current_epoch, pl_module.seed, self.bf16)
        end = self._now(pl_module.device)
        self.seconds.append((middle - self.start, end - middle))
        apart = (torch.stack(self.losses) - torch.stack(losses)).abs().max()
        self.apart, self.losses = max(self.apart, float(apart)), []
        self.start = self._now(pl_module.device)

    @staticmethod
    def _now(device: torch.device) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def train(
    name: str,
    data: RandomClips,
    callback: pl.Callback,
    epochs: int,
    accelerator: str = "cpu",
    lr: float | None = None,
    bf16: bool = False,
) -> PainClassifier:
    """A fit of the head of a YAML; with `lr` by gradient descent, else with AdamW."""
    torch.manual_seed(SEED)
    model = PainClassifier(
        head_factory(name),
        optimizer=(lambda p: torch.optim.AdamW(p, 1e-3)) if lr is None else (lambda p: torch.optim.SGD(p, lr)),
        class_weights="inverse_frequency",
    )
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator=accelerator,
        devices=1,
        precision="bf16-mixed" if bf16 else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    trainer.fit(model, datamodule=data)
    return model


def check(name: str, accelerator: str = "cpu", data: RandomClips | None = None) -> str:
    """Lightning's training is the plain loop's: the same losses, step by step, and the same weights, dropout included.

    By gradient descent: Adam turns rounding into whole steps where a gradient is zero, as it is before a batch norm.
    """
    data = data or RandomClips(*shape_of(name), clips=3 * BATCH)
    callback = Interleaved(data)
    model = train(name, data, callback, epochs=2, accelerator=accelerator, lr=0.01)
    own, plain = model.head.state_dict(), callback.plain.head.state_dict()
    weights = max(float((own[key].cpu() - plain[key].cpu()).abs().max()) for key in own)
    most = 1e-4 if accelerator == "cpu" else 1e-3
    if max(callback.apart, weights) > most:
        raise SystemExit(
            f"{name}: losses differ by {callback.apart:.1e} from a plain loop's, weights by {weights:.1e}."
        )
    return f"{max(callback.apart, weights):.0e}"


def step_times(
    name: str,
    accelerator: str = "cpu",
    bf16: bool = False,
    forbid: bool = False,
    data: RandomClips | None = None,
    rounds: int = ROUNDS,
) -> tuple[float, float, float]:
    """Milliseconds a step, Lightning's and the plain loop's, and the median of their ratios; interleaved."""
    data = data or RandomClips(*shape_of(name))
    callback = Interleaved(data, bf16, forbid)
    train(name, data, callback, epochs=1 + rounds, accelerator=accelerator, bf16=bf16)
    timed, steps = callback.seconds[1:], -(-len(data.made) // BATCH)
    ours, plain = (1e3 * median(each[which] for each in timed) / steps for which in (0, 1))
    return ours, plain, median(own / theirs for own, theirs in timed)


def peak_bytes() -> int:
    """Most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage's, which a new process takes over from the one that started it.
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory_of_fit(name: str) -> float:
    """Peak memory in MB of a fit of two epochs, features included, less what the imports take; in its own process."""
    command = [sys.executable, __file__, "--memory-of", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def speed_table() -> tuple[str, float | None]:
    """The table, and seconds of an LSTM's epoch under Lightning."""
    rows, lstm_epoch_s = [], None
    for name in YAMLS:
        apart = check(name)
        ours, plain, ratio = step_times(name)
        lstm_epoch_s = ours * -(-CLIPS // BATCH) / 1e3 if name == "lstm" else lstm_epoch_s
        memory = memory_of_fit(name)
        goal = "below 15 ms" if plain < 15 else "met" if ratio <= 1.05 else "MISSED"
        rows.append(f"| {title_of(name)} | {ours:.1f} | {plain:.1f} | {ratio:.3f} | {goal} | {apart} | {memory:.0f} |")
        print(rows[-1], flush=True)
    head = [
        "| head | ms a step | plain loop, ms | ratio | goal 1.05 | losses and weights apart | peak memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows]), lstm_epoch_s


def store_table(lstm_epoch_s: float | None) -> str:
    """Batches gathered from the resident features, against a copy of as many bytes and against a file a clip."""
    data = RandomClips((WIDTH,), FRAMES)
    clips, frames = data.resident, data.resident.resident.frames
    order = [part.tolist() for part in torch.from_numpy(np.random.default_rng(0).permutation(CLIPS)).split(BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        for index in range(CLIPS):
            sample = clips[index]
            np.save(Path(folder, f"{index}.npy"), sample.x.numpy())
            tensors = {"features": sample.x.contiguous(), "present": sample.present.contiguous()}
            safetensors.torch.save_file(tensors, Path(folder, f"{index}.safetensors"))

        def resident(chosen: list[int]) -> Tensor:
            return clips.batch(chosen).x

        def npy(chosen: list[int]) -> Tensor:
            return pad_sequence([torch.from_numpy(np.load(f"{folder}/{index}.npy")) for index in chosen], True)

        def safe(chosen: list[int]) -> Tensor:
            each = [safetensors.torch.load_file(f"{folder}/{index}.safetensors") for index in chosen]
            return pad_sequence([tensors["features"] for tensors in each], True)

        def memcpy(chosen: list[int]) -> Tensor:
            size, first = BATCH * int(data.lengths[chosen].max()), BATCH * FRAMES * (chosen[0] % 6)
            # Into new memory, as a batch is.
            return frames[first : first + size].clone()

        for chosen in order:
            batches = [read(chosen) for read in (resident, npy, safe)]
            if not all(torch.equal(batches[0], other) for other in batches[1:]):
                raise SystemExit("The batches from files differ from those of the resident store.")
        variants = {"resident store": resident, ".npy a clip": npy, "safetensors a clip": safe, "memcpy": memcpy}
        seconds: dict[str, list[float]] = {title: [] for title in variants}
        for _ in range(1 + ROUNDS):
            for title, read in variants.items():
                start = time.perf_counter()
                for chosen in order:
                    read(chosen)
                seconds[title].append(time.perf_counter() - start)
    epoch_s = {title: median(rounds[1:]) for title, rounds in seconds.items()}
    gigabytes = sum(BATCH * int(data.lengths[chosen].max()) for chosen in order) * WIDTH * 2 / 1e9
    ours = epoch_s["resident store"]
    rows = [f"| {title} | {gigabytes / s:.2f} | {CLIPS / s:,.0f} | {s / ours:.2f} |" for title, s in epoch_s.items()]
    goals = [
        verdict("resident store over memcpy", epoch_s["memcpy"] / ours, 0.35, at_least=True),
        verdict("resident store over .npy", epoch_s[".npy a clip"] / ours, 1.5, at_least=True),
    ]
    if lstm_epoch_s is not None:
        goals.append(verdict("loading as a share of an LSTM's epoch", ours / lstm_epoch_s, 0.05, at_least=False))
    head = ["| batches from | GB/s | clips/s | time over the resident store's |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, "", *goals])


def verdict(what: str, value: float, goal: float, at_least: bool) -> str:
    met = value >= goal if at_least else value <= goal
    return f"- {what}: {value:.3f}; goal at {'least' if at_least else 'most'} {goal}: {'met' if met else 'MISSED'}"


# ---- Comparison ----

SEEDS = (1, 2, 3)
DATA = "configs/demo/electrical.yaml"
REFERENCE = "frame_ann"


@dataclass(frozen=True)
class Run:
    """One head fitted with one seed, and scored on the test subjects."""

    out: Path
    head: str
    seed: int
    quick: bool

    @property
    def fitted(self) -> Path:
        return self.out / "runs" / f"{self.head}_seed{self.seed}"

    @property
    def scored(self) -> Path:
        return self.out / "runs" / f"{self.head}_seed{self.seed}_test"

    def arguments(self) -> list[str]:
        """What `fit` and `evaluate` are both told: the data, and how this head sees them."""
        own = [f"--config={DATA}", f"--config={YAMLS[self.head]}", f"--data.root={self.out / 'electrical'}"]
        if takes_pixels(self.head):
            return [*own, *small_crops(), f"--data.options.store={self.out / 'crops'}"]
        return [*own, f"--data.options.store={self.out / 'features'}", "--model.extractor=null"]

    def fit_arguments(self) -> list[str]:
        """What a user would add for `fit`."""
        tiny = [f"--model.head.init_args.{key}={value}" for key, value in TINY.items()]
        tiny.append(f"--model.optimizer.init_args.lr={TINY_LR}")
        return [
            *(tiny if takes_pixels(self.head) else []),
            *(["--trainer.max_epochs=1"] if self.quick else []),
            f"--seed_everything={self.seed}",
            f"--data.options.seed={self.seed}",
            "--trainer.callbacks+=heads.EpochSeconds",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
            f"--out={self.fitted}",
        ]

    def recipe(self) -> dict[str, object]:
        """What decides the result; a run made otherwise is made again."""
        return {
            "arguments": [*self.arguments(), *self.fit_arguments()],
            "yaml": YAMLS[self.head].read_text(encoding="utf-8"),
        }

    def done(self) -> dict[str, Any] | None:
        """What was measured, if the run is finished and was made by this recipe."""
        path = self.scored / "measured.json"
        if not path.is_file():
            return None
        measured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return measured if measured["recipe"] == self.recipe() else None


class EpochSeconds(pl.Callback):
    """How long each epoch of the fit in this process took, validation included."""

    seconds: ClassVar[list[float]] = []

    def on_train_epoch_start(self, *args: Any) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *args: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def small_crops() -> list[str]:
    return [
        f"--data.options.face.init_args.size_px={SMALL_CROPS_PX}",
        f"--model.extractor.init_args.input_size_px={SMALL_CROPS_PX}",
    ]


def prepare(out: Path, quick: bool) -> None:
    """The demo's electrical videos; features of them through its heat-pain CNN, and crops."""
    from painseq.cli.extract import main as extract
    from painseq.studies.demo import Demo, Size

    few = Size(heat_subjects=5, heat_trials=1, train=5, validation=1, test=3, trials=1, baseline_s=20.0)
    # Larger than the demo's default, as when the table was first made.
    measured = Size(baseline_s=60.0, heat_fps=8.0, size_px=192)
    demo = Demo(out, seed=0, workers=os.cpu_count() or 1, size=few if quick else measured)
    demo.start()
    demo.generate()
    demo.train_heat_cnn()
    data = [f"--config={DATA}", f"--data.root={out / 'electrical'}"]
    weights = f"--model.extractor.init_args.weights={out / 'heat_cnn' / 'extractor.safetensors'}"
    extract([*data, weights, f"--out={out / 'features'}", "--precision=fp32"])
    pixels = [f"--config={YAMLS[name]}" for name in YAMLS if takes_pixels(name)][:1]
    if pixels:
        extract([*data, *pixels, *small_crops(), f"--out={out / 'crops'}"])


def fit_and_evaluate(run: Run) -> dict[str, Any]:
    """In a process of its own, so that its peak memory is its own."""
    # By the name under which the command line finds it: this file runs as another module.
    from heads import EpochSeconds

    from painseq.cli.evaluate import evaluate_checkpoints
    from painseq.cli.fit import fit

    torch.set_num_threads(1)
    for folder in (run.fitted, run.scored):
        shutil.rmtree(folder, ignore_errors=True)
    run.fitted.parent.mkdir(parents=True, exist_ok=True)
    checkpoint, truth = run.fitted / "best.ckpt", run.out / "electrical_truth" / "labels.csv"
    to_score = [f"--checkpoint={checkpoint}", f"--truth={truth}", f"--out={run.scored}"]
    with run.fitted.with_suffix(".log").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        start, before = time.perf_counter(), peak_bytes()
        fit([*run.arguments(), *run.fit_arguments()])
        peak = peak_bytes() - before
        (result,) = evaluate_checkpoints([*run.arguments(), *to_score]).values()
    assert isinstance(result.evaluation, Evaluation)
    epochs = json.loads((run.fitted / "run.json").read_text(encoding="utf-8"))["epochs"]
    measured = {
        "recipe": run.recipe(),
        "balanced_accuracy": result.evaluation.scores.balanced_accuracy,
        "epochs": epochs,
        "epoch_s": median(EpochSeconds.seconds),
        "peak_mb": peak / 1e6,
        "seconds": time.perf_counter() - start,
        **facts(checkpoint),
    }
    (run.scored / "measured.json").write_text(json.dumps(measured, indent=2), encoding="utf-8")
    return measured


def facts(checkpoint: Path) -> dict[str, object]:
    """Parameters of the head, and how it sees a clip: tried out, on the same head with random weights."""
    from painseq.model.checkpoint import load

    trained = load(checkpoint).head
    trained = trained.head if isinstance(trained, Standardised) else trained
    torch.manual_seed(0)
    head = build({k: tuples(v) if k == "init_args" else v for k, v in spec_of(trained).items()}, Head).eval()
    frames = min(16, head.max_frames or 16)
    x, mask = torch.rand(1, frames, *head.in_shape), torch.ones(1, frames, dtype=torch.bool)
    x, order = (x * 255 if len(head.in_shape) == 3 else x), torch.randperm(frames)
    with torch.no_grad():
        given, shuffled = (decide(head.level, head(each, mask), mask).probabilities for each in (x, x[:, order]))
    ordered = float((given - shuffled).abs().max()) > 1e-5
    sees = "each frame alone" if head.level == "frame" else "time" if ordered else "all frames, in any order"
    parameters = sum(p.numel() for p in head.parameters())
    return {"class": type(head).__name__, "level": head.level, "sees": sees, "parameters": parameters}


def tuples(init_args: Any) -> dict[str, object]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in init_args.items()}


def compare(out: Path, quick: bool, workers: int) -> int:
    """Fit and score every head with every seed, two side by side; then the table."""
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    os.environ["OMP_NUM_THREADS"] = "1"
    prepare(out, quick)
    runs = [Run(out, head, seed, quick) for seed in (SEEDS[:1] if quick else SEEDS) for head in YAMLS]
    waiting = [run for run in runs if run.done() is None]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them done before.", flush=True)
    failed = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, max_tasks_per_child=1) as pool:
        futures = {pool.submit(fit_and_evaluate, run): run for run in waiting}
        for number, future in enumerate(as_completed(futures), start=1):
            run, error = futures[future], future.exception()
            if error is not None:
                failed.append(run)
                print(f"[{number}/{len(waiting)}] {run.head}, seed {run.seed}: FAILED: {error}", flush=True)
                continue
            found = future.result()
            print(
                f"[{number}/{len(waiting)}] {run.head}, seed {run.seed}: balanced accuracy "
                f"{found['balanced_accuracy']:.3f}, {found['epochs']} epochs of {found['epoch_s']:.2f} s, "
                f"{found['seconds']:.0f} s in all",
                flush=True,
            )
    whole = comparison_table(runs) if not failed else None
    if whole is not None:
        print(whole)
        if not quick:
            write_between(PAGE, "heads_table", whole)
    return 1 if failed else 0


def comparison_table(runs: Sequence[Run]) -> str:
    """A row a head. The interval is of the mean over the seeds: people are drawn anew, the same for all heads."""
    from painseq.evaluation import confusion_by_subject, read_predictions
    from painseq.evaluation.intervals import DRAWS, draw_subjects
    from painseq.evaluation.metrics import balanced_accuracy

    seeds = sorted({run.seed for run in runs})
    drawn: dict[str, np.ndarray] = {}
    own: dict[str, list[float]] = {}
    measured: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        predictions = read_predictions(run.scored / "predictions.csv")
        k = len(predictions.class_names)
        subjects, confusion = confusion_by_subject(predictions.truth, predictions.label, predictions.subject_ids, k)
        times = draw_subjects(len(subjects), DRAWS, seed=0).astype(float)
        score = balanced_accuracy(np.tensordot(times, confusion, axes=1)) / len(seeds)
        drawn[run.head] = drawn.get(run.head, 0.0) + score
        own.setdefault(run.head, []).append(float(balanced_accuracy(confusion.sum(0))))
        measured.setdefault(run.head, []).append(run.done() or {})
    rows = []
    for name in sorted(drawn, key=lambda name: -float(np.mean(own[name]))):
        first = measured[name][0]
        values = {key: [each[key] for each in measured[name]] for key in ("epoch_s", "epochs", "peak_mb")}
        mean, low, high = np.mean(own[name]), *np.quantile(drawn[name], [0.025, 0.975])
        minus = ""
        if name != REFERENCE:
            difference = np.mean(own[name]) - np.mean(own[REFERENCE])
            span = np.quantile(drawn[name] - drawn[REFERENCE], [0.025, 0.975])
            minus = f"{difference:+.3f} ({span[0]:+.3f} to {span[1]:+.3f})"
        rows.append(
            f"| {title_of(name)} | {first['sees']} | {first['level']} | {first['parameters']:,} "
            f"| {' / '.join(f'{value:.3f}' for value in own[name])} | {mean:.3f} ({low:.3f} to {high:.3f}) | {minus} "
            f"| {np.mean(values['epoch_s']):.2f} | {' / '.join(str(n) for n in values['epochs'])} "
            f"| {max(values['peak_mb']):.0f} |"
        )
    return "\n".join(
        [
            f"{machine()} Two runs side by side, one thread each. {len(subjects)} test subjects, "
            f"seeds {', '.join(map(str, seeds))}.",
            "",
            "| head | sees | level | parameters | balanced accuracy, each seed | mean (95 % interval) "
            f"| minus {REFERENCE} | s an epoch | epochs | peak memory, MB |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


# ---- Both ----


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="fit and evaluate with every head; write docs/heads.md")
    parser.add_argument("--out", type=Path, help="folder of --all; default: runs/heads")
    parser.add_argument("--quick", action="store_true", help="with --all: few people, one epoch, nothing written")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="fits side by side")
    parser.add_argument("--heads", nargs="+", choices=list(YAMLS), help="measure the speed of these alone")
    parser.add_argument("--write", action="store_true", help="record the tables of speed in benchmarks/RESULTS.md")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.all:
        return compare(args.out or Path("runs") / ("heads_quick" if args.quick else "heads"), args.quick, args.workers)
    quiet()
    if args.memory_of:
        before = peak_bytes()
        train(args.memory_of, RandomClips(*shape_of(args.memory_of)), pl.Callback(), epochs=2)
        print((peak_bytes() - before) / 1e6)
        return 0
    for name in [name for name in YAMLS if args.heads and name not in args.heads]:
        del YAMLS[name]
    speed, lstm_epoch_s = speed_table()
    threads = f"{torch.get_num_threads()} threads; {CLIPS} clips of {FRAMES} frames, batches of {BATCH}."
    tables = f"{machine()} {threads}\n\n{speed}\n\n{store_table(lstm_epoch_s)}"
    print(f"\n{tables}")
    if args.write:
        write_between(RESULTS, "heads_speed", tables)
    return 0


def quiet() -> None:
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")


if __name__ == "__main__":
    raise SystemExit(main())
