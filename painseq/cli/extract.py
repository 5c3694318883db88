"""`painseq extract`: videos into a feature store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from painseq.classifier import PainClassifier
from painseq.cli.experiment import ExperimentCLI
from painseq.cli.run_folder import pick_device, versions, write_json
from painseq.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.features import ExtractProgress, ExtractSummary, FeatureStore, export_npz
from painseq.features import extract as fill_store
from painseq.records import PARTS

log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    extract(argv)
    return 0


def extract(argv: Sequence[str]) -> ExtractSummary:
    """Fill a store as the command line says; a store that is there already is completed.

    Raises:
        PainseqError: no data set, no extractor, no face crop; a store made otherwise; no face in any frame.
    """
    cli = ExperimentCLI("extract", argv)
    data, model, config = cli.datamodule, cli.model, cli.config
    if not isinstance(data, PainDataModule):
        raise PainseqError("`painseq extract` needs a data set: --config configs/data/ai4pain.yaml, or --data BioVid.")
    if not isinstance(model, PainClassifier) or model.extractor is None:
        raise PainseqError("`painseq extract` needs an extractor, e.g. --config configs/extractor/vgg16.yaml.")
    face = data.options.face
    if face is None:
        raise PainseqError("`painseq extract` needs a face crop: add a `face` to the data options.")
    unknown = [part for part in config["parts"] if part not in PARTS]
    if unknown:
        raise PainseqError(f"--parts names {unknown[0]!r}; parts are {', '.join(PARTS)}.")
    manifest = data.manifest
    if config["parts"]:
        manifest = manifest.only(clip for part in config["parts"] for clip in data.split.clips(manifest, part))
    device, out = pick_device(config["device"]), Path(config["out"])
    log.info(
        "%s: %d clips of %d subjects; %s on %s; locator %s; into %s",
        data.name,
        len(manifest),
        len(manifest.subjects),
        type(model.extractor).__name__,
        device,
        type(face.locator).__name__,
        out,
    )
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("extract", total=len(manifest), note="")

        def show(now: ExtractProgress) -> None:
            note = f"{now.frames_per_s:.0f} frames/s, {now.faceless} faceless, {now.failed} failed"
            bar.update(task, completed=now.done, note=note)

        summary = fill_store(
            manifest,
            face,
            model.extractor,
            data.options.fps,
            out,
            dtype=config["dtype"],
            device=device,
            on_progress=show,
        )
    log.info("%s", summary)
    if summary.extracted or not (out / "run.json").is_file():
        # A run that found everything done says nothing of how it was made.
        write_json(out / "run.json", {"versions": versions(), "device": device, "summary": summary.to_dict()})
    manifest.write_csv(out / "manifest.csv")
    if config["export"] is not None:
        export_npz(FeatureStore(out), Path(config["export"]))
        log.info("exported to %s", config["export"])
    return summary
