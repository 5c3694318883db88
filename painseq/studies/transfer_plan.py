"""What `transfer` is asked for: data sets, extractors, heads, sources and targets; in Python, or as one YAML file."""

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
from painseq.runs import pick_device
from painseq.studies.experiment import Experiment, read_experiment, shipped_config

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class TransferData:
    """A data set of the plan.

    Args:
        experiment: its data set counts: root, labels, split, frame rate, face crop.
        truth: CSV of the labels of hidden test clips.
    """

    experiment: Experiment
    truth: Path | None = None


@dataclass(frozen=True)
class TransferExtractor:
    """An extractor of the plan.

    Args:
        experiment: its extractor counts.
        trained_on: a data set of the plan; or what else its weights saw, such as "imagenet", and "nothing" for random
            ones: a control.
        stores: data set -> a store that is there already; the others are extracted.
    """

    experiment: Experiment
    trained_on: str
    stores: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class TransferPlan:
    """The table that is asked for.

    Args:
        data: name -> data set.
        extractors: name -> extractor; one for each source, trained on it, and one control at least.
        heads: name -> an experiment, of which the head, how it is trained, and the trainer count.
        sources: data sets to transfer from.
        targets: data sets to transfer to.
        fps: frames a second, the same for every data set.
        seeds: of the fits; a cell is the mean over them.
        k: training subjects of the target for the third question, beside none and all of them; [] leaves it out.
        draws: how often other k subjects are drawn.
        epochs: for how long a model is fitted on, on k subjects; null: at most as long as the head's own configuration
            says, and stopped early on all of the target's validation subjects, which then count as needed, too.
        within: target -> the extractor of its own model, where it shall not be the one that was trained on it.
        extract: how features are extracted.

    Raises:
        PainseqError: a name or a number that cannot be; a source without an extractor; no control.

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
        for what, names in (("data", self.data), ("extractors", self.extractors), ("heads", self.heads)):
            if not names:
                raise PainseqError(f"The plan has no {what}; name one at least.")
            for name in names:
                if not NAME.fullmatch(name) or "_to_" in name:
                    raise PainseqError(
                        f"{what} names {name!r}. Names become folders: letters, digits, '_', '-' and '.', without _to_."
                    )
        for what, chosen, among in (
            ("sources", self.sources, self.data),
            ("targets", self.targets, self.data),
            ("within", tuple(self.within), self.targets),
            ("within", tuple(self.within.values()), self.extractors),
        ):
            _check_among(what, chosen, among)
        for name, extractor in self.extractors.items():
            _check_among(f"stores of {name}", tuple(extractor.stores), self.data)
        if not (self.sources and self.targets and self.seeds):
            raise PainseqError("The plan needs a source, a target and a seed.")
        for what, numbers in (("sources", self.sources), ("targets", self.targets), ("seeds", self.seeds)):
            if len(set(numbers)) < len(numbers):
                raise PainseqError(f"{what} is {list(numbers)}: each may be named once.")
        if any(seed < 0 for seed in self.seeds):
            raise PainseqError(f"seeds is {list(self.seeds)}: each must be 0 or more.")
        if not self.fps > 0:
            raise PainseqError(f"fps is {self.fps}; it must be more than 0.")
        if any(k < 1 for k in self.k) or self.draws < 1 or (self.epochs is not None and self.epochs < 1):
            raise PainseqError(
                f"k is {list(self.k)}, draws {self.draws}, epochs {self.epochs}: all must be 1 or more. No subject of "
                "the target at all (k = 0) is always added."
            )
        lacking = [source for source in self.sources if not self.trained(source)]
        if lacking:
            raise PainseqError(
                f"No extractor was trained on the source {lacking[0]}, so it has no model or features to carry over. "
                f"Give one `trained_on: {lacking[0]}` (docs/heat_cnn.md shows how to train it), or leave "
                f"{lacking[0]} out of sources."
            )
        if not self.controls:
            raise PainseqError(
                "The plan has no extractor to compare with: add one with random weights (weights: null) and "
                "`trained_on: nothing`. Without it, nobody can know what training on the source has given."
            )

    def trained(self, dataset: str) -> tuple[str, ...]:
        """The extractors that were trained on a data set."""
        return tuple(name for name, extractor in self.extractors.items() if extractor.trained_on == dataset)

    @property
    def controls(self) -> tuple[str, ...]:
        """The extractors that were trained on none of the data sets."""
        return tuple(name for name, extractor in self.extractors.items() if extractor.trained_on not in self.data)

    def within_extractor(self, target: str) -> str:
        """The extractor of a target's own model: trained on its training subjects, or else the first control."""
        return self.within.get(target) or (*self.trained(target), *self.controls)[0]

    def within_is(self, target: str) -> str:
        """A target's own model in words."""
        extractor = self.within_extractor(target)
        on = self.extractors[extractor].trained_on
        what = "the same training subjects" if on == target else on
        return f"head on {target}'s training subjects, extractor {extractor} trained on {what}"

    def within_cell(self, cell: TransferCell) -> TransferCell:
        """The target's own model that a cell is compared with."""
        extractor = self.within_extractor(cell.target)
        return TransferCell("features", self.extractors[extractor].trained_on, cell.target, extractor, cell.head)

    def controls_of(self, cell: TransferCell) -> tuple[TransferCell, ...]:
        """The same cell with each control in place of the extractor; for k subjects, the head on all of them."""
        if cell.question == "model":
            return tuple(TransferCell("model", cell.source, cell.target, name, cell.head) for name in self.controls)
        on = {name: self.extractors[name].trained_on for name in self.controls}
        return tuple(TransferCell("features", on[name], cell.target, name, cell.head) for name in self.controls)

    def cells(self, training_subjects: Mapping[str, int]) -> list[TransferCell]:
        """The whole table.

        Args:
            training_subjects: target -> how many; decides which k there are.
        """
        found: list[TransferCell] = []
        for head in self.heads:
            for source in self.sources:
                for name in (*self.trained(source), *self.controls):
                    found += [TransferCell("model", source, target, name, head) for target in self.targets]
            for name, extractor in self.extractors.items():
                found += [TransferCell("features", extractor.trained_on, target, name, head) for target in self.targets]
            for source in self.sources:
                for target in self.targets:
                    if source == target or not self.k:
                        continue
                    ks = (0, *numbers_of_subjects(self.k, training_subjects[target]))
                    found += [
                        TransferCell("subjects", source, target, name, head, k)
                        for name in self.trained(source)
                        for k in ks
                    ]
        return found

    def runs(self, cell: TransferCell, training_subjects: Mapping[str, int]) -> list[tuple[int, int]]:
        """(seed, draw) of a cell's runs: other subjects are drawn where that makes a difference."""
        drawn = cell.k is not None and 0 < cell.k < training_subjects[cell.target]
        return [(seed, draw) for seed in self.seeds for draw in range(self.draws if drawn else 1)]


@dataclass(frozen=True)
class TransferFit:
    """One fit that the table needs.

    Args:
        extractor, on, head: names in the plan; `on` is the data set whose training subjects it sees.
        seed: of the fit.
        source: the data set whose model it starts from; None: from random weights.
        k, draw: how many training subjects, and which; None: all, with early stopping.
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
        """Below `fits` and `predictions`."""
        if self.source is None:
            return Path(self.extractor, self.on, self.head, f"seed{self.seed}")
        pair = f"{self.source}_to_{self.on}"
        return Path(self.extractor, pair, self.head, f"seed{self.seed}", f"k{self.k}_draw{self.draw}")

    @property
    def start(self) -> TransferFit | None:
        """The fit whose model this one starts from."""
        return None if self.source is None else TransferFit(self.extractor, self.source, self.head, self.seed)


def fit_of(cell: TransferCell, seed: int, draw: int) -> TransferFit:
    """The fit that a run of a cell scores."""
    if cell.question == "features":
        return TransferFit(cell.extractor, cell.target, cell.head, seed)
    if not cell.k:
        return TransferFit(cell.extractor, cell.source, cell.head, seed)
    return TransferFit(cell.extractor, cell.target, cell.head, seed, cell.source, cell.k, draw)


@dataclass(frozen=True)
class _Part:
    """A head as YAML has it: files of an experiment, and values over them."""

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
    """`ExtractOptions`, without what only a launch of several processes knows."""

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
    """Read and check a plan from YAML, as configs/demo/transfer.yaml; docs/transfer.md explains its keys.

    Data sets, extractors and heads have `config`, a list of files as for `read_experiment`, and `set`, nested keys that
    win over them. Without `extract: {device: ...}` features are extracted on a GPU if there is one.

    Args:
        path: of a file, also of one of those shipped. What it names is imported: read only plans you trust.

    Raises:
        PainseqError: no such file, not YAML, a key that is missing or unknown, a value that does not fit.
    """
    path = Path(path)
    path = shipped_config(path)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(_PlanFile, None)
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_command_line(path, yaml.safe_load(text))
        content = parser.parse_string(text, str(path)).as_dict()
    except (ArgumentError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PainseqError(f"{path}: {error}") from error
    empty = [key for key, value in content.items() if value is None and key != "epochs"]
    if empty:
        raise PainseqError(f"{path}: {empty[0]} is null. Leave it out, or give it a value.")
    data = {
        name: TransferData(_experiment(path, f"data.{name}", part), part["truth"])
        for name, part in content.pop("data").items()
    }
    extractors = {
        name: TransferExtractor(_experiment(path, f"extractors.{name}", part), part["trained_on"], part["stores"])
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
    """Refuse a plan whose parts are lists of arguments of the command line, as they once were."""
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
            how = (
                "extract: {precision: fp32}"
                if key == "extract"
                else (f"{key.rpartition('.')[2]}: {{config: [FILE.yaml, ...], set: {{trainer: {{max_epochs: 30}}}}}}")
            )
            raise PainseqError(
                f"{path} gives {key} as a list of arguments (--config=...), which a plan no longer takes. Write YAML "
                f"files under `config` and single keys, nested, under `set`, such as `{how}`; --data.root is now "
                "`set: {data: {init_args: {root: FOLDER}}}`. docs/transfer.md shows a whole plan."
            )


def _check_among(what: str, chosen: Sequence[str], among: Mapping[str, object] | Sequence[str]) -> None:
    unknown = [name for name in chosen if name not in among]
    if unknown:
        raise PainseqError(f"{what} names {unknown[0]!r}, which the plan does not have; it has: {', '.join(among)}.")
