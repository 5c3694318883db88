"""Who and what is on both sides of a split, and whether a model has seen the people it is scored on."""

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
    joined,
    read_table,
)
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.runs import OnProgress, no_progress


@dataclass(frozen=True)
class CheckOptions:
    """How files are read, and what they are compared with.

    Args:
        subject_column: column of subjects; None guesses it by its name.
        part_column: column of parts or folds; None guesses it by its name.
        split: a split (JSON) that predictions or a CSV without parts belong to.
        checkpoint: the model whose predictions are checked.
        dataset: whose people the predictions are of; None: the data set whose people the checkpoint has seen, if it is
            one.
        root: folder of the videos, to find copies by their content.
    """

    subject_column: str | None = None
    part_column: str | None = None
    split: Path | None = None
    checkpoint: Path | None = None
    dataset: str | None = None
    root: Path | None = None


@dataclass(frozen=True)
class SplitAudit:
    """What was found.

    Args:
        findings: what was checked -> what was found there.
    """

    findings: Mapping[str, tuple[SplitFinding, ...]]

    @property
    def leaks(self) -> int:
        """How many findings are leaks."""
        return sum(finding.severity == "leak" for found in self.findings.values() for finding in found)

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        checked = {what: [finding.to_dict() for finding in found] for what, found in self.findings.items()}
        return {"leaks": self.leaks, "checked": checked}


def audit_files(
    files: Sequence[str | Path], options: CheckOptions | None = None, on_progress: OnProgress = no_progress
) -> SplitAudit:
    """Look for people, clips and copies of videos on both sides of a split, whoever wrote it.

    Args:
        files: a split or folds (JSON), a CSV of clips with a part or fold each, predictions, or several CSVs that are a
            part each, such as train.csv and test.csv.
        on_progress: called as videos are read, if `root` is given.

    Raises:
        PainseqError: a file that cannot be read, or that there is nothing to compare with.

    Example:
        >>> audit = audit_files([Path("train.csv"), Path("test.csv")])
        >>> assert not audit.leaks, audit.findings
    """
    options = options or CheckOptions()
    tables = [read_table(Path(path), options.subject_column, options.part_column) for path in files]
    split = None if options.split is None else read_table(options.split)
    if split is not None and any(member.fold for member in split.members):
        raise PainseqError(
            f"split is {split.path}, which holds several folds. Name a split of one, or the model's checkpoint."
        )
    divided = {_named(table): table.members for table in tables if table.kind in ("split", "table")}
    partless = [table for table in tables if table.kind == "parts unknown"]
    if partless:
        divided[" and ".join(str(table.path) for table in partless)] = joined(partless, split)
    if options.root is not None and not divided:
        raise PainseqError("root is given to compare the videos of a split, and predictions alone name none.")
    found = {what: check_members(members) for what, members in divided.items()}
    for table in tables:
        if table.kind == "predictions":
            found[_named(table)] = _check_predictions(table, split, options)
    if options.root is not None:
        for what, members in divided.items():
            found[what] += check_contents(members, options.root, on_progress)
    return SplitAudit({what: tuple(findings) for what, findings in found.items()})


def audit_split(split: Split) -> tuple[SplitFinding, ...]:
    """Subjects in more than one part of a split, and those whose names are almost the same.

    Example:
        >>> audit_split(data.split)
        ()
    """
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return tuple(check_members([Member(part, subject) for part, names in parts.items() for subject in names]))


def audit_predictions(
    predictions: Predictions | ValuePredictions, checkpoint: str | Path, dataset: str | None = None
) -> tuple[SplitFinding, ...]:
    """Subjects who are scored although the model, or its extractor, has seen them.

    Args:
        checkpoint: of the model that predicted.
        dataset: whose people the predictions are of; None: the data set whose people the checkpoint has seen.

    Raises:
        PainseqError: the checkpoint has seen people of several data sets, and none is named.
    """
    scored = [Member("test", subject) for subject in dict.fromkeys(predictions.subject_ids)]
    return tuple(
        finding for who, seen in _seen(Path(checkpoint), dataset).items() for finding in check_seen(scored, seen, who)
    )


def _named(table: ClipTable) -> str:
    read = ", ".join(f"{what} in {column!r}" for what, column in table.columns.items())
    return f"{table.path} ({table.kind}{f'; {read}' if read else ''})"


def _check_predictions(table: ClipTable, split: ClipTable | None, options: CheckOptions) -> list[SplitFinding]:
    """Whether the model has seen anybody who is scored."""
    found = list(table.marks)
    if split is not None:
        seen = [member.subject for member in split.members if member.part != "test"]
        found += check_seen(table.members, seen, f"{split.path} trains or stops early on")
    if options.checkpoint is not None:
        for who, seen in _seen(options.checkpoint, options.dataset).items():
            found += check_seen(table.members, seen, who)
    if split is None and options.checkpoint is None and not found:
        raise PainseqError(
            f"{table.path} holds predictions, which tell nothing of whom the model had seen. Give the model's "
            "checkpoint, or the split that it was fitted on (command line: --checkpoint, --split)."
        )
    return found


def _seen(checkpoint: Path, data_set: str | None) -> dict[str, list[str]]:
    """How a model has seen people -> these, of one data set."""
    from painseq.model.checkpoint import read_checkpoint

    record = read_checkpoint(checkpoint).record
    people = {
        f"{checkpoint} was fitted on": record.fitted_on,
        f"{checkpoint} has an extractor trained on": record.extractor_trained_on,
    }
    data_sets = sorted({name.partition("/")[0] for names in people.values() for name in names})
    if data_set is None and len(data_sets) > 1:
        raise PainseqError(
            f"{checkpoint} has seen people of {' and '.join(data_sets)}, and their names may be alike. Say of whom the "
            "predictions are with dataset (command line: --dataset)."
        )
    own = f"{data_set or ''.join(data_sets)}/"
    return {what: [name.removeprefix(own) for name in names if name.startswith(own)] for what, names in people.items()}
