from painseq.explain.attribution import Attribution
from painseq.explain.drawing import film_strip
from painseq.explain.frames import Frames, frames_of_sample, frames_of_store, frames_of_video
from painseq.explain.gradcam import default_layer, list_layers
from painseq.explain.methods import (
    METHODS,
    Method,
    default_method,
    explain,
    features_of,
    space_methods,
    time_methods,
)
from painseq.explain.score import Scorer, score_of

__all__ = [
    "METHODS",
    "Attribution",
    "Frames",
    "Method",
    "Scorer",
    "default_layer",
    "default_method",
    "explain",
    "features_of",
    "film_strip",
    "frames_of_sample",
    "frames_of_store",
    "frames_of_video",
    "list_layers",
    "score_of",
    "space_methods",
    "time_methods",
]
