"""Extractors, which map face crops to features. See `Extractor` for their interface."""

from painseq.extractors.extractor import Extractor
from painseq.extractors.pixels import Pixels
from painseq.extractors.timm_backbone import TimmBackbone
from painseq.extractors.vgg16 import VGG16
from painseq.extractors.weights import is_public, load_into, load_weights, read_weights, rebuild, save_weights

__all__ = [
    "VGG16",
    "Extractor",
    "Pixels",
    "TimmBackbone",
    "is_public",
    "load_into",
    "load_weights",
    "read_weights",
    "rebuild",
    "save_weights",
]
