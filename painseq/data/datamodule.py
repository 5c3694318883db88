"""`PainDataModule`: a manifest, a split and a view. Each data set has a subclass that reads its manifest."""

from __future__ import annotations

import copy
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytorch_lightning as pl

from painseq.data.augment import Augment
from painseq.data.datasets import Drawn, SingleCrops, StoredCrops, VideoClips, shuffled, split_readable, target_of
from painseq.data.facts import DataSetFacts
from painseq.data.labels import LabelScheme, label_scheme, native_scheme, own_scheme
from painseq.data.loading import BatchOrder, CropLoader, Draw, ResidentLoader, in_order
from painseq.data.normalisation import baseline_clips, check_baseline, person_scales
from painseq.data.options import DataOptions
from painseq.data.person_scale import PersonScale
from painseq.data.resident import ResidentClips, resident_clips, single_frames
from painseq.data.splits import Split, make_split, qualified, split_of_items
from painseq.data.stores import checked_store, extra_width, frame_shape, pipeline_of
from painseq.data.streams import ActionUnitStream, StoreStream, Stream, as_streams, beside_cnn
from painseq.errors import CLIP_FAILURES, PainseqError, first_few
from painseq.features import FeatureStore, NpzFolder
from painseq.features.spans import check_spans
from painseq.records import THE_EXTRACTOR, UNKNOWN, Clip, Manifest, Part, doubtful_subjects
from painseq.video import SHORT_DIGEST, video_digest
from painseq.video.generated import root_is_generated

log = logging.getLogger("painseq")

Clips = ResidentClips | StoredCrops | VideoClips | SingleCrops


FITTED: tuple[Part, ...] = ("train", "validation")
"""The parts that a fit reads."""


@dataclass(frozen=True, eq=False)
class GivenItems:
    """Items that were given as parts instead of a split; see `PainDataModule.with_items`."""

    items: ResidentClips
    parts: Mapping[Part, Sequence[int]]
    protocol: str
    groups: Sequence[str] | None


class PainDataModule(pl.LightningDataModule):
    """A data set as batches. Subclasses define `name`, `facts` and `read_manifest`.

    Args:
        root: folder of the data set.
        options: labels, split, view and more.
    """

    name: str
    facts: DataSetFacts = DataSetFacts()
    """Facts about the data set that are known before it is read."""
    classes: tuple[str, ...] = ()
    """All native labels in order of pain, if they depend on the arguments; empty: `facts.native` applies."""

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
        self.items: GivenItems | None = None
        """The items that were given as parts; see `with_items`."""
        self._resident: ResidentClips | None = None
        self._digests: dict[str, str] | None = None
        self._warned = False
        self.shuffled_labels: int | None = None
        """Seed of a shuffled-label control; None if labels are not shuffled. See `shuffle_labels`."""

    def read_manifest(self) -> Manifest:
        """Read all clips of the data set on disk, with native labels and official parts."""
        raise NotImplementedError

    def label_problems(self) -> list[str]:
        """Describe labels that are missing or contradictory, one sentence per problem."""
        return []

    @property
    def scheme(self) -> LabelScheme:
        """The label scheme of this experiment."""
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
        """All clips of the data set, including those whose label the scheme leaves out; read once."""
        if self._everything is None:
            self._everything = self.read_manifest()
            for doubt in doubtful_subjects(self._everything):
                log.warning("%s", doubt)
        return self._everything

    @property
    def manifest(self) -> Manifest:
        """The clips whose labels the scheme uses."""
        if self._manifest is None:
            everything = self.whole_manifest
            self._manifest = self.scheme.apply(everything)
            if not len(self._manifest):
                raise PainseqError(
                    f"{self.root} has no clip for the label scheme {self.options.labels!r}; its labels are "
                    f"{first_few(sorted({str(clip.label) for clip in everything}))}. Choose a scheme for these labels: "
                    "--data.options.labels."
                )
        return self._manifest

    @property
    def split(self) -> Split:
        """Training, validation and test subjects."""
        if self._split is None:
            self._split = make_split(self.manifest, self.options.split, self.scheme)
        return self._split

    @property
    def store(self) -> FeatureStore | NpzFolder | None:
        """The store of the frames, checked against the options; None if videos are read."""
        if self._store is None and self.options.store is not None:
            self._store = checked_store(self.options.store, self.options, self.manifest)
        return self._store

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that the head is given, in order.

        Raises:
            PainseqError: streams lists landmarks, but the store has none.
        """
        if self._streams is None:
            asked = as_streams(self.options.streams, self.options.action_units)
            streams = tuple(
                stream.for_tables(self.manifest, self.manifest.root)
                if isinstance(stream, ActionUnitStream)
                else stream.seen(self.store)
                for stream in asked
            )
            for stream in streams:
                if isinstance(stream, StoreStream):
                    check_spans(stream.folder, stream.store.spans, stream.store, self.manifest)
            self._streams = streams
        return self._streams

    @property
    def pipeline(self) -> dict[str, object]:
        """How the frames were made, for the checkpoint: {"face": ..., "sampling": ..., "extractor": ...}."""
        return pipeline_of(self.options, self.store)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one frame: (D,) for the features of all streams, (3, S, S) for crops."""
        return frame_shape(self.options, self.store, self.streams)

    @property
    def extra_width(self) -> int:
        """Total width of the streams other than `cnn`.

        Raises:
            PainseqError: streams lists landmarks, but there is no store with landmarks.
        """
        return extra_width(self.streams)

    @property
    def extractor_trained_on(self) -> tuple[str, ...]:
        """Subjects that the extractors of the store and of other streams were trained on, as "data set/subject"."""
        subjects = dict.fromkeys(() if self.store is None else self.store.trained_on)
        for stream in self.streams:
            subjects.update(dict.fromkeys(stream.trained_on))
        return tuple(subjects)

    @property
    def unknown_extractors(self) -> tuple[str, ...]:
        """Names of the store's extractor and of streams for which it is not known whom they were fitted on."""
        unknown = [] if self.store is None or self.store.people_known else [THE_EXTRACTOR]
        return (*unknown, *(f"the stream {stream.name!r}" for stream in self.streams if not stream.people_known))

    def take_action_units(self, identity: Mapping[str, object]) -> None:
        """Take the columns of action units that a model was fitted with.

        Raises:
            PainseqError: the tables are of another tool than the model's, or not all of them have its columns.
        """
        if not self._datasets and self._resident is None:
            self._streams = tuple(
                stream.taken_as(identity) if isinstance(stream, ActionUnitStream) else stream for stream in self.streams
            )

    @property
    def generated(self) -> bool | None:
        """Whether all videos were generated by painseq; None if it is not known, as for features alone."""
        return root_is_generated(self.root)

    def train_on_validation_too(self) -> None:
        """Move the validation subjects to the training subjects, for a refit with a fixed number of epochs.

        Raises:
            PainseqError: the parts were given as items (`with_items`), which subjects do not tell.
        """
        if self.items is not None:
            raise PainseqError(
                "refit_epochs trains on all clips of the training and validation subjects, but these parts were given "
                "as items. Give the items of both parts as training items, and fit for a fixed number of epochs."
            )
        split = self.split
        self._split = replace(split, train=tuple(sorted((*split.train, *split.validation))), validation=())
        self._datasets = {}

    def shuffle_labels(self, seed: int) -> None:
        """Permute the labels of training and validation clips within each subject, as a control.

        A model fitted on them cannot learn pain; its scores on the test part, whose labels are unchanged, show the
        chance level. Permuting within subjects preserves each subject's label distribution.
        """
        self.shuffled_labels = seed

    def clips(self, part: Part) -> tuple[Clip, ...]:
        """Return the clips of a part for training or evaluation, without baseline clips, in the manifest's order."""
        baseline = self._baseline()
        set_aside = {clip.clip_id for subject in self.split.subjects(part) for clip in baseline.get(subject, ())}
        clips = tuple(clip for clip in self.split.clips(self.manifest, part) if clip.clip_id not in set_aside)
        if self.shuffled_labels is None or part == "test":
            return clips
        return shuffled(clips, self.shuffled_labels)

    def _baseline(self) -> dict[str, list[Clip]]:
        return baseline_clips(self.manifest, self.scheme, self.options.set_aside)

    def _check_baseline(self, part: Part) -> None:
        check_baseline(self._baseline(), self.split.subjects(part), self.options.set_aside, part, self.scheme)

    def _scales(self, clips: Sequence[Clip]) -> dict[str, PersonScale] | None:
        """Measure what the subjects of these clips are normalised by; None if they are not."""
        normalise, store = self.options.normalise, self.store
        if normalise == "none":
            return None
        assert store is not None
        own = self._baseline()
        if normalise == "subject":
            # Also clips whose label the scheme leaves out: to choose by labels would be to use them.
            for clip in self.whole_manifest:
                own.setdefault(clip.subject_id, []).append(clip)
        subjects = {clip.subject_id for clip in split_readable(clips, store)[0]}
        return person_scales({name: own[name] for name in subjects}, normalise, store, self.streams, self.manifest.root)

    def dataset(self, part: Part) -> Clips:
        """Return the dataset of one part.

        Raises:
            PainseqError: there is no store and no face crop, a clip is not in the store, or a subject has no baseline.
        """
        if part in self._datasets:
            return self._datasets[part]
        if self._resident is None:
            dataset = self._read(self.clips(part), part)
            self._log_left_out(dataset, part)
        else:
            dataset = self._shared(part)
        self._datasets[part] = dataset
        return dataset

    def everything(self) -> ResidentClips:
        """Return the features in memory of all clips that any split can use, read once.

        After this call the parts share these frames, as do all copies made by `with_split` and `with_items`. Clips that
        the store lacks, and subjects without a baseline, are left out; a part that needs them is refused.

        Raises:
            PainseqError: the view is pixels, or there is no store.
        """
        if self.options.view == "pixels":
            raise PainseqError("Crops do not fit in memory. Set --data.options.view features.")
        if self._resident is None:
            assert self.in_shape and self.store is not None
            baseline = self._baseline()
            set_aside = {clip.clip_id for kept in baseline.values() for clip in kept}
            lacking = {subject for subject, kept in baseline.items() if len(kept) < self.options.set_aside}
            failed = self.store.failed
            clips = tuple(
                clip
                for clip in self.manifest
                if clip.clip_id not in set_aside
                and clip.subject_id not in lacking
                and (clip.clip_id in self.store or clip.clip_id in failed)
            )
            self._check_streams(clips)
            scales = self._scales(clips)
            resident = resident_clips(clips, self.scheme, self.store, self.streams, self.manifest.root, scales)
            self._log_left_out(resident, "all parts")
            window = self.options.frames
            self._resident = resident if window is None else single_frames(resident, window)
        return self._resident

    def with_split(self, split: Split) -> PainDataModule:
        """Return a copy with another split that shares manifest, store and the frames in memory.

        Crops are not held in memory: with the view "pixels" the copy reads them on access.
        """
        if self.options.view == "features":
            self.everything()
        else:
            # Opened first, so that all copies share them.
            self._manifest, self._store = self.manifest, self.store
        module = copy.copy(self)
        module.trainer, module._split, module._datasets = None, split, {}
        module.items, module._warned = None, False
        return module

    def without_test(self) -> PainDataModule:
        """Return a copy that has only the clips of the training and validation parts, so that no other is read."""
        self._scheme, parts = self.scheme, (self.split.clips(self.manifest, part) for part in FITTED)
        kept = {clip.clip_id for clips in parts for clip in clips}
        module = copy.copy(self)
        module._manifest = self.manifest.only(clip for clip in self.manifest if clip.clip_id in kept)
        module._split, module.trainer, module._datasets = self.split, None, {}
        return module

    def with_items(
        self,
        items: ResidentClips,
        parts: Mapping[Part, Sequence[int]],
        protocol: str,
        groups: Sequence[str] | None = None,
    ) -> PainDataModule:
        """Return a copy whose parts are given items, regardless of their subjects; only for the leak audit.

        If a subject is in two parts, the split is a `LeakySplit`, whose protocol includes LEAKY wherever it is
        recorded. A model fitted on it counts as fitted on every subject of `items`, so that it cannot be evaluated on
        them as if they were new. If no subject is in two parts, the split is a regular `Split` of the subjects of each
        part.

        Args:
            items: items of `everything()`, or single frames of it, with the labels to learn.
            parts: part -> numbers of items; without validation there is no early stopping.
            protocol: how the items were split; _LEAKY is added for a leaky split.
            groups: group of each item, which inner folds keep together; None: its subject.

        Raises:
            PainseqError: an item does not exist or is in two parts; see also `everything`.
        """
        self.everything()
        numbers = [number for part in parts.values() for number in part]
        if len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(len(items))):
            raise PainseqError(
                f"parts lists {len(numbers)} items; each must be a number from 0 to {len(items) - 1}, in one part only."
            )
        given = {part: items.only(indices) for part, indices in parts.items() if indices}
        for dataset in given.values():
            dataset.left_out = []  # Clips that could not be read are not items of any part.
        module = copy.copy(self)
        module.trainer, module._datasets = None, dict(given)
        module.items = GivenItems(items, parts, protocol, groups)
        module._split = split_of_items({part: dataset.clips for part, dataset in given.items()}, items.clips, protocol)
        return module

    def _log_left_out(self, clips: Clips, parts: str) -> None:
        if clips.left_out:
            log.warning("%s: %d clips of %s left out: their extraction failed", self.name, len(clips.left_out), parts)

    def _shared(self, part: Part) -> ResidentClips:
        assert self._resident is not None and self.store is not None
        clips = self.clips(part)
        split_readable(clips, self.store)
        self._check_baseline(part)
        return self._resident.of_clips(clips)

    def _read(self, clips: tuple[Clip, ...], part: Part) -> Clips:
        shape, window, root = self.in_shape, self.options.frames, self.manifest.root
        extra = beside_cnn(self.streams)
        self._check_streams(clips)
        if self.store is not None and (self.options.view == "features" or extra == self.streams):
            self._check_baseline(part)
            resident = resident_clips(clips, self.scheme, self.store, self.streams, root, self._scales(clips))
            return resident if window is None else single_frames(resident, window)
        if self.store is not None:
            crops = StoredCrops(clips, self.scheme, self.store, extra, root)
            return crops if window is None else SingleCrops(crops, window)
        if window is not None:
            raise PainseqError(
                "Training on single frames needs a store of crops, since seeking in videos is slow. Run `painseq "
                "extract` with configs/extractor/pixels.yaml and set --data.options.store to its folder."
            )
        assert self.options.face is not None and shape
        return VideoClips(self.manifest.only(clips), self.scheme, self.options.face, self.options.fps, extra)

    def _check_streams(self, clips: tuple[Clip, ...]) -> None:
        """Check that each stream has the rows of all readable clips."""
        readable = clips if self.store is None else split_readable(clips, self.store)[0]
        for stream in self.streams:
            stream.check(readable, self.manifest.root, self.store)

    def train_counts(self) -> dict[str, int]:
        """Return the number of training clips per class, in the scheme's order."""
        return self.scheme.counts(self.clips("train"))

    def train_item_counts(self) -> dict[str, int]:
        """Return the number of usable training items (clips or single frames) per class; see `learnable`."""
        items = self.dataset("train")
        clips = items.clips
        return self.scheme.counts(tuple(clips[index] for index in self._learnable(items)))

    def learnable(self, part: Part) -> list[int]:
        """Return the numbers of a part's items with a label and, for features, a frame with a face."""
        return self._learnable(self.dataset(part))

    def _learnable(self, items: Clips) -> list[int]:
        if isinstance(items, ResidentClips):
            return items.with_a_face()
        return [index for index, clip in enumerate(items.clips) if target_of(clip, self.scheme) != UNKNOWN]

    def most_frames(self, part: Part) -> int | None:
        """Return the number of frames of a part's longest clip in the store; None if videos are read."""
        if self.options.frames is not None:
            return 1
        if self.store is None:
            return None
        dataset = self._datasets.get(part)
        if isinstance(dataset, ResidentClips):
            return int(dataset.lengths.max()) if len(dataset) else 0
        counts = [self.store.num_frames(clip.clip_id) for clip in self.clips(part) if clip.clip_id in self.store]
        return max(counts, default=0)

    def subjects_seen(self) -> frozenset[str]:
        """Return the training and validation subjects, as "data set/subject"."""
        return qualified(self.name, (*self.split.train, *self.split.validation))

    @property
    def video_digests(self) -> Mapping[str, str]:
        """Clip id -> short digest of its video's content, as the store records it, or else that of the video.

        Missing: clips of a store that does not record it, and videos that cannot be read.
        """
        if self._digests is None:
            if self.store is not None:
                spans = self.store.spans
                self._digests = {clip_id: span.video for clip_id, span in spans.items() if span.video is not None}
            else:
                known: dict[tuple[Path, float | None], str] = {}
                for key in {(self.manifest.path(clip), clip.fps) for clip in self.manifest}:
                    # A clip that cannot be read is told where its frames are read.
                    with suppress(*CLIP_FAILURES):
                        known[key] = video_digest(*key)[:SHORT_DIGEST]
                places = {clip.clip_id: (self.manifest.path(clip), clip.fps) for clip in self.manifest}
                self._digests = {clip_id: known[key] for clip_id, key in places.items() if key in known}
        return self._digests

    def videos_seen(self) -> frozenset[str]:
        """Return the short digests of the videos of the training and validation subjects, as far as known."""
        seen, digests = self.subjects_seen(), self.video_digests
        clips = [clip.clip_id for clip in self.manifest if f"{self.name}/{clip.subject_id}" in seen]
        return frozenset(digests[clip_id] for clip_id in clips if clip_id in digests)

    def setup(self, stage: str) -> None:
        """Open the parts that a stage needs, so that errors show before training starts."""
        parts: dict[str, tuple[Part, ...]] = {"fit": ("train", "validation"), "validate": ("validation",)}
        for part in parts.get(stage, ("test",)):
            self.dataset(part)
        if stage == "fit":
            missing = [name for name, n in self.train_counts().items() if n == 0]
            if missing:
                set_aside = self.options.set_aside
                raise PainseqError(
                    f"The training part of {self.name} has no clip of class {', '.join(missing)}: "
                    f"{json.dumps(self.train_counts())}."
                    + (
                        f" {set_aside} pain-free clips of each subject are set aside as baseline_clips."
                        if set_aside
                        else ""
                    )
                )
            validation = self.scheme.counts(self.clips("validation"))
            if self.split.validation and not sum(validation.values()):
                raise PainseqError(
                    f"No clip of the {len(self.split.validation)} validation subjects has a label, so early stopping "
                    "is not possible. For a data set with a hidden test part choose --data.options.split.protocol "
                    "official or official_inner."
                )
            unvalidated = [name for name, n in validation.items() if n == 0]
            # Lightning sets up data that were set up before, too.
            if self.split.validation and unvalidated and not self._warned:
                self._warned = True
                log.warning(
                    "No validation clip of class %s, so the best epoch is chosen without it: %s.",
                    ", ".join(unvalidated),
                    json.dumps(validation),
                )

    def train_dataloader(self) -> ResidentLoader | CropLoader:
        """Return the training batches, shuffled, or balanced by class and subject.

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
            # By the scheme's class, or value: several native labels may be one class.
            groups = [(target_of(clips[index], self.scheme), clips[index].subject_id) for index in indices]
            size, subjects = Counter(groups), Counter(target for target, _ in set(groups))
            weights = [1 / (size[group] * subjects[group[0]]) for group in groups]
        process, processes = self._process()
        order = BatchOrder(indices, self.options.batch_size, self.options.seed, weights, process, processes)
        return self._loader(items, order, self.options.augment, keeps_workers=True)

    def val_dataloader(self) -> ResidentLoader | CropLoader | list[CropLoader]:
        """Return the batches of the validation subjects; empty if there are none."""
        if not self.split.validation:
            return []
        items, (process, processes) = self.dataset("validation"), self._process()
        batches = in_order(len(items), self.options.batch_size, process, processes)
        return self._loader(items, batches, keeps_workers=True)

    def test_dataloader(self) -> ResidentLoader | CropLoader:
        """Return the batches of the test subjects."""
        return self.loader("test")

    def loader(self, part: Part) -> ResidentLoader | CropLoader:
        """Return the batches of one part in order, for evaluation."""
        items = self.dataset(part)
        return self._loader(items, in_order(len(items), self.options.batch_size))

    def _process(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _loader(
        self,
        items: Clips,
        batches: BatchOrder | list[list[Draw]],
        augment: Augment | None = None,
        keeps_workers: bool = False,
    ) -> ResidentLoader | CropLoader:
        if isinstance(items, ResidentClips):
            return ResidentLoader(items, batches, "cpu" if self.trainer is None else self.trainer.strategy.root_device)
        crops = Drawn(items, augment, self.options.seed)
        return CropLoader(crops, batches, self.options.num_workers, keeps_workers)
