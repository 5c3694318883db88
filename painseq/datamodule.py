"""`PainDataModule`: a manifest, a split and a view. A data set's own module supplies the manifest."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from painseq.batch import UNKNOWN, Batch, Sample, collate
from painseq.errors import PainseqError
from painseq.extractors import Pixels
from painseq.faces import FaceCrops
from painseq.features import ClipFeatures, FeatureStore, NpzFolder, clip_features, open_features
from painseq.labels import LabelScheme, label_scheme
from painseq.records import Clip, Manifest, Part
from painseq.splits import Protocol, Split, make_split, qualified

log = logging.getLogger("painseq")


@dataclass(frozen=True)
class SplitOptions:
    """How subjects are split; see `painseq.splits.make_split`."""

    protocol: Protocol = "subject_holdout"
    validation_share: float = 0.2
    test_share: float = 0.2
    folds: int = 5
    fold: int = 0
    seed: int = 0


@dataclass(frozen=True)
class FrameWindow:
    """Single frames as clips: every frame with a face between these moments of a clip is an item of its own.

    Args:
        from_s: seconds from the clip's start, inclusive.
        to_s: seconds from the clip's start, exclusive.
    """

    from_s: float
    to_s: float


@dataclass(frozen=True)
class DataOptions:
    """What every data set is asked for.

    Args:
        labels: name of a label scheme in `painseq.labels`.
        split: who is trained on, stopped early on, scored.
        view: "features" of a feature store, or "pixels": crops, from a store of `Pixels` or from the videos.
        store: folder that `painseq extract` wrote (or, for features, a folder of npz that it exported).
        face: how faces are found and cropped, where videos are read.
        fps: frames a second to sample, where videos are read; unset is every frame. With a store, a value
            given here must be the store's.
        frames: train on single frames of this part of a clip, instead of whole clips.
        balance: draw training items so that classes, and subjects within a class, come equally often.
        batch_size: items a batch.
        num_workers: processes that read videos; 0 is best with a store.
        seed: of the order of the training items.
    """

    labels: str = "three"
    split: SplitOptions = SplitOptions()
    view: Literal["features", "pixels"] = "features"
    store: Path | None = None
    face: FaceCrops | None = None
    fps: float | None = None
    frames: FrameWindow | None = None
    balance: bool = False
    batch_size: int = 32
    num_workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise PainseqError(f"batch_size is {self.batch_size}; it must be 1 or more.")
        if self.num_workers < 0:
            raise PainseqError(f"num_workers is {self.num_workers}; it must be 0 or more.")
        if self.fps is not None and not self.fps > 0:
            raise PainseqError(f"fps is {self.fps}; it must be more than 0.")


class ClipDataset(Dataset[Sample]):
    """Clips as samples, read from a store.

    Clips that the store counts as failed are left out, and listed in `left_out`. Clips without a single frame with a
    face stay, masked.

    Raises:
        PainseqError: a clip that is neither in the store nor counted as failed.
    """

    def __init__(self, clips: Sequence[Clip], scheme: LabelScheme, store: FeatureStore | NpzFolder) -> None:
        self.left_out = [clip.clip_id for clip in clips if clip.clip_id in store.failed]
        self.clips = tuple(clip for clip in clips if clip.clip_id not in store.failed)
        self.scheme = scheme
        self.store = store
        absent = [clip.clip_id for clip in self.clips if clip.clip_id not in store]
        if absent:
            raise PainseqError(
                f"The store lacks {len(absent)} of {len(self.clips)} clips, such as {absent[0]!r}. Run `painseq "
                "extract` again with the same data options: it adds what is missing."
            )
        # Features of a whole data set fit in memory (BioVid: 2.5 GB), and reading them once beats any number
        # of loader processes; crops do not fit.
        self.resident: dict[str, ClipFeatures] = {}
        if store.dtype != "uint8":
            self.resident = {clip.clip_id: store[clip.clip_id] for clip in self.clips}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        clip = self.clips[index]
        return sample_of(clip, self.scheme, self.resident.get(clip.clip_id) or self.store[clip.clip_id])


class VideoDataset(Dataset[Sample]):
    """Clips as samples, cropped from the videos each time they are asked for."""

    def __init__(self, manifest: Manifest, scheme: LabelScheme, face: FaceCrops, fps: float | None) -> None:
        self.clips = manifest.clips
        self.manifest = manifest
        self.scheme = scheme
        self.face = face
        self.fps = fps
        self.left_out: list[str] = []

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        clip = self.clips[index]
        crops = clip_features(
            Pixels(self.face.size_px), self.face, self.manifest.path(clip), clip.start_s, clip.end_s, self.fps, "cpu"
        )
        return sample_of(clip, self.scheme, crops)


class FrameDataset(Dataset[Sample]):
    """Single frames as clips of T = 1: every frame with a face within a window of each clip."""

    def __init__(self, clips: ClipDataset, window: FrameWindow) -> None:
        self.source = clips
        self.left_out = clips.left_out
        self.scheme = clips.scheme
        self.items: list[tuple[Clip, int]] = []
        for clip in clips.clips:
            stored = clips.store[clip.clip_id]
            inside = stored.present & (stored.times_s >= window.from_s) & (stored.times_s < window.to_s)
            self.items += [(clip, int(frame)) for frame in inside.nonzero()[:, 0]]
        if clips.clips and not self.items:
            raise PainseqError(
                f"No clip has a frame with a face between {window.from_s} s and {window.to_s} s. Set "
                "--data.options.frames to a part of the clips that exists."
            )

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The clip of each item."""
        return tuple(clip for clip, _ in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        clip, frame = self.items[index]
        one = self.source.store.frames(clip.clip_id, frame, frame + 1)
        sample = sample_of(clip, self.scheme, one)
        return Sample(
            clip_id=f"{clip.clip_id}@{float(one.times_s[0]):.3f}",
            subject_id=sample.subject_id,
            target=sample.target,
            present=sample.present,
            times_s=sample.times_s,
            video=sample.video,
            features=sample.features,
        )


def sample_of(clip: Clip, scheme: LabelScheme, stored: ClipFeatures) -> Sample:
    """A clip's frames and target; uint8 frames are crops."""
    target = scheme.target(clip.label)
    pixels = stored.features.dtype == torch.uint8
    return Sample(
        clip_id=clip.clip_id,
        subject_id=clip.subject_id,
        target=UNKNOWN if target is None else target,
        present=stored.present,
        times_s=stored.times_s,
        video=stored.features if pixels else None,
        features=None if pixels else stored.features,
    )


class PainDataModule(pl.LightningDataModule):
    """A data set as batches. Subclasses supply `name` and `read_manifest`; official parts are in the clips.

    Args:
        root: the data set's folder.
        options: labels, split, view.
    """

    name: str

    def __init__(self, root: Path, options: DataOptions) -> None:
        super().__init__()
        self.root = Path(root)
        self.options = options
        self._manifest: Manifest | None = None
        self._split: Split | None = None
        self._store: FeatureStore | NpzFolder | None = None
        self._datasets: dict[Part, ClipDataset | VideoDataset | FrameDataset] = {}

    def read_manifest(self) -> Manifest:
        """Every clip of the data set as it lies on disk, with native labels and official parts."""
        raise NotImplementedError

    @property
    def scheme(self) -> LabelScheme:
        """The classes of this experiment."""
        return label_scheme(self.name, self.options.labels)

    @property
    def manifest(self) -> Manifest:
        """The clips that take part."""
        if self._manifest is None:
            everything = self.read_manifest()
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
            chosen = self.options.split
            self._split = make_split(
                self.manifest,
                chosen.protocol,
                seed=chosen.seed,
                validation_share=chosen.validation_share,
                test_share=chosen.test_share,
                folds=chosen.folds,
                fold=chosen.fold,
            )
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
    def pipeline(self) -> dict[str, object]:
        """How the frames were made: {"face": ..., "sampling": ..., "extractor": ...}; a checkpoint records it."""
        if isinstance(self.store, FeatureStore):
            return dict(self.store.spec)
        if self.store is not None or self.options.face is None:
            return {"face": None, "sampling": {"fps": self.options.fps}}
        return {"face": self.options.face.record(), "sampling": {"fps": self.options.fps}}

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one frame: (D,) features, (3, S, S) crops."""
        if self.store is not None:
            return tuple(self.store.out_shape)
        if self.options.view == "features":
            raise PainseqError(
                "No feature store. Run `painseq extract` first and give its folder to --data.options.store, or set "
                "--data.options.view pixels to read the videos."
            )
        if self.options.face is None:
            raise PainseqError(
                "Reading videos needs a face crop: add a `face` to the data options, as configs/data/biovid.yaml does."
            )
        return (3, self.options.face.size_px, self.options.face.size_px)

    @property
    def extractor_trained_on(self) -> tuple[str, ...]:
        """Whom the store's extractor was fitted on, as "data set/subject"."""
        return tuple(self.store.trained_on) if self.store is not None else ()

    def dataset(self, part: Part) -> ClipDataset | VideoDataset | FrameDataset:
        """The samples of one part.

        Raises:
            PainseqError: no store and no face crop; a clip that is not in the store.
        """
        if part in self._datasets:
            return self._datasets[part]
        clips = self.split.clips(self.manifest, part)
        shape = self.in_shape
        if self.store is not None:
            stored = ClipDataset(clips, self.scheme, self.store)
            made: ClipDataset | VideoDataset | FrameDataset = stored
            if self.options.frames is not None:
                made = FrameDataset(stored, self.options.frames)
        elif self.options.frames is not None:
            raise PainseqError(
                "Training on single frames reads them from a store of crops, since seeking in videos is slow. Run "
                "`painseq extract` with configs/extractor/pixels.yaml and give its folder to --data.options.store."
            )
        else:
            assert self.options.face is not None and shape
            made = VideoDataset(self.manifest.only(clips), self.scheme, self.options.face, self.options.fps)
        if made.left_out:
            log.warning("%s: %d clips of %s left out, unreadable when extracted", self.name, len(made.left_out), part)
        self._datasets[part] = made
        return made

    def train_counts(self) -> dict[str, int]:
        """Training clips a class, in the scheme's order."""
        return self.scheme.counts(self.split.clips(self.manifest, "train"))

    def train_item_counts(self) -> dict[str, int]:
        """Training items (clips, or single frames) a class, in the scheme's order."""
        return self.scheme.counts(self.dataset("train").clips)

    def subjects_seen(self) -> frozenset[str]:
        """Whom a fit on this data looks at: training and early stopping, as "data set/subject"."""
        return qualified(self.name, (*self.split.train, *self.split.validation))

    def setup(self, stage: str) -> None:
        """Open the parts that a stage needs, so that mistakes show before training starts."""
        for part in {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",)):
            self.dataset(part)  # type: ignore[arg-type]
        if stage == "fit":
            missing = [name for name, n in self.train_counts().items() if n == 0]
            if missing:
                raise PainseqError(
                    f"The training part of {self.name} has no clip of class {', '.join(missing)}: "
                    f"{json.dumps(self.train_counts())}."
                )
            validation = self.scheme.counts(self.split.clips(self.manifest, "validation"))
            if self.split.validation and not sum(validation.values()):
                raise PainseqError(
                    f"No clip of the {len(self.split.validation)} validation subjects has a label, so nothing can be "
                    "stopped early on. For a data set with a hidden test part choose --data.options.split.protocol "
                    "official or official_inner."
                )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, or balanced by class and subject."""
        items = self.dataset("train")
        generator = torch.Generator().manual_seed(self.options.seed)
        sampler = None
        if self.options.balance:
            groups = [(clip.label, clip.subject_id) for clip in items.clips]
            size, subjects = Counter(groups), Counter(label for label, _ in set(groups))
            weights = [1 / (size[group] * subjects[group[0]]) for group in groups]
            sampler = WeightedRandomSampler(weights, len(groups), generator=generator)
        return self._loader(items, shuffle=sampler is None, sampler=sampler, generator=generator)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The subjects of early stopping; none where the split has none."""
        return self._loader(self.dataset("validation")) if self.split.validation else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """The subjects that are scored."""
        return self._loader(self.dataset("test"))

    def loader(self, part: Part) -> DataLoader[Batch]:
        """One part in its order, for scoring."""
        return self._loader(self.dataset(part))

    def _loader(
        self,
        items: ClipDataset | VideoDataset | FrameDataset,
        shuffle: bool = False,
        sampler: WeightedRandomSampler | None = None,
        generator: torch.Generator | None = None,
    ) -> DataLoader[Batch]:
        workers = self.options.num_workers
        return DataLoader(
            items,  # type: ignore[arg-type]
            batch_size=self.options.batch_size,
            shuffle=shuffle,
            sampler=sampler,
            generator=generator,
            num_workers=workers,
            # Decoders opened before a fork can hang in the child.
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
            collate_fn=collate,
        )
