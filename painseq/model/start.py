"""Initialise heads from the weights of another network."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import timm
from torch import Tensor

from painseq.errors import PainseqError, first_few
from painseq.extractors.hub import announce_timm, hub_file
from painseq.extractors.weights import people_known_of, read_weights, trained_on_of
from painseq.heads import Head
from painseq.heads.standardised import Standardised, is_standardised
from painseq.model.checkpoint import read_checkpoint
from painseq.records import Seen

log = logging.getLogger("painseq")


def start_head(head: Head, source: str) -> Seen:
    """Initialise a head from stored weights, and log which of its tensors were filled.

    Args:
        source: the `.ckpt` of a painseq run, whose head is taken; `timm:NAME`, timm's pretrained weights;
            `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`, a repository on the Hugging Face hub; or a path or URL for
            `read_weights`.

    Returns:
        The subjects that those weights were fitted on; `source` is among the unknown if it does not list them.

    Raises:
        PainseqError: the weights cannot be fetched or read, or none fits the head.
    """
    tensors, seen = _read(source)
    standardised = isinstance(head, Standardised)
    if is_standardised(tensors) and not standardised:
        raise PainseqError(
            f"{source} holds a head on columns standardised by its training subjects. Standardise them here too: "
            "normalise train (command line: --model.normalise train)."
        )
    if standardised and source.endswith(".ckpt") and not is_standardised(tensors):
        log.warning(
            "%s was fitted on columns as they are, but here they are standardised, so its head begins from other "
            "values. To go on from it as it is, set normalise none (command line: --model.normalise none).",
            source,
        )
    # Named as those of the inner head, in which users think.
    filled, own = (
        [name.removeprefix("head.") if standardised else name for name in names]
        for names in (head.start(tensors), head.state_dict())
    )
    shapes = dict(zip(own, head.state_dict().values(), strict=True))
    if not filled:
        raise PainseqError(
            f"{source} holds nothing that fits {head.name}. It holds {_summary(tensors)}; the head has "
            f"{_summary(shapes)}. Start from a network of the same kind and width, or leave start_from out."
        )
    unfilled = set(own) - set(filled)
    blocks = dict.fromkeys(name.partition(".")[0] for name in own if name in unfilled)
    # A block without any filled tensor is listed once, not tensor by tensor.
    whole = [block for block in blocks if not any(name.partition(".")[0] == block for name in filled)]
    listed = whole + [name for name in own if name in unfilled and name.partition(".")[0] not in whole]
    log.info(
        "Started from %s: %d of %d tensors%s",
        source,
        len(filled),
        len(own),
        f"; unchanged: {', '.join(listed)}" if unfilled else "",
    )
    return seen


def _summary(tensors: Mapping[str, Tensor]) -> str:
    shown = [f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()]
    return first_few(shown, most=3)


def _read(source: str) -> tuple[Mapping[str, Tensor], Seen]:
    if source.startswith("timm:"):
        return _from_timm(source.removeprefix("timm:")), Seen(unknown=(source,))
    if source.startswith("hub:"):
        return _from_hub(source), Seen(unknown=(source,))
    if source.endswith(".ckpt") and "://" not in source:
        content = read_checkpoint(Path(source).expanduser())
        return content.head, content.record.seen
    tensors, metadata = read_weights(source)
    unknown = () if people_known_of(metadata, source) else (source,)
    return tensors, Seen(frozenset(trained_on_of(metadata, source)), unknown)


def _from_timm(name: str) -> Mapping[str, Tensor]:
    if not timm.is_model(name):
        raise PainseqError(f"timm {timm.__version__} has no model {name!r}; timm.list_models('vit*') lists some.")
    announce_timm(name)
    try:
        tensors: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        raise PainseqError(
            f"timm's pretrained weights of {name} could not be downloaded: {error}. Offline, start from the path of a "
            ".safetensors or .pth file with timm's names."
        ) from error
    return tensors


def _from_hub(source: str) -> Mapping[str, Tensor]:
    match = re.fullmatch(r"hub:([^/@]+/[^/@]+)(?:@(.+))?", source)
    if match is None:
        raise PainseqError(f"start_from is {source!r}; a repository on the hub is written hub:OWNER/NAME[@REVISION].")
    return read_weights(str(hub_file(match[1], match[2])))[0]
