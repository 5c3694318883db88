"""The store of a data module: opened and checked, and the shape of its frames with those of other streams."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from painseq.data.options import DataOptions
from painseq.data.streams import Stream, beside_cnn
from painseq.errors import PainseqError
from painseq.features import FeatureStore, NpzFolder, open_features
from painseq.features.spans import check_spans
from painseq.records import Manifest


def checked_store(path: Path, options: DataOptions, manifest: Manifest) -> FeatureStore | NpzFolder:
    """Open a store, and check that it fits the options and the spans of the clips.

    Raises:
        PainseqError: crops where features are asked for, or the reverse; another face crop or frame rate; other spans.
    """
    store = open_features(path)
    if (store.dtype == "uint8") != (options.view == "pixels"):
        content = "crops" if store.dtype == "uint8" else "features"
        raise PainseqError(
            f"{path} holds {content}, but --data.options.view is {options.view}. Change the view, or give another "
            "store."
        )
    requested: dict[str, object] = {}
    if options.face is not None:
        requested["face"] = options.face.record()
    if options.fps is not None:
        requested["sampling"] = {"fps": options.fps}
    if isinstance(store, FeatureStore):
        store.check_same({**store.spec, **requested})
    check_spans(store.path, store.spans, store, manifest)
    return store


def pipeline_of(options: DataOptions, store: FeatureStore | NpzFolder | None) -> dict[str, object]:
    """Return how frames were made, for the checkpoint: {"face": ..., "sampling": ..., "extractor": ...}."""
    if isinstance(store, FeatureStore):
        return dict(store.spec)
    if store is not None or options.face is None:
        return {"face": None, "sampling": {"fps": options.fps}}
    return {"face": options.face.record(), "sampling": {"fps": options.fps}}


def extra_width(streams: Sequence[Stream]) -> int:
    """Return the total width of the streams other than `cnn`.

    Raises:
        PainseqError: streams lists landmarks, but there is no store with landmarks.
    """
    return sum(stream.width for stream in beside_cnn(streams))


def frame_shape(
    options: DataOptions, store: FeatureStore | NpzFolder | None, streams: Sequence[Stream]
) -> tuple[int, ...]:
    """Return the shape of one frame: (D,) for the features of all streams, (3, S, S) for crops.

    Raises:
        PainseqError: neither a store nor a face crop, or streams that cannot be concatenated.
    """
    if store is None and options.view == "features":
        raise PainseqError(
            "No feature store. Run `painseq extract` first and give its folder to --data.options.store, or set "
            "--data.options.view pixels to read the videos."
        )
    names = [stream.name for stream in streams]
    if "cnn" not in names:
        if store is None:
            raise PainseqError(
                f"streams is {names}: without cnn, a store must define which frames have a face, but none is given. "
                "Run `painseq extract`, and set --data.options.store to its folder."
            )
        return (extra_width(streams),)
    if store is not None:
        shape = tuple(store.out_shape)
        if options.view == "pixels" or not extra_width(streams):
            return shape
        if len(shape) != 1:
            raise PainseqError(
                f"{', '.join(names[1:])} can only be concatenated with vectors, but the store's frames have the shape "
                f"{shape}. Leave them out of streams, or extract with an extractor that pools."
            )
        return (shape[0] + extra_width(streams),)
    if options.face is None:
        raise PainseqError(
            "Reading videos needs a face crop. Set `face` in the data options, as in configs/data/biovid.yaml."
        )
    return (3, options.face.size_px, options.face.size_px)
