"""Lightning's command line for `painseq fit`, with run folder, checkpoints, log and progress bar."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import RichProgressBar

from painseq.cli.arguments import chosen_tuning
from painseq.cli.experiment import ExperimentCLI
from painseq.files import replacing
from painseq.runs import LOCK, is_first_process
from painseq.training.callbacks import EpochLines
from painseq.training.fitting import RunPlan, run_callbacks
from painseq.training.run_folder import CONFIG, check_run_folder
from painseq.training.saving import RunLog

GENERAL_TRAINER_SETTINGS = {
    "accelerator", "default_root_dir", "devices", "enable_model_summary", "enable_progress_bar", "logger",
    "use_distributed_sampler",
}  # fmt: skip
"""Trainer settings that also apply to a head that is not fitted by gradients."""


class FitCLI(ExperimentCLI):
    """Lightning's command line with a run folder, checkpoints, a CSV log and a progress bar."""

    fits = True

    def before_instantiate_classes(self) -> None:
        """Check the run folder, and direct everything the run writes to it."""
        self.out = Path(self.config["out"])
        trainer = self.config["trainer"]
        parsed = self.experiment
        tuning = chosen_tuning(self.config["tune_threshold"], self.config["inner_folds"]) or parsed.tuning
        self.plan = RunPlan(
            self.config["seed_everything"],
            self.save_config,
            self._changed_settings(),
            self.config["resume"],
            self.config["refit"],
            trainer["sync_batchnorm"],
            replace(parsed.fit_options(), tune_threshold=tuning) if tuning or parsed.needs_inner_fits else None,
        )
        if is_first_process():
            # Checked again once it is locked; here mistakes are reported before the data are read.
            check_run_folder(self.out, self.plan.resume, (self.out / LOCK).is_file())
        trainer["default_root_dir"] = str(self.out)
        # The data modules distribute batches over processes themselves.
        trainer["use_distributed_sampler"] = False
        if self.plan.refit_epochs is not None:
            trainer["max_epochs"] = self.plan.refit_epochs

    def _changed_settings(self) -> list[str]:
        """Return the settings of gradient training that differ from their defaults."""
        defaults = self.parser.get_defaults()
        return [
            f"{group}.{key}"
            for group in ("trainer", "early_stopping")
            for key, value in vars(self.config[group]).items()
            if key not in GENERAL_TRAINER_SETTINGS and value != defaults[group][key]
        ]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create Lightning's trainer. A logger of the YAML replaces ours; its callbacks are added to ours."""
        callbacks: list[Callback] = run_callbacks(self.out, self.plan.refit_epochs)
        given = self._get(self.config_init, "trainer")
        if given.get("enable_progress_bar") is not False:
            in_terminal = sys.stdout.isatty()
            callbacks.append(RichProgressBar() if in_terminal else EpochLines())
            kwargs["enable_progress_bar"] = in_terminal
        self.trainer_defaults["callbacks"] = callbacks
        if given.get("logger") in (None, True):
            kwargs["logger"] = RunLog(self.out)
        return super().instantiate_trainer(**kwargs)

    def save_config(self) -> None:
        """Write config.yaml, which can be given to another run."""
        self.config["resume"] = False
        with replacing(self.out / CONFIG) as partial:
            self.parser.save(self.config, partial, overwrite=True, skip_validation=True)
