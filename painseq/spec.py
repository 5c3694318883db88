"""Plain-dict specifications of heads, extractors and locators: what a checkpoint and a store record.

The convention is scikit-learn's: an argument `hidden` of `__init__` is kept as `self.hidden`. So an object can
tell how it was built, in plain values that need no pickle, and be built again elsewhere.

A class is named by its public path (`painseq.heads.LSTM`), so that files can move.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from painseq.errors import PainseqError

T = TypeVar("T")
Spec = dict[str, object]

HASHED_NAMES = {
    "painseq.extractors.Pixels": "painseq.extractors.pixels.Pixels",
    "painseq.extractors.TimmBackbone": "painseq.extractors.timm_backbone.TimmBackbone",
    "painseq.extractors.VGG16": "painseq.extractors.vgg16.VGG16",
    "painseq.faces.FaceAlignment": "painseq.faces.face_alignment.FaceAlignment",
    "painseq.faces.FaceCrops": "painseq.faces.crops.FaceCrops",
    "painseq.faces.FullFrame": "painseq.faces.full_frame.FullFrame",
    "painseq.faces.Sidecar": "painseq.faces.sidecar.Sidecar",
    "painseq.faces.YuNet": "painseq.faces.yunet.YuNet",
}
"""Public path of a class -> the name that digests count it by, which never changes.

Stores, tracks and weights written before paths were public hold these names, and fingerprints were made of them. A
class that is not here counts by its public path.
"""
_PUBLIC_NAMES = {hashed: public for public, hashed in HASHED_NAMES.items()}


def plain(value: object) -> object:
    """Plain data for JSON: paths as text, sequences as lists, objects that keep their arguments as `spec_of`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return spec_of(value)


def public_path(cls: type) -> str:
    """The name that users import a class by: `painseq.<room>.<Name>` where the room exports it, else its module's."""
    room = ".".join(cls.__module__.split(".")[:2])
    if room.startswith("painseq.") and getattr(sys.modules.get(room), cls.__qualname__, None) is cls:
        return f"{room}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def with_public_paths(spec: Mapping[str, object]) -> Spec:
    """A specification read from a file, its classes named by their public paths, however deep they stand in it."""
    renamed = _renamed(spec, _PUBLIC_NAMES)
    assert isinstance(renamed, dict)
    return renamed


def _renamed(value: object, names: Mapping[str, str]) -> object:
    if isinstance(value, Mapping):
        return {
            key: names.get(item, item) if key == "class_path" and isinstance(item, str) else _renamed(item, names)
            for key, item in value.items()
        }
    return [_renamed(item, names) for item in value] if isinstance(value, list | tuple) else value


def spec_of(obj: object) -> Spec:
    """`{"class_path": ..., "init_args": {...}}` of an object that keeps its arguments under their names.

    Raises:
        PainseqError: an argument of `__init__` is not kept as an attribute of the same name.
    """
    cls = type(obj)
    init_args: dict[str, object] = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(obj, name):
            raise PainseqError(
                f"{cls.__name__} does not keep its argument {name!r} as self.{name}, so it cannot be recorded "
                "in a checkpoint. Keep each argument of __init__ under its own name."
            )
        init_args[name] = plain(getattr(obj, name))
    return {"class_path": public_path(cls), "init_args": init_args}


def build(spec: Mapping[str, object], expected: type[T], trust: Sequence[str] = ()) -> T:
    """Build the object that `spec` describes, if it is an `expected` of painseq or of a package in `trust`.

    Importing a module runs its code, so a specification that came from elsewhere may only name classes of
    painseq itself, unless the caller names the other package.

    Raises:
        PainseqError: a class outside the trusted packages, one that cannot be found, or not an `expected`.
    """
    class_path, init_args = spec.get("class_path"), spec.get("init_args", {})
    if not isinstance(class_path, str) or "." not in class_path or not isinstance(init_args, Mapping):
        raise PainseqError(f"Not a specification of a class: {dict(spec)!r}.")
    class_path = _PUBLIC_NAMES.get(class_path, class_path)
    module_name, _, name = class_path.rpartition(".")
    package = module_name.partition(".")[0]
    if package not in ("painseq", *trust):
        raise PainseqError(
            f"The file names {class_path}, which is not part of painseq; building it would run that package's "
            f"code. If you trust it, say so: trust=[{package!r}] (command line: --trust {package})."
        )
    try:
        cls = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise PainseqError(f"{class_path} cannot be imported: {error}.") from error
    if not (isinstance(cls, type) and issubclass(cls, expected)):
        raise PainseqError(f"{class_path} is not a {expected.__name__}.")
    try:
        return cls(**init_args)
    except TypeError as error:
        raise PainseqError(f"{class_path} does not take these arguments: {error}.") from error


def digest(value: object) -> str:
    """A short stable digest of plain data (16 hex digits of sha256 over sorted JSON); classes by `HASHED_NAMES`."""
    text = json.dumps(_renamed(value, HASHED_NAMES), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def difference(a: Mapping[str, object], b: Mapping[str, object], prefix: str = "") -> list[str]:
    """The keys at which two specifications differ, as `key: value of a, not value of b` lines.

    The names that a class had before paths were public are no difference.
    """
    a, b = with_public_paths(a), with_public_paths(b)
    lines: list[str] = []
    for key in sorted({*a, *b}):
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            lines += difference(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(f"{prefix}{key}: {left!r}, not {right!r}")
    return lines
