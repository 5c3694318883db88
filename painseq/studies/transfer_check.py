"""What `transfer` refuses before anything is extracted or fitted."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from painseq.data.datamodule import PainDataModule
from painseq.data.splits import check_no_leak, qualified
from painseq.errors import PainseqError
from painseq.evaluation.transfer import DataSetSettings, check_harmonised
from painseq.extractors import Extractor
from painseq.features.index import identity
from painseq.studies.transfer_plan import TransferPlan

log = logging.getLogger("painseq")


def check_plan(
    plan: TransferPlan,
    data: Mapping[str, PainDataModule],
    extractors: Mapping[str, Extractor],
    truths: Mapping[str, Mapping[str, str]],
) -> None:
    """See that all data sets are read alike, that each can be scored, and that nobody is on both sides.

    Args:
        plan: what is asked for.
        data: name in the plan -> data set.
        extractors: name in the plan -> extractor.
        truths: of targets whose hidden labels are given, the label of each clip.

    Raises:
        PainseqError: other classes, frame rates or crops; nobody to train on, to stop early on or to score; an
            extractor that was trained on others than the plan says.
        LeakError: an extractor, or a source, has seen test subjects of a target.
    """
    check_harmonised({name: settings_of(each) for name, each in data.items()}, plan.fps)
    for name in {*plan.sources, *plan.targets}:
        split = data[name].split
        if not (split.train and split.validation):
            raise PainseqError(
                f"{name} needs subjects to train on and to stop early on; its split {split.protocol} has "
                f"{len(split.train)} and {len(split.validation)}."
            )
    for name in plan.targets:
        _check_scorable(name, data[name], truths.get(name))
    tested = {name: qualified(data[name].name, data[name].split.test) for name in plan.targets}
    for name, extractor in extractors.items():
        stated = plan.extractors[name].trained_on
        _check_trained_on(name, extractor, stated, data[stated].name if stated in data else None)
        for target, people in tested.items():
            check_no_leak(extractor.trained_on, people, f"The extractor {name}, to be scored on {target},")
    for name in {*plan.sources, *plan.targets}:
        for target, people in tested.items():
            check_no_leak(data[name].extractor_trained_on, people, f"A stream of {name}, to be scored on {target},")
    for source in plan.sources:
        for target, people in tested.items():
            check_no_leak(data[source].subjects_seen(), people, f"A model of {source}, to be scored on {target},")


def settings_of(data: PainDataModule) -> DataSetSettings:
    """What a data set shares with the others of its plan.

    Raises:
        PainseqError: its options name a store, no face crop, or the view pixels.
    """
    options = data.options
    if options.face is None or options.view != "features" or options.store is not None:
        raise PainseqError(
            f"{data.name}: the options of a data set to transfer between have a `face` crop, the view features and no "
            "store; stores are named under the extractors."
        )
    return DataSetSettings(
        labels=str(options.labels),
        class_names=data.scheme.class_names,
        fps=options.fps,
        crops=identity({"face": options.face.record()}),
        frames={
            "streams": [stream.name for stream in data.streams],
            **{f"stream {stream.name}": stream.identity for stream in data.streams if stream.identity},
            "baseline_clips": options.baseline_clips,
        },
    )


def _check_scorable(name: str, data: PainDataModule, truth: Mapping[str, str] | None) -> None:
    clips = data.clips("test")
    if not clips:
        raise PainseqError(f"{name} has no test subjects under its split {data.split.protocol}.")
    if truth is not None:
        missing = [clip.clip_id for clip in clips if clip.clip_id not in truth]
        if missing:
            raise PainseqError(
                f"The truth of {name} lacks {len(missing)} of its {len(clips)} test clips, such as {missing[0]!r}. "
                "Clip ids must be the same in both."
            )
        for clip in clips:
            label = truth[clip.clip_id]
            if label not in data.scheme.classes and not data.scheme.knows(label):
                raise PainseqError(
                    f"The truth of {name} calls {clip.clip_id} {label!r}, which is neither a class "
                    f"({', '.join(data.scheme.class_names)}) nor a label of {data.name}."
                )
    elif all(clip.label is None for clip in clips):
        raise PainseqError(
            f"The labels of all {len(clips)} test clips of {name} are hidden, so nothing could be scored. Give the "
            "data set `truth: labels.csv` in the plan, or a split whose test subjects have labels."
        )


def _check_trained_on(name: str, extractor: Extractor, stated: str, layout: str | None) -> None:
    """See that weights and plan agree; `layout` is what the stated data set calls itself, None if it is no data set."""
    people = extractor.trained_on
    if layout is not None:
        if not people:
            log.warning(
                "The weights of %s do not say whom they were trained on, so a leak cannot be found. See to it "
                "that no test subject of %s is among them.",
                name,
                stated,
            )
        elif not any(person.startswith(f"{layout}/") for person in people):
            raise PainseqError(
                f"The plan says that the extractor {name} was trained on {stated}, but its weights were on "
                f"{', '.join(people[:3])} ...; none of them begins with {layout}/. Correct trained_on, or the weights."
            )
    elif people:
        raise PainseqError(
            f"The plan says that the extractor {name} was trained on {stated}, but its weights were on "
            f"{len(people)} people such as {people[0]}. Name their data set in trained_on."
        )
    elif stated == "nothing" and (weights := _weights(extractor)) is not None:
        raise PainseqError(
            f"The plan says that the extractor {name} was trained on nothing, but it gets weights from {weights}. "
            "Say in trained_on what they saw (imagenet, ...), or leave them out."
        )


def _weights(extractor: Extractor) -> object:
    """Where an extractor's weights come from; None where they are random."""
    arguments = extractor.spec()["init_args"]
    return arguments.get("weights") if isinstance(arguments, dict) else None
