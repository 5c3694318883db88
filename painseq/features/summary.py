"""Summarise the contents and the pipeline of a feature store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from painseq.extractors import read_weights
from painseq.extractors.weights import card_of
from painseq.features.store import FeatureStore


def summarise_store(store: FeatureStore) -> dict[str, object]:
    """Summarise a store's contents and pipeline, in plain values.

    Raises:
        PainseqError: the extractor's weights file is damaged.
    """
    frames = {clip_id: (store.num_frames(clip_id), store.num_faceless(clip_id)) for clip_id in store}
    total, faceless = (sum(counts) for counts in zip(*frames.values(), strict=True)) if frames else (0, 0)
    sampling, face = _table(store.spec.get("sampling")), _table(store.spec.get("face"))
    return {
        "path": str(store.path),
        "clips": len(store),
        "frames": total,
        "faceless_frames": faceless,
        "faceless_share": faceless / total if total else 0.0,
        "clips_without_face": [clip_id for clip_id, (count, missing) in frames.items() if count == missing],
        "failed": store.failed,
        "pending_clips": len(store.pending),
        "shards": len(store.digests),
        "shard_bytes": store.shard_bytes,
        "dtype": store.dtype,
        "precision": store.precision,
        "out_shape": list(store.out_shape),
        "landmarks": store.landmarks,
        "fps": sampling.get("fps"),
        "face": _table(face.get("identity")) or face,
        "extractor": _extractor(store),
        "fingerprint": store.fingerprint,
    }


def _extractor(store: FeatureStore) -> dict[str, object]:
    recorded = _table(store.spec.get("extractor"))
    init_args = _table(recorded.get("init_args"))
    file = store.path / "extractor.safetensors"
    metadata = read_weights(str(file))[1] if file.is_file() else {}
    return {
        "class_path": recorded.get("class_path"),
        "init_args": init_args,
        "fingerprint": recorded.get("fingerprint"),
        "weights": init_args.get("weights"),
        "weights_in_store": file.is_file(),
        "trained_on": dict(Counter(subject.rpartition("/")[0] for subject in store.trained_on)),
        "people_known": store.people_known,
        "card": card_of(metadata, str(file)),
    }


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
