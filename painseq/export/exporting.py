"""`export`: write a fitted model as a folder that `painseq.runtime` reads without torch."""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from painseq import __version__
from painseq.data.streams import SHORT_NAMES
from painseq.download import sha256_of
from painseq.errors import PainseqError
from painseq.export.engine import Engine, planned, with_engine
from painseq.export.faces import exported_face
from painseq.export.graphs import GraphName, graphs_of
from painseq.export.int8 import Int8, OpenVino
from painseq.faces import Locator
from painseq.files import folder_replacing
from painseq.model import PainModel, load
from painseq.model.averaging import AveragedModel
from painseq.model.checkpoint import write_checkpoint
from painseq.runs import OnProgress, no_progress
from painseq.runtime.folder import (
    EXTRACTOR,
    HEAD,
    HEAD_STEP,
    MODEL,
    ExportedRecord,
    FileRecord,
    HeadRecord,
    SourceRecord,
    StateRecord,
    measured_files,
)
from painseq.spec import Spec

FILES: dict[GraphName, str] = {"extractor": EXTRACTOR, "head": HEAD, "head_step": HEAD_STEP}
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


def export(
    model: PainModel | str | Path,
    out: str | Path,
    locator: Locator | None = None,
    prior: Mapping[str, float] | None = None,
    trust: Sequence[str] = (),
    on_progress: OnProgress = no_progress,
    extractor: Int8 | OpenVino | None = None,
) -> ExportedRecord:
    """Write a model as ONNX graphs and `model.json`, with the files of its face locator.

    Each graph is written by a process of its own and compared with torch at other numbers of clips and frames. The
    folder appears only when it is complete.

    Args:
        model: a fitted model, or the path of its checkpoint. What `with_prior` and `without_threshold` changed is
            exported.
        out: the folder, which must not exist yet, or be empty.
        locator: finds the face instead of the model's own locator.
        prior: mix of classes to correct the probabilities for; see `PainModel.with_prior`.
        trust: other packages whose heads or extractors may be built from the checkpoint.
        on_progress: called with the number of steps done, their total, and what is counted: graphs, and for int8
            calibration and validation clips.
        extractor: runs the extractor in int8, or by OpenVINO; None: by onnxruntime in fp32.

    Returns:
        What `model.json` holds.

    Raises:
        PainseqError: a package is missing; the folder is not empty; the model is an average of several, takes a stream
            that comes from a store, or finds faces in a way that needs torch; a graph differs from torch; int8 changes
            more than accepted, cannot be measured, or the model has no extractor.

    Example:
        >>> export("runs/lstm/best.ckpt", "exported/lstm")
    """
    _check_packages()
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PainseqError(f"{out} exists and is not empty. Choose a folder that does not exist yet.")
    loaded = _loaded(model, prior, trust)
    plan = planned(loaded, extractor)
    with TemporaryDirectory(prefix="painseq-") as place, folder_replacing(out) as folder:
        face, names = exported_face(loaded, locator, folder)
        checkpoint = Path(place) / "unsaved.ckpt"
        write_checkpoint(checkpoint, loaded.record, loaded.head, loaded.extractor)
        _write_graphs(loaded, checkpoint, folder, trust, on_progress)
        engine = with_engine(loaded, plan, folder, on_progress)
        others = [FILES[name] for name in graphs_of(loaded) if name != "extractor"]
        files = measured_files(folder, (*(engine.files if engine else ()), *others, *names))
        path = checkpoint if isinstance(model, PainModel) else Path(model)
        record = _record(loaded, face, files, SourceRecord(path.name, sha256_of(path)), engine)
        record.write(folder)
    return record


def _loaded(model: PainModel | str | Path, prior: Mapping[str, float] | None, trust: Sequence[str]) -> PainModel:
    if not isinstance(model, PainModel):
        if (Path(model) / MODEL).is_file():
            raise PainseqError(f"{model} is an exported model already. Give the checkpoint that it was exported from.")
        model = load(model, trust)
    model = model if prior is None else model.with_prior(prior)
    _check_model(model)
    return model


def _record(
    model: PainModel, face: Spec | None, files: Mapping[str, FileRecord], source: SourceRecord, engine: Engine | None
) -> ExportedRecord:
    head = model.head
    state = head.first_state(1) if head.steps else None
    return ExportedRecord(
        record=model.record,
        face=face,
        files=files,
        extractor=None if engine is None else engine.record,
        head=HeadRecord(head.level, head.max_frames, tuple(head.in_shape)),
        step=None if state is None else StateRecord({name: tuple(value.shape[1:]) for name, value in state.items()}),
        source=source,
        int8=None if engine is None else engine.int8,
        prior=model.prior,
        versions={
            "painseq": __version__,
            **{name: importlib.metadata.version(name) for name in PACKAGES},
            **({} if engine is None else engine.versions),
        },
    )


def _check_packages() -> None:
    missing = []
    for name in PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise PainseqError(
            f"Export needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            'pip install "painseq[export]".'
        )


def _check_model(model: PainModel) -> None:
    if isinstance(model, AveragedModel):
        raise PainseqError(
            "An average of several models cannot be exported. Export each checkpoint by itself, and average the "
            "probabilities that the exported models give."
        )
    others = [name for name in model.streams if name not in SHORT_NAMES]
    if others:
        raise PainseqError(
            f"This model takes the stream {others[0]!r}, which comes from a feature store and not from a video, so it "
            "cannot be exported. Fit a model on streams that can be read from a video."
        )


def _write_graphs(
    model: PainModel, checkpoint: Path, folder: Path, trust: Sequence[str], on_progress: OnProgress
) -> None:
    # Imported here, as the exporter needs packages that `_check_packages` looks for.
    from painseq.export.graph_process import Job, run

    files = {name: str(folder / FILES[name]) for name in graphs_of(model)}
    done = itertools.count(1)
    on_progress(0, len(files), "graphs")
    run(
        Job(str(checkpoint), files, model.prior, list(trust)),
        lambda: on_progress(next(done), len(files), "graphs"),
    )
