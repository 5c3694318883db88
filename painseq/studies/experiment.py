"""`Experiment`: a data set, a model and its fit options as plain values, from YAML files or Python."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.cli import LightningArgumentParser

import painseq.data_modules
import painseq.extractors
import painseq.faces
import painseq.heads  # noqa: F401  (short class names resolve for imported classes only)
from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.extractors import Extractor
from painseq.files import read_yaml, shipped_configs
from painseq.heads import DeepAdaBoost
from painseq.training.classifier import PainClassifier
from painseq.training.fitting import FitOptions
from painseq.training.tuning import ThresholdTuning

KEYS = ("seed_everything", "data", "model", "trainer", "early_stopping", "threshold")
STUDY_KEYS = ("audit", "crossval", "evaluate", "explain_columns", "explain_regions", "explain_score", "reproduce")
"""A study's own options, which its config.yaml has beside those of the experiment; reading an experiment skips them."""
FOLD_SETTINGS = {"max_epochs", "precision", "accelerator", "gradient_clip_val"}
"""Trainer settings that `FitOptions` accepts."""
DISPLAY_SETTINGS = {"enable_progress_bar", "enable_model_summary"}
"""Trainer settings that do not affect a fit."""

_IRRELEVANT = re.compile(
    r"\s*(Does not validate against any|Subtypes: |Errors:$|- Expected a <class 'NoneType'>|Given value type: |"
    r"Given value: (\{|NestedArg))"
)
"""Lines of jsonargparse's errors that list all types of a key, or everything below it."""


@dataclass(frozen=True)
class Experiment:
    """A data set, a model and its fit options as plain values, from which worker processes build their objects.

    Create one with `read_experiment`.

    Args:
        config: `data` ({class_path, init_args} or None), `model` (arguments of `PainClassifier`), `trainer`,
            `early_stopping`, `threshold`, `seed_everything`, as in YAML, with all defaults filled in.
    """

    config: Mapping[str, Any]

    def data(self) -> PainDataModule:
        """Build the data module.

        Raises:
            PainseqError: the experiment has no data set; see its class.
        """
        data = _built("data", self.config["data"])
        if not isinstance(data, PainDataModule):
            raise PainseqError("The experiment has no data set. Add one, e.g. configs/data/ai4pain.yaml.")
        return data

    def classifier(self) -> PainClassifier:
        """Build a new classifier, with new weights on each call.

        Raises:
            PainseqError: the experiment has no head; see `PainClassifier`.
        """
        if self.config["model"]["head"] is None:
            raise PainseqError("The experiment has no head. Add one, e.g. configs/head/lstm.yaml.")
        model = _built("model", self.config["model"])
        assert isinstance(model, PainClassifier)
        return model

    def extractor(self) -> Extractor:
        """Build the extractor.

        Raises:
            PainseqError: the experiment has no extractor.
        """
        model = _built("model", self.config["model"])
        assert isinstance(model, PainClassifier)
        if model.extractor is None:
            raise PainseqError("The experiment has no extractor. Add one, e.g. configs/extractor/vgg16.yaml.")
        return model.extractor

    @property
    def fits_at_once(self) -> bool:
        """Whether the head is not fitted by gradients in epochs, but at once."""
        return not getattr(self._head_class(), "fitted_by_gradients", True)

    @property
    def needs_inner_fits(self) -> bool:
        """Whether a fit has inner fits: of a tuned threshold, or of the deep heads of a `DeepAdaBoost`."""
        return self.tuning is not None or self._head_class() is DeepAdaBoost

    def _head_class(self) -> object:
        head = self.config["model"]["head"]
        if head is None:
            return None
        module, _, name = str(head["class_path"]).rpartition(".")
        return getattr(importlib.import_module(module), name)

    @property
    def tuning(self) -> ThresholdTuning | None:
        """How the decision threshold is tuned; None if it is not.

        Raises:
            PainseqError: an unknown metric, or fewer than 2 folds.
        """
        chosen = self.config["threshold"]
        return None if chosen is None else ThresholdTuning(**chosen)

    @property
    def head_name(self) -> str:
        """Name of the head's class, such as "LSTM"."""
        head = self.config["model"]["head"]
        return "no head" if head is None else str(head["class_path"]).rpartition(".")[2]

    def fit_options(self) -> FitOptions:
        """Return the options for `fit` and `fit_fold`.

        Raises:
            PainseqError: a setting of the trainer or of early stopping that they do not accept.
        """
        trainer, stopping = self.config["trainer"], self.config["early_stopping"]
        defaults = _defaults()
        others = [
            f"trainer.{key}"
            for key in sorted(set(trainer) - FOLD_SETTINGS - DISPLAY_SETTINGS)
            if trainer[key] != defaults["trainer"].get(key)
        ]
        others += [
            f"early_stopping.{key}"
            for key in sorted(set(stopping) - {"patience"})
            if stopping[key] != defaults["early_stopping"].get(key)
        ]
        if others:
            raise PainseqError(
                f"Folds do not accept {', '.join(others)}. They accept {', '.join(sorted(FOLD_SETTINGS))} of the "
                "trainer, and patience of early stopping. Omit the others, or fit each fold by itself (painseq fit, "
                "with split.fold)."
            )
        return FitOptions(
            # Lightning's default.
            max_epochs=trainer["max_epochs"] or 1000,
            patience=stopping["patience"],
            seed=int(self.config["seed_everything"] or 0),
            precision=trainer["precision"] or "32-true",
            accelerator=trainer["accelerator"],
            gradient_clip_val=trainer["gradient_clip_val"],
            tune_threshold=self.tuning,
        )

    def changed(self, *changes: Mapping[str, Any]) -> Experiment:
        """Return the experiment with changed values, as with a further YAML file.

        Example:
            >>> experiment.changed({"data": {"init_args": {"options": {"fps": 5}}}})
        """
        return read_experiment(self.config, *changes)


def read_experiment(*sources: str | Path | Mapping[str, Any]) -> Experiment:
    """Read an experiment from YAML files and mappings; later ones override earlier ones.

    Args:
        sources: paths of YAML files, including shipped ones ("configs/head/lstm.yaml") and a study's config.yaml, or
            mappings of the same shape.

    Raises:
        PainseqError: no such file, an unknown key, an invalid value.

    Example:
        >>> experiment = read_experiment(
        ...     "configs/data/ai4pain.yaml", "configs/head/lstm.yaml", {"data": {"init_args": {"root": "data/AI4Pain"}}}
        ... )
        >>> data, model = experiment.data(), experiment.classifier()
    """
    parser = _parser(*KEYS)
    config = parser.get_defaults()
    for source in sources:
        content = source if isinstance(source, Mapping) else _yaml(Path(source))
        content = {key: value for key, value in content.items() if key not in STUDY_KEYS}
        unknown = sorted(set(content) - set(KEYS))
        if unknown:
            raise PainseqError(f"Unknown keys {', '.join(unknown)}; an experiment has {', '.join(KEYS)}.")
        try:
            config = parser.parse_object(content, cfg_base=config)
        except (ArgumentError, UnicodeDecodeError) as error:
            where = "" if isinstance(source, Mapping) else f"{source}: "
            raise PainseqError(f"{where}{shortened(error)}") from error
    return experiment_of(parser, config)


def experiment_of(parser: LightningArgumentParser, config: Any) -> Experiment:
    """Return the experiment in a configuration parsed by Lightning's command line."""
    plain = yaml.safe_load(parser.dump(config, skip_validation=True, skip_none=False))
    return Experiment({key: plain.get(key) for key in KEYS})


def shortened(error: Exception) -> str:
    """Return the text of a jsonargparse error without its lists of types."""
    return "\n".join(line for line in str(error).splitlines() if not _IRRELEVANT.match(line))


def shipped_config(path: Path) -> Path:
    """Find a configuration file in the working folder or among the shipped files.

    Raises:
        PainseqError: no such file in either place.
    """
    if path.is_file():
        return path
    root = shipped_configs()
    inside = root.joinpath(*path.parts[1:]) if path.parts[:1] == ("configs",) else root / path
    if inside.is_file():
        return inside
    files = sorted(root.rglob("*.yaml"))
    same_kind = [file for file in files if file.parent.name == path.parent.name]
    known = [file.relative_to(root.parent).as_posix() for file in same_kind or sorted({file.parent for file in files})]
    raise PainseqError(f"No configuration at {path}. Shipped with painseq: {', '.join(known)}.")


def config_argument(path: Path) -> str:
    """What `--config` takes for a file: its path, or its text without the `STUDY_KEYS` where it has some.

    Raises:
        PainseqError: see `shipped_config`.
    """
    path = shipped_config(path)
    content = read_yaml(path)
    if not content.keys() & set(STUDY_KEYS):
        return str(path)
    content = {key: value for key, value in content.items() if key not in STUDY_KEYS}
    return yaml.safe_dump(content, sort_keys=False)


def _yaml(path: Path) -> Mapping[str, Any]:
    return read_yaml(shipped_config(path))


def add_threshold(parser: LightningArgumentParser) -> None:
    """Add the key `threshold` of an experiment."""
    parser.add_argument(
        "--threshold",
        type=ThresholdTuning | None,
        default=None,
        help="two classes: how the decision threshold is tuned on inner folds of the training subjects",
    )


@cache
def _parser(*keys: str) -> LightningArgumentParser:
    """Return a parser of these keys of an experiment, as in Lightning's command line."""
    parser = LightningArgumentParser(exit_on_error=False)
    if "seed_everything" in keys:
        parser.add_argument("--seed_everything", type=bool | int, default=0)
    if "threshold" in keys:
        add_threshold(parser)
    if "trainer" in keys:
        parser.add_lightning_class_args(Trainer, "trainer")
    if "model" in keys:
        parser.add_lightning_class_args(PainClassifier, "model")
    if "data" in keys:
        parser.add_lightning_class_args(PainDataModule, "data", subclass_mode=True, required=False)
    if "early_stopping" in keys:
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": "val_loss", "early_stopping.patience": 5})
    return parser


@cache
def _defaults() -> Mapping[str, Any]:
    parser = _parser("trainer", "early_stopping")
    plain = yaml.safe_load(parser.dump(parser.get_defaults(), skip_validation=True, skip_none=False))
    assert isinstance(plain, dict)
    return plain


def _built(key: str, value: Any) -> object:
    if value is None:
        return None
    parser = _parser(key)
    try:
        return parser.instantiate_classes(parser.parse_object({key: value}))[key]
    except ArgumentError as error:
        raise PainseqError(shortened(error)) from error
    except ValueError as error:
        # jsonargparse wraps the errors that a class raises about its arguments.
        if isinstance(error.__cause__, PainseqError):
            raise error.__cause__ from None
        raise
