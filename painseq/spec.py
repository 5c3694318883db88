"""Specifications of heads, extractors and locators as plain dicts, as checkpoints and stores record them.

The convention is scikit-learn's: an argument `hidden` of `__init__` is kept as `self.hidden`. An object can therefore
be described in plain values, without pickle, and rebuilt elsewhere.

Classes are named by their public path (`painseq.heads.LSTM`), so that files can move.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from painseq.errors import PainseqError, UntrustedClass

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
"""Public path of a class -> the name that digests use for it, which never changes.

Stores, tracks and weights written before paths were public contain these names, and their fingerprints depend on them.
For a class that is not listed, digests use its public path.
"""
_PUBLIC_NAMES = {hashed: public for public, hashed in HASHED_NAMES.items()}

BUILDABLE = ("painseq.data", "painseq.data.streams", "painseq.extractors", "painseq.faces", "painseq.heads")
"""The packages whose exported classes a file may name. Importing any other module of painseq might do something."""

_REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a constructor raises when the arguments in a file do not suit it."""


def plain(value: object) -> object:
    """Convert to plain data for JSON: paths to text, sequences to lists, other objects to their `spec_of`."""
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
    """Return the path that users import a class by: `painseq.<package>.<Name>` if exported there, else its module's."""
    package = ".".join(cls.__module__.split(".")[:2])
    if package.startswith("painseq.") and getattr(sys.modules.get(package), cls.__qualname__, None) is cls:
        return f"{package}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def with_public_paths(spec: Mapping[str, object]) -> Spec:
    """Rename the classes in a specification, at any depth, to their public paths."""
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
    """Describe an object as `{"class_path": ..., "init_args": {...}}`.

    Raises:
        PainseqError: an argument of `__init__` is not kept as an attribute of the same name, or the class cannot be
            imported by its name, as one that is defined within a function.
    """
    cls = type(obj)
    if getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is not cls:
        raise PainseqError(
            f"{cls.__module__}.{cls.__qualname__} cannot be imported by this name, so it could not be built from a "
            "checkpoint. Define the class at the top level of a module."
        )
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


def spec_of_factory(factory: Callable[..., object]) -> Spec:
    """Describe a factory, a class or a partial of one, as `{"class_path": ..., "init_args": {...}}`.

    Other functions are described by their name only.
    """
    init_args: Mapping[str, object] = {}
    if isinstance(factory, partial):
        init_args = factory.keywords
        # jsonargparse's partials wrap an internal function, and have the class among their arguments.
        found = next((item for item in (factory.func, *factory.args) if isinstance(item, type)), factory.func)
        factory = found
    if isinstance(factory, type):
        return {"class_path": public_path(factory), "init_args": plain(init_args)}
    name = getattr(factory, "__qualname__", type(factory).__qualname__)
    return {"class_path": f"{factory.__module__}.{name}", "init_args": plain(init_args)}


def is_default(factory: Callable[..., object], default: type) -> bool:
    """Whether a factory is equivalent to the class without arguments; explicit default arguments are allowed."""
    spec = spec_of_factory(factory)
    init_args, parameters = spec["init_args"], inspect.signature(default).parameters
    assert isinstance(init_args, dict)
    return spec["class_path"] == public_path(default) and all(
        name in parameters and value == plain(parameters[name].default) for name, value in init_args.items()
    )


def build(spec: Mapping[str, object], expected: type[T], trust: Sequence[str] = ()) -> T:
    """Build the object that `spec` describes, if it is an `expected` of painseq or of a package in `trust`.

    Importing a module runs its code. A specification from elsewhere may therefore name classes of painseq only,
    unless the caller trusts another package.

    Raises:
        UntrustedClass: the class is outside the trusted packages.
        PainseqError: it cannot be found, is not an `expected`, is a class of painseq outside `BUILDABLE`, or does not
            accept the arguments.
    """
    class_path, init_args = spec.get("class_path"), spec.get("init_args", {})
    if not isinstance(class_path, str) or "." not in class_path or not isinstance(init_args, Mapping):
        raise PainseqError(f"Not a specification of a class: {dict(spec)!r}.")
    class_path = _PUBLIC_NAMES.get(class_path, class_path)
    module_name, _, name = class_path.rpartition(".")
    package = module_name.partition(".")[0]
    if package == "painseq":
        if module_name not in BUILDABLE:
            raise PainseqError(
                f"{class_path} is not a {expected.__name__}: a file may only name classes of {', '.join(BUILDABLE)}."
            )
    elif package not in trust:
        raise UntrustedClass(
            f"The file names {class_path}, which is not part of painseq; building it would run that package's "
            f"code. If you trust the package, set trust=[{package!r}] (command line: --trust {package})."
        )
    try:
        cls = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise PainseqError(f"{class_path} cannot be imported: {error}.") from error
    if not (isinstance(cls, type) and issubclass(cls, expected)):
        raise PainseqError(f"{class_path} is not a {expected.__name__}.")
    try:
        return cls(**init_args)
    except _REFUSALS as error:
        raise PainseqError(f"{class_path} does not accept these arguments: {error!r}.") from error


def names_weights(spec: object) -> bool:
    """Whether the specification of an extractor names a source of weights; without one they are random, or none."""
    init_args = spec.get("init_args") if isinstance(spec, Mapping) else None
    return isinstance(init_args, Mapping) and init_args.get("weights") is not None


def digest(value: object) -> str:
    """Return a short stable digest of plain data: 16 hex digits of sha256 over sorted JSON, see `HASHED_NAMES`."""
    text = json.dumps(_renamed(value, HASHED_NAMES), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def difference(a: Mapping[str, object], b: Mapping[str, object], prefix: str = "") -> list[str]:
    """List the keys at which two specifications differ, as `key: value of a, not value of b` lines.

    Old and public paths of the same class count as equal.
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
