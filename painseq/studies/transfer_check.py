"""Checks of a transfer plan, before anything is extracted or fitted."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from painseq.data.datamodule import PainDataModule
from painseq.data.splits import check_no_leak, qualified
from painseq.errors import PainseqError
from painseq.evaluation.transfer import DataSetSettings, check_harmonised
from painseq.extractors import Extractor
from painseq.features.index import identity
from painseq.records import plain_name
from painseq.studies.transfer_plan import TransferPlan

log = logging.getLogger("painseq")


def check_plan(
    plan: TransferPlan,
    data: Mapping[str, PainDataModule],
    extractors: Mapping[str, Extractor],
    truths: Mapping[str, Mapping[str, str]],
) -> None:
    """Check that data sets are read alike and can be scored, and check for leaks between training and test subjects.

    Args:
        plan: the plan.
        data: name in the plan -> data set.
        extractors: name in the plan -> extractor; without those of which only features are given.
        truths: target -> clip id -> label, for targets with hidden labels.

    Raises:
        PainseqError: different classes, frame rates or crops; no training, validation or test subjects; an extractor
            that was trained on other subjects than the plan states.
        LeakError: an extractor, or a source, was fitted on test subjects of a target.
    """
    check_harmonised({name: settings_of(each, bool(extractors)) for name, each in data.items()}, plan.fps)
    for name in {*plan.sources, *plan.targets}:
        split = data[name].split
        if not (split.train and split.validation):
            raise PainseqError(
                f"{name} needs training and validation subjects; its split {split.protocol} has {len(split.train)} and "
                f"{len(split.validation)}."
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


def settings_of(data: PainDataModule, reads_videos: bool) -> DataSetSettings:
    """Return the settings that all data sets of a plan must share.

    Args:
        data: the data set.
        reads_videos: whether an extractor of the plan reads videos, so that faces are cropped.

    Raises:
        PainseqError: its options have the view pixels or, if videos are read, a store or no face crop.
    """
    options = data.options
    if options.view != "features" or (reads_videos and (options.face is None or options.store is not None)):
        raise PainseqError(
            f"{data.name}: the options of a data set for transfer must have a `face` crop, the view features and no "
            "store; give stores under the extractors."
        )
    return DataSetSettings(
        labels=str(options.labels),
        class_names=data.scheme.class_names,
        fps=options.fps,
        crops={} if options.face is None else identity({"face": options.face.record()}),
        frames={
            "streams": [stream.name for stream in data.streams],
            **{f"stream {stream.name}": stream.identity for stream in data.streams if stream.identity},
            "normalise": options.normalise,
            "baseline_clips": options.set_aside,
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
                f"The truth of {name} is missing {len(missing)} of its {len(clips)} test clips, such as "
                f"{missing[0]!r}. "
                "Clip ids must be equal in both."
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
            f"The labels of all {len(clips)} test clips of {name} are hidden, so they cannot be scored. Add `truth: "
            "labels.csv` to the data set in the plan, or choose a split whose test subjects have labels."
        )


def _check_trained_on(name: str, extractor: Extractor, stated: str, layout: str | None) -> None:
    """Check that weights and plan agree; `layout` is the name of the stated data set, None if it is not one."""
    subjects = extractor.trained_on
    if layout is not None:
        if not subjects:
            log.warning(
                "The weights of %s do not record their training subjects, so leaks cannot be found. Make sure that no "
                "test subject of %s is among them.",
                name,
                stated,
            )
        elif not any(plain_name(subject).startswith(f"{plain_name(layout)}/") for subject in subjects):
            raise PainseqError(
                f"The plan states that the extractor {name} was trained on {stated}, but its weights were trained on "
                f"{', '.join(subjects[:3])} ..., none of which begins with {layout}/. Correct trained_on or the "
                "weights."
            )
    elif subjects:
        raise PainseqError(
            f"The plan states that the extractor {name} was trained on {stated}, but its weights were trained on "
            f"{len(subjects)} subjects such as {subjects[0]}. Set trained_on to their data set."
        )
    elif stated == "nothing" and (weights := _weights(extractor)) is not None:
        raise PainseqError(
            f"The plan states that the extractor {name} was trained on nothing, but it has weights from {weights}. "
            "Set trained_on to their training data (imagenet, ...), or omit the weights."
        )


def _weights(extractor: Extractor) -> object:
    """Return the source of an extractor's weights; None if they are random."""
    arguments = extractor.spec()["init_args"]
    return arguments.get("weights") if isinstance(arguments, dict) else None
