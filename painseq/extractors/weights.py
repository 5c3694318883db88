"""Read weights from files and addresses, with strict checks, and write them."""

from __future__ import annotations

import json
import logging
import pickle
import re
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeGuard
from urllib.parse import urlsplit

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from painseq.errors import PainseqError, first_few
from painseq.extractors.extractor import Extractor
from painseq.files import parse_json, write_atomically
from painseq.records import read_people
from painseq.spec import Spec, build, names_weights

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".h5", ".keras")
STATE_KEYS = ("state_dict", "model", "model_state_dict")
"""Where training scripts put the network in their files."""
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of names that DataParallel and torch.compile add."""
TORCH_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
"""What torch.load raises for a damaged file."""
log = logging.getLogger("painseq")


def _address(source: str) -> tuple[str, str] | None:
    """Split a "https://...#sha256=..." source into (url, sha256); None for a path."""
    if "://" not in source:
        return None
    url, _, fragment = source.partition("#")
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if not url.startswith("https://") or match is None:
        raise PainseqError(
            f"Weights {source!r}: an address must be https and include the digest of the file: append '#sha256=' and "
            "the 64 hex digits of its sha256 (sha256sum FILE)."
        )
    return url, match.group(1).lower()


def is_public(source: str) -> bool:
    """Whether the source is an https address with sha256, from which the same file can be downloaded again."""
    return source.startswith("https://") and _address(source) is not None


def read_weights(source: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read weights: the tensors by name, and the file's metadata.

    Args:
        source: path of a .safetensors, .pth or .pt (plain tensors only: nothing in the file is executed) or
            Keras .h5 or .keras file; or "https://...#sha256=<64 hex digits>", downloaded once into the cache.

    Raises:
        PainseqError: no such file, an address without sha256, or a file that is unreadable or would run code.
    """
    address = _address(source)
    if address is None:
        path, name = Path(source).expanduser(), source
        if not path.is_file():
            raise PainseqError(
                f"No weights file at {path}. Put it there, or name another one (for an extractor: "
                "--model.extractor.init_args.weights FILE). docs/biovid_to_ai4pain.md explains how to get VGG16's "
                "ImageNet weights."
            )
    else:
        from painseq.download import fetch

        path, name = fetch(*address), urlsplit(address[0]).path
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".safetensors":
        return _read_safetensors(path)
    if suffix in (".pth", ".pt", ".bin"):
        return _read_torch(path), {}
    if suffix in (".h5", ".keras"):
        from painseq.extractors.keras_import import read_keras

        return read_keras(path), {}
    raise PainseqError(f"Weights {source!r}: the name must end in one of {', '.join(SUFFIXES)}.")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise PainseqError(f"{path} is not a readable safetensors file: {error}.") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        check_stored(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PainseqError(
            f"{path} holds more than tensors, or is not a PyTorch file; reading it would run its code, which painseq "
            "refuses. Save only the state_dict, preferably as .safetensors."
        ) from error
    except TORCH_ERRORS as error:
        raise PainseqError(f"{path} is not a readable PyTorch file: {error}.") from error
    return _without_wrappers(path, content)


def check_stored(path: Path) -> None:
    """Raise a ValueError if a zip archive holds compressed entries; torch writes none, so that none can be a bomb."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed, which torch.save never does")


def are_tensors(value: object) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether a value from a file maps names to tensors."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    )


def _without_wrappers(path: Path, content: object) -> dict[str, Tensor]:
    """Find the state_dict in a file, and remove the prefixes of modules that wrap the network."""
    found, under = content, ""
    if not are_tensors(content):
        named = {key: value for key, value in content.items() if value} if isinstance(content, Mapping) else {}
        inner = [key for key, value in named.items() if isinstance(key, str) and are_tensors(value)]
        # A trainer's checkpoint also has tensors of its optimizer, or averaged weights.
        known = [key for key in inner if key in STATE_KEYS] or inner
        if len(known) > 1:
            raise PainseqError(
                f"{path} holds several networks: {', '.join(map(repr, known))}. Save the state_dict of one of them "
                "alone, preferably as .safetensors."
            )
        if not known:
            raise PainseqError(
                f"{path} holds no state_dict (names to tensors), neither directly nor under {' or '.join(STATE_KEYS)}."
            )
        found, under = named[known[0]], known[0]
    assert are_tensors(found)
    tensors, removed = dict(found), ""
    while prefix := next((p for p in WRAPPERS if tensors and all(name.startswith(p) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        removed += prefix
    if under or removed:
        log.info(
            "%s: reading the tensors%s%s.",
            path,
            f" under {under!r}" if under else "",
            f", without the prefix {removed!r} of their names" if removed else "",
        )
    return tensors


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], new: Sequence[str], drop: Sequence[str]) -> str:
    """Copy tensors into a module; names and shapes must match exactly.

    Args:
        module: the module to load into.
        tensors: the weights, by name.
        new: prefixes of the module's names that keep their random weights.
        drop: prefixes of tensors that the module does not have (a classifier) and that may be ignored.

    Returns:
        A summary such as "26 tensors (float16 converted to float32); left out: ...".

    Raises:
        PainseqError: a tensor is missing, unexpected, or has another shape.
    """

    def has_prefix(name: str, prefixes: Sequence[str]) -> bool:
        return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)

    own = module.state_dict()
    wanted = {name for name in own if not has_prefix(name, new)}
    dropped = sorted(name for name in tensors if name not in own and has_prefix(name, drop))
    # A file may contain tensors of a block that starts from random weights: ignore and report them like a classifier.
    dropped += sorted(name for name in tensors if name in own and name not in wanted)
    missing = sorted(wanted - tensors.keys())
    unexpected = sorted(tensors.keys() - wanted - set(dropped))
    if missing or unexpected:
        raise PainseqError(
            f"The weights do not fit {type(module).__name__}. Missing: {_some(missing)}. Unexpected: "
            f"{_some(unexpected)}. {_prefix_hint(tensors, wanted)}Name blocks that should start from random weights: "
            "new=[...]."
        )
    for name in sorted(wanted):
        if own[name].shape != tensors[name].shape:
            raise PainseqError(
                f"The weights do not fit {type(module).__name__}: {name} has shape {tuple(tensors[name].shape)} "
                f"in the file and {tuple(own[name].shape)} in the network."
            )
    with torch.no_grad():
        for name in wanted:
            own[name].copy_(tensors[name])
    converted = sorted(
        {f"{_dtype(tensors[name])} converted to {_dtype(own[name])}" for name in wanted}
        - {f"{_dtype(own[name])} converted to {_dtype(own[name])}" for name in wanted}
    )
    text = f"{len(wanted)} tensors" + (f" ({', '.join(converted)})" if converted else "")
    new_names = sorted(own.keys() - wanted)
    if new_names:
        text += f"; new, from random weights: {_some(new_names)}"
    if dropped:
        text += f"; left out: {_some(dropped)}"
    return text


def _prefix_hint(tensors: Mapping[str, Tensor], wanted: Collection[str]) -> str:
    """Name the prefix whose removal from the file's names would give every name that is wanted; else empty."""
    first = min(wanted, default="")
    for name in tensors:
        prefix = name.removesuffix(first)
        if first and prefix not in ("", name) and all(f"{prefix}{other}" in tensors for other in wanted):
            return f"They would fit without the prefix {prefix!r} of their names: remove it and save the file again. "
    return ""


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _some(names: Sequence[str]) -> str:
    return first_few(names, most=4) or "none"


def load_weights(extractor: Extractor, source: str, new: Sequence[str] = (), drop: Sequence[str] = ()) -> None:
    """Read `source` into the extractor's network, and record what was loaded, its subjects, and its card.

    Only safetensors files can list the subjects they were trained on; `loaded` reports when this is missing.

    Args:
        extractor: the extractor to load into.
        source: path or address, see `read_weights`.
        new: blocks (`extractor.block_names()`) that keep their random weights.
        drop: prefixes of names in the file that may be ignored; `loaded` reports them.

    Raises:
        PainseqError: see `read_weights` and `load_into`; an unknown block in `new`.
    """
    extractor.check_blocks(new)
    tensors, metadata = read_weights(source)
    own = extractor.network.state_dict()
    new_names = [name for name in own if any(extractor.in_block(name, block) for block in new)]
    try:
        text = load_into(extractor.network, tensors, new_names, drop)
    except PainseqError as error:
        raise PainseqError(f"{source}: {error}") from error
    _check_preprocessing(extractor, metadata, source)
    extractor.trained_on = trained_on_of(metadata, source)
    extractor.card = card_of(metadata, source)
    extractor.people_known = people_known_of(metadata, source)
    trained_on_note = "" if extractor.people_known else " The file does not list the subjects it was trained on."
    extractor.loaded = f"Loaded {text}; from {source}.{trained_on_note}"
    extractor.published_as = extractor.fingerprint() if is_public(source) and not new_names else None
    log.info("%s: %s", type(extractor).__name__, extractor.loaded)


def _check_preprocessing(extractor: Extractor, metadata: Mapping[str, str], source: str) -> None:
    recorded = _spec_of(metadata, source)
    init_args = recorded.get("init_args", {}) if isinstance(recorded, dict) else {}
    trained_with = init_args.get("preprocessing") if isinstance(init_args, dict) else None
    configured = getattr(extractor, "preprocessing", None)
    if trained_with is not None and trained_with != configured:
        raise PainseqError(
            f"{source} was trained with preprocessing {trained_with!r}, but the extractor has {configured!r}. Set "
            f"preprocessing: {trained_with}."
        )


def _spec_of(metadata: Mapping[str, str], source: str) -> object:
    try:
        return parse_json(metadata.get("spec", "{}"))
    except ValueError as error:
        raise PainseqError(f"{source}: its metadata 'spec' is not JSON: {error}.") from error


def trained_on_of(metadata: Mapping[str, str], source: str) -> tuple[str, ...]:
    """Read the subjects that weights were trained on, as "data set/subject", from metadata; empty if not recorded.

    Raises:
        PainseqError: the metadata are damaged.
    """
    try:
        subjects = parse_json(metadata.get("trained_on", "[]"))
    except ValueError as error:
        raise PainseqError(f"{source}: its metadata 'trained_on' is not JSON: {error}.") from error
    return read_people(subjects, f"{source}: its metadata 'trained_on'")


def people_known_of(metadata: Mapping[str, str], source: str) -> bool:
    """Whether the metadata name everybody that the weights were trained on.

    Raises:
        PainseqError: the metadata are damaged.
    """
    if "people_known" in metadata:
        return metadata["people_known"] == "true"
    # Files without that entry also list nobody if the weights came from a file that did not tell.
    return bool(trained_on_of(metadata, source)) or (
        "trained_on" in metadata and not names_weights(_spec_of(metadata, source))
    )


def card_of(metadata: Mapping[str, str], source: str) -> Spec | None:
    """Read the card of an extractor from the metadata of its weights file; None if there is none.

    Raises:
        PainseqError: the metadata are damaged.
    """
    if "card" not in metadata:
        return None
    try:
        card = parse_json(metadata["card"])
    except ValueError as error:
        raise PainseqError(f"{source}: its metadata 'card' is not JSON: {error}.") from error
    if not isinstance(card, dict):
        raise PainseqError(f"{source}: its metadata 'card' is not a JSON object: {card!r}.")
    return card


def save_weights(extractor: Extractor, path: Path) -> None:
    """Write the network's tensors as safetensors, under the network's own names (torchvision's, timm's).

    Metadata: `trained_on` (JSON list), `people_known` ("true" or "false"), `spec` (JSON), `fingerprint`, and `card`
    (JSON) if the extractor has one. The file is written atomically.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in extractor.network.state_dict().items()}
    metadata = {
        "trained_on": json.dumps(list(extractor.trained_on)),
        "people_known": json.dumps(extractor.people_known),
        "spec": json.dumps(extractor.spec(), sort_keys=True),
        "fingerprint": extractor.fingerprint(),
    }
    if extractor.card is not None:
        metadata["card"] = json.dumps(extractor.card, allow_nan=False)
    write_safetensors(path, tensors, metadata)


def rebuild(
    spec: Mapping[str, object],
    tensors: Mapping[str, Tensor] | None = None,
    trained_on: Sequence[str] = (),
    trust: Sequence[str] = (),
    card: Spec | None = None,
    people_known: bool = True,
) -> Extractor:
    """Rebuild an extractor from its recorded specification, in eval mode.

    Args:
        spec: as returned by `Extractor.spec()`.
        tensors: its weights, named as by `save_weights`. None reads them again from the source in the specification
            (a public address, or random weights by seed). A specification calls no address unasked: the file must be in
            the cache, or its host be allowed; see `painseq.download.fetch`.
        trained_on: subjects that the weights were trained on.
        trust: packages besides painseq whose classes may be built.
        card: how the weights were trained, if known; see `Extractor.card`.
        people_known: whether `trained_on` names everybody.

    Raises:
        PainseqError: the specification cannot be built, its weights are missing, or the tensors do not fit.
    """
    if tensors is None:
        _require_weights(spec)
        extractor = build(spec, Extractor, trust)  # type: ignore[type-abstract, unused-ignore]
    else:
        init_args = spec.get("init_args")
        recorded = dict(init_args) if isinstance(init_args, Mapping) else {}
        # The original source may no longer exist; `tensors` replace it. Its name is kept as a record.
        unloaded = recorded | {key: value for key, value in (("weights", None), ("new", [])) if key in recorded}
        extractor = build({**spec, "init_args": unloaded}, Extractor, trust)
        extractor.loaded = f"Restored {load_into(extractor.network, tensors, new=(), drop=())}."
        for key in unloaded.keys() & {"weights", "new"}:
            setattr(extractor, key, recorded[key])
    extractor.trained_on = tuple(trained_on) or extractor.trained_on
    extractor.people_known = people_known and extractor.people_known
    extractor.card = extractor.card if card is None else card
    return extractor.eval()


def _require_weights(spec: Mapping[str, object]) -> None:
    """Have the weights of a recorded extractor in the cache, if it names any."""
    from painseq.download import fetch

    init_args = spec.get("init_args")
    weights = init_args.get("weights") if isinstance(init_args, Mapping) else None
    if weights is None:
        return
    address = _address(weights) if isinstance(weights, str) else None
    if address is None:
        raise PainseqError(
            f"The extractor's weights are missing. They came from {weights!r}, which only the user may have read: "
            "restore the file from a copy."
        )
    fetch(*address, from_record=True)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically.

    Raises:
        OSError: unchanged from Python, so that callers can recognise a full disk.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(contiguous, dict(metadata)))
