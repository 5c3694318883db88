"""Heads that start from the weights of another network."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import timm
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor

from painseq.download import sha256_of
from painseq.errors import PainseqError
from painseq.extractors.weights import read_weights, trained_on_of
from painseq.heads import Head
from painseq.model.checkpoint import read_checkpoint

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
SHA256 = re.compile("[0-9a-f]{64}")
log = logging.getLogger("painseq")


def start_head(head: Head, source: str) -> frozenset[str]:
    """Let a head start from weights that lie elsewhere, and log which of its tensors they filled.

    Args:
        source: the `.ckpt` of a painseq run, whose head is taken; `timm:NAME`, timm's pretrained weights;
            `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`, a repository on the Hugging Face hub; else a path or address
            for `read_weights`.

    Returns:
        Whom those weights were fitted on, as "data set/subject"; empty where the source does not say.

    Raises:
        PainseqError: weights that cannot be had or read, or none that fits the head.
    """
    tensors, fitted_on = _read(source)
    taken = head.start(tensors)
    own = head.state_dict()
    if not taken:
        raise PainseqError(
            f"{source} holds nothing that fits {type(head).__name__}. It holds {_some(tensors)}; the head has "
            f"{_some(own)}. Start from a network of the same kind and width, or leave start_from out."
        )
    left = own.keys() - set(taken)
    blocks = dict.fromkeys(name.partition(".")[0] for name in own if name in left)
    # A block that was left as a whole is named by its name alone.
    whole = [block for block in blocks if not any(name.partition(".")[0] == block for name in taken)]
    named = whole + [name for name in own if name in left and name.partition(".")[0] not in whole]
    log.info(
        "Started from %s: %d of %d tensors%s",
        source,
        len(taken),
        len(own),
        f"; left as they were: {', '.join(named)}" if left else "",
    )
    return frozenset(fitted_on)


def _some(tensors: Mapping[str, Tensor]) -> str:
    shown = [f"{name} {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:3]]
    return ", ".join(shown) + (f" and {len(tensors) - 3} more" if len(tensors) > 3 else "")


def _read(source: str) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    if source.startswith("timm:"):
        return _from_timm(source.removeprefix("timm:")), ()
    if source.startswith("hub:"):
        return _from_hub(source), ()
    if source.endswith(".ckpt") and "://" not in source:
        content = read_checkpoint(Path(source).expanduser())
        return content.head, (*content.record.fitted_on, *content.record.extractor_trained_on)
    tensors, metadata = read_weights(source)
    return tensors, trained_on_of(metadata, source)


def _from_timm(name: str) -> Mapping[str, Tensor]:
    if not timm.is_model(name):
        raise PainseqError(f"timm {timm.__version__} has no model {name!r}; timm.list_models('vit*') lists some.")
    try:
        tensors: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        raise PainseqError(
            f"timm's pretrained weights of {name} could not be had: {error}. Without a network, start from the path of "
            "a .safetensors or .pth file with timm's names."
        ) from error
    return tensors


def _from_hub(source: str) -> Mapping[str, Tensor]:
    match = re.fullmatch(r"hub:([^/@]+/[^/@]+)(?:@(.+))?", source)
    if match is None:
        raise PainseqError(f"Start from {source!r}: a repository of the hub is written hub:OWNER/NAME[@REVISION].")
    path = _hub_file(match[1], match[2])
    # Only the first link: its target in the hub's cache may be a link into another store.
    stated = path.readlink().name if path.is_symlink() else ""
    if not SHA256.fullmatch(stated):
        log.warning("%s: the hub's cache states no sha256 for %s, so it is not checked.", source, path.name)
    elif sha256_of(path) != stated:
        raise PainseqError(
            f"{source}: {path} does not have the sha256 that the hub states for it, {stated}; it is not used. Delete "
            f"{path.resolve()}, and it is fetched again."
        )
    return read_weights(str(path))[0]


def _hub_file(repository: str, revision: str | None) -> Path:
    missing: list[str] = []
    for name in HUB_FILES:
        try:
            return Path(hf_hub_download(repository, name, revision=revision))
        except EntryNotFoundError as error:
            missing.append(f"{name}: {error}")
        except Exception as error:  # The client also lets through errors of whichever library fetches for it.
            missing.append(f"{name}: {error}")
            break
    raise PainseqError(
        f"Weights of {repository} on the hub could not be had. {' '.join(missing)} Without a network, fetch "
        f"{' or '.join(HUB_FILES)} of the repository elsewhere and start from its path (as .safetensors or .pth); with "
        "HF_HUB_OFFLINE=1 a copy in the hub's cache is found at once."
    )
