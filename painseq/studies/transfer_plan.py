"""Plans of `transfer`: data sets, extractors, heads, sources and targets, in Python or as a YAML file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from painseq.errors import PainseqError
from painseq.evaluation.transfer import TransferCell, numbers_of_subjects
from painseq.features import ExtractOptions
from painseq.files import read_yaml
from painseq.runs import pick_device
from painseq.studies.experiment import Experiment, read_experiment, shipped_config

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class TransferData:
    """A data set of the plan.

    Args:
        experiment: experiment whose data set is used: root, labels, split, frame rate, face crop.
        truth: CSV of hidden test labels.
    """

    experiment: Experiment
    truth: Path | None = None


@dataclass(frozen=True)
class TransferExtractor:
    """An extractor of the plan.

    Args:
        experiment: experiment whose extractor is used; None for features of another tool, which are used as they are
            for every source, and need a store, such as a folder of .npz, of every data set of the table.
        trained_on: a data set of the plan; or, for a control, other training data such as "imagenet", or "nothing" for
            random weights; for features of another tool, its name.
        stores: data set -> existing store; other stores are extracted.
    """

    experiment: Experiment | None
    trained_on: str
    stores: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class TransferPlan:
    """The plan of a transfer table.

    Args:
        data: name -> data set.
        extractors: name -> extractor; one trained on each source, and at least one control; or features that are
            given as they are.
        heads: name -> experiment whose head, training and trainer are used.
        sources: data sets to transfer from.
        targets: data sets to transfer to.
        fps: frames per second, the same for all data sets.
        seeds: seeds of the fits; a cell is the mean over them.
        k: numbers of training subjects of the target for the third question, besides none and all; [] omits it.
        draws: number of random draws of k subjects.
        epochs: number of epochs of the fits on k subjects; null: at most that of the head's configuration, with early
            stopping on all validation subjects of the target, which are then needed too.
        within: target -> extractor of its own model, if not the one trained on it.
        extract: options of the extraction.

    Raises:
        PainseqError: an invalid name or number; a source without an extractor; no control.

    Example:
        >>> cnn = read_experiment({"model": {"extractor": {"class_path": "VGG16", "init_args": {"weights": None}}}})
        >>> plan = TransferPlan(
        ...     data={
        ...         "heat": TransferData(read_experiment("biovid.yaml")),
        ...         "shocks": TransferData(read_experiment("ai4pain.yaml"), truth=Path("labels.csv")),
        ...     },
        ...     extractors={
        ...         "heat_cnn": TransferExtractor(read_experiment("heat_cnn.yaml"), trained_on="heat"),
        ...         "untrained": TransferExtractor(cnn, trained_on="nothing"),
        ...     },
        ...     heads={"lstm": read_experiment("configs/head/lstm.yaml")},
        ...     sources=("heat",),
        ...     targets=("heat", "shocks"),
        ...     fps=8,
        ... )
    """

    data: Mapping[str, TransferData]
    extractors: Mapping[str, TransferExtractor]
    heads: Mapping[str, Experiment]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    fps: float
    seeds: tuple[int, ...] = (0,)
    k: tuple[int, ...] = (1, 2, 4, 8)
    draws: int = 5
    epochs: int | None = 20
    within: Mapping[str, str] = field(default_factory=dict)
    extract: ExtractOptions = field(default_factory=ExtractOptions)

    def __post_init__(self) -> None:
        for key, names in (("data", self.data), ("extractors", self.extractors), ("heads", self.heads)):
            if not names:
                raise PainseqError(f"The plan has no {key}. Add at least one.")
            for name in names:
                if not NAME.fullmatch(name) or "_to_" in name:
                    raise PainseqError(
                        f"{key} names {name!r}. Names become folders: use letters, digits, '_', '-' and '.', "
                        "without _to_."
                    )
        for key, chosen, among in (
            ("sources", self.sources, self.data),
            ("targets", self.targets, self.data),
            ("within", tuple(self.within), self.targets),
            ("within", tuple(self.within.values()), self.extractors),
        ):
            _check_among(key, chosen, among)
        for name, extractor in self.extractors.items():
            _check_among(f"stores of {name}", tuple(extractor.stores), self.data)
            if extractor.experiment is None:
                self._check_given(name, extractor)
        if not (self.sources and self.targets and self.seeds):
            raise PainseqError("The plan needs sources, targets and seeds; at least one of each.")
        for key, values in (("sources", self.sources), ("targets", self.targets), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise PainseqError(f"{key} is {list(values)}: values must be different.")
        if any(seed < 0 for seed in self.seeds):
            raise PainseqError(f"seeds is {list(self.seeds)}: each must be 0 or more.")
        if not self.fps > 0:
            raise PainseqError(f"fps is {self.fps}; it must be more than 0.")
        if any(k < 1 for k in self.k) or self.draws < 1 or (self.epochs is not None and self.epochs < 1):
            raise PainseqError(
                f"k is {list(self.k)}, draws {self.draws}, epochs {self.epochs}: all must be 1 or more. k = 0, no "
                "subject of the target, is always added."
            )
        untrained = [source for source in self.sources if not self.trained(source)]
        if untrained:
            raise PainseqError(
                f"No extractor was trained on the source {untrained[0]}, so it has no model or features to transfer. "
                f"Add one with `trained_on: {untrained[0]}` (docs/heat_cnn.md shows how to train it), or remove "
                f"{untrained[0]} from sources."
            )
        if not self.controls and not self.given:
            raise PainseqError(
                "The plan has no control extractor, which shows the effect of training on the source. Add one with "
                "random weights (weights: null) and `trained_on: nothing`."
            )

    def _check_given(self, name: str, extractor: TransferExtractor) -> None:
        lacking = [dataset for dataset in (*self.sources, *self.targets) if dataset not in extractor.stores]
        if lacking:
            raise PainseqError(
                f"The extractor {name} has neither config nor set, so its features must be given, but it has no store "
                f"of {lacking[0]}. Name one under stores, or give the extractor."
            )
        if extractor.trained_on in self.data:
            raise PainseqError(
                f"The extractor {name} has neither config nor set, so its trained_on names the tool that made the "
                f"features, but {extractor.trained_on} is a data set of the plan."
            )

    @property
    def given(self) -> tuple[str, ...]:
        """The extractors of which only features are given, as another tool made them."""
        return tuple(name for name, extractor in self.extractors.items() if extractor.experiment is None)

    def trained(self, dataset: str) -> tuple[str, ...]:
        """Return the extractors whose features transfer from a data set: trained on it, or given as they are."""
        return tuple(
            name
            for name, extractor in self.extractors.items()
            if extractor.trained_on == dataset or extractor.experiment is None
        )

    @property
    def controls(self) -> tuple[str, ...]:
        """The extractors that were trained on none of the data sets."""
        return tuple(
            name
            for name, extractor in self.extractors.items()
            if extractor.trained_on not in self.data and extractor.experiment is not None
        )

    def within_extractor(self, target: str) -> str:
        """Return the extractor of a target's own model: trained on its training subjects, or the first control."""
        return self.within.get(target) or (*self.trained(target), *self.controls)[0]

    def within_is(self, target: str) -> str:
        """Describe a target's own model."""
        extractor = self.within_extractor(target)
        on = self.extractors[extractor].trained_on
        if extractor in self.given:
            return f"head on {target}'s training subjects, features of {on}"
        trained_on = "the same training subjects" if on == target else on
        return f"head on {target}'s training subjects, extractor {extractor} trained on {trained_on}"

    def within_cell(self, cell: TransferCell) -> TransferCell:
        """Return the cell of the target's own model, which a cell is compared with."""
        extractor = self.within_extractor(cell.target)
        return TransferCell("features", self.extractors[extractor].trained_on, cell.target, extractor, cell.head)

    def controls_of(self, cell: TransferCell) -> tuple[TransferCell, ...]:
        """Return the cells with each control as extractor; for k subjects, with the head fitted on all subjects."""
        if cell.question == "model":
            return tuple(TransferCell("model", cell.source, cell.target, name, cell.head) for name in self.controls)
        on = {name: self.extractors[name].trained_on for name in self.controls}
        return tuple(TransferCell("features", on[name], cell.target, name, cell.head) for name in self.controls)

    def cells(self, training_subjects: Mapping[str, int]) -> list[TransferCell]:
        """Return all cells of the table.

        Args:
            training_subjects: target -> number of training subjects, which limits k.
        """
        cells: list[TransferCell] = []
        for head in self.heads:
            for source in self.sources:
                for name in (*self.trained(source), *self.controls):
                    cells += [TransferCell("model", source, target, name, head) for target in self.targets]
            for name, extractor in self.extractors.items():
                cells += [TransferCell("features", extractor.trained_on, target, name, head) for target in self.targets]
            for source in self.sources:
                for target in self.targets:
                    if source == target or not self.k:
                        continue
                    ks = (0, *numbers_of_subjects(self.k, training_subjects[target]))
                    cells += [
                        TransferCell("subjects", source, target, name, head, k)
                        for name in self.trained(source)
                        for k in ks
                    ]
        return cells

    def runs(self, cell: TransferCell, training_subjects: Mapping[str, int]) -> list[tuple[int, int]]:
        """Return (seed, draw) of a cell's runs, with several draws only if subjects are drawn."""
        drawn = cell.k is not None and 0 < cell.k < training_subjects[cell.target]
        return [(seed, draw) for seed in self.seeds for draw in range(self.draws if drawn else 1)]


@dataclass(frozen=True)
class TransferFit:
    """One fit of the table.

    Args:
        extractor, on, head: names in the plan; `on` is the data set of the training subjects.
        seed: seed of the fit.
        source: data set of the model to start from; None: random weights.
        k, draw: number of training subjects, and of their draw; k None: all, with early stopping.
    """

    extractor: str
    on: str
    head: str
    seed: int
    source: str | None = None
    k: int | None = None
    draw: int = 0

    @property
    def folder(self) -> Path:
        """Folder of the fit in `fits` and `predictions`."""
        if self.source is None:
            return Path(self.extractor, self.on, self.head, f"seed{self.seed}")
        pair = f"{self.source}_to_{self.on}"
        return Path(self.extractor, pair, self.head, f"seed{self.seed}", f"k{self.k}_draw{self.draw}")

    @property
    def start(self) -> TransferFit | None:
        """The fit that this one continues."""
        return None if self.source is None else TransferFit(self.extractor, self.source, self.head, self.seed)


def fit_of(cell: TransferCell, seed: int, draw: int) -> TransferFit:
    """Return the fit that a run of a cell scores."""
    if cell.question == "features":
        return TransferFit(cell.extractor, cell.target, cell.head, seed)
    if not cell.k:
        return TransferFit(cell.extractor, cell.source, cell.head, seed)
    return TransferFit(cell.extractor, cell.target, cell.head, seed, cell.source, cell.k, draw)


@dataclass(frozen=True)
class _Part:
    """A head in YAML: files of an experiment, and values that override them."""

    config: tuple[str, ...] = ()
    set: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Data(_Part):
    truth: Path | None = None


@dataclass(frozen=True, kw_only=True)
class _Extractor(_Part):
    trained_on: str
    stores: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class _Extract:
    """`ExtractOptions` without the settings of a launch of several processes."""

    dtype: Literal["float16", "float32"] = "float16"
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    batch_frames: int | None = None
    workers: int | None = None
    strict: bool = False


@dataclass(frozen=True)
class _PlanFile:
    """The keys of a plan in YAML; see `TransferPlan`."""

    data: dict[str, _Data]
    extractors: dict[str, _Extractor]
    heads: dict[str, _Part]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    fps: float
    seeds: tuple[int, ...] = (0,)
    k: tuple[int, ...] = (1, 2, 4, 8)
    draws: int = 5
    epochs: int | None = 20
    within: dict[str, str] = field(default_factory=dict)
    extract: _Extract = field(default_factory=_Extract)


def read_plan(path: str | Path) -> TransferPlan:
    """Read and check a plan from YAML, such as configs/demo/transfer.yaml; docs/transfer.md explains its keys.

    Data sets, extractors and heads have `config`, a list of files as for `read_experiment`, and `set`, nested keys that
    override them. Without `extract: {device: ...}`, features are extracted on a GPU if there is one.

    Args:
        path: path of a file, including shipped ones. Its classes are imported: read only plans you trust.

    Raises:
        PainseqError: no such file, not YAML, a missing or unknown key, an invalid value.
    """
    path = Path(path)
    path = shipped_config(path)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(_PlanFile, None)
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_command_line(path, read_yaml(path))
        content = parser.parse_string(text, str(path)).as_dict()
    except (ArgumentError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PainseqError(f"{path}: {error}") from error
    empty = [key for key, value in content.items() if value is None and key != "epochs"]
    if empty:
        raise PainseqError(f"{path}: {empty[0]} is null. Omit it, or set a value.")
    data = {
        name: TransferData(_experiment(path, f"data.{name}", part), part["truth"])
        for name, part in content.pop("data").items()
    }
    extractors = {
        name: TransferExtractor(
            _experiment(path, f"extractors.{name}", part) if part["config"] or part["set"] else None,
            part["trained_on"],
            part["stores"],
        )
        for name, part in content.pop("extractors").items()
    }
    heads = {name: _experiment(path, f"heads.{name}", part) for name, part in content.pop("heads").items()}
    extract = content.pop("extract")
    extract["device"] = pick_device(extract["device"])
    return TransferPlan(data, extractors, heads, **content, extract=ExtractOptions(**extract))


def _experiment(path: Path, key: str, part: Mapping[str, Any]) -> Experiment:
    try:
        return read_experiment(*part["config"], part["set"])
    except PainseqError as error:
        raise PainseqError(f"{path}, {key}: {error}") from error


def _refuse_command_line(path: Path, content: object) -> None:
    """Refuse a plan of the older format, with lists of command line arguments."""
    if not isinstance(content, Mapping):
        return
    parts = [
        (f"{kind}.{name}", part)
        for kind in ("data", "extractors", "heads")
        if isinstance(content.get(kind), Mapping)
        for name, part in content[kind].items()
    ]
    for key, part in (*parts, ("extract", content.get("extract"))):
        if isinstance(part, list) or (isinstance(part, Mapping) and "options" in part):
            example = (
                "extract: {precision: fp32}"
                if key == "extract"
                else (f"{key.rpartition('.')[2]}: {{config: [FILE.yaml, ...], set: {{trainer: {{max_epochs: 30}}}}}}")
            )
            raise PainseqError(
                f"{path} gives {key} as a list of arguments (--config=...), which is no longer supported. Write YAML "
                f"files under `config` and single keys, nested, under `set`, such as `{example}`; --data.root is now "
                "`set: {data: {init_args: {root: FOLDER}}}`. docs/transfer.md shows a whole plan."
            )


def _check_among(key: str, chosen: Sequence[str], among: Mapping[str, object] | Sequence[str]) -> None:
    unknown = [name for name in chosen if name not in among]
    if unknown:
        raise PainseqError(f"{key} names {unknown[0]!r}, which the plan does not have. It has: {', '.join(among)}.")
