"""Fit models: the LightningModule, the fitting functions, and the files of a run."""

from painseq.training.classifier import PainClassifier
from painseq.training.fitting import FitOptions, fit, fit_fold
from painseq.training.tuning import ThresholdTuning

__all__ = ["FitOptions", "PainClassifier", "ThresholdTuning", "fit", "fit_fold"]
