from painseq.explain.attribution import Attribution
from painseq.explain.blinks import BlinkCheck, BlinkClip, blink_check, blink_frames, check_blinks
from painseq.explain.columns import (
    ColumnDrop,
    ColumnOcclusion,
    ColumnPermutation,
    named_columns,
    occlude_columns,
    permute_columns,
)
from painseq.explain.drawing import column_bars, film_strip, region_bars
from painseq.explain.faithfulness import infidelity, sensitivity
from painseq.explain.frames import Frames, VideoOptions, frames_of_sample, frames_of_store, frames_of_video
from painseq.explain.gradcam import default_layer, list_layers
from painseq.explain.known_units import KnownUnits, known_units
from painseq.explain.methods import (
    METHODS,
    Method,
    MethodOptions,
    check_gradients,
    default_method,
    explain,
    features_of,
    space_methods,
    time_methods,
)
from painseq.explain.overlay_video import write_overlay_video
from painseq.explain.perturbation import PerturbationCurves, perturbation_curves
from painseq.explain.randomisation import (
    RandomisationCheck,
    RandomisationOptions,
    cascade,
    explainer_of,
    randomisation_check,
    randomised,
)
from painseq.explain.region_shares import RegionRow, RegionShares, region_shares, region_table
from painseq.explain.regions import REGIONS, region_masks
from painseq.explain.score import Scorer, class_number, score_of
from painseq.explain.truth import TruthScores, pain_regions, truth_scores

__all__ = [
    "METHODS",
    "REGIONS",
    "Attribution",
    "BlinkCheck",
    "BlinkClip",
    "ColumnDrop",
    "ColumnOcclusion",
    "ColumnPermutation",
    "Frames",
    "KnownUnits",
    "Method",
    "MethodOptions",
    "PerturbationCurves",
    "RandomisationCheck",
    "RandomisationOptions",
    "RegionRow",
    "RegionShares",
    "Scorer",
    "TruthScores",
    "VideoOptions",
    "blink_check",
    "blink_frames",
    "cascade",
    "check_blinks",
    "check_gradients",
    "class_number",
    "column_bars",
    "default_layer",
    "default_method",
    "explain",
    "explainer_of",
    "features_of",
    "film_strip",
    "frames_of_sample",
    "frames_of_store",
    "frames_of_video",
    "infidelity",
    "known_units",
    "list_layers",
    "named_columns",
    "occlude_columns",
    "pain_regions",
    "permute_columns",
    "perturbation_curves",
    "randomisation_check",
    "randomised",
    "region_bars",
    "region_masks",
    "region_shares",
    "region_table",
    "score_of",
    "sensitivity",
    "space_methods",
    "time_methods",
    "truth_scores",
    "write_overlay_video",
]
