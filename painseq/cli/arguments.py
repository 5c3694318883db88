"""Arguments that several commands share, and how commands declare their own.

A command is a module with `main(argv)`. A command without `--config` creates an `argparse.ArgumentParser`, adds the
groups below, and calls the library. A command with `--config` (data set, model, trainer) declares its arguments in a
function, so that `--help` can show them without importing torch, and calls `experiment`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from painseq.errors import PainseqError
from painseq.records import MIN_FACE_SHARE, PARTS

if TYPE_CHECKING:
    from painseq.cli.experiment import ExperimentCLI
    from painseq.faces import Locator
    from painseq.model.pain_model import PainModel
    from painseq.model.predictor import Predictor
    from painseq.studies.model_files import ModelFiles
    from painseq.training.tuning import ThresholdTuning


class Parser(Protocol):
    """The parser that a command adds its arguments to: argparse's or Lightning's.

    Use only what both understand: `type` is `str`, `int`, `float` or `Path`; an optional argument has no default, or a
    default of that type.
    """

    def add_argument(self, *flags: str, **settings: Any) -> Any:
        """Same as in argparse."""


AddArguments = Callable[[Any], None]

CONFIG_HELP = """
Give the data set, model and trainer as one or more YAML files; later files override earlier ones:
  --config FILE            configs/data/*.yaml, configs/extractor/*.yaml, configs/head/*.yaml, or your own files
  --data.root FOLDER, --data.options.store FOLDER, --trainer.max_epochs N, ...
                           set single keys
  --data.help BioVid       list the keys of a data set
  --help-all               list every key
"""


def print_help_if_asked(command: str, description: str, add_arguments: AddArguments, argv: Sequence[str]) -> None:
    """Print the help of a command and exit, if `--help` is among its arguments.

    Args:
        command: as typed after `painseq`, such as "evaluate" or "data check".
        add_arguments: adds the command's own arguments to a parser.
    """
    if {"-h", "--help"} & set(argv):
        parser = argparse.ArgumentParser(
            f"painseq {command}",
            description=description,
            epilog=CONFIG_HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_arguments(parser)
        parser.print_help(sys.stdout)
        raise SystemExit(0)


def experiment(command: str, description: str, add_arguments: AddArguments, argv: Sequence[str]) -> ExperimentCLI:
    """Parse a command that takes Lightning's configuration; see `print_help_if_asked`.

    Raises:
        PainseqError: an unknown option or key, an invalid value, YAML that cannot be parsed.
    """
    print_help_if_asked(command, description, add_arguments, argv)
    from painseq.cli.experiment import ExperimentCLI

    args = ["--help" if arg == "--help-all" else arg for arg in argv]
    return ExperimentCLI(command, args, description, add_arguments)


def add_model(parser: Parser) -> None:
    """Add `--checkpoint`, `--average`, `--prior` and `--trust`, which `chosen_models` reads."""
    parser.add_argument(
        "--checkpoint",
        type=str,
        action="append",
        default=[],
        metavar="PATH",
        help="load this checkpoint (best.ckpt of a run), or for predict and live a folder of `painseq export`; "
        "repeat to show several models side by side",
    )
    parser.add_argument("--average", action="store_true", help="average the probabilities of several checkpoints")
    parser.add_argument(
        "--prior",
        type=str,
        nargs="*",
        default=[],
        metavar="CLASS=SHARE",
        help="correct the probabilities for these class shares, where they differ from training",
    )
    add_trust(parser)


def add_trust(parser: Parser) -> None:
    """Add `--trust`."""
    parser.add_argument(
        "--trust",
        type=str,
        nargs="*",
        default=[],
        metavar="PACKAGE",
        help="allow checkpoints to build classes of these packages besides painseq; this runs their code",
    )


def add_device(parser: Parser) -> None:
    """Add `--device`."""
    parser.add_argument(
        "--device", type=str, default="auto", help="run on this device: auto, cpu, cuda, cuda:0, ...; default: auto"
    )


def add_person(parser: Parser) -> None:
    """Add `--baseline` and `--same-person`, for models of features normalised by person."""
    parser.add_argument("--baseline", type=Path, help="video of the same subject without pain, if the model needs one")
    parser.add_argument(
        "--same-person",
        nargs="+",
        type=Path,
        default=[],
        metavar="VIDEO",
        help="other videos of the same person, for a model that normalises by subject",
    )


def add_min_face_share(parser: Parser) -> None:
    """Add `--min-face-share`."""
    parser.add_argument(
        "--min-face-share",
        type=float,
        default=MIN_FACE_SHARE,
        metavar="SHARE",
        help=f"warn of predictions from clips with a face in a smaller share of the frames; default: {MIN_FACE_SHARE}",
    )


def add_part(parser: Parser) -> None:
    """Add `--part`."""
    parser.add_argument("--part", choices=PARTS, default="test", help="use this part of the split; default: test")


def add_explained(parser: Parser, out_help: str) -> None:
    """Add what the explanations of a data set share: `--out`, `--part`, `--device`, and those of `add_model`."""
    parser.add_argument("--out", type=Path, required=True, help=out_help)
    add_model(parser)
    add_part(parser)
    add_device(parser)


def add_clips(parser: Parser) -> None:
    """Add `--clips` and `--class-name`."""
    parser.add_argument(
        "--clips", type=int, default=20, help="number of clips, chosen evenly by class and subject; default: 20"
    )
    parser.add_argument("--class-name", type=str, help="explain this class; default: the predicted class")


def add_parts(parser: Parser) -> None:
    """Add `--parts`."""
    parser.add_argument(
        "--parts",
        type=str,
        nargs="*",
        default=[],
        help="use only these parts: train, validation, test; default: all clips",
    )


def add_locator(parser: Parser) -> None:
    """Add `--locator` and the files of its models, which `chosen_locator` reads. They replace the model's locator."""
    parser.add_argument(
        "--locator",
        choices=["yunet", "face_mesh", "sidecar", "full_frame", "face_alignment"],
        help="detect faces with this locator; default: the model's own",
    )
    add_locator_models(parser)


def add_locator_models(parser: Parser) -> None:
    """Add `--yunet-model` and `--face-mesh-model`."""
    parser.add_argument(
        "--yunet-model", type=str, metavar="FILE", help="read YuNet from this .onnx file instead of downloading it"
    )
    parser.add_argument(
        "--face-mesh-model",
        type=str,
        metavar="FILE",
        help="read the face mesh from this face_landmarker.task instead of downloading it",
    )


def add_tuning(parser: Parser, folds_flag: str) -> None:
    """Declare the arguments of a tuned threshold; see `chosen_tuning`."""
    parser.add_argument(
        "--tune-threshold",
        type=str,
        metavar="METRIC",
        help="two classes: tune the threshold on inner folds of the training subjects, for weighted_f1, "
        "balanced_accuracy, or sensitivity=0.9 (at least)",
    )
    parser.add_argument(folds_flag, type=int, default=5, help="folds of --tune-threshold; default: %(default)s")


def chosen_tuning(metric: str | None, folds: int) -> ThresholdTuning | None:
    """Return the tuning of a threshold that the arguments ask for.

    Raises:
        PainseqError: an unknown metric, or fewer than 2 folds.
    """
    from painseq.training.tuning import ThresholdTuning

    return None if metric is None else ThresholdTuning(metric, folds)


def model_files(args: Any) -> ModelFiles:
    """Return the models that `add_model`'s arguments name, and the device, if there is one.

    Raises:
        PainseqError: see `ModelFiles`; class shares that are not CLASS=SHARE.
    """
    from painseq.studies.model_files import ModelFiles

    paths = tuple(Path(path) for path in args.checkpoint)
    prior = parse_prior(args.prior) if args.prior else None
    return ModelFiles(paths, args.average, prior, tuple(args.trust), args.device)


def chosen_predictors(args: Any) -> dict[str, Predictor]:
    """Load the models that `add_model`'s arguments name, exported folders too; torch is imported for checkpoints alone.

    Raises:
        PainseqError: see `ModelFiles.load`.
    """
    return model_files(args).load()


def chosen_models(args: Any, device: str) -> dict[str, PainModel]:
    """Load the checkpoints that `add_model`'s arguments name.

    Returns:
        Name -> model, in the order given. The name is the checkpoint's path. With `--average` there is one model,
        the mean of all.

    Raises:
        PainseqError: no checkpoint, only one checkpoint to average, the same checkpoint twice, models that cannot be
            averaged, class shares that do not fit the model.
    """
    return model_files(args).load_checkpoints(device)


def chosen_model(args: Any, device: str) -> PainModel:
    """Load the one model that the arguments name, for a command that takes one model.

    Raises:
        PainseqError: several checkpoints without `--average`; see `chosen_models`.
    """
    if len(args.checkpoint) > 1 and not args.average:
        raise PainseqError(
            f"This command takes one model; --checkpoint names {len(args.checkpoint)}. Give one, or add --average."
        )
    (model,) = chosen_models(args, device).values()
    return model


def parse_prior(pairs: Sequence[str]) -> Mapping[str, float]:
    """Parse `["no_pain=0.1", ...]` into class name -> share.

    Raises:
        PainseqError: a text that is not CLASS=SHARE.
    """
    mix: dict[str, float] = {}
    for pair in pairs:
        name, equals, share = pair.partition("=")
        try:
            mix[name] = float(share)
        except ValueError:
            equals = ""
        if not equals:
            raise PainseqError(f"--prior {pair}: write CLASS=SHARE, such as no_pain=0.04 low_pain=0.48 high_pain=0.48.")
    return mix


def chosen_locator(args: Any) -> Locator | None:
    """Return the locator that `add_locator`'s arguments name; None keeps the model's own.

    Raises:
        PainseqError: the file of a model that the locator does not use.
    """
    from painseq.faces import FaceAlignment, FaceMesh, FullFrame, Sidecar, YuNet

    if args.yunet_model is not None and args.locator not in ("yunet", "face_mesh"):
        raise PainseqError(f"--yunet-model {args.yunet_model} needs --locator yunet or face_mesh.")
    if args.face_mesh_model is not None and args.locator != "face_mesh":
        raise PainseqError(f"--face-mesh-model {args.face_mesh_model} needs --locator face_mesh.")
    if args.locator is None:
        return None
    if args.locator == "yunet":
        return YuNet(args.yunet_model)
    if args.locator == "face_mesh":
        return FaceMesh(args.face_mesh_model, args.yunet_model)
    if args.locator == "sidecar":
        return Sidecar()
    return FullFrame() if args.locator == "full_frame" else FaceAlignment()
