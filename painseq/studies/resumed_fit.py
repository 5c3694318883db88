"""Fits that a study runs once: finished fits are kept, interrupted fits are resumed."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from painseq.runs import LOCK
from painseq.studies.experiment import Experiment
from painseq.training.fitting import LAST, fit

log = logging.getLogger("painseq")


def fit_unless_done(experiment: Experiment, run: Path) -> None:
    """Fit the model of an experiment into a run folder; a finished fit is kept, an interrupted one is resumed."""
    if (run / "run.json").is_file():
        log.info("%s is finished already.", run)
        return
    resume = (run / LAST).is_file()
    if run.exists() and not resume and not (run / LOCK).is_file():
        shutil.rmtree(run)
    log.info("%s %s into %s.", "Resuming the fit of" if resume else "Fitting", experiment.head_name, run)
    options, config = experiment.fit_options(), experiment.config
    fit(experiment.classifier(), experiment.data(), run, options, resume=resume, config=config)
