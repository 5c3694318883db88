"""Fitting: the one LightningModule, the one way to fit, and what is written of it."""

from painseq.training.classifier import PainClassifier
from painseq.training.fitting import FitOptions, fit, fit_fold

__all__ = ["FitOptions", "PainClassifier", "fit", "fit_fold"]
