"""`export`: write a fitted model as a folder that `painseq.runtime` reads without torch."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from painseq import __version__
from painseq.data.streams import SHORT_NAMES
from painseq.download import sha256_of
from painseq.errors import PainseqError
from painseq.export.faces import exported_face
from painseq.export.graphs import GraphName, graphs_of
from painseq.faces import Locator
from painseq.files import folder_replacing
from painseq.model import PainModel, load
from painseq.model.averaging import AveragedModel
from painseq.model.checkpoint import write_checkpoint
from painseq.runs import OnProgress
from painseq.runtime.folder import (
    EXTRACTOR,
    HEAD,
    HEAD_STEP,
    MODEL,
    ExportedRecord,
    ExtractorRecord,
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
    on_progress: OnProgress | None = None,
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
        on_progress: called with the number of finished graphs, their total, and a note.

    Returns:
        What `model.json` holds.

    Raises:
        PainseqError: a package is missing; the folder is not empty; the model is an average of several, takes a stream
            that comes from a store, or finds faces in a way that needs torch; a graph differs from torch.

    Example:
        >>> export("runs/lstm/best.ckpt", "exported/lstm")
    """
    _check_packages()
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PainseqError(f"{out} exists and is not empty. Choose a folder that does not exist yet.")
    source = None if isinstance(model, PainModel) else Path(model)
    if source is not None and (source / MODEL).is_file():
        raise PainseqError(f"{source} is an exported model already. Give the checkpoint that it was exported from.")
    loaded = model if isinstance(model, PainModel) else load(model, trust)
    loaded = loaded if prior is None else loaded.with_prior(prior)
    _check_model(loaded)
    with TemporaryDirectory(prefix="painseq-") as place, folder_replacing(out) as folder:
        face, names = exported_face(loaded, locator, folder)
        checkpoint = Path(place) / "unsaved.ckpt"
        write_checkpoint(checkpoint, loaded.record, loaded.head, loaded.extractor)
        _write_graphs(loaded, checkpoint, folder, trust, on_progress)
        record = _record(loaded, face, names, source or checkpoint, folder)
        record.write(folder)
    return record


def _record(
    model: PainModel, face: Spec | None, locator_files: Sequence[str], source: Path, folder: Path
) -> ExportedRecord:
    graphs, head = graphs_of(model), model.head
    state = head.first_state(1) if head.steps else None
    return ExportedRecord(
        record=model.record,
        face=face,
        files=measured_files(folder, (*(FILES[name] for name in graphs), *locator_files)),
        extractor=ExtractorRecord("fp32", "onnxruntime") if "extractor" in graphs else None,
        head=HeadRecord(head.level, head.max_frames, tuple(head.in_shape)),
        step=None if state is None else StateRecord({name: tuple(value.shape[1:]) for name, value in state.items()}),
        source=SourceRecord(source.name, sha256_of(source)),
        prior=model.prior,
        versions={"painseq": __version__, **{name: importlib.metadata.version(name) for name in PACKAGES}},
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
    model: PainModel, checkpoint: Path, folder: Path, trust: Sequence[str], on_progress: OnProgress | None
) -> None:
    # Imported here, as the exporter needs packages that `_check_packages` looks for.
    from painseq.export.one_graph import Job, run

    graphs = graphs_of(model)
    for done, name in enumerate(graphs):
        if on_progress is not None:
            on_progress(done, len(graphs), FILES[name])
        run(Job(str(checkpoint), name, str(folder / FILES[name]), model.prior, list(trust)))
    if on_progress is not None:
        on_progress(len(graphs), len(graphs), "")
