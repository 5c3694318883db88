"""What a classifier is given and checked against when it meets its data: extractor, shape, streams, lengths, leaks."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from painseq.data.datamodule import PainDataModule
from painseq.data.splits import check_no_leak, qualified
from painseq.data.streams import beside_cnn
from painseq.errors import PainseqError
from painseq.extractors import Extractor
from painseq.features import FeatureStore
from painseq.heads import Head
from painseq.model.start import start_head

log = logging.getLogger("painseq")


def extractor_for(data: PainDataModule, given: Extractor | None) -> Extractor | None:
    """The extractor that goes with the data: of crops the given one, of features the store's, frozen.

    Returns:
        None for features of unknown origin.

    Raises:
        PainseqError: none for crops; another than the store's, or one to be trained, for features.
    """
    store = data.store
    if data.options.view == "pixels":
        if given is None:
            raise PainseqError("Pixels need an extractor: add one, e.g. --config configs/extractor/vgg16.yaml.")
        return given
    if not isinstance(store, FeatureStore):
        if store is not None and given is not None:
            raise PainseqError(
                f"A folder of .npz does not tell which extractor made it ({data.options.store}), so none can be "
                "recorded with the model. Leave the extractor out, or give the store that `painseq extract` wrote."
            )
        return None
    if given is None:
        extractor = store.extractor()
        extractor.trainable = ()
        extractor.freeze()
        return extractor
    if given.trainable:
        raise PainseqError(
            "Features of a store are fixed, so an extractor cannot be trained on them. Leave `trainable` out, or "
            "train on crops: --data.options.view pixels."
        )
    store.check_same({**store.spec, "extractor": given.record()})
    return given


def shape_for_head(data: PainDataModule, extractor: Extractor | None) -> tuple[int, ...]:
    """Shape of one frame as the head takes it, all streams together.

    Raises:
        PainseqError: streams beside an extractor that does not pool; see `PainDataModule.in_shape`.
    """
    beside = beside_cnn(data.streams)
    if data.options.view == "features" or beside == data.streams:
        return data.in_shape
    assert extractor is not None
    shape = tuple(extractor.out_shape)
    if not data.extra_width:
        return shape
    if len(shape) != 1:
        raise PainseqError(
            f"{', '.join(stream.name for stream in beside)} stand beside vectors, but {type(extractor).__name__} gives "
            f"{shape} a frame. Leave them out of streams, or choose an extractor that pools."
        )
    return (shape[0] + data.extra_width,)


def check_streams(data: PainDataModule, head: Head) -> None:
    """Columns do not tell what they are: a head that takes streams apart must be given just those.

    Raises:
        PainseqError: other streams, or another width of one.
    """
    wanted = head.streams
    if wanted is None:
        return
    given = [stream.name for stream in data.streams]
    if list(wanted) != given:
        raise PainseqError(
            f"{type(head).__name__} takes the streams {', '.join(wanted)}, and the data give "
            f"{', '.join(given)}. Set --data.options.streams '[{', '.join(wanted)}]'."
        )
    for stream in data.streams:
        width = wanted[stream.name]
        if width is not None and width != stream.width:
            raise PainseqError(
                f"{type(head).__name__} expects {width} columns of the stream {stream.name}, and the data give "
                f"{stream.width} ({stream.columns[0]} to {stream.columns[-1]}). Change the head's arguments "
                "(--model.head.init_args) to these."
            )


def check_length(data: PainDataModule, head: Head) -> None:
    """Refuse clips that are longer than the head takes.

    Raises:
        PainseqError: names the part with such a clip.
    """
    most = head.max_frames
    for part in data.split.parts():
        frames = data.most_frames(part)
        if most is not None and frames is not None and frames > most:
            raise PainseqError(
                f"{type(head).__name__} takes clips of at most {most} frames, and the longest of {part} has "
                f"{frames}. Extract with fewer frames a second (--data.options.fps), or build a longer head."
            )


def seen_by_extractor(data: PainDataModule, extractor: Extractor | None) -> frozenset[str]:
    """Whom the extractor was fitted on, by its own word and the store's, as "data set/subject"."""
    return frozenset({*data.extractor_trained_on, *(() if extractor is None else extractor.trained_on)})


def start_from(head: Head, sources: Iterable[str]) -> frozenset[str]:
    """Let the head start from these weights, one after the other; whom they were fitted on.

    Raises:
        PainseqError: see `start_head`.
    """
    return frozenset(person for source in sources for person in start_head(head, source))


def check_seen(data: PainDataModule, seen: frozenset[str], what: str) -> None:
    """Refuse weights that have seen the test part, and warn of those that have seen people of early stopping.

    Args:
        seen: people, as "data set/subject".
        what: has seen them, for the message: "The extractor".

    Raises:
        LeakError: they have seen a subject who is to be scored.
    """
    check_no_leak(seen, qualified(data.name, data.split.test), what)
    stopped_on = seen & qualified(data.name, data.split.validation)
    if stopped_on:
        log.warning(
            "%s has seen %d of the %d subjects of early stopping, so the validation loss flatters.",
            what,
            len(stopped_on),
            len(data.split.validation),
        )
