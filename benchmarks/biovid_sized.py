"""Random features of BioVid's size, written through the real store, with a trace of the class in them."""

import csv
from pathlib import Path

import numpy as np
import torch

from painseq.extractors import VGG16
from painseq.faces import FaceCrops, FullFrame
from painseq.features import ClipFeatures, StoreWriter
from painseq.features.engine import pipeline_spec

LABELS = ("BL1", "PA1", "PA2", "PA3", "PA4")
FRAMES, WIDTH, FPS = 138, 1024, 25.0


def generate(root: Path, subjects: int, clips: int, frames: int = FRAMES) -> None:
    """Clips of every class for every subject, as a table (clips.csv) and as a store (store).

    Args:
        clips: of each class of each subject.
    """
    extractor, random = VGG16(None, fc=True), np.random.default_rng(0)
    spec = pipeline_spec(extractor, FaceCrops(FullFrame()), FPS)
    present, times_s = torch.ones(frames, dtype=torch.bool), torch.arange(frames, dtype=torch.float64) / FPS
    with (
        (root / "clips.csv").open("w", newline="", encoding="utf-8") as file,
        StoreWriter(root / "store", spec, "float16", extractor) as writer,
    ):
        table = csv.writer(file)
        table.writerow(["clip_id", "subject_id", "video", "label"])
        for subject in range(subjects):
            for kind, label in enumerate(LABELS):
                for number in range(clips):
                    clip_id = f"s{subject:02d}-{label}-{number:02d}"
                    table.writerow([clip_id, f"s{subject:02d}", f"{clip_id}.mp4", label])
                    features = torch.from_numpy(random.standard_normal((frames, WIDTH), dtype=np.float32))
                    # A trace of the class, so that there is something to learn.
                    features[:, kind] += 0.3
                    writer.add(clip_id, ClipFeatures(features.half(), present, times_s, None), "generated")
