"""Features of clips on disk: the feature store, extraction, and exchange with other tools."""

from painseq.features.engine import (
    ExtractOptions,
    ExtractProgress,
    ExtractSummary,
    VideoSpan,
    clip_features,
    extract,
    pipeline_spec,
)
from painseq.features.export import NpzFolder, export_npz, open_features
from painseq.features.store import ClipFeatures, FeatureStore, StoreWriter

__all__ = [
    "ClipFeatures",
    "ExtractOptions",
    "ExtractProgress",
    "ExtractSummary",
    "FeatureStore",
    "NpzFolder",
    "StoreWriter",
    "VideoSpan",
    "clip_features",
    "export_npz",
    "extract",
    "open_features",
    "pipeline_spec",
]
