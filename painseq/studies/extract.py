"""Extraction of a data set's features: videos through face crops and an extractor into a feature store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.extractors import Extractor
from painseq.faces import FaceCrops
from painseq.features import ExtractOptions, ExtractProgress, ExtractSummary, FeatureStore, export_npz, extract
from painseq.files import write_json
from painseq.records import PARTS, Manifest, Part
from painseq.runs import Process, versions
from painseq.spec import difference

log = logging.getLogger("painseq")


def extract_data_set(
    data: PainDataModule,
    extractor: Extractor,
    out: str | Path,
    options: ExtractOptions | None = None,
    parts: Sequence[Part] = (),
    export: str | Path | None = None,
    on_progress: Callable[[ExtractProgress], None] | None = None,
) -> ExtractSummary:
    """Extract the clips of a data set into a feature store, or complete an existing one.

    Besides the files of `painseq.features.extract`, `out` gets `run.json` (versions, device, summary) and
    `manifest.csv` (the clips).

    Args:
        data: data with the clips, their face crop (`options.face`) and frame rate (`options.fps`).
        parts: only the clips of these parts; empty: all clips.
        export: folder for one .npz per clip, for other tools; None: no export.

    Raises:
        PainseqError: no face crop; `export` with several processes; a store with other settings; no face in any frame.

    Example:
        >>> from painseq.extractors import VGG16
        >>> from painseq.studies.extract import extract_data_set
        >>> extract_data_set(data, VGG16(weights="vgg16.pth", fc=True), Path("stores/ai4pain"))
    """
    out = Path(out)
    export = None if export is None else Path(export)
    options = options or ExtractOptions()
    face, process = data.options.face, options.process
    if face is None:
        raise PainseqError("Features of videos need a face crop. Add `face` to the data options.")
    if export is not None and process.count > 1:
        raise PainseqError("export needs the whole store. Rerun with export and one process.")
    manifest = clips_of_parts(data, parts)
    _warn_of_other_crops(extractor, face)
    _warn_of_other_input(extractor)
    log.info(
        "%s: %s on %s, %s",
        data.name,
        type(extractor).__name__,
        options.device,
        describe_work(manifest, face, out, process),
    )
    summary = extract(manifest, face, extractor, data.options.fps, out, options, on_progress)
    log.info("%s", summary)
    _warn_of_unused_tracks(face, summary, data.options.fps)
    record = out / ("run.json" if process.rank == 0 else f"run-{process.rank:03d}.json")
    if summary.extracted or not record.is_file():
        # A run that found everything finished does not know how it was made.
        write_json(record, {"versions": versions(), "device": options.device, "summary": summary.to_dict()})
    if process.rank == 0:
        manifest.write_csv(out / "manifest.csv")
    if export is not None:
        export_npz(FeatureStore(out), export)
    return summary


def clips_of_parts(data: PainDataModule, parts: Sequence[str]) -> Manifest:
    """Return the clips of some parts of a data set; without parts, all clips.

    Raises:
        PainseqError: an unknown part.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise PainseqError(f"parts names {unknown[0]!r}; parts are {', '.join(PARTS)}.")
    if not parts:
        return data.manifest
    return data.manifest.only(clip for part in PARTS if part in parts for clip in data.split.clips(data.manifest, part))


def describe_work(manifest: Manifest, face: FaceCrops, out: Path, process: Process) -> str:
    """Describe for the log which clips a process reads, and where the results go."""
    share = f"; process {process.rank} of {process.count}" if process.count > 1 else ""
    locator = type(face.locator).__name__
    return f"{len(manifest)} clips of {len(manifest.subjects)} subjects; locator {locator}; into {out}{share}"


def _warn_of_unused_tracks(face: FaceCrops, summary: ExtractSummary, fps: float | None) -> None:
    """Warn if faces were looked for although a folder of tracks is given."""
    if face.tracks is not None and face.locator.needs_pixels and summary.extracted and not summary.reused_tracks:
        log.warning(
            "No clip has a track in %s, so faces were detected again. A track belongs to a video, a span and a frame "
            "rate: create the tracks with the same configuration (here fps %s).",
            face.tracks,
            "null" if fps is None else f"{fps:g}",
        )


def _warn_of_other_crops(extractor: Extractor, face: FaceCrops) -> None:
    """Warn if the network was trained on differently cropped faces."""
    trained = (extractor.card or {}).get("face")
    identity = trained.get("identity") if isinstance(trained, dict) else None
    if isinstance(identity, dict) and (lines := difference(identity, face.identity())):
        log.warning(
            "%s was trained on differently cropped faces, so its features of these crops may be worse. The first value "
            "is that of training, the second that of these crops:\n  %s",
            type(extractor).__name__,
            "\n  ".join(lines),
        )


def _warn_of_other_input(extractor: Extractor) -> None:
    """Warn if a trained network gets other pictures than timm's configuration of it states."""
    fed = extractor.input_record()
    stated = fed.get("timm")
    # Weights with a card were trained by painseq, on pictures as they are fed here.
    if not isinstance(stated, dict) or getattr(extractor, "weights", None) is None or extractor.card is not None:
        return
    # The crop share is about whole pictures: a crop of a face has no border to cut off.
    names = [name for name in stated if name in fed]
    lines = difference({name: fed[name] for name in names}, {name: stated[name] for name in names})
    if lines:
        log.warning(
            "%s: timm states another input for %s, so its features may be worse. The first value is the one used, the "
            "second timm's; store.json records both:\n  %s",
            type(extractor).__name__,
            getattr(extractor, "model", "this network"),
            "\n  ".join(lines),
        )
