"""Leak checks of split files and predictions: subjects, clips and copies of videos on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from painseq.data.splits import Split
from painseq.errors import PainseqError
from painseq.evaluation import Predictions
from painseq.evaluation.split_check import (
    ClipTable,
    Member,
    SplitFinding,
    check_contents,
    check_members,
    check_seen,
    check_videos_seen,
    joined,
    read_table,
)
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.records import plain_name
from painseq.runs import OnProgress, no_progress


@dataclass(frozen=True)
class CheckOptions:
    """How files are read, and what they are checked against.

    Args:
        subject_column: column of subjects; None: guessed by name.
        part_column: column of parts or folds; None: guessed by name.
        split: split (JSON) that predictions, or a CSV without parts, belong to.
        checkpoint: model that made the predictions; with `root`, the videos of a split's test part are compared with
            those that it was fitted on.
        dataset: data set of the predictions' subjects; None: the data set that the checkpoint was trained on, if there
            is only one.
        root: folder of the videos, whose content is compared to find copies.
    """

    subject_column: str | None = None
    part_column: str | None = None
    split: Path | None = None
    checkpoint: Path | None = None
    dataset: str | None = None
    root: Path | None = None


@dataclass(frozen=True)
class SplitAudit:
    """The findings of a check.

    Args:
        findings: name of a checked file -> its findings.
    """

    findings: Mapping[str, tuple[SplitFinding, ...]]

    @property
    def leaks(self) -> int:
        """Number of findings that are leaks."""
        return sum(finding.severity == "leak" for findings in self.findings.values() for finding in findings)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        checked = {name: [finding.to_dict() for finding in findings] for name, findings in self.findings.items()}
        return {"leaks": self.leaks, "checked": checked}


def audit_files(
    files: Sequence[str | Path], options: CheckOptions | None = None, on_progress: OnProgress = no_progress
) -> SplitAudit:
    """Check files for subjects, clips and copies of videos on both sides of a split.

    Args:
        files: a split or folds (JSON), a CSV of clips with a column of parts or folds, predictions, or one CSV per
            part, such as train.csv and test.csv. Files of other programs are accepted.
        on_progress: called as videos are read, if `root` is given.

    Raises:
        PainseqError: a file that cannot be read, or that cannot be compared with anything.

    Example:
        >>> audit = audit_files([Path("train.csv"), Path("test.csv")])
        >>> assert not audit.leaks, audit.findings
    """
    options = options or CheckOptions()
    tables = [read_table(Path(path), options.subject_column, options.part_column) for path in files]
    split = None if options.split is None else read_table(options.split)
    if split is not None and any(member.fold for member in split.members):
        raise PainseqError(
            f"split {split.path} holds several folds. Give the split of one fold, or the model's checkpoint."
        )
    divided = {_description(table): table.members for table in tables if table.kind in ("split", "table")}
    partless = [table for table in tables if table.kind == "parts unknown"]
    if partless:
        divided[" and ".join(str(table.path) for table in partless)] = joined(partless, split)
    if options.root is not None and not divided:
        raise PainseqError(f"root {options.root} needs a split whose videos to compare; predictions name no videos.")
    findings = {name: check_members(members) for name, members in divided.items()}
    for table in tables:
        if table.kind == "predictions":
            findings[_description(table)] = _check_predictions(table, split, options)
    if options.root is not None:
        for name, members in divided.items():
            findings[name] += check_contents(members, options.root, on_progress)
            if options.checkpoint is not None:
                findings[name] += _check_videos(members, options.root, options.checkpoint, on_progress)
    return SplitAudit({name: tuple(of_file) for name, of_file in findings.items()})


def audit_split(split: Split) -> tuple[SplitFinding, ...]:
    """Return subjects in more than one part of a split, and subjects with nearly equal names.

    Example:
        >>> audit_split(data.split)
        ()
    """
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return tuple(check_members([Member(part, subject) for part, names in parts.items() for subject in names]))


def audit_predictions(
    predictions: Predictions | ValuePredictions, checkpoint: str | Path, dataset: str | None = None
) -> tuple[SplitFinding, ...]:
    """Return scored subjects that the model or its extractor was fitted on.

    Args:
        checkpoint: checkpoint of the model that made the predictions.
        dataset: data set of the predictions' subjects; None: the data set that the checkpoint was trained on.

    Raises:
        PainseqError: the checkpoint was trained on several data sets, and `dataset` is None.
    """
    scored = [Member("test", subject) for subject in dict.fromkeys(predictions.subject_ids)]
    return tuple(_check_model(scored, Path(checkpoint), dataset))


def _description(table: ClipTable) -> str:
    columns = ", ".join(f"{role} in {column!r}" for role, column in table.columns.items())
    return f"{table.path} ({table.kind}{f'; {columns}' if columns else ''})"


def _check_predictions(table: ClipTable, split: ClipTable | None, options: CheckOptions) -> list[SplitFinding]:
    """Return the scored subjects that the model has seen."""
    findings = list(table.marks)
    if split is not None:
        seen = [member.subject for member in split.members if member.part != "test"]
        findings += check_seen(table.members, seen, f"{split.path} trains or stops early on")
    if options.checkpoint is not None:
        findings += _check_model(table.members, options.checkpoint, options.dataset)
    if split is None and options.checkpoint is None and not findings:
        raise PainseqError(
            f"{table.path} holds predictions, which do not name the subjects that the model was fitted on. Give "
            "checkpoint, or the split of the fit (command line: --checkpoint, --split)."
        )
    return findings


def _check_videos(
    members: Sequence[Member], root: Path, checkpoint: Path, on_progress: OnProgress
) -> list[SplitFinding]:
    """Return the test videos that a model was fitted on, or that its checkpoint does not tell."""
    from painseq.model.checkpoint import read_checkpoint

    seen = read_checkpoint(checkpoint).record.fitted_videos
    if not seen:
        text = "checkpoints that do not record the videos that they were fitted on, which are not compared"
        return [SplitFinding("suspicious", text, (str(checkpoint),))]
    return check_videos_seen(members, root, seen, f"{checkpoint} was fitted on", on_progress)


def _check_model(scored: Sequence[Member], checkpoint: Path, data_set: str | None) -> list[SplitFinding]:
    """Return the scored subjects of one data set that a model has seen, and weights whose subjects are not known."""
    from painseq.model.checkpoint import read_checkpoint

    record = read_checkpoint(checkpoint).record
    subjects = {
        f"{checkpoint} was fitted on": record.fitted_on,
        f"{checkpoint} has an extractor trained on": record.extractor_trained_on,
    }
    data_sets = sorted({plain_name(name).partition("/")[0] for names in subjects.values() for name in names})
    if data_set is None and len(data_sets) > 1:
        raise PainseqError(
            f"{checkpoint} was fitted on subjects of {' and '.join(data_sets)}, whose names may be equal. Give "
            "dataset, "
            "the data set of the predictions' subjects (command line: --dataset)."
        )
    own = plain_name(data_set) if data_set else "".join(data_sets)
    findings = []
    for reason, names in subjects.items():
        seen = [name.partition("/")[2] for name in names if plain_name(name).startswith(f"{own}/")]
        findings += check_seen(scored, seen, reason)
    if record.unknown_people:
        text = f"{checkpoint} has weights whose training subjects are unknown"
        findings.append(SplitFinding("suspicious", text, record.unknown_people))
    return findings
