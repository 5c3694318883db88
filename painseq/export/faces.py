"""The face crops of an exported model: their specification, and the files of the locator beside the graphs."""

from __future__ import annotations

import logging
from pathlib import Path

from painseq.errors import PainseqError
from painseq.faces import FaceAlignment, FaceCrops, FaceMesh, FullFrame, Locator, Sidecar, YuNet
from painseq.files import write_atomically
from painseq.model import PainModel
from painseq.spec import Spec, spec_of

NAME_A_LOCATOR = "Name another locator (command line: --locator yunet, or face_mesh for crops by landmarks)."
log = logging.getLogger("painseq")


def exported_face(model: PainModel, locator: Locator | None, folder: Path) -> tuple[Spec | None, tuple[str, ...]]:
    """Copy the files of a model's locator into a folder.

    Args:
        model: its face crops are exported.
        locator: used instead of the model's own; None: the model's own.
        folder: to write to.

    Returns:
        The specification of the face crops, in which files of the locator have their bare names; None for a model that
        reads no videos. And the names of those files.

    Raises:
        PainseqError: the locator needs torch or is of another package, does not suit the model's streams, or a file of
            it is missing.
    """
    if model.face is None:
        log.warning("The model was fitted on features of unknown origin: exported, it takes features, not videos.")
        return None, ()
    face = model.face.with_locator(model.face.locator if locator is None else locator)
    _check(face.locator, model)
    if isinstance(face.locator, Sidecar):
        log.warning(
            "The exported model takes face boxes from a file beside each video, as the model does. To find faces by "
            "itself, it needs another locator (command line: --locator yunet)."
        )
        face = face.with_locator(Sidecar())
    names = {}
    for argument, path in face.locator.model_files().items():
        names[argument] = f"{type(face.locator).__name__.lower()}_{argument}{path.suffix}"
        write_atomically(folder / names[argument], path.read_bytes())
    return _named(face, names), tuple(names.values())


def _check(locator: Locator, model: PainModel) -> None:
    name, own, takes_points = type(locator).__name__, model.face_crops(), "landmarks" in model.streams
    if takes_points and isinstance(own.locator, FaceAlignment) and not isinstance(locator, Sidecar):
        raise PainseqError(
            "The model takes the 68 points of FaceAlignment, which needs torch, and no other locator finds them. Fit "
            "it on landmarks of FaceMesh."
        )
    if locator.needs_torch:
        raise PainseqError(f"The model finds faces by {name}, which needs torch. {NAME_A_LOCATOR}")
    if not str(spec_of(locator)["class_path"]).startswith("painseq."):
        raise PainseqError(f"The locator {name} is of another package: exported models build none. {NAME_A_LOCATOR}")
    if (takes_points or own.kind != "square") and isinstance(locator, YuNet | FullFrame):
        raise PainseqError(
            f"{name} finds no landmarks, which the model's streams or its crops of kind {own.kind} need. Name FaceMesh "
            "(command line: --locator face_mesh)."
        )
    if "movements" in model.streams and not isinstance(locator, FaceMesh):
        raise PainseqError(
            f"The model takes facial movements, which need the points of FaceMesh, but the locator is {name}. Name "
            "FaceMesh (command line: --locator face_mesh)."
        )


def _named(face: FaceCrops, names: dict[str, str]) -> Spec:
    """Return the specification with these arguments of the locator."""
    spec = face.spec()
    args = spec["init_args"]
    assert isinstance(args, dict) and isinstance(args["locator"], dict)
    args["locator"]["init_args"] |= names
    return spec
