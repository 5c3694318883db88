"""Checkpoint files: what they hold, and `load`, which makes a model of one without running code in it."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from painseq.errors import PainseqError
from painseq.extractors import rebuild
from painseq.faces import FaceCrops
from painseq.heads import Head
from painseq.model.pain_model import PainModel, names_of
from painseq.spec import Spec, build

FORMAT = 2
RECORD = (
    "class_names", "head", "loss", "in_shape", "extractor", "face", "sampling", "streams", "baseline_clips",
    "train_prior", "fitted_on", "extractor_trained_on",
)  # fmt: skip
"""What a checkpoint's specification has to tell."""


def load(path: str | Path, trust: Sequence[str] = (), device: str = "cpu") -> PainModel:
    """Load a checkpoint that `painseq fit` wrote.

    Nothing in the file runs code: it is read with `weights_only=True`, and only classes of painseq are built.

    Args:
        path: the `.ckpt`.
        trust: other packages whose heads or extractors may be built; importing them runs their code.
        device: where to put the weights.

    Raises:
        PainseqError: no such file, not a painseq checkpoint, or a class outside the trusted packages.
    """
    path = Path(path)
    content = read_checkpoint(path)
    record = content.record
    head = build(_listed_as_tuples(record["head"], path), Head, trust)
    _restore(head, content.state, path)
    extractor = None
    if isinstance(record["extractor"], Mapping):
        extractor = rebuild(record["extractor"], content.extractor, names_of(record["extractor_trained_on"]), trust)
        if extractor.fingerprint() != record["extractor"].get("fingerprint"):
            raise PainseqError(f"{path}: its extractor's weights are not those that it was fitted with.")
    face = FaceCrops.from_spec(record["face"], trust) if isinstance(record["face"], Mapping) else None
    return PainModel(record, head, extractor, face).to(device)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds of painseq.

    Args:
        record: the plain-dict specification.
        state: the model's tensors, those of the head under "head.".
        extractor: the extractor's tensors; None where its weights are public, or not known.
    """

    record: Spec
    state: dict[str, Tensor]
    extractor: dict[str, Tensor] | None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running code in it, and without building anything.

    Raises:
        PainseqError: no such file, not a painseq checkpoint, or a damaged one.
    """
    if not path.is_file():
        raise PainseqError(f"No checkpoint at {path}. `painseq fit` writes best.ckpt into its run folder.")
    if not zipfile.is_zipfile(path):
        raise PainseqError(f"{path} is not a checkpoint, or it is cut short: it is not a file that torch wrote.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PainseqError(f"{path} cannot be read as a checkpoint without running code in it: {reason}") from error
    record = content.get("painseq") if isinstance(content, dict) else None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else None
        raise PainseqError(
            f"{path} is not a checkpoint of this painseq: its specification has format {found}, not {FORMAT}. A model "
            "of another version is read by that version; fit it anew to use it here."
        )
    missing = [key for key in RECORD if key not in record]
    if missing or "state_dict" not in content:
        raise PainseqError(f"{path} is damaged: it lacks {', '.join(missing) or 'the weights'}.")
    state, extractor = content["state_dict"], content.get("extractor")
    if not isinstance(state, dict) or not isinstance(extractor, dict | None):
        raise PainseqError(f"{path} is damaged: its weights are not named tensors.")
    return Checkpoint(record, state, extractor)


def _restore(head: Head, state: dict[str, Tensor], path: Path) -> None:
    own = {key.removeprefix("head."): value for key, value in state.items() if key.startswith("head.")}
    try:
        head.load_state_dict(own, strict=True)
    except RuntimeError as error:
        raise PainseqError(f"{path} is damaged or of another version: {error}") from error


def _listed_as_tuples(spec: object, path: Path) -> Spec:
    """JSON-like lists of a head's arguments as the tuples that they were."""
    init_args = spec.get("init_args") if isinstance(spec, Mapping) else None
    if not isinstance(spec, Mapping) or not isinstance(init_args, Mapping):
        raise PainseqError(f"{path} is damaged: its specification lacks the head.")
    return {
        "class_path": spec.get("class_path"),
        "init_args": {key: tuple(value) if isinstance(value, list) else value for key, value in init_args.items()},
    }
