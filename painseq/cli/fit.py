"""`painseq fit`: Lightning's command line, and a run folder that tells everything about the run."""

from __future__ import annotations

import base64
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger
from timm.layers.norm_act import BatchNormAct2d

from painseq.cli.experiment import ExperimentCLI
from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.extractors import Extractor, save_weights
from painseq.files import write_json
from painseq.model.checkpoint import read_checkpoint
from painseq.report.charts import learning_curves
from painseq.runs import make_run_folder, read_history
from painseq.training.classifier import PainClassifier
from painseq.training.epoch_lines import EpochLines
from painseq.training.extractor_card import card_page, extractor_card
from painseq.training.fitting import BEST, LAST, chosen_checkpoint, run_record, train

log = logging.getLogger("painseq")

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint of a run folder, which may have been moved since: Lightning's would forget its best score then."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state up where the folder is now."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        moved = {key: here(state_dict[key]) for key in state_dict if key.endswith("_path")}
        best = {here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath})


class FitCLI(ExperimentCLI):
    """Adds the run folder, the best checkpoint, a CSV log and a progress bar to whatever the YAML says."""

    def __init__(self, args: Sequence[str]) -> None:
        super().__init__("fit", args)

    def before_instantiate_classes(self) -> None:
        """Everything a run writes goes to its own folder."""
        self.out = Path(self.config["out"])
        trainer = self.config["trainer"]
        if self.config["resume"]:
            if not (self.out / LAST).is_file():
                raise PainseqError(f"Nothing to resume: no {LAST} in {self.out}.")
        elif first_process():
            if (self.out / LAST).is_file() and not (self.out / "run.json").is_file():
                raise PainseqError(
                    f"{self.out} holds a run that was interrupted. Add --resume true to go on with it, or give --out "
                    "another folder."
                )
            make_run_folder(self.out)
        trainer["default_root_dir"] = str(self.out)
        # The data modules share batches out among processes themselves.
        trainer["use_distributed_sampler"] = False
        epochs = self.config["refit"]
        if epochs is not None:
            if epochs < 1:
                raise PainseqError(f"--refit is {epochs}; it is the number of epochs, 1 or more.")
            trainer["max_epochs"] = epochs

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Lightning's trainer; a logger or callbacks of the YAML stand beside or before ours."""
        self.checkpoints = RunCheckpoint(
            self.out, BEST.removesuffix(".ckpt"), monitor="val_loss", enable_version_counter=False
        )
        last = RunCheckpoint(self.out, LAST.removesuffix(".ckpt"), enable_version_counter=False)
        asked = self._get(self.config_init, "trainer")
        # The last one is saved behind the best one, and so knows of it when it is resumed.
        ours: list[Callback] = [last] if self.config["refit"] is not None else [self.checkpoints, last]
        if asked.get("enable_progress_bar") is not False:
            in_terminal = sys.stdout.isatty()
            ours.append(RichProgressBar() if in_terminal else EpochLines())
            kwargs["enable_progress_bar"] = in_terminal
        self.trainer_defaults["callbacks"] = ours
        if asked.get("logger") in (None, True):
            kwargs["logger"] = CSVLogger(self.out, name="", version="")
        return super().instantiate_trainer(**kwargs)

    def save_config(self) -> None:
        """Write config.yaml: the first file of the run folder, so that a mistake before it leaves the folder empty
        and the mended command can take it."""
        # A configuration to begin with: it can be given to another run.
        self.config["resume"] = False
        self.parser.save(self.config, self.out / "config.yaml", overwrite=True, skip_validation=True)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    fit(argv)
    return 0


def fit(argv: Sequence[str]) -> Path:
    """Fit as the command line says.

    Returns:
        The run folder: `best.ckpt` (not after `--refit`) and `last.ckpt`, `config.yaml`, `run.json`, `metrics.csv` (two
        rows an epoch, training and validation; those from before a `--resume` are in `metrics_before_1.csv`, ...),
        learning curves as SVG; where the extractor was trained, `extractor.safetensors`, which holds its card, and the
        card as a page, `extractor_card.md`.

    Raises:
        PainseqError: see the data module and the classifier; nobody to stop early on; settings that Lightning refuses.
    """
    try:
        return _fit(argv)
    except MisconfigurationException as error:
        raise PainseqError(f"Lightning refuses these settings of the trainer: {error}") from error


def _fit(argv: Sequence[str]) -> Path:
    cli = FitCLI(argv)
    model, data, trainer = cli.model, cli.datamodule, cli.trainer
    if not (isinstance(model, PainClassifier) and isinstance(data, PainDataModule)):
        raise PainseqError("`painseq fit` needs a data set: --config configs/data/ai4pain.yaml, or --data BioVid.")
    if cli.config["refit"] is not None:
        data.train_on_validation_too()
        for callback in trainer.early_stopping_callbacks:
            trainer.callbacks.remove(callback)  # type: ignore[attr-defined]
    elif not data.split.validation:
        raise PainseqError(
            "No validation subjects, so nothing to stop early on or to choose the best epoch by. Set "
            "--data.options.split.validation_share above 0, or fit for a fixed number of epochs: --refit EPOCHS."
        )
    if cli.config["shuffle_labels"]:
        data.shuffle_labels(int(cli.config["seed_everything"] or 0))
        log.warning("SHUFFLED LABELS: a control. What this model learns is not pain.")
    if str(trainer.precision) not in PRECISIONS:
        raise PainseqError(f"--trainer.precision is {trainer.precision}; choose one of {', '.join(PRECISIONS)}.")
    if trainer.val_check_interval != 1.0:
        raise PainseqError(
            "--trainer.val_check_interval is not 1.0, but a run can be resumed at the end of an epoch only."
        )
    data.setup("fit")
    model.bind(data)
    if cli.config["trainer"]["sync_batchnorm"] and any(isinstance(part, BatchNormAct2d) for part in model.modules()):
        raise PainseqError(
            "--trainer.sync_batchnorm true puts PyTorch's batch norm in the place of this extractor's, in which timm "
            "keeps the activations too: these would be lost. Leave it out; each process then counts its own frames."
        )
    if data.split.validation and len(data.dataset("validation")) < trainer.world_size:
        raise PainseqError(
            f"{len(data.dataset('validation'))} validation clips for {trainer.world_size} processes; each needs one. "
            "Train on fewer processes."
        )
    resume = cli.out / LAST if cli.config["resume"] else None
    if resume is not None:
        model.check_resumes(read_checkpoint(resume).record)
    if first_process():
        cli.save_config()
        log.info(
            "%s: %s training clips of %d subjects, early stopping on %d; device %s, precision %s, processes %d",
            data.name,
            " / ".join(str(n) for n in data.train_counts().values()),
            len(data.split.train),
            len(data.split.validation),
            trainer.strategy.root_device,
            trainer.precision,
            trainer.world_size,
        )
        if resume is not None:
            _keep_log(cli.out)
    train(trainer, model, data, resume)
    if trainer.is_global_zero:
        _finish(cli, model, data, trainer)
    return cli.out


def first_process() -> bool:
    """Whether this is the only process of a fit, or the one that writes: the others are started after it."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def _keep_log(out: Path) -> None:
    """Move metrics.csv out of the way of the logger, which would delete it."""
    log_file = out / "metrics.csv"
    if log_file.is_file():
        log_file.rename(out / f"metrics_before_{len(list(out.glob('metrics_before_*.csv'))) + 1}.csv")


def _finish(cli: FitCLI, model: PainClassifier, data: PainDataModule, trainer: Trainer) -> None:
    refitted = cli.config["refit"] is not None
    chosen = chosen_checkpoint(cli.out, fixed=refitted)
    content, score = read_checkpoint(chosen), cli.checkpoints.best_model_score
    run = {
        **run_record(model, data, trainer, content),
        "seed": cli.config["seed_everything"],
        "refit": cli.config["refit"],
        "best_val_loss": None if score is None else float(score),
    }
    for title, picture in learning_curves(read_history(cli.out), model.objective.chance):
        name = f"learning_curve_{title.lower().replace(' ', '_')}.svg"
        (cli.out / name).write_bytes(base64.b64decode(picture))
    if isinstance(model.extractor, Extractor) and model.extractor.trainable:
        model.extractor.network.load_state_dict(content.extractor or {})
        _keep_extractor(cli.out, model, data, run)
    # The last file: where it lies, the run is whole.
    write_json(cli.out / "run.json", run)
    if refitted:
        log.info("%d epochs on Train and Validation; checkpoint %s", trainer.current_epoch, chosen)
    else:
        log.info("%d epochs; best validation loss %.4f; checkpoint %s", trainer.current_epoch, score or 0.0, chosen)


def _keep_extractor(out: Path, model: PainClassifier, data: PainDataModule, run: Mapping[str, object]) -> None:
    """Write the trained network with its card, and the card as a page."""
    extractor = model.extractor
    assert isinstance(extractor, Extractor)
    settings = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))["model"]
    extractor.card = extractor_card(model, data, run, settings, read_history(out))
    extractor.trained_on = tuple(sorted({*extractor.trained_on, *model.fitted_on}))
    (out / "extractor_card.md").write_text(card_page(extractor.card), encoding="utf-8")
    save_weights(extractor, out / "extractor.safetensors")
