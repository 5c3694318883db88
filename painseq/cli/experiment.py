"""The command line of all commands that take `--config`: one set of YAML files serves them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from jsonargparse import ArgumentError, Namespace
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI

from painseq.cli.arguments import AddArguments
from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.extractors import Extractor
from painseq.studies.experiment import Experiment, add_threshold, config_argument, experiment_of, shortened
from painseq.training.classifier import PainClassifier
from painseq.training.fitting import quiet_lightning


class ExperimentCLI(LightningCLI):
    """Lightning's command line with a pain data set, a classifier, and early stopping."""

    fits: ClassVar[bool] = False
    """Whether to instantiate a trainer."""

    def __init__(
        self, command: str, args: Sequence[str], description: str = "", add_arguments: AddArguments | None = None
    ) -> None:
        self.command = command
        self.add_own_arguments = add_arguments
        quiet_lightning()
        super().__init__(
            PainClassifier,
            PainDataModule,
            subclass_mode_model=False,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            seed_everything_default=0,
            run=False,
            args=with_shipped_configs(args),
            parser_kwargs={
                "prog": f"painseq {command}",
                "description": description,
                "exit_on_error": False,
            },
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse as Lightning does, but report a mistake as one message instead of the whole usage.

        Raises:
            PainseqError: an unknown option or key, an invalid value, YAML that cannot be parsed.
        """
        try:
            self.config = parser.parse_args(args)  # type: ignore[arg-type]
        except (ArgumentError, UnicodeDecodeError) as error:
            raise PainseqError(
                f"{shortened(error)}\n`painseq {self.command} --help` lists every option and key."
            ) from error
        for key in _keys_set_to_null(args if isinstance(args, Sequence) else ()):
            _set_to_none(self.config, key.split("."))

    def data(self) -> PainDataModule:
        """Return the data set.

        Raises:
            PainseqError: no data set is given.
        """
        if not isinstance(self.datamodule, PainDataModule):
            raise PainseqError(
                f"`painseq {self.command}` needs a data set: --config configs/data/biovid.yaml, or --data BioVid."
            )
        return self.datamodule

    def extractor(self) -> Extractor:
        """Return the extractor.

        Raises:
            PainseqError: no extractor is given.
        """
        if not isinstance(self.model, PainClassifier) or self.model.extractor is None:
            raise PainseqError(
                f"`painseq {self.command}` needs an extractor, e.g. --config configs/extractor/vgg16.yaml."
            )
        return self.model.extractor

    @property
    def experiment(self) -> Experiment:
        """The parsed experiment as plain values, without the command's own arguments."""
        return experiment_of(self.parser, self.config)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add early stopping, and the command's own arguments."""
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": "val_loss", "early_stopping.patience": 5})
        add_threshold(parser)
        if self.add_own_arguments is not None:
            self.add_own_arguments(parser)

    def instantiate_classes(self) -> None:
        """Instantiate as Lightning does, but the trainer only if the command fits."""
        try:
            self._instantiate()
        except ValueError as error:
            # jsonargparse wraps the errors that a class raises about its arguments.
            if isinstance(error.__cause__, PainseqError):
                raise error.__cause__ from None
            raise

    def _instantiate(self) -> None:
        if self.fits:
            super().instantiate_classes()
            return
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")


def with_shipped_configs(args: Sequence[str]) -> list[str]:
    """Resolve `--config configs/...` to the files shipped with painseq where the working folder has none.

    Raises:
        PainseqError: no such file in either place.
    """
    resolved: list[str] = []
    expects_file = False
    for arg in args:
        flag, equals, value = arg.partition("=")
        if expects_file or (flag == "--config" and equals):
            config = config_argument(Path(value if equals and not expects_file else arg))
            resolved.append(f"--config={config}" if equals and not expects_file else config)
            expects_file = False
            continue
        expects_file = arg == "--config"
        resolved.append(arg)
    return resolved


def _keys_set_to_null(args: Sequence[str]) -> list[str]:
    """Return the keys whose last value on the command line is YAML's null, such as "data.options.store"."""
    last: dict[str, str] = {}
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        flag, equals, value = arg.partition("=")
        if flag.startswith("--"):
            last[flag.removeprefix("--")] = value if equals else following
    return [key for key, value in last.items() if value in ("null", "Null", "NULL", "~")]


def _set_to_none(config: Namespace, key: Sequence[str]) -> None:
    """Set a key to None where jsonargparse made the word "None", or a path of that name, of a null inside a class."""
    for name in key[:-1]:
        config = config.get(name, config.get("init_args", {}).get(name))
        if not isinstance(config, Namespace):
            return
    if key[-1] not in config:
        config = config.get("init_args", {})
    if str(config.get(key[-1])) == "None":
        config[key[-1]] = None
