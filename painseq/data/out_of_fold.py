"""Folds of the training part: each is predicted by a model that was fitted without it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from painseq.data.datamodule import GivenItems, PainDataModule
from painseq.data.datasets import target_of
from painseq.data.splits import LeakySplit, Split, leaky_split, out_of_fold_splits, stratified_folds
from painseq.records import UNKNOWN, Part


@dataclass(frozen=True, eq=False)
class InnerFold:
    """One fold of a training part.

    Args:
        fit: data whose training part is the other folds, and whose test part is this fold; the validation part is that
            of the data.
        held_out: data whose validation part is this fold, so that its labels are those of the fit if they are shuffled
            as a control.
    """

    fit: PainDataModule
    held_out: PainDataModule


def out_of_fold(data: PainDataModule, folds: int) -> list[InnerFold]:
    """Divide the training part into folds; clips of the test part are in none of them, and are not read.

    Folds are of subjects. Where the parts share subjects, in a leaky split, they are of what the split divides: clips,
    or the groups of given items.

    Args:
        data: data of a fit; the folds are drawn with the seed of its split options.
        folds: number of folds, 2 or more.

    Raises:
        PainseqError: fewer training subjects, or groups, than folds.
    """
    if data.items is not None:
        return _of_items(data, data.items, folds)
    fitted_only, split, seed = data.without_test(), data.split, data.options.split.seed
    if isinstance(split, LeakySplit):
        splits: list[Split] = [*_of_clips(fitted_only, split, folds)]
    else:
        splits = out_of_fold_splits(split, fitted_only.manifest, folds, seed, data.scheme)
    return [
        InnerFold(fitted_only.with_split(fold), fitted_only.with_split(_tested_as_validation(fold))) for fold in splits
    ]


def _tested_as_validation(split: Split) -> Split:
    if not isinstance(split, LeakySplit):
        return Split(split.protocol, split.train, split.test, ())
    parts: dict[Part, frozenset[str]] = {"train": split.clip_ids["train"], "validation": split.clip_ids["test"]}
    return LeakySplit(split.protocol, split.train, split.train, split.test, parts)


def _of_clips(data: PainDataModule, split: LeakySplit, folds: int) -> list[LeakySplit]:
    targets = {clip: target_of(clip, data.scheme) for clip in split.clips(data.manifest, "train")}
    clips = [clip for clip, target in targets.items() if target != UNKNOWN]
    names, target = np.array([clip.clip_id for clip in clips]), np.array([int(targets[clip]) for clip in clips])
    protocol = f"{split.protocol.removesuffix('_LEAKY')}_out_of_fold"
    validation = split.clips(data.manifest, "validation")
    return [
        leaky_split(
            {"train": [clips[i] for i in rest], "validation": validation, "test": [clips[i] for i in fold]},
            data.manifest,
            protocol,
        )
        for rest, fold in stratified_folds(target, names, folds, data.options.split.seed)
    ]


def _of_items(data: PainDataModule, given: GivenItems, folds: int) -> list[InnerFold]:
    items, train = given.items, np.asarray(given.parts["train"])
    groups = [clip.subject_id for clip in items.clips] if given.groups is None else given.groups
    target, names = items.target.numpy()[train], np.asarray(groups)[train]
    protocol, validation = f"{given.protocol}_out_of_fold", given.parts.get("validation", ())
    result = []
    for rest, fold in stratified_folds(target, names, folds, data.options.split.seed):
        others, own = train[rest].tolist(), train[fold].tolist()
        fit: dict[Part, list[int]] = {"train": others, "validation": list(validation), "test": own}
        held_out: dict[Part, list[int]] = {"train": others, "validation": own}
        result.append(InnerFold(*(data.with_items(items, parts, protocol, given.groups) for parts in (fit, held_out))))
    return result
