"""`painseq audit`: what leaky protocols would have claimed of a model, and who is on both sides of a split."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from painseq.errors import PainseqError

if TYPE_CHECKING:
    from painseq.cli.experiment import ExperimentCLI
    from painseq.evaluation.audit import Audit, Protocol, Unit
    from painseq.evaluation.predictions import Predictions

USAGE = """usage: painseq audit model | check [options]

  model  Fit one model under the leaky protocols of the literature and under subject folds, on the same items; tell how
         much leakage inflates its scores.
  check  Look for people, clips and copies on both sides of a split file, a table of clips or predictions; exit code 1
         if there are any.

`painseq audit model --help` and `painseq audit check --help` tell their options.
"""
log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command; `check` returns 1 if anything leaks."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    if argv[0] == "model":
        audit_model(argv[1:])
        return 0
    if argv[0] == "check":
        from painseq.cli.audit_check import check

        return check(argv[1:])
    raise PainseqError(f"`painseq audit {argv[0]}` is not known; it is `model` or `check`, followed by the options.")


def audit_model(argv: Sequence[str]) -> Audit:
    """Audit a model as the command line says.

    Writes into `--out`: `report.html` and its `figures`, `audit.json`, `audit.csv`, `predictions_<protocol>.csv`,
    `config.yaml`, and a folder with a run for each fold of each protocol. Run again after an interruption, it goes on
    at the fold.

    Raises:
        PainseqError: no data set or store, a regression, another audit in the folder; see
            `painseq.studies.audit_folds`.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from painseq.cli.audit_page import show_audit, write_audit
    from painseq.cli.experiment import ExperimentCLI, recipe_of
    from painseq.data.datamodule import PainDataModule
    from painseq.evaluation.audit import SUBJECT_FOLDS, audit_of, protocols_of
    from painseq.runs import versions
    from painseq.studies.audit_folds import audit_items, fit_protocol, folds_of, groups_of, overlap
    from painseq.video.generated import is_generated

    cli = ExperimentCLI("audit model", argv)
    data, config = cli.datamodule, cli.config
    if not isinstance(data, PainDataModule):
        raise PainseqError(
            "`painseq audit model` needs a data set: --config configs/data/ai4pain.yaml, or --data BioVid."
        )
    if data.scheme.scale is not None:
        raise PainseqError(
            f"The audit compares accuracies of classes, and {data.options.labels!r} is a scale. Choose a scheme of "
            "classes: --data.options.labels."
        )
    if config["epochs"] is not None and config["epochs"] < 1:
        raise PainseqError(f"--epochs is {config['epochs']}; it must be 1 or more.")
    recipe = recipe_of(cli)
    factory, options = recipe.make().head_factory, recipe.options
    assert factory is not None
    head = factory(data.in_shape, len(data.scheme.class_names))
    unit: Unit = "frames" if head.level == "frame" else "clips"
    items = audit_items(data, unit, config["frames_per_clip"])
    clips, subjects = [clip.clip_id for clip in items.clips], [clip.subject_id for clip in items.clips]
    folds = {
        protocol: folds_of(
            items.target.numpy(),
            groups_of(items, protocol),
            config["folds"],
            options.seed,
            data.options.split.validation_share,
        )
        for protocol in protocols_of(unit)
    }
    out = Path(config["out"])
    _open(out, cli)
    log.info(
        "%s: %d %s of %d clips and %d subjects; %d folds each of %s",
        data.name,
        len(items),
        unit,
        len(set(clips)),
        len(set(subjects)),
        config["folds"],
        ", ".join(protocol.title for protocol in folds),
    )
    predictions: dict[Protocol, Predictions] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("folds"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        for protocol, divided in folds.items():
            task = bar.add_task(protocol.title, total=len(divided))
            predictions[protocol] = fit_protocol(
                recipe.make,
                data,
                items,
                protocol,
                divided,
                out / protocol.name,
                options,
                config["epochs"],
                partial(bar.advance, task),
            )
    result = audit_of(predictions, dict(zip(items.names, clips, strict=True)) if unit == "frames" else None)
    overlaps = {protocol: overlap(divided, clips, subjects) for protocol, divided in folds.items()}
    run = json.loads((out / SUBJECT_FOLDS.name / "fold_0" / "run.json").read_text(encoding="utf-8"))
    facts = {
        "data": data.name + (", generated by painseq" if is_generated(data.root) else ""),
        "items": f"{len(items)} {unit}, of {len(set(clips))} clips and {len(set(subjects))} subjects",
        "folds": str(config["folds"]),
        "epochs": f"best of at most {options.max_epochs}" if config["epochs"] is None else str(config["epochs"]),
        "seed": str(options.seed),
        "head": recipe.name,
        "device": str(run["device"]),
        "precision": options.precision,
        "labels": str(data.options.labels),
        "data fingerprint": data.manifest.fingerprint(),
        **versions(),
    }
    write_audit(out, result, overlaps, facts)
    show_audit(result)
    log.info("Report: %s", out / "report.html")
    return result


def _open(out: Path, cli: ExperimentCLI) -> None:
    """Make the folder of an audit, or find there an unfinished one with the same configuration."""
    import yaml

    from painseq.runs import check_same_run, make_run_folder

    settings = yaml.safe_load(cli.parser.dump(cli.config, skip_validation=True))
    for key in ("out", "config"):
        settings.pop(key, None)
    path = out / "config.yaml"
    if (out / "audit.json").is_file():
        raise PainseqError(f"{out} holds a finished audit, and nothing is overwritten. Give --out another folder.")
    if path.is_file():
        check_same_run(out, yaml.safe_load(path.read_text(encoding="utf-8")), settings)
        return
    make_run_folder(out)
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
