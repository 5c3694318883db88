"""Fitting: the one LightningModule, the one way to fit a fold, and what is written of it."""

from painseq.training.classifier import PainClassifier
from painseq.training.fitting import FitOptions, fit_fold

__all__ = ["FitOptions", "PainClassifier", "fit_fold"]
