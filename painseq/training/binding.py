"""Checks and choices when a classifier is bound to its data: extractor, shape, streams, lengths, leaks."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from painseq.data.datamodule import PainDataModule
from painseq.data.splits import check_no_leak, qualified
from painseq.data.streams import beside_cnn
from painseq.errors import PainseqError, UntrustedClass
from painseq.extractors import Extractor
from painseq.features import FeatureStore
from painseq.heads import Head
from painseq.heads.standardised import Standardised
from painseq.model.start import start_head
from painseq.records import THE_EXTRACTOR, UNKNOWN_PEOPLE, Seen, shared_people

log = logging.getLogger("painseq")


def extractor_for(data: PainDataModule, given: Extractor | None) -> Extractor | None:
    """Return the extractor for the data: the given one for crops, the store's (frozen) for features.

    Returns:
        The extractor; None for features of unknown origin.

    Raises:
        PainseqError: no extractor for crops; for features, an extractor to be trained, or not the store's.
    """
    store = data.store
    if data.options.view == "pixels":
        if given is None:
            raise PainseqError("Pixels need an extractor: add one, e.g. --config configs/extractor/vgg16.yaml.")
        return given
    if not isinstance(store, FeatureStore):
        if store is not None and given is not None:
            raise PainseqError(
                f"A folder of .npz does not say which extractor made it ({data.options.store}), so no extractor can be "
                "recorded with the model. Leave the extractor out, or give a store written by `painseq extract`."
            )
        return None
    if given is None:
        try:
            extractor = store.extractor()
        except UntrustedClass as error:
            raise PainseqError(
                f"{error} To fit on its features, name the extractor in the configuration instead: --model.extractor."
            ) from error
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
    """Return the shape of one frame as the head takes it, all streams concatenated.

    Raises:
        PainseqError: other streams with an extractor that does not pool; see `PainDataModule.in_shape`.
    """
    other_streams = beside_cnn(data.streams)
    if data.options.view == "features" or other_streams == data.streams:
        return data.in_shape
    assert extractor is not None
    shape = tuple(extractor.out_shape)
    if not data.extra_width:
        return shape
    if len(shape) != 1:
        raise PainseqError(
            f"{', '.join(stream.name for stream in other_streams)} are concatenated with vectors, but "
            f"{type(extractor).__name__} gives {shape} per frame. Leave them out of streams, or choose an extractor "
            "that pools."
        )
    return (shape[0] + data.extra_width,)


def check_streams(data: PainDataModule, head: Head) -> None:
    """Check that a head that separates streams is given exactly those, since columns carry no names.

    Raises:
        PainseqError: other streams, or a stream of another width.
    """
    expected = head.streams
    if expected is None:
        return
    given = [stream.name for stream in data.streams]
    if list(expected) != given:
        raise PainseqError(
            f"{head.name} takes the streams {', '.join(expected)}, but the data give "
            f"{', '.join(given)}. Set --data.options.streams '[{', '.join(expected)}]'."
        )
    for stream in data.streams:
        width = expected[stream.name]
        if width is not None and width != stream.width:
            raise PainseqError(
                f"{head.name} expects {width} columns of the stream {stream.name}, but the data give "
                f"{stream.width} ({stream.columns[0]} to {stream.columns[-1]}). Change the head's arguments "
                "(--model.head.init_args) to match."
            )


def check_length(data: PainDataModule, head: Head) -> None:
    """Check that no clip is longer than the head takes.

    Raises:
        PainseqError: a clip is longer; names its part.
    """
    max_frames = head.max_frames
    for part in data.split.parts():
        frames = data.most_frames(part)
        if max_frames is not None and frames is not None and frames > max_frames:
            raise PainseqError(
                f"{head.name} takes clips of at most {max_frames} frames, but the longest clip of {part} has "
                f"{frames}. Extract with fewer frames per second (--data.options.fps), or build a longer head."
            )


def standardised(head: Head, extractor: Extractor | None) -> Standardised:
    """Return the head on standardised columns, which are measured later.

    Raises:
        PainseqError: the head takes no vectors, or the extractor is trained, so that its features change.
    """
    reason = None
    if len(head.in_shape) != 1:
        reason = f"{head.name} takes frames of shape {head.in_shape}"
    elif extractor is not None and extractor.trainable:
        reason = f"the features change while blocks of the extractor are trained ({', '.join(extractor.trainable)})"
    if reason is not None:
        raise PainseqError(
            f"normalise is train, which standardises vectors of fixed features, but {reason}. Set normalise none "
            "(command line: --model.normalise none)."
        )
    return Standardised(head)


def seen_by_extractor(data: PainDataModule, extractor: Extractor | None) -> Seen:
    """Return the subjects that the extractor was trained on, as recorded by it and the store."""
    of_data = Seen(frozenset(data.extractor_trained_on), data.unknown_extractors)
    if extractor is None:
        return of_data
    return of_data | Seen(frozenset(extractor.trained_on), () if extractor.people_known else (THE_EXTRACTOR,))


def start_from(head: Head, sources: Iterable[str]) -> Seen:
    """Initialise the head from these weights in turn; return the subjects that they were fitted on.

    Raises:
        PainseqError: see `start_head`.
    """
    seen = Seen()
    for source in sources:
        seen |= start_head(head, source)
    return seen


def check_seen(data: PainDataModule, seen: Seen, owner: str) -> None:
    """Refuse weights fitted on test subjects; warn about weights fitted on validation subjects or on unknown ones.

    Args:
        seen: subjects that the weights were fitted on.
        owner: name of the weights' owner in messages, such as "The extractor".

    Raises:
        LeakError: the weights were fitted on a test subject.
    """
    check_no_leak(seen.people, qualified(data.name, data.split.test), owner)
    if seen.unknown:
        log.warning(UNKNOWN_PEOPLE, ", ".join(seen.unknown))
    validation_seen = shared_people(qualified(data.name, data.split.validation), seen.people)
    if validation_seen:
        log.warning(
            "%s was fitted on %d of the %d validation subjects, so the validation loss is too optimistic.",
            owner,
            len(validation_seen),
            len(data.split.validation),
        )
