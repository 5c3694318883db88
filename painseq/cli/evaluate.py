"""`painseq evaluate`: scores with intervals and baselines, of a checkpoint or of a predictions file."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from painseq.cli.chosen_model import chosen_model
from painseq.cli.evaluation_files import evaluation_of, write_evaluation, write_page
from painseq.cli.evaluation_files import show as show
from painseq.errors import LeakError, PainseqError
from painseq.evaluation import Calibration, Evaluation, Predictions, calibrate, people_of, read_people
from painseq.evaluation.leaky import is_leaky, mark, marked
from painseq.evaluation.predictions import FILE, named, read_predictions, read_truth
from painseq.evaluation.value_predictions import ValuePredictions, holds_values, read_value_predictions
from painseq.evaluation.value_scores import ValueEvaluation
from painseq.runs import make_run_folder, pick_device, read_history, versions

if TYPE_CHECKING:
    from painseq.data.datamodule import PainDataModule
    from painseq.data.labels import LabelScheme
    from painseq.model.pain_model import PainModel
    from painseq.records import Part

USAGE = """usage: painseq evaluate --config DATA.yaml --checkpoint FILE [options]
       painseq evaluate --predictions FILE [options]

Score a model on people it has never seen, or a file of predictions: scores with intervals over subjects, baselines,
calibration, groups by sex and age, a row a subject, a page.

A checkpoint:
  --config FILE                   the data, as for `painseq fit`: configs/data/biovid.yaml, ...; may be given again
  --data.root FOLDER, --data.options.store FOLDER, --data.options.split.protocol NAME, ...
                                  change single keys of it; `painseq evaluate --data.help BioVid` tells them all
  --checkpoint FILE               best.ckpt of a run
  --average-checkpoints FILE ...  instead: several of other seeds or folds; their probabilities are averaged
  --part PART                     train, validation or test; default: test
  --truth FILE                    CSV of clip_id,truth for hidden labels
  --calibrate true                fit a temperature on the validation part, and apply it
  --prior CLASS=SHARE ...         the mix of classes among those to be predicted, if another than in training
  --device NAME                   auto, cpu, cuda, cuda:0, ...
  --trust PACKAGE ...             packages whose classes may be built
  --out FOLDER                    for predictions.csv, metrics.json, subjects.csv, report.html;
                                  default: runs/evaluate-<time>
  Sex and age come from the data set's manifest.

A file, for which no model is needed:
  --predictions FILE              predictions.csv of a run, or a file of your own
  --subjects FILE                 CSV of subject_id,sex,age: scores by sex and age band
  --calibrate-on FILE             predictions of other people, to fit a temperature on
  --out FOLDER                    as above; default: on screen only
  `painseq evaluate --predictions FILE --help` tells the others.
"""
log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command: without a model if --predictions is given."""
    if any(arg.partition("=")[0] == "--predictions" for arg in argv):
        _evaluate_file(argv)
    elif not argv or {"-h", "--help"} & set(argv):
        # Lightning's command line would tell six hundred lines, most of them of training.
        sys.stdout.write(USAGE)
    else:
        _evaluate_checkpoint(argv)
    return 0


def _evaluate_file(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("painseq evaluate", description="Score a predictions file; no model needed.")
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.csv, or a file of your own")
    parser.add_argument("--truth", type=Path, help="CSV of clip_id,truth where the file has none")
    parser.add_argument("--dataset", help="whose native labels the truth file holds, if any: biovid, ai4pain, ...")
    parser.add_argument("--labels", default="three", help="label scheme that maps them; default: %(default)s")
    parser.add_argument(
        "--classes", nargs="+", help="class names in order of pain, where the file has no prob_ columns"
    )
    parser.add_argument("--subjects", type=Path, help="CSV of subject_id,sex,age: scores by sex and age band")
    parser.add_argument(
        "--calibrate-on", type=Path, metavar="FILE", help="predictions of other people, to fit a temperature on"
    )
    parser.add_argument("--out", type=Path, help="folder for metrics.json, report.html and the like")
    args = parser.parse_args(argv)
    path: Path = args.predictions
    said, calibration = _read(path, args)
    if not said.scored.any():
        raise PainseqError(
            f"{path}: no clip has both a truth and a prediction, so there is nothing to score. Give the "
            "truth with --truth FILE (columns clip_id, truth)."
        )
    people = {} if args.subjects is None else read_people(args.subjects)
    unknown = set(said.subject_ids) - set(people)
    if args.subjects is not None and unknown:
        log.warning("%s does not hold %d of the subjects, such as %s.", args.subjects, len(unknown), min(unknown))
    out = None if args.out is None else make_run_folder(args.out)
    made = evaluation_of(said, people, calibration)
    assert made is not None
    name, leaky = named(path), is_leaky(path)
    if leaky:
        name = marked(name)
        log.warning("%s is marked LEAKY: it scores people who were trained on, and says nothing of new ones.", path)
    show({name: made})
    if out is not None:
        facts = {"predictions": str(path), **_told(calibration), "versions": _in_line(versions())}
        details = {"predictions": str(path), "calibrated_on": _path(args.calibrate_on), "versions": versions()}
        write_evaluation(out, name, said, made, details)
        if leaky:
            mark(out / FILE)
            mark(out / "subjects.csv")
        write_page(out, name, said, made, f"The predictions in {path.name}", _published_as(args.dataset), facts)


def _published_as(dataset: str | None) -> str:
    """What the page calls the data set of a file: as the published rows do, if it is a known one."""
    if dataset is None:
        return "a file"
    from painseq.data_modules import FACTS

    return FACTS[dataset].published_as or dataset if dataset in FACTS else dataset


def _read(path: Path, args: argparse.Namespace) -> tuple[Predictions | ValuePredictions, Calibration | None]:
    """The predictions of a file, with truth and temperature as the command line says."""
    truth = None if args.truth is None else read_truth(args.truth)
    if holds_values(path):
        values = read_value_predictions(path)
        if args.calibrate_on is not None:
            raise PainseqError(f"{path} holds numbers on a scale, and only probabilities can be calibrated.")
        if args.subjects is not None:
            raise PainseqError(f"{path} holds numbers on a scale; only classes are scored by sex and age.")
        if args.classes is not None:
            raise PainseqError(f"{path} holds numbers on a scale, which have no --classes.")
        return (values if truth is None else with_true_values(values, truth)), None
    predictions = read_predictions(path, args.classes)
    if truth is not None:
        if args.dataset is not None:
            from painseq.data.labels import label_scheme
            from painseq.data_modules import facts_of

            scheme = label_scheme(args.dataset, args.labels, facts_of(args.dataset))
            predictions, truth = in_classes(predictions, truth, scheme)
        predictions = predictions.with_truth(truth)
    if args.calibrate_on is None:
        return predictions, None
    if args.calibrate_on.is_file() and is_leaky(args.calibrate_on):
        raise LeakError(
            f"{args.calibrate_on} is marked LEAKY: it holds people who were trained on. A model is surer of them than "
            "of new ones, so a temperature fitted on them is too low. Fit it on people that the model has not seen."
        )
    return calibrate(predictions, read_predictions(args.calibrate_on, predictions.class_names))


def evaluate(argv: Sequence[str]) -> tuple[Predictions, Evaluation | None]:
    """Score a checkpoint of classes as the command line says.

    Returns:
        The predictions, and their evaluation where the truth is known.

    Raises:
        LeakError: the model has seen somebody of this part.
        PainseqError: see `painseq.studies.predict_part`.
    """
    said, made = _evaluate_checkpoint(argv)
    assert isinstance(said, Predictions) and not isinstance(made, ValueEvaluation)
    return said, made


def _evaluate_checkpoint(
    argv: Sequence[str],
) -> tuple[Predictions | ValuePredictions, Evaluation | ValueEvaluation | None]:
    from painseq.cli.experiment import ExperimentCLI
    from painseq.data.datamodule import PainDataModule

    cli = ExperimentCLI("evaluate", argv)
    config, data = cli.config, cli.datamodule
    if not isinstance(data, PainDataModule):
        raise PainseqError("`painseq evaluate` needs a data set: --config configs/data/ai4pain.yaml, or --data BioVid.")
    device = pick_device(config["device"])
    paths = config["average_checkpoints"] or [config["checkpoint"]]
    model = chosen_model(config["checkpoint"], config["average_checkpoints"], config["prior"], config["trust"], device)
    if config["calibrate"] and config["part"] == "validation":
        raise PainseqError(
            "--calibrate fits the temperature on the validation part, so that part cannot be scored with it. Score "
            "--part test, or leave --calibrate out."
        )
    out = make_run_folder(Path(config["out"]))
    truth = None if config["truth"] is None else read_truth(Path(config["truth"]))
    said, calibration = _predict(model, data, config["part"], truth, config["calibrate"])
    cli.parser.save(config, out / "config.yaml", skip_validation=True)
    name = model_name(model)
    made = evaluation_of(said, people_of(data.clips(config["part"])), calibration)
    fingerprint = data.manifest.fingerprint()
    details = {
        "part": config["part"],
        "split": data.split.to_dict(),
        "data": {"name": data.name, "labels": data.options.labels, "fingerprint": fingerprint},
        "checkpoints": [str(path) for path in paths],
        "prior": list(config["prior"]),
        "baseline_clips": model.record.baseline_clips,
        "temperature": None if calibration is None else calibration.temperature,
        "device": device,
        "versions": versions(),
    }
    write_evaluation(out, name, said, made, details)
    if made is None:
        log.info("The labels of this part are hidden: predictions written to %s, no score.", out / "predictions.csv")
        return said, made
    show({name: made})
    facts = {
        "data": f"{data.name}, part {config['part']}, labels {data.options.labels}, fingerprint {fingerprint}",
        "split": f"{data.split.protocol}: "
        + ", ".join(f"{part} {len(data.split.subjects(part))} subjects" for part in data.split.parts()),
        "checkpoint": ", ".join(str(path) for path in paths),
        "fitted on": f"{len(model.fitted_on)} subjects, those of early stopping and of the extractor included",
        **({"stated mix of classes": ", ".join(config["prior"])} if config["prior"] else {}),
        **_told(calibration),
        "device": device,
        "versions": _in_line(versions()),
    }
    from painseq.video.generated import is_generated

    generated = is_generated(data.root)
    subtitle = f"Part {config['part']} of {data.name}" + (", generated faces: no people" if generated else "")
    history = read_history(Path(paths[0]).parent) if len(paths) == 1 else []
    dataset = "generated faces" if generated else data.facts.published_as or data.name
    write_page(out, name, said, made, subtitle, dataset, facts, history)
    return said, made


def _predict(
    model: PainModel, data: PainDataModule, part: Part, truth: Mapping[str, str] | None, calibrated: bool
) -> tuple[Predictions | ValuePredictions, Calibration | None]:
    """What the model says of a part, with truth and temperature as the command line says."""
    from painseq.studies.predict_part import predict_part, predict_validation, predict_values

    if model.predicts_values:
        if calibrated:
            raise PainseqError(f"This model says numbers ({model.scale}), and only probabilities can be calibrated.")
        with _progress(part) as show_progress:
            values = predict_values(model, data, part, show_progress)
        return (values if truth is None else with_true_values(values, truth)), None
    validation = None
    if calibrated:
        # The smaller part first: it can turn out that no temperature may be fitted on it.
        with _progress("validation") as show_progress:
            validation = predict_validation(model, data, show_progress)
    with _progress(part) as show_progress:
        said = predict_part(model, data, part, show_progress)
    if truth is not None:
        said, named = in_classes(said, truth, data.scheme)
        said = said.with_truth(named)
    return (said, None) if validation is None else calibrate(said, validation)


@contextmanager
def _progress(part: str) -> Iterator[Callable[[int, int], None]]:
    """A bar over the clips of a part, on standard error, gone when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"clips of {part}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _told(calibration: Calibration | None) -> dict[str, str]:
    if calibration is None:
        return {}
    return {
        "temperature": f"{calibration.temperature:.3f}, fitted on {calibration.clips} clips of "
        f"{len(calibration.fitted_on)} subjects who are not scored; predictions.csv holds the scaled probabilities"
    }


def _in_line(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


def model_name(model: PainModel) -> str:
    """What a model is called in tables: its head, and whatever makes its score another than a plain one."""
    from painseq.model.averaging import AveragedModel

    name = type(model.head).__name__
    if isinstance(model, AveragedModel):
        name += f", mean of {len(model.members)}"
    if model.record.data.shuffled_labels is not None:
        name += ", SHUFFLED LABELS"
    return name


def in_classes(
    predictions: Predictions, truth: Mapping[str, str], scheme: LabelScheme
) -> tuple[Predictions, dict[str, str]]:
    """Truth in native labels or in class names, as class names; clips whose label the scheme leaves out leave both.

    Raises:
        PainseqError: a label that is neither.
    """
    named: dict[str, str] = {}
    for clip_id, label in truth.items():
        if label in scheme.classes:
            named[clip_id] = label
            continue
        if not scheme.knows(label):
            raise PainseqError(
                f"The truth of {clip_id} is {label!r}, which is neither a class ({', '.join(scheme.class_names)}) nor "
                f"a label of {scheme.dataset} ({', '.join(scheme.known)})."
            )
        group = scheme.group(label)
        if group is not None:
            named[clip_id] = group
    kept = [row for row, clip in enumerate(predictions.clip_ids) if clip in named or clip not in truth]
    if len(kept) < len(predictions):
        log.info("%d clips left out: the scheme %r has no class for them.", len(predictions) - len(kept), scheme.name)
    return predictions.only(kept), named


def with_true_values(values: ValuePredictions, truth: Mapping[str, str]) -> ValuePredictions:
    """The same values with the truth filled in from numbers by clip id.

    Raises:
        PainseqError: a clip that `truth` does not hold, a text that is no number, or one that contradicts the truth
            already here.
    """
    filled = values.truth.copy()
    for row, clip_id in enumerate(values.clip_ids):
        try:
            filled[row] = float(truth[clip_id])
        except KeyError as error:
            raise PainseqError(f"The truth lacks clip {clip_id!r}. Clip ids must be the same in both files.") from error
        except ValueError as error:
            raise PainseqError(f"The truth of {clip_id} is {truth[clip_id]!r}; it must be a number.") from error
        if not np.isnan(values.truth[row]) and values.truth[row] != filled[row]:
            raise PainseqError(
                f"Clip {clip_id!r}: the predictions give {values.truth[row]:g} as its truth, the truth file "
                f"{filled[row]:g}. One of the two belongs to other data."
            )
    return dataclasses.replace(values, truth=filled)
