"""`LivePredictor`: predict a stream, picture by picture."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from painseq.data.person_scale import PersonScale
from painseq.data.streams import ClipRows, rows_of_video, video_streams
from painseq.errors import PainseqError
from painseq.faces import FaceFollower, FollowedFace, Locator
from painseq.faces.movements import NAMES
from painseq.live.memory import Said, memory_of
from painseq.live.reading import Reading, State
from painseq.live.sampling import Sample, Sampler
from painseq.live.skipping import Skipper, Skipping
from painseq.model.prediction import NO_PREDICTION
from painseq.model.predictor import Predictor
from painseq.moments import Moments


@dataclass(frozen=True)
class LiveSettings:
    """How a stream is predicted.

    Args:
        window_s: the length of clip that the model takes, in seconds; best that of the clips which it was fitted on.
            Heads that go frame by frame begin anew after it; the others read the last `window_s` seconds as a clip, of
            which a frame head takes the mean and the votes.
        hop_s: seconds between two predictions of a head that reads windows; None: every frame for a frame head, 0.5 s
            for others. Heads that go frame by frame predict at every frame.
        warm_up_s: seconds with the face, since the start or a gap, before anything is predicted.
        gap_s: after so long without a face, or without pictures, what was seen before is forgotten.
        reference_s: seconds with the face from which the person's reference is made, for a model that normalises
            features by person; 0: none, see `LivePredictor`.
        skipping: which frames the extractor leaves out.

    Raises:
        PainseqError: a number out of range.
    """

    window_s: float = 10.0
    hop_s: float | None = None
    warm_up_s: float = 1.0
    gap_s: float = 2.0
    reference_s: float = 0.0
    skipping: Skipping = field(default_factory=Skipping)

    def __post_init__(self) -> None:
        for name in ("window_s", "gap_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise PainseqError(f"LiveSettings: {name} is {getattr(self, name)}; it must be a number above 0.")
        for name in ("hop_s", "warm_up_s", "reference_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise PainseqError(f"LiveSettings: {name} is {value}; it must be 0 or more.")


@dataclass
class Counts:
    """Counts of samples: all, those whose features were computed, and those that held the last ones."""

    samples: int = 0
    processed: int = 0
    skipped: int = 0


class LivePredictor:
    """Predict a stream, picture by picture, with a fitted or an exported model.

    Fed with the pictures of a file, it gives the numbers of `model.as_causal().predict` for the clip up to each frame
    (`skipping` "none", `warm_up_s` 0, a clip not longer than `window_s`). Memory does not grow. Use it in one thread.

    Args:
        model: a `PainModel` or an `ExportedModel`.
        settings: how the stream is predicted.
        person: what the person's features are normalised by, for a model that normalises by person, such as
            `model.pain_free(video)`. If another person may have come, the state stays "other_face" until
            `confirm_person`. A reference of the stream's first seconds (`LiveSettings.reference_s`) is made anew then.
        locator: finds the face instead of the model's own locator.
        source: name of the camera or file, for error messages.

    Raises:
        PainseqError: the model cannot read videos, needs tables of action units, or faces that were found before; it
            normalises by person and neither a person nor a reference is given, or the reverse.

    Example:
        >>> live = LivePredictor(painseq.load("best.ckpt"), LiveSettings(window_s=5.5))
        >>> for picture, time_s in pictures:
        ...     for reading in live.push(picture, time_s):
        ...         print(reading.time_s, reading.state, reading.label, reading.probabilities)
    """

    def __init__(
        self,
        model: Predictor,
        settings: LiveSettings = LiveSettings(),
        person: PersonScale | None = None,
        locator: Locator | None = None,
        source: str = "The source",
    ) -> None:
        self.model = model
        self.settings = settings
        self.counts = Counts()
        self._person = _Person(model, person, settings.reference_s)
        self._follower = FaceFollower(model.face_crops(locator), source)
        if "action_units" in model.streams:
            raise PainseqError(
                "This model takes action units, which another program writes into a table, so it cannot read a live "
                "stream. Fit a model without the stream action_units."
            )
        self._streams = video_streams(model.stream_identities, Path(source), None, self._follower.face.locator)
        self._source = Path(source)
        self._sampler = Sampler(model.fps, source)
        self._skipper = Skipper(settings.skipping)
        self._memory = memory_of(model, settings.window_s, settings.hop_s)
        self._face: FollowedFace | None = None
        self._row: NDArray[Any] | None = None
        self._movements: dict[str, float] = {}
        self._said: Said | None = None
        self._picture_s = -math.inf
        self._seen_since_s: float | None = None
        self._face_s = -math.inf
        self._is_other = False

    @property
    def face(self) -> FollowedFace | None:
        """The face of the last sample."""
        return self._face

    @property
    def row(self) -> NDArray[Any] | None:
        """(*F), the features of the last sample with a face, not normalised by person; None if they are forgotten."""
        return self._row

    def push(self, picture: NDArray[np.uint8], time_s: float) -> list[Reading]:
        """Take the next picture.

        Args:
            picture: (H, W, 3) uint8 RGB, of which the predictor keeps the last one: do not write into it.
            time_s: when it was taken, in seconds on any clock.

        Returns:
            The readings of the samples that are due: at the model's rate none between two samples, else usually one.

        Raises:
            PainseqError: not a picture, the time goes back, or the model cannot take the faces that the locator gives.
        """
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise PainseqError(
                f"A picture is (height, width, 3) uint8 RGB, but this one is {picture.shape} {picture.dtype}."
            )
        if time_s - self._picture_s > self.settings.gap_s:
            self._interrupt()
        self._picture_s = time_s
        return [self._read(sample) for sample in self._sampler.push(picture, time_s)]

    def finish(self) -> list[Reading]:
        """Return the readings of the last samples, at the end of a file."""
        return [self._read(sample) for sample in self._sampler.finish()]

    def lose_signal(self, time_s: float) -> Reading:
        """Tell that no pictures come; what was seen before is forgotten.

        Args:
            time_s: now, on the clock of the pictures.
        """
        self._interrupt()
        return Reading(time_s, "signal_lost")

    def confirm_person(self) -> None:
        """Tell that the face that is followed now is that of the person, after the state "other_face"."""
        self._person.is_other = self._is_other = False

    def _interrupt(self) -> None:
        if self._sampler.start_s is not None:
            self._sampler.interrupt()
            self._follower.interrupt()
            self._forget()

    def _forget(self) -> None:
        self._memory.forget()
        self._skipper.forget()
        self._row, self._said, self._seen_since_s = None, None, None

    def _read(self, sample: Sample) -> Reading:
        started = time.perf_counter()
        face = self._follow(sample)
        followed = time.perf_counter()
        if face.switched:
            self._forget()
            self._is_other = True
            self._person.replaced()
        size_px = (sample.image.shape[1], sample.image.shape[0])
        skipped = sample.repeated or self._skipper.skips(face, size_px)
        row = self._features(face, skipped)
        self.counts.samples += 1
        self.counts.skipped += skipped
        extracted = time.perf_counter()
        if not skipped:
            self._person.add(row, face.present, face.time_s)
        state = self._state(face)
        if skipped and self.settings.skipping.drop:
            self._said = None if self._said is None else replace(self._said, held=True)
        elif self._person.is_known:
            self._said = self._memory.add(self._person.scaled(row, face.present), face.present, face.time_s)
        decided = time.perf_counter()
        return Reading(
            time_s=face.time_s + (self._sampler.start_s or 0.0),
            state=state,
            box=tuple(face.box.tolist()) if face.present else None,
            faces=face.faces,
            skipped=skipped,
            seconds={"face": followed - started, "features": extracted - followed, "head": decided - extracted},
            movements=self._movements if face.present else {},
            **(self._prediction(self._said) if state == "ok" else {}),
        )

    def _follow(self, sample: Sample) -> FollowedFace:
        """Follow the face into a sample; the same picture once more shows the same face."""
        if sample.repeated and self._face is not None:
            self._face = replace(self._face, time_s=sample.time_s, switched=False, is_cut=False)
        else:
            self._face = self._follower.push(sample.image, sample.time_s)
        return self._face

    def _features(self, face: FollowedFace, skipped: bool) -> NDArray[Any]:
        """Return the row of a frame, zeros without a face."""
        if not face.present:
            return np.zeros(self.model.in_shape, np.uint8 if self.model.takes_crops else np.float32)
        if skipped and self._row is not None:
            return self._row
        self.counts.processed += 1
        cnn = np.zeros((1, 0), np.float32)
        if "cnn" in self.model.streams:
            cnn = self.model.features(np.array(face.crop[None]))  # A copy: torch warns of arrays that are read-only.
        landmarks = None if face.landmarks is None else face.landmarks[None]
        frame = ClipRows(cnn, np.ones(1, np.bool_), np.array([face.time_s]), landmarks)
        parts = {stream.name: rows_of_video((stream,), frame, self._source)[0] for stream in self._streams}
        if "movements" in parts:
            self._movements = dict(zip(NAMES, parts["movements"].tolist(), strict=True))
        rows = list(parts.values())
        self._row = rows[0] if len(rows) == 1 else np.concatenate([row.astype(np.float32) for row in rows])
        return self._row

    def _state(self, face: FollowedFace) -> State:
        if not face.present:
            if face.time_s - self._face_s > self.settings.gap_s:
                self._forget()
            return "no_face"
        self._face_s = face.time_s
        if self._seen_since_s is None or not self._person.is_known:
            self._seen_since_s = face.time_s
        waits = face.time_s - self._seen_since_s < self.settings.warm_up_s or not self._person.is_known
        if waits or self._person.is_other:
            return "other_face" if self._is_other else "warming_up"
        self._is_other = False
        return "ok"

    def _prediction(self, said: Said | None) -> dict[str, Any]:
        """Return the fields of a reading that hold a prediction."""
        if said is None:
            return {}
        answer, told = said.answer, {"held": said.held, "window_s": said.window_s}
        if answer.value is not None:
            return {**told, "value": float(answer.value[0])}
        assert answer.label is not None and answer.probabilities is not None
        if answer.label[0] == NO_PREDICTION:
            return told
        probabilities = dict(zip(self.model.class_names, answer.probabilities[0].tolist(), strict=True))
        return {**told, "label": self.model.class_names[int(answer.label[0])], "probabilities": probabilities}


class _Person:
    """What one person's features are normalised by, given or made of the first seconds."""

    def __init__(self, model: Predictor, given: PersonScale | None, reference_s: float) -> None:
        self.is_other = False
        self._by = model.record.by_person
        self._given = given
        self._reference_s = reference_s
        self._others = [*model.same_person.values()]
        self._scale = given
        self._moments: Moments | None = None
        self._since_s: float | None = None
        if self._by == "none" and (given is not None or reference_s > 0):
            raise PainseqError(
                "This model does not normalise features by person. Leave the reference out: person, reference_s "
                "(command line: --baseline, --same-person, --reference-s)."
            )
        if self._by != "none" and given is None and not reference_s > 0:
            if not self._others:
                raise PainseqError(
                    "This model normalises features by person, so it needs a reference of the person: the first "
                    "seconds of the stream, reference_s (command line: --reference-s 10), or a video of the person, "
                    "person (--baseline VIDEO, --same-person VIDEO ...)."
                )
            self._scale = self._given = model.person_scale(np.zeros((0, *model.in_shape), np.float32))

    @property
    def is_known(self) -> bool:
        return self._by == "none" or self._scale is not None

    def replaced(self) -> None:
        """Tell that another person may have come."""
        if self._given is None:
            self._scale, self._moments, self._since_s = None, None, None
        else:
            self.is_other = self._by != "none"

    def add(self, row: NDArray[Any], present: bool, time_s: float) -> None:
        """Add a frame to the reference, until it is complete."""
        if self.is_known or not present:
            return
        here = Moments.of(row[None])
        self._moments = here if self._moments is None else self._moments + here
        self._since_s = time_s if self._since_s is None else self._since_s
        if time_s - self._since_s < self._reference_s:
            return
        if self._by == "baseline":
            mean = self._moments.mean.astype(np.float32)
            self._scale = PersonScale(mean, np.ones_like(mean))
        else:
            self._scale = PersonScale.of(sum(self._others, start=self._moments))

    def scaled(self, row: NDArray[Any], present: bool) -> NDArray[Any]:
        if self._scale is None:
            return row
        scaled: NDArray[Any] = self._scale.apply(row[None], np.array([present]))[0]
        return scaled
