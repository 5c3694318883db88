"""Steps of training, and folds side by side."""

import numpy as np
import torch
from biovid_sized import FRAMES, LABELS, generate
from gpu_parts.bench import Bench
from heads import BATCH, CLIPS, ROUNDS, YAMLS, RandomClips, check, shape_of, step_times, title_of
from torch.nn import functional as F

from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.splits import Split, every_fold
from painseq.data_modules import Folder
from painseq.evaluation import read_predictions
from painseq.heads import LSTM, ViViT
from painseq.studies.fold_fits import Candidate, FoldFit, device_of, fold_fitter
from painseq.training.classifier import PainClassifier
from painseq.training.fitting import FitOptions

FIRST = ("lstm", "frame_ann")
PROBABILITIES_APART = 1e-2


def steps(bench: Bench) -> None:
    """An LSTM and a frame ANN on resident features, against a plain loop; no step may wait for the device."""
    for name in FIRST:
        _steps(bench, name)


def other_heads(bench: Bench) -> None:
    """The other heads."""
    for name in ["linear_probe"] if bench.small else [name for name in YAMLS if name not in FIRST]:
        _steps(bench, name)


def _data(bench: Bench, name: str, clips: int) -> RandomClips:
    if bench.small:
        return RandomClips((32,), 6, clips=12)
    return RandomClips(*shape_of(name), clips=clips)


def _steps(bench: Bench, name: str) -> None:
    bench.need(15)
    try:
        differing = check(name, bench.accelerator, _data(bench, name, 3 * BATCH))
    except SystemExit as error:
        bench.differs(str(error))
        return
    rounds = 1 if bench.small else ROUNDS
    clips = _data(bench, name, BATCH).resident.to(bench.device)
    clips.batch(range(len(clips)))
    gathering = bench.waits(lambda: clips.batch(range(len(clips))))
    for bf16 in (False, True):
        data = _data(bench, name, CLIPS)
        waits = "no" if bench.on_gpu else "unknown"
        with bench.peak() as peak:
            try:
                times = step_times(name, bench.accelerator, bf16, forbid=bench.on_gpu, data=data, rounds=rounds)
            except RuntimeError as error:
                if not bench.on_gpu or "synchroniz" not in str(error):
                    raise
                waits = f"YES: {str(error).splitlines()[0]}"
                times = step_times(name, bench.accelerator, bf16, data=data, rounds=rounds)
        bench.add(
            f"steps, batches of {BATCH}",
            {
                "head": name if bench.small else title_of(name),
                "precision": "bf16" if bf16 else "fp32",
                "ms a step": times[0],
                "plain loop, ms": times[1],
                "ratio": times[2],
                "apart": differing,
                "host waits in a step": waits,
                "in gathering a batch": gathering,
                "peak memory, MB": peak[0],
            },
        )


def vivit(bench: Bench) -> None:
    """ViViT-B/16x2 as published: steps on clips of 32 frames of 224 pixels."""
    for clips in (2,) if bench.small else (8, 16):
        for encoder in ("joint", "factorised"):
            for bf16 in (True, False):
                bench.need(20)
                _vivit(bench, encoder, clips, bf16)


def _vivit(bench: Bench, encoder: str, clips: int, bf16: bool) -> None:
    torch.manual_seed(0)
    tiny = {"frames": 4, "width": 32, "depth": 1, "heads": 2, "temporal_depth": 1} if bench.small else {}
    frames, size_px = (4, 32) if bench.small else (32, 224)
    head = ViViT((3, size_px, size_px), 3, encoder=encoder, **tiny).to(bench.device)
    optimizer = torch.optim.AdamW(head.parameters(), 1e-4)
    x = torch.randint(0, 256, (clips, frames, 3, size_px, size_px), dtype=torch.uint8, device=bench.device)
    mask = torch.ones(clips, frames, dtype=torch.bool, device=bench.device)
    target = torch.arange(clips, device=bench.device) % 3

    def step() -> None:
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=bf16):
            logits = head(x, mask)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), target).backward()
        optimizer.step()

    with bench.peak() as peak:
        rate = bench.rate(step, seconds=2.0)
    bench.add(
        "ViViT-B/16x2, 32 frames of 224 pixels",
        {
            "encoder": encoder,
            "precision": "bf16" if bf16 else "fp32",
            "clips a batch": clips,
            "ms a step": 1e3 / rate,
            "clips/s": clips * rate,
            "host waits": bench.waits(step),
            "peak memory, MB": peak[0],
        },
    )


def lstm() -> PainClassifier:
    return PainClassifier(LSTM)


def folds(bench: Bench) -> None:
    """Leave one subject out: folds one after the other and side by side, on one copy of the features."""
    subjects, clips, count, epochs = (4, 1, 2, 1) if bench.small else (87, 5, 8, 4)
    bench.need(60)
    root = bench.work / "folds"
    root.mkdir()
    generate(root, subjects, clips, frames=6 if bench.small else FRAMES)
    options = DataOptions(labels="native", store=root / "store", split=SplitOptions("loso"))
    data = Folder(root, options, "biovid_sized", root / "clips.csv", classes=LABELS)
    chosen = every_fold(data.manifest, options.split, data.scheme)[:count]
    fit_options = FitOptions(max_epochs=epochs, accelerator=bench.accelerator)
    first: list[np.ndarray] = []
    for jobs in (1, 2) if bench.small else (1, 4, 2, 8):
        bench.need(45)
        fits = [FoldFit(root / f"jobs{jobs}" / str(n), split) for n, split in enumerate(chosen)]
        start = bench.now()
        with fold_fitter([Candidate("LSTM", lstm, fit_options)], data, jobs, 1, device_of(fit_options)) as run:
            if jobs > 1:
                # A fold that cannot be fitted takes no time, and is back when its process has started.
                list(run([FoldFit(root / "nothing", Split("none", (), (), ()))] * jobs))
            ready = bench.now()
            for done in run(fits):
                assert done.left_out is None, done
        end = bench.now()
        found = [read_predictions(fit.predictions).probabilities for fit in fits]
        first = first or found
        differing = max(float(np.abs(a - b).max()) for a, b in zip(found, first, strict=True))
        bench.add(
            f"folds of an LSTM, {subjects} subjects, {subjects * clips * len(LABELS)} clips, {epochs} epochs",
            {
                "folds at once": jobs,
                "until ready, s": ready - start,
                "s a fold": (end - ready) / count,
                "apart": differing,
            },
        )
        if differing > PROBABILITIES_APART:
            bench.differs(f"folds, {jobs} at once: probabilities are {differing:.1e} apart from those of one at a time")
