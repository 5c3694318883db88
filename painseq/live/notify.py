"""Notifications: when a watched number stays high. Off unless asked for; nobody's safety may depend on them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from painseq.errors import PainseqError
from painseq.live.reading import Reading

Kind = Literal["on", "off", "acknowledged", "end"]
ON, OFF = 0.7, 0.5
"""Probabilities at which a notification comes and goes, unless others are set."""
_TIME_TOLERANCE_S = 1e-6


@dataclass(frozen=True)
class NotifySettings:
    """What is watched, and when it is told.

    Args:
        classes: the watched number is the probability that the label is one of these; None: all classes but the first.
            For a regression model None, and the watched number is the value.
        on: a notification comes once the smoothed number was at least this for `on_s`; None: 0.7, of probabilities
            only.
        off: it goes once the smoothed number was at most this for `off_s`; None: 0.5, of probabilities only.
        on_s: see `on`, in seconds.
        off_s: see `off`, in seconds.
        tau_s: time constant of the exponential smoothing, in seconds; 0: none.
        rest_s: seconds after the end of a notification in which no other comes.
        face_share: no notification comes or goes unless this share of the last `face_window_s` has a face.
        face_window_s: see `face_share`, in seconds.
        latched: whether a notification stays until it is acknowledged, even if the number is low again.

    Raises:
        PainseqError: a number out of range, or `off` above `on`.
    """

    classes: tuple[str, ...] | None = None
    on: float | None = None
    off: float | None = None
    on_s: float = 3.0
    off_s: float = 5.0
    tau_s: float = 2.0
    rest_s: float = 30.0
    face_share: float = 0.7
    face_window_s: float = 5.0
    latched: bool = True

    def __post_init__(self) -> None:
        for name in ("on_s", "off_s", "tau_s", "rest_s", "face_share"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise PainseqError(f"NotifySettings: {name} is {value}; it must be 0 or more.")
        if self.face_share > 1 or not self.face_window_s > 0:
            raise PainseqError(
                f"NotifySettings: face_share is {self.face_share} and face_window_s is {self.face_window_s}; they must "
                "be at most 1, and more than 0."
            )
        for name in ("on", "off"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise PainseqError(f"NotifySettings: {name} is {value}; it must be a number.")
        if self.on is not None and self.off is not None and not self.off <= self.on:
            raise PainseqError(f"NotifySettings: off is {self.off}, above on, {self.on}. Choose off <= on.")

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Notification:
    """An event of a notification.

    Args:
        time_s: on the source's clock.
        kind: "on"; "off": the number is low again; "acknowledged"; "end": it is over, and the rest begins.
        watched: name of the watched number.
        number: the watched number, smoothed.
    """

    time_s: float
    kind: Kind
    watched: str
    number: float

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return {**asdict(self), "time_s": round(self.time_s, 6), "number": round(self.number, 6)}


class Notifier:
    """Watches readings, and tells when a notification comes and goes.

    A reading without a prediction is no low number: nothing comes or goes at it. After a gap without readings, a lost
    signal, another person or a new warm-up, the number is that of the readings since.

    Args:
        settings: see there.
        class_names: the model's classes, in order of pain; empty for a regression model.
        scale: name of a regression model's scale; None for a classifier.

    Raises:
        PainseqError: unknown classes, a probability outside of 0 to 1, or a regression model without `on` and `off` in
            the units of its scale.
    """

    def __init__(self, settings: NotifySettings, class_names: Sequence[str] = (), scale: str | None = None) -> None:
        self.settings = settings
        chosen = tuple(class_names[1:]) if settings.classes is None else tuple(dict.fromkeys(settings.classes))
        unknown = [name for name in chosen if name not in class_names]
        if unknown or (class_names and not chosen):
            raise PainseqError(f"classes is {list(chosen)}; the model's classes are {', '.join(class_names)}.")
        if not class_names and (settings.on is None or settings.off is None):
            raise PainseqError(
                f"This model gives values on the scale {scale}, so on and off must be set in its units (command line: "
                "--notify-on, --notify-off)."
            )
        self._classes = chosen
        self._on = ON if settings.on is None else settings.on
        self._off = min(OFF, self._on) if settings.off is None else settings.off
        if self._off > self._on:
            raise PainseqError(f"off is {self._off}, above on, {self._on}. Choose off <= on.")
        if class_names and not (self._off >= 0 and self._on <= 1):
            raise PainseqError(f"on is {self._on} and off is {self._off}; they are probabilities, from 0 to 1.")
        self.watched = f"probability of {' or '.join(chosen)}" if class_names else f"value on the scale {scale}"
        self.number: float | None = None
        """The watched number, smoothed; None while it is not known."""
        self.is_on = False
        """Whether a notification is on, until its end."""
        self._is_low = self._is_acknowledged = False
        self._number_s = self._last_s = -math.inf
        self._rests_until_s = -math.inf
        self._above_s: float | None = None
        self._below_s: float | None = None
        self._faces: deque[tuple[float, bool]] = deque()

    def push(self, reading: Reading) -> list[Notification]:
        """Take the next reading, and return what happens."""
        now_s = reading.time_s
        if reading.state == "signal_lost":  # Its time is another clock's, and may be after that of the next picture.
            self._forget()
            return []
        apart_s, self._last_s = now_s - self._last_s, now_s
        if apart_s < 0:
            self._rests_until_s = min(self._rests_until_s, now_s + self.settings.rest_s)
        if reading.state == "other_face" or not 0 <= apart_s <= self.settings.face_window_s:
            self._forget()
        if reading.state == "other_face":
            return []
        self._faces.append((now_s, reading.box is not None))
        while self._faces[0][0] < now_s - self.settings.face_window_s:
            self._faces.popleft()
        if reading.state == "warming_up":
            self._forget_number()
        is_known = reading.state == "ok" and self._smooth(reading)
        seen = sum(has_face for _, has_face in self._faces) / len(self._faces) >= self.settings.face_share
        number = self.number
        self._above_s = self._since(self._above_s, now_s, seen and number is not None and number >= self._on)
        self._below_s = self._since(self._below_s, now_s, seen and number is not None and number <= self._off)
        if not is_known:
            return []
        if not self.is_on:
            comes = _lasted(self._above_s, now_s, self.settings.on_s) and now_s >= self._rests_until_s
            if not comes:
                return []
            self.is_on, self._is_low, self._is_acknowledged = True, False, False
            return [self._event(now_s, "on")]
        if self._is_low or not _lasted(self._below_s, now_s, self.settings.off_s):
            return []
        self._is_low = True
        return [self._event(now_s, "off"), *self._ended(now_s)]

    def acknowledge(self, time_s: float) -> list[Notification]:
        """Tell that a person has seen the notification; does nothing if there is none."""
        if not self.is_on or self._is_acknowledged:
            return []
        self._is_acknowledged = True
        return [self._event(time_s, "acknowledged"), *self._ended(time_s)]

    def restart(self) -> None:
        """Begin anew, without a notification: what was pushed before is of another run."""
        self._forget()
        self.is_on = self._is_low = self._is_acknowledged = False
        self._last_s = self._rests_until_s = -math.inf

    def _forget(self) -> None:
        self._faces.clear()
        self._forget_number()

    def _forget_number(self) -> None:
        self.number, self._above_s, self._below_s = None, None, None

    def _ended(self, now_s: float) -> list[Notification]:
        if not self._is_low or (self.settings.latched and not self._is_acknowledged):
            return []
        self.is_on, self._rests_until_s = False, now_s + self.settings.rest_s
        return [self._event(now_s, "end")]

    def _smooth(self, reading: Reading) -> bool:
        """Take the number of a reading; return false if it has none."""
        probabilities = reading.probabilities
        number = sum(probabilities[name] for name in self._classes) if self._classes else reading.value
        if number is None or not math.isfinite(number):
            return False
        tau_s, apart_s = self.settings.tau_s, reading.time_s - self._number_s
        share = 1.0 if self.number is None or tau_s == 0 else -math.expm1(-apart_s / tau_s)
        self.number = number if self.number is None else self.number + share * (number - self.number)
        self._number_s = reading.time_s
        return True

    def _since(self, since_s: float | None, now_s: float, holds: bool) -> float | None:
        return (now_s if since_s is None else since_s) if holds else None

    def _event(self, time_s: float, kind: Kind) -> Notification:
        return Notification(time_s, kind, self.watched, math.nan if self.number is None else self.number)


def _lasted(since_s: float | None, now_s: float, least_s: float) -> bool:
    return since_s is not None and now_s - since_s >= least_s - _TIME_TOLERANCE_S


@dataclass(frozen=True)
class Replay:
    """How often readings would have notified.

    Args:
        watched: name of the watched number.
        hours: time with pictures.
        predicted_share: share of the readings with a prediction.
        at_s: times at which a notification would have come, on the source's clock.
    """

    watched: str
    hours: float
    predicted_share: float
    at_s: tuple[float, ...]

    @property
    def per_hour(self) -> float:
        """Notifications an hour; NaN without any time."""
        return len(self.at_s) / self.hours if self.hours > 0 else math.nan


def replay(readings: Iterable[Reading], notifier: Notifier) -> Replay:
    """Count the notifications of recorded readings, each acknowledged at once.

    Args:
        readings: in order, as from `painseq.live.read_log`.
        notifier: new, with the settings to try.
    """
    count = predicted = 0
    seen_s, last_s, picture_s = 0.0, None, -math.inf
    at_s = []
    for reading in readings:
        count += 1
        predicted += reading.state == "ok"
        if last_s is not None and last_s <= reading.time_s and reading.state != "signal_lost":
            seen_s += reading.time_s - last_s
        last_s = None if reading.state == "signal_lost" else reading.time_s
        if reading.state != "signal_lost":
            if reading.time_s < picture_s:  # Another run in the same log.
                notifier.restart()
            picture_s = reading.time_s
        events = notifier.push(reading)
        if any(event.kind == "on" for event in events):
            at_s.append(reading.time_s)
            notifier.acknowledge(reading.time_s)
    return Replay(notifier.watched, seen_s / 3600, predicted / max(1, count), tuple(at_s))
