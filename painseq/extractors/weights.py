"""Reading weights strictly, from wherever they are, and writing them."""

from __future__ import annotations

import json
import logging
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from painseq.errors import PainseqError
from painseq.extractors.extractor import Extractor
from painseq.files import write_atomically
from painseq.spec import Spec, build

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".h5", ".keras")
log = logging.getLogger("painseq")


def _address(source: str) -> tuple[str, str] | None:
    """(url, sha256) of a "https://...#sha256=..." source; None for a path."""
    if "://" not in source:
        return None
    url, _, fragment = source.partition("#")
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if not url.startswith("https://") or match is None:
        raise PainseqError(
            f"Weights {source!r}: an address must be https and carry the digest of the file, so that it is "
            "known what is loaded: add '#sha256=' and the 64 hex digits of its sha256 (sha256sum FILE)."
        )
    return url, match.group(1).lower()


def is_public(source: str) -> bool:
    """Whether the source is an https address with sha256, which anybody can fetch again unchanged."""
    return source.startswith("https://") and _address(source) is not None


def read_weights(source: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the file's own metadata.

    Args:
        source: path of a .safetensors, .pth or .pt (plain tensors only: nothing in the file is executed) or
            Keras .h5 or .keras file; or "https://...#sha256=<64 hex digits>", fetched once into the cache.

    Raises:
        PainseqError: no such file, an address without sha256, a file that cannot be read or would run code.
    """
    address = _address(source)
    if address is None:
        path, name = Path(source).expanduser(), source
        if not path.is_file():
            raise PainseqError(
                f"No weights file at {path}. Put it there, or name another (an extractor's: "
                "--model.extractor.init_args.weights FILE). README.md tells how to have ImageNet's of VGG16."
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
        raise PainseqError(f"{path} is not a safetensors file that can be read: {error}.") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PainseqError(
            f"{path} holds more than tensors, or is no PyTorch file; reading it would run code from it, which "
            "painseq does not do. Save the state_dict alone, best as .safetensors."
        ) from error
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise PainseqError(f"{path} is not a PyTorch file that can be read: {error}.") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise PainseqError(f"{path} does not hold a state_dict (names to tensors), nor one under 'state_dict'.")
    return dict(content)


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], new: Sequence[str], drop: Sequence[str]) -> str:
    """Copy tensors into a module, every one and no other.

    Args:
        new: prefixes of the module's own names that keep their random start.
        drop: prefixes of tensors without a place in the module (a classifier) that may be left out.

    Returns:
        What was loaded, as a sentence's middle: "26 tensors (float16 converted to float32); left out: ...".

    Raises:
        PainseqError: a tensor is missing, has no place, or has another shape.
    """

    def under(name: str, prefixes: Sequence[str]) -> bool:
        return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)

    own = module.state_dict()
    wanted = {name for name in own if not under(name, new)}
    dropped = sorted(name for name in tensors if name not in own and under(name, drop))
    # A file may hold tensors of a block that is to start anew: they are left out like a classifier, and told.
    dropped += sorted(name for name in tensors if name in own and name not in wanted)
    missing = sorted(wanted - tensors.keys())
    unexpected = sorted(tensors.keys() - wanted - set(dropped))
    if missing or unexpected:
        raise PainseqError(
            f"The weights do not fit {type(module).__name__}. Missing: {_some(missing)}. Unexpected: "
            f"{_some(unexpected)}. Blocks that shall start from random weights must be named: new=[...]."
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
    fresh = sorted(own.keys() - wanted)
    if fresh:
        text += f"; new, from random: {_some(fresh)}"
    if dropped:
        text += f"; left out: {_some(dropped)}"
    return text


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _some(names: Sequence[str]) -> str:
    if len(names) <= 4:
        return ", ".join(names) or "none"
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


def load_weights(extractor: Extractor, source: str, new: Sequence[str] = (), drop: Sequence[str] = ()) -> None:
    """Read `source` into the extractor's network and note in the extractor what was loaded, whom on, and its card.

    Only safetensors files can tell whom they were fitted on; `loaded` says so of any that does not.

    Args:
        new: blocks (`extractor.block_names()`) that keep their random start.
        drop: prefixes of names in the file that may be left out, which is said.

    Raises:
        PainseqError: see `read_weights` and `load_into`; an unknown block in `new`.
    """
    extractor.check_blocks(new)
    tensors, metadata = read_weights(source)
    own = extractor.network.state_dict()
    fresh = [name for name in own if any(extractor.in_block(name, block) for block in new)]
    try:
        text = load_into(extractor.network, tensors, fresh, drop)
    except PainseqError as error:
        raise PainseqError(f"{source}: {error}") from error
    _check_preprocessing(extractor, metadata, source)
    extractor.trained_on = trained_on_of(metadata, source)
    extractor.card = card_of(metadata, source)
    silent = "" if "trained_on" in metadata else " The file does not tell whom it was fitted on."
    extractor.loaded = f"Loaded {text}; from {source}.{silent}"
    extractor.published_as = extractor.fingerprint() if is_public(source) and not fresh else None
    log.info("%s: %s", type(extractor).__name__, extractor.loaded)


def _check_preprocessing(extractor: Extractor, metadata: Mapping[str, str], source: str) -> None:
    try:
        recorded = json.loads(metadata.get("spec", "{}"))
    except json.JSONDecodeError as error:
        raise PainseqError(f"{source}: its metadata 'spec' is not JSON: {error}.") from error
    init_args = recorded.get("init_args", {}) if isinstance(recorded, dict) else {}
    trained = init_args.get("preprocessing") if isinstance(init_args, dict) else None
    asked = getattr(extractor, "preprocessing", None)
    if trained is not None and trained != asked:
        raise PainseqError(
            f"{source} was trained with preprocessing {trained!r}, and here it is {asked!r}: the network would see "
            f"other numbers than it knows. Set preprocessing: {trained}."
        )


def trained_on_of(metadata: Mapping[str, str], source: str) -> tuple[str, ...]:
    """Whom weights were fitted on, as "data set/subject", by the metadata of their file; empty where it does not say.

    Raises:
        PainseqError: the metadata are damaged.
    """
    try:
        subjects = json.loads(metadata.get("trained_on", "[]"))
    except json.JSONDecodeError as error:
        raise PainseqError(f"{source}: its metadata 'trained_on' is not JSON: {error}.") from error
    if not isinstance(subjects, list) or not all(isinstance(subject, str) for subject in subjects):
        raise PainseqError(f"{source}: its metadata 'trained_on' is not a list of subjects: {subjects!r}.")
    return tuple(subjects)


def card_of(metadata: Mapping[str, str], source: str) -> Spec | None:
    """The card of an extractor, by the metadata of its weights file; None where there is none.

    Raises:
        PainseqError: the metadata are damaged.
    """
    if "card" not in metadata:
        return None
    try:
        card = json.loads(metadata["card"])
    except json.JSONDecodeError as error:
        raise PainseqError(f"{source}: its metadata 'card' is not JSON: {error}.") from error
    if not isinstance(card, dict):
        raise PainseqError(f"{source}: its metadata 'card' is not a table of entries: {card!r}.")
    return card


def save_weights(extractor: Extractor, path: Path) -> None:
    """Write the network's tensors as safetensors, under the names of its own kind (torchvision's, timm's).

    Metadata: `trained_on` (JSON list), `spec` (JSON), `fingerprint`, and `card` (JSON) where the extractor has one. The
    file appears whole or not at all.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in extractor.network.state_dict().items()}
    metadata = {
        "trained_on": json.dumps(list(extractor.trained_on)),
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
) -> Extractor:
    """An extractor from its recorded specification, in eval mode.

    Args:
        spec: as `Extractor.spec()` gave it.
        tensors: its weights, named as `save_weights` names them. None: read them again from where the
            specification says (a public address, or random weights by seed).
        trained_on: whom the weights were fitted on.
        trust: packages besides painseq whose classes may be built.
        card: how the weights were made, where that is known; see `Extractor.card`.

    Raises:
        PainseqError: the specification cannot be built, or the tensors do not fit.
    """
    if tensors is None:
        extractor = build(spec, Extractor, trust)  # type: ignore[type-abstract, unused-ignore]
    else:
        init_args = spec.get("init_args")
        recorded = dict(init_args) if isinstance(init_args, Mapping) else {}
        # The first source may be gone; the tensors at hand replace it. Its name stays as a record.
        unloaded = recorded | {key: value for key, value in (("weights", None), ("new", [])) if key in recorded}
        extractor = build({**spec, "init_args": unloaded}, Extractor, trust)
        extractor.loaded = f"Restored {load_into(extractor.network, tensors, new=(), drop=())}."
        for key in unloaded.keys() & {"weights", "new"}:
            setattr(extractor, key, recorded[key])
    extractor.trained_on = tuple(trained_on) or extractor.trained_on
    extractor.card = extractor.card if card is None else card
    return extractor.eval()


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that appears whole or not at all.

    Raises:
        OSError: as Python's own, so that a full disk can be told from other trouble.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(contiguous, dict(metadata)))
