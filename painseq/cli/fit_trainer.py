"""Lightning's command line as `painseq fit` uses it: the run folder, its checkpoints, log and progress bar."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import CSVLogger

from painseq.cli.experiment import ExperimentCLI
from painseq.training.callbacks import EpochLines
from painseq.training.fitting import RunPlan, run_callbacks
from painseq.training.run_folder import CONFIG, begin_run

NOT_OF_GRADIENTS = {
    "accelerator", "default_root_dir", "devices", "enable_model_summary", "enable_progress_bar", "logger",
    "use_distributed_sampler",
}  # fmt: skip
"""Settings of the trainer that also mean something to a head that is not fitted by gradients."""


class FitCLI(ExperimentCLI):
    """Adds the run folder, its checkpoints, a CSV log and a progress bar to whatever the YAML says."""

    fits = True

    def before_instantiate_classes(self) -> None:
        """Everything a run writes goes to its own folder."""
        self.out = Path(self.config["out"])
        trainer = self.config["trainer"]
        self.plan = RunPlan(
            self.config["seed_everything"],
            self.save_config,
            self._given(),
            self.config["resume"],
            self.config["refit"],
            trainer["sync_batchnorm"],
        )
        begin_run(self.out, self.plan.resume)
        trainer["default_root_dir"] = str(self.out)
        # The data modules share batches out among processes themselves.
        trainer["use_distributed_sampler"] = False
        if self.plan.refit_epochs is not None:
            trainer["max_epochs"] = self.plan.refit_epochs

    def _given(self) -> list[str]:
        """Settings of training in epochs that are not as they are where nothing is said."""
        usual = self.parser.get_defaults()
        return [
            f"{group}.{key}"
            for group in ("trainer", "early_stopping")
            for key, value in vars(self.config[group]).items()
            if key not in NOT_OF_GRADIENTS and value != usual[group][key]
        ]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Lightning's trainer; a logger or callbacks of the YAML stand beside or before ours."""
        ours: list[Callback] = run_callbacks(self.out, self.plan.refit_epochs)
        asked = self._get(self.config_init, "trainer")
        if asked.get("enable_progress_bar") is not False:
            in_terminal = sys.stdout.isatty()
            ours.append(RichProgressBar() if in_terminal else EpochLines())
            kwargs["enable_progress_bar"] = in_terminal
        self.trainer_defaults["callbacks"] = ours
        if asked.get("logger") in (None, True):
            kwargs["logger"] = CSVLogger(self.out, name="", version="")
        return super().instantiate_trainer(**kwargs)

    def save_config(self) -> None:
        """Write config.yaml, a configuration to begin with: it can be given to another run."""
        self.config["resume"] = False
        self.parser.save(self.config, self.out / CONFIG, overwrite=True, skip_validation=True)
