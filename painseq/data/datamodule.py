"""`PainDataModule`: a manifest, a split and a view. A data set's own module supplies the manifest."""

from __future__ import annotations

import copy
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytorch_lightning as pl

from painseq.data.augment import Augment
from painseq.data.datasets import Drawn, SingleCrops, StoredCrops, VideoClips, split_readable, target_of
from painseq.data.facts import DataSetFacts
from painseq.data.labels import LabelScheme, label_scheme, native_scheme, own_scheme
from painseq.data.loading import BatchOrder, CropLoader, Draw, ResidentLoader, in_order
from painseq.data.options import DataOptions
from painseq.data.resident import ResidentClips, resident_clips, single_frames
from painseq.data.splits import Split, make_split, qualified, split_of_items
from painseq.data.streams import Stream, as_streams, beside_cnn
from painseq.errors import PainseqError
from painseq.features import FeatureStore, NpzFolder, open_features
from painseq.records import UNKNOWN, Clip, Manifest, Part

log = logging.getLogger("painseq")

Clips = ResidentClips | StoredCrops | VideoClips | SingleCrops


class PainDataModule(pl.LightningDataModule):
    """A data set as batches. Subclasses supply `name`, `facts` and `read_manifest`; official parts are in the clips.

    Args:
        root: the data set's folder.
        options: labels, split, view.
    """

    name: str
    facts: DataSetFacts = DataSetFacts()
    """What is known of the data set before it is read."""
    classes: tuple[str, ...] = ()
    """All native labels in order of pain, where they depend on the arguments; else `facts.native`."""

    def __init__(self, root: Path, options: DataOptions) -> None:
        super().__init__()
        self.root = Path(root)
        self.options = options
        self._everything: Manifest | None = None
        self._scheme: LabelScheme | None = None
        self._manifest: Manifest | None = None
        self._split: Split | None = None
        self._store: FeatureStore | NpzFolder | None = None
        self._streams: tuple[Stream, ...] | None = None
        self._datasets: dict[Part, Clips] = {}
        self._resident: ResidentClips | None = None
        self.shuffled_labels: int | None = None
        """Seed of a shuffled-label control; see `shuffle_labels`."""

    def read_manifest(self) -> Manifest:
        """Every clip of the data set as it lies on disk, with native labels and official parts."""
        raise NotImplementedError

    def label_problems(self) -> list[str]:
        """Labels that are missing, or disagree between names, tables and frames: a sentence each."""
        return []

    @property
    def scheme(self) -> LabelScheme:
        """The classes of this experiment."""
        if self._scheme is None:
            labels, known = self.options.labels, self.classes or self.facts.native
            if not isinstance(labels, str):
                self._scheme = own_scheme(self.name, labels, known)
            elif labels == "native":
                self._scheme = native_scheme(self.whole_manifest, known)
            else:
                self._scheme = label_scheme(self.name, labels, self.facts)
        return self._scheme

    @property
    def whole_manifest(self) -> Manifest:
        """Every clip of the data set, also those whose label the scheme leaves out; read once."""
        if self._everything is None:
            self._everything = self.read_manifest()
        return self._everything

    @property
    def manifest(self) -> Manifest:
        """The clips that take part."""
        if self._manifest is None:
            everything = self.whole_manifest
            self._manifest = self.scheme.apply(everything)
            if not len(self._manifest):
                raise PainseqError(
                    f"{self.root} has no clip for the label scheme {self.options.labels!r}; its labels: "
                    f"{', '.join(sorted({str(clip.label) for clip in everything}))}."
                )
        return self._manifest

    @property
    def split(self) -> Split:
        """Who is trained on, stopped early on, scored."""
        if self._split is None:
            self._split = make_split(self.manifest, self.options.split, self.scheme)
        return self._split

    @property
    def store(self) -> FeatureStore | NpzFolder | None:
        """The store that frames come from, checked against what was asked for."""
        if self._store is None and self.options.store is not None:
            self._store = open_features(self.options.store)
            self._check_store(self._store)
        return self._store

    def _check_store(self, store: FeatureStore | NpzFolder) -> None:
        if (store.dtype == "uint8") != (self.options.view == "pixels"):
            held = "crops" if store.dtype == "uint8" else "features"
            raise PainseqError(f"{self.options.store} holds {held}, but --data.options.view is {self.options.view}.")
        asked: dict[str, object] = {}
        if self.options.face is not None:
            asked["face"] = self.options.face.record()
        if self.options.fps is not None:
            asked["sampling"] = {"fps": self.options.fps}
        if isinstance(store, FeatureStore):
            store.check_same({**store.spec, **asked})

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What a head is given of each frame, side by side.

        Raises:
            PainseqError: landmarks are asked for, and the store has none.
        """
        if self._streams is None:
            asked = as_streams(self.options.streams, self.options.action_units)
            self._streams = tuple(stream.seen(self.store) for stream in asked)
        return self._streams

    @property
    def pipeline(self) -> dict[str, object]:
        """How the frames were made: {"face": ..., "sampling": ..., "extractor": ...}; a checkpoint records it."""
        if isinstance(self.store, FeatureStore):
            return dict(self.store.spec)
        if self.store is not None or self.options.face is None:
            return {"face": None, "sampling": {"fps": self.options.fps}}
        return {"face": self.options.face.record(), "sampling": {"fps": self.options.fps}}

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one frame of the view: (D,) features of all streams together, (3, S, S) crops."""
        if self.store is None and self.options.view == "features":
            raise PainseqError(
                "No feature store. Run `painseq extract` first and give its folder to --data.options.store, or set "
                "--data.options.view pixels to read the videos."
            )
        names = [stream.name for stream in self.streams]
        if "cnn" not in names:
            width = self.extra_width
            if self.store is None:
                raise PainseqError(
                    f"streams is {names}: without cnn, the store tells which frames have a face, and none is given. "
                    "Run `painseq extract`, and give its folder to --data.options.store."
                )
            return (width,)
        if self.store is not None:
            shape = tuple(self.store.out_shape)
            if self.options.view == "pixels" or not self.extra_width:
                return shape
            if len(shape) != 1:
                raise PainseqError(
                    f"{', '.join(names[1:])} stand beside vectors, but the store's frames have the shape {shape}."
                )
            return (shape[0] + self.extra_width,)
        if self.options.face is None:
            raise PainseqError(
                "Reading videos needs a face crop: add a `face` to the data options, as configs/data/biovid.yaml does."
            )
        return (3, self.options.face.size_px, self.options.face.size_px)

    @property
    def extra_width(self) -> int:
        """Width of the streams beside the CNN's.

        Raises:
            PainseqError: landmarks are asked for, and there is no store, or it has none.
        """
        return sum(stream.width for stream in beside_cnn(self.streams))

    @property
    def extractor_trained_on(self) -> tuple[str, ...]:
        """Whom the store's extractor, or what any stream comes from, was fitted on, as "data set/subject"."""
        people = dict.fromkeys(() if self.store is None else self.store.trained_on)
        for stream in self.streams:
            people.update(dict.fromkeys(stream.trained_on))
        return tuple(people)

    def train_on_validation_too(self) -> None:
        """Add the validation subjects to those trained on: what is done last, with the number of epochs fixed."""
        whole = self.split
        self._split = replace(whole, train=tuple(sorted((*whole.train, *whole.validation))), validation=())
        self._datasets = {}

    def shuffle_labels(self, seed: int) -> None:
        """A control: permute the labels of training and validation clips within each subject.

        Whatever is learned then is no pain; scores on the test part, whose labels stay, show what chance looks like
        here. Permuting within subjects keeps each subject's mix of labels.
        """
        self.shuffled_labels = seed

    def clips(self, part: Part) -> tuple[Clip, ...]:
        """The clips of a part that are trained on or scored, in the manifest's order."""
        baseline = self._baseline()
        aside = {clip.clip_id for subject in self.split.subjects(part) for clip in baseline.get(subject, ())}
        clips = tuple(clip for clip in self.split.clips(self.manifest, part) if clip.clip_id not in aside)
        if self.shuffled_labels is None or part == "test":
            return clips
        labels: dict[str, list[str | None]] = defaultdict(list)
        for clip in sorted(clips, key=lambda clip: clip.clip_id):
            labels[clip.subject_id].append(clip.label)
        for subject in sorted(labels):
            random = np.random.default_rng([self.shuffled_labels, *subject.encode()])
            labels[subject] = [labels[subject][place] for place in random.permutation(len(labels[subject]))]
        drawn = {clip.clip_id: labels[clip.subject_id].pop() for clip in sorted(clips, key=lambda clip: clip.clip_id)}
        return tuple(replace(clip, label=drawn[clip.clip_id]) for clip in clips)

    def _baseline(self) -> dict[str, list[Clip]]:
        """Subject -> the clips without pain that are set aside, the first by name."""
        baseline: dict[str, list[Clip]] = {}
        if self.options.baseline_clips:
            if not self.scheme.ordered:
                raise PainseqError(
                    f"baseline_clips is {self.options.baseline_clips}, but nobody has told which of the labels "
                    f"{', '.join(self.scheme.class_names)} is no pain. List them in --data.classes, in order of pain."
                )
            for clip in sorted(self.manifest, key=lambda clip: clip.clip_id):
                kept = baseline.setdefault(clip.subject_id, [])
                if target_of(clip, self.scheme) == 0 and len(kept) < self.options.baseline_clips:
                    kept.append(clip)
        return baseline

    def _baseline_of(self, part: Part) -> dict[str, list[Clip]] | None:
        if not self.options.baseline_clips:
            return None
        baseline = self._baseline()
        lacking = [s for s in self.split.subjects(part) if len(baseline[s]) < self.options.baseline_clips]
        if lacking:
            raise PainseqError(
                f"{len(lacking)} of {len(self.split.subjects(part))} subjects of {part}, such as {lacking[0]}, have "
                f"fewer than {self.options.baseline_clips} clips known to be "
                f"{self.scheme.class_names[0] if self.scheme.scale is None else f'{self.scheme.scale.name} 0'}, so "
                "they have no baseline. Lower baseline_clips, or leave it out."
            )
        return baseline

    def dataset(self, part: Part) -> Clips:
        """The samples of one part.

        Raises:
            PainseqError: no store and no face crop; a clip that is not in the store; a subject without baseline clips.
        """
        if part in self._datasets:
            return self._datasets[part]
        if self._resident is None:
            made = self._read(self.clips(part), part)
            self._tell_left_out(made, part)
        else:
            made = self._shared(part)
        self._datasets[part] = made
        return made

    def everything(self) -> ResidentClips:
        """All clips that are trained on or scored in any split, as features in memory, read once.

        After this call the parts share these frames, and so do all copies that `with_split` and `with_items` make.
        Clips that the store lacks, and subjects without a baseline, are left out; a part that needs them is refused.

        Raises:
            PainseqError: the view is pixels; no store.
        """
        if self.options.view == "pixels":
            raise PainseqError("Crops are not held in memory: they do not fit. Set --data.options.view features.")
        if self._resident is None:
            assert self.in_shape and self.store is not None
            baseline = self._baseline()
            aside = {clip.clip_id for kept in baseline.values() for clip in kept}
            lacking = {subject for subject, kept in baseline.items() if len(kept) < self.options.baseline_clips}
            failed = self.store.failed
            clips = tuple(
                clip
                for clip in self.manifest
                if clip.clip_id not in aside
                and clip.subject_id not in lacking
                and (clip.clip_id in self.store or clip.clip_id in failed)
            )
            self._check_streams(clips)
            normalised = baseline if self.options.baseline_clips else None
            held = resident_clips(clips, self.scheme, self.store, self.streams, self.manifest.root, normalised)
            self._tell_left_out(held, "all parts")
            self._resident = held if self.options.frames is None else single_frames(held, self.options.frames)
        return self._resident

    def with_split(self, split: Split) -> PainDataModule:
        """A copy for another split, which shares manifest, store and the frames in memory: nothing is read again.

        Crops are not shared: with the view "pixels" the copy reads them when asked for, as ever.
        """
        if self.options.view == "features":
            self.everything()
        else:
            # Opened before they are copied, so that the copies need not do it each.
            self._manifest, self._store = self.manifest, self.store
        again = copy.copy(self)
        again.trainer, again._split, again._datasets = None, split, {}
        return again

    def with_items(self, items: ResidentClips, parts: Mapping[Part, Sequence[int]], protocol: str) -> PainDataModule:
        """A copy whose parts are clips or frames by number, whoever their subjects are; for the audit of leaks alone.

        Where somebody stands in two parts, its split is a `LeakySplit`, whose protocol says LEAKY in whatever records
        it. A model fitted on it counts as fitted on every subject of `items`, so that no evaluation scores it on them
        as if they were new. Else it is a `Split` as any other, of the subjects of each part.

        Args:
            items: of `everything()`, or single frames of it; their labels are those that are learned.
            parts: part -> numbers of items; without validation there is no early stopping.
            protocol: how the items were divided; of a leaky split, _LEAKY is added.

        Raises:
            PainseqError: see `everything`; no such item, or one in two parts.
        """
        self.everything()
        numbers = [number for part in parts.values() for number in part]
        if len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(len(items))):
            raise PainseqError(f"Parts must name items 0 to {len(items) - 1}, each in one part; they do not.")
        given = {part: items.only(indices) for part, indices in parts.items() if indices}
        for held in given.values():
            held.left_out = []  # Clips that could not be read are no items, whoever's they are.
        again = copy.copy(self)
        again.trainer, again._datasets = None, dict(given)
        again._split = split_of_items({part: held.clips for part, held in given.items()}, items.clips, protocol)
        return again

    def _tell_left_out(self, clips: Clips, what: str) -> None:
        if clips.left_out:
            log.warning("%s: %d clips of %s left out, unreadable when extracted", self.name, len(clips.left_out), what)

    def _shared(self, part: Part) -> ResidentClips:
        assert self._resident is not None and self.store is not None
        clips = self.clips(part)
        split_readable(clips, self.store)
        self._baseline_of(part)
        return self._resident.of_clips(clips)

    def _read(self, clips: tuple[Clip, ...], part: Part) -> Clips:
        shape, window, root = self.in_shape, self.options.frames, self.manifest.root
        extra = beside_cnn(self.streams)
        self._check_streams(clips)
        if self.store is not None and (self.options.view == "features" or extra == self.streams):
            held = resident_clips(clips, self.scheme, self.store, self.streams, root, self._baseline_of(part))
            return held if window is None else single_frames(held, window)
        if self.store is not None:
            crops = StoredCrops(clips, self.scheme, self.store, extra, root)
            return crops if window is None else SingleCrops(crops, window)
        if window is not None:
            raise PainseqError(
                "Training on single frames reads them from a store of crops, since seeking in videos is slow. Run "
                "`painseq extract` with configs/extractor/pixels.yaml and give its folder to --data.options.store."
            )
        assert self.options.face is not None and shape
        return VideoClips(self.manifest.only(clips), self.scheme, self.options.face, self.options.fps, extra)

    def _check_streams(self, clips: tuple[Clip, ...]) -> None:
        """Raise a PainseqError unless each stream has the rows of those of these clips that are readable."""
        readable = clips if self.store is None else split_readable(clips, self.store)[0]
        for stream in self.streams:
            stream.check(readable, self.manifest.root, self.store)

    def train_counts(self) -> dict[str, int]:
        """Training clips a class, in the scheme's order."""
        return self.scheme.counts(self.clips("train"))

    def train_item_counts(self) -> dict[str, int]:
        """Training items (clips, or single frames) a class that can be learned from, in the scheme's order."""
        items = self.dataset("train")
        clips = items.clips
        return self.scheme.counts(tuple(clips[index] for index in self._learnable(items)))

    def learnable(self, part: Part) -> list[int]:
        """Numbers of the items of a part with a label and, where it is known, a frame with a face."""
        return self._learnable(self.dataset(part))

    def _learnable(self, items: Clips) -> list[int]:
        """Items with a label and, where it is known, a frame with a face: where the features are in memory."""
        if isinstance(items, ResidentClips):
            return items.with_a_face()
        return [index for index, clip in enumerate(items.clips) if target_of(clip, self.scheme) != UNKNOWN]

    def most_frames(self, part: Part) -> int | None:
        """Frames of a part's longest clip, where a store tells; None where videos are read."""
        if self.options.frames is not None:
            return 1
        if self.store is None:
            return None
        held = self._datasets.get(part)
        if isinstance(held, ResidentClips):
            return int(held.lengths.max()) if len(held) else 0
        counts = [self.store.num_frames(clip.clip_id) for clip in self.clips(part) if clip.clip_id in self.store]
        return max(counts, default=0)

    def subjects_seen(self) -> frozenset[str]:
        """Whom a fit on this data looks at: training and early stopping, as "data set/subject"."""
        return qualified(self.name, (*self.split.train, *self.split.validation))

    def setup(self, stage: str) -> None:
        """Open the parts that a stage needs, so that mistakes show before training starts."""
        parts: dict[str, tuple[Part, ...]] = {"fit": ("train", "validation"), "validate": ("validation",)}
        for part in parts.get(stage, ("test",)):
            self.dataset(part)
        if stage == "fit":
            missing = [name for name, n in self.train_counts().items() if n == 0]
            if missing:
                aside = self.options.baseline_clips
                raise PainseqError(
                    f"The training part of {self.name} has no clip of class {', '.join(missing)}: "
                    f"{json.dumps(self.train_counts())}."
                    + (
                        f" {aside} of each subject's clips without pain are set aside as baseline_clips."
                        if aside
                        else ""
                    )
                )
            validation = self.scheme.counts(self.clips("validation"))
            if self.split.validation and not sum(validation.values()):
                raise PainseqError(
                    f"No clip of the {len(self.split.validation)} validation subjects has a label, so nothing can be "
                    "stopped early on. For a data set with a hidden test part choose --data.options.split.protocol "
                    "official or official_inner."
                )
            absent = [name for name, n in validation.items() if n == 0]
            if self.split.validation and absent:
                log.warning(
                    "No validation clip of class %s, so the best epoch is chosen without it: %s.",
                    ", ".join(absent),
                    json.dumps(validation),
                )

    def train_dataloader(self) -> ResidentLoader | CropLoader:
        """Shuffled, or balanced by class and subject.

        Raises:
            PainseqError: no training clip has both a label and a frame with a face.
        """
        items = self.dataset("train")
        indices = self._learnable(items)
        if not indices:
            raise PainseqError(f"No training clip of {self.name} has both a label and a frame with a face.")
        weights = None
        if self.options.balance:
            clips = items.clips
            groups = [(clips[index].label, clips[index].subject_id) for index in indices]
            size, subjects = Counter(groups), Counter(label for label, _ in set(groups))
            weights = [1 / (size[group] * subjects[group[0]]) for group in groups]
        process, processes = self._process()
        order = BatchOrder(indices, self.options.batch_size, self.options.seed, weights, process, processes)
        return self._loader(items, order, self.options.augment)

    def val_dataloader(self) -> ResidentLoader | CropLoader | list[CropLoader]:
        """The subjects of early stopping; none where the split has none."""
        if not self.split.validation:
            return []
        items, (process, processes) = self.dataset("validation"), self._process()
        return self._loader(items, in_order(len(items), self.options.batch_size, process, processes))

    def test_dataloader(self) -> ResidentLoader | CropLoader:
        """The subjects that are scored."""
        return self.loader("test")

    def loader(self, part: Part) -> ResidentLoader | CropLoader:
        """One part in its order, for scoring."""
        items = self.dataset(part)
        return self._loader(items, in_order(len(items), self.options.batch_size))

    def _process(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _loader(
        self, items: Clips, batches: BatchOrder | list[list[Draw]], augment: Augment | None = None
    ) -> ResidentLoader | CropLoader:
        if isinstance(items, ResidentClips):
            return ResidentLoader(items, batches, "cpu" if self.trainer is None else self.trainer.strategy.root_device)
        return CropLoader(Drawn(items, augment, self.options.seed), batches, self.options.num_workers)
