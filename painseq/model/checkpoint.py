"""Write and read checkpoint files; `load` builds a model from one.

Besides Lightning's own entries a file holds `painseq`, the model's record; `state_dict`, the head's tensors under
"head."; and `extractor`, the network's tensors, unless these are published and can be downloaded and verified.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from painseq.errors import PainseqError
from painseq.extractors import Extractor, rebuild
from painseq.extractors.weights import TORCH_ERRORS, are_tensors, check_stored
from painseq.faces import FaceCrops
from painseq.files import write_atomically
from painseq.heads import Head
from painseq.heads.standardised import Standardised
from painseq.model.pain_model import PainModel
from painseq.model.record import ModelRecord
from painseq.records import THE_EXTRACTOR
from painseq.spec import Spec, build

HEAD = "head."
MANY_NUMBERS = 2**20


def load(path: str | Path, trust: Sequence[str] = (), device: str = "cpu") -> PainModel:
    """Load a checkpoint that `painseq fit` wrote.

    No code in the file is run: it is read with `weights_only=True`, and only classes of painseq are built.

    Args:
        path: the `.ckpt`.
        trust: other packages whose heads or extractors may be built; importing them runs their code.
        device: device to load the weights onto.

    Raises:
        PainseqError: the file is missing or not a painseq checkpoint, or names a class outside the trusted packages.
    """
    path = Path(path)
    content = read_checkpoint(path)
    record = content.record
    spec = _with_tuples(record.head, path)
    _check_size(spec, content.head, path, trust)
    head = _head_of(spec, trust)
    if "train" in record.normalise:
        head = Standardised(head)
    try:
        head.load_state_dict(content.head, strict=True)
    except RuntimeError as error:
        raise PainseqError(f"{path} is damaged or was written by another version: {error}") from error
    if (head.in_shape, head.num_classes) != (record.in_shape, record.objective.num_outputs):
        raise PainseqError(
            f"{path} is damaged: its head takes frames of shape {head.in_shape} and has {head.num_classes} outputs, "
            f"its record tells of {record.in_shape} and {record.objective.num_outputs}."
        )
    extractor = None
    if record.extractor is not None:
        extractor = rebuild(
            record.extractor,
            content.extractor,
            record.extractor_trained_on,
            trust,
            people_known=THE_EXTRACTOR not in record.unknown_people,
        )
        if extractor.fingerprint() != record.extractor.get("fingerprint"):
            raise PainseqError(f"{path}: the extractor's weights are not the ones that the model was fitted with.")
    face = None if record.face is None else FaceCrops.from_spec(record.face, trust)
    return PainModel(record, head, extractor, face).to(device)


def contents(record: ModelRecord, head: Head, extractor: Extractor | None) -> dict[str, Any]:
    """Return painseq's entries of a checkpoint, to be added to Lightning's.

    Args:
        record: the model's record; the entry of a trained extractor is updated to its current weights.
        extractor: its weights are left out if they are published and can be downloaded and verified.
    """
    if extractor is not None and extractor.trainable:
        record = replace(record, extractor=extractor.record())
    content: dict[str, Any] = {
        "painseq": record.to_dict(),
        "state_dict": {f"{HEAD}{name}": tensor for name, tensor in head.state_dict().items()},
    }
    if extractor is not None and not extractor.is_published():
        content["extractor"] = dict(extractor.network.state_dict())
    return content


def write_checkpoint(path: Path, record: ModelRecord, head: Head, extractor: Extractor | None) -> None:
    """Write `contents` alone, for a model that Lightning did not fit.

    Raises:
        OSError: the disk is full or the folder is not writable; no partial file is left.
    """
    buffer = io.BytesIO()
    torch.save(contents(record, head, extractor), buffer)
    write_atomically(path, buffer.getbuffer())


def rewrite_record(path: Path, record: ModelRecord) -> None:
    """Replace the record in a checkpoint that `read_checkpoint` reads; all else in the file stays.

    Raises:
        OSError: the disk is full or the folder is not writable; the file stays as it was.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    buffer = io.BytesIO()
    torch.save({**content, "painseq": record.to_dict()}, buffer)
    write_atomically(path, buffer.getbuffer())


def restore_extractor(content: dict[str, Any], extractor: Extractor) -> None:
    """Load an extractor's weights from a checkpoint, and add them to its `state_dict` so that strict loading works."""
    if "extractor" in content:
        extractor.network.load_state_dict(content["extractor"])
    content["state_dict"] |= {f"extractor.{name}": tensor for name, tensor in extractor.state_dict().items()}


@dataclass(frozen=True)
class Checkpoint:
    """painseq's content of a checkpoint file.

    Args:
        record: the model's record.
        head: the head's tensors.
        extractor: the extractor's tensors; None if its weights are published, or unknown.
    """

    record: ModelRecord
    head: dict[str, Tensor]
    extractor: dict[str, Tensor] | None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running code from it, and without building a model.

    Raises:
        PainseqError: the file is missing, damaged, or not a painseq checkpoint.
    """
    if path.is_dir():
        raise PainseqError(
            f"{path} is a folder, and this needs a checkpoint: best.ckpt of a run. An exported model only predicts: "
            "`painseq predict`, or painseq.runtime.load; all else takes the checkpoint that it was exported from."
        )
    if not path.is_file():
        raise PainseqError(f"No checkpoint at {path}. `painseq fit` writes best.ckpt into its run folder.")
    if not zipfile.is_zipfile(path):
        raise PainseqError(f"{path} is not a checkpoint, or is truncated: it is not a file written by torch.")
    try:
        check_stored(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except TORCH_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PainseqError(f"{path} cannot be read as a checkpoint without running code from it: {reason}") from error
    if not isinstance(content, dict):
        raise PainseqError(f"{path} is not a checkpoint: it holds {type(content).__name__}, not a dictionary.")
    try:
        record = ModelRecord.from_dict(content.get("painseq"))
    except PainseqError as error:
        raise PainseqError(f"{path} is {error}") from error
    state, extractor = content.get("state_dict"), content.get("extractor")
    if not are_tensors(state) or not (extractor is None or are_tensors(extractor)):
        raise PainseqError(f"{path} is damaged: the weights are missing or are not named tensors.")
    head = {name.removeprefix(HEAD): tensor for name, tensor in state.items() if name.startswith(HEAD)}
    return Checkpoint(record, head, None if extractor is None else dict(extractor))


def _check_size(spec: Spec, tensors: Mapping[str, Tensor], path: Path, trust: Sequence[str]) -> None:
    """Refuse a head of painseq that is far larger than its weights in the file, before it takes any memory."""
    if not str(spec["class_path"]).startswith("painseq."):
        return  # Other packages' heads may need a real device.
    with torch.device("meta"):
        planned = sum(tensor.numel() for tensor in _head_of(spec, trust).state_dict().values())
    held = sum(tensor.numel() for tensor in tensors.values())
    if planned > 2 * held + MANY_NUMBERS:
        raise PainseqError(f"{path} is damaged: its head would have {planned} weights, but the file holds {held}.")


def _with_tuples(spec: Spec, path: Path) -> Spec:
    """Turn the lists among a head's arguments back into tuples."""
    init_args = spec.get("init_args")
    if not isinstance(init_args, Mapping):
        raise PainseqError(f"{path} is damaged: its record does not say how the head was built.")
    return {"class_path": spec.get("class_path"), "init_args": {key: _tuples(item) for key, item in init_args.items()}}


def _tuples(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _head_of(spec: Spec, trust: Sequence[str]) -> Head:
    """Build a head; the head that another one is built on is under the same trust."""
    init_args = spec["init_args"]
    assert isinstance(init_args, Mapping)
    inner = init_args.get("deep")
    if isinstance(inner, Mapping):
        init_args = {**init_args, "deep": build(inner, Head, trust)}
    return build({**spec, "init_args": init_args}, Head, trust)
