"""`painseq extract`: videos into a feature store."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from painseq.cli.experiment import ExperimentCLI, chosen_parts
from painseq.cli.progress import progress_of_clips
from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.extractors import Extractor
from painseq.faces import FaceCrops
from painseq.features import ExtractSummary, FeatureStore, export_npz
from painseq.features import extract as fill_store
from painseq.files import write_json
from painseq.runs import pick_device, this_process, versions
from painseq.spec import difference
from painseq.training.classifier import PainClassifier

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
    process = this_process()
    if config["export"] is not None and process.count > 1:
        raise PainseqError("--export needs the whole store: run `painseq extract --export` again with one process.")
    manifest = chosen_parts(data, config["parts"])
    _warn_of_other_crops(model.extractor, face)
    device, out = pick_device(config["device"], process), Path(config["out"])
    log.info(
        "%s: %d clips of %d subjects; %s on %s; locator %s; into %s%s",
        data.name,
        len(manifest),
        len(manifest.subjects),
        type(model.extractor).__name__,
        device,
        type(face.locator).__name__,
        out,
        f"; process {process.rank} of {process.count}" if process.count > 1 else "",
    )
    with progress_of_clips("extract", shown=process.rank == 0) as bar:
        summary = fill_store(
            manifest,
            face,
            model.extractor,
            data.options.fps,
            out,
            dtype=config["dtype"],
            device=device,
            precision=config["precision"],
            batch_frames=config["batch_frames"],
            workers=config["workers"],
            process=process,
            strict=config["strict"],
            on_progress=bar,
        )
    log.info("%s", summary)
    if face.tracks is not None and face.locator.needs_pixels and summary.extracted and not summary.reused_tracks:
        log.warning(
            "No clip has a track in %s, so faces were looked for again. A track belongs to a video, a span and a frame "
            "rate: give `painseq faces` the same configuration, here --data.options.fps %s.",
            face.tracks,
            "null" if data.options.fps is None else f"{data.options.fps:g}",
        )
    if config["json"]:
        sys.stdout.write(json.dumps(summary.to_dict(), indent=2) + "\n")
    told = out / ("run.json" if process.rank == 0 else f"run-{process.rank:03d}.json")
    if summary.extracted or not told.is_file():
        # A run that found everything done says nothing of how it was made.
        write_json(told, {"versions": versions(), "device": device, "summary": summary.to_dict()})
    if process.rank == 0:
        manifest.write_csv(out / "manifest.csv")
    if config["export"] is not None:
        export_npz(FeatureStore(out), Path(config["export"]))
        log.info("exported to %s", config["export"])
    return summary


def _warn_of_other_crops(extractor: Extractor, face: FaceCrops) -> None:
    """Tell if the network was trained on faces that were cropped otherwise."""
    trained = (extractor.card or {}).get("face")
    identity = trained.get("identity") if isinstance(trained, dict) else None
    if isinstance(identity, dict) and (lines := difference(identity, face.identity())):
        log.warning(
            "%s was trained on faces cropped otherwise, and its features of these crops may be worse. It knows\n  %s\n"
            "where the second value is the one asked for.",
            type(extractor).__name__,
            "\n  ".join(lines),
        )
