"""A live run: pictures of a source to readings, notifications, log, recorded numbers and an outlet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Self

from painseq.live.log import LiveLog, Run
from painseq.live.lsl import LslOutlet
from painseq.live.notify import Notification, Notifier
from painseq.live.predictor import LivePredictor
from painseq.live.reader import Reader
from painseq.live.reading import Reading
from painseq.live.record import NumbersRecorder
from painseq.video.sources import Clock, Picture, SignalLost


@dataclass(frozen=True, eq=False)
class Update:
    """What a live run has to tell.

    Args:
        reading: of one sample, with its lag.
        at_s: Unix time at which its picture was taken.
        picture: the newest picture; None after a loss of signal.
        notifications: events at this reading.
        reason: why the signal was lost.
    """

    reading: Reading
    at_s: float
    picture: Picture | None
    notifications: tuple[Notification, ...] = ()
    reason: str | None = None


class LiveSession:
    """Predicts the events of a source, and writes down what comes of it.

    Args:
        live: the predictor.
        notifier: None: no notifications.
        log: None: no log.
        recorder: None: no numbers are recorded.
        outlet: None: nothing is sent.
        clock: tells the time, for the lag.

    Example:
        >>> with Reader(open_source("0")) as reader, LiveSession(LivePredictor(model), log=LiveLog(path)) as session:
        ...     session.start("best.ckpt", reader.source.name)
        ...     for event in reader:
        ...         for update in session.take(event):
        ...             print(update.reading.state, update.reading.label)
    """

    def __init__(
        self,
        live: LivePredictor,
        notifier: Notifier | None = None,
        log: LiveLog | None = None,
        recorder: NumbersRecorder | None = None,
        outlet: LslOutlet | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.live = live
        self.notifier = notifier
        self.log = log
        self.recorder = recorder
        self.outlet = outlet
        self.last: Update | None = None
        self._clock = Clock() if clock is None else clock
        # Unix time minus the pictures' own.
        self._offset_s = math.nan
        self._received_s = math.inf
        self._open = ExitStack()

    def __enter__(self) -> Self:
        for part in (self.log, self.recorder):
            if part is not None:
                self._open.enter_context(part)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def start(self, model: str, source: str) -> None:
        """Write the first line of the log, if there is one; a log without it cannot be read.

        Args:
            model: path of the checkpoint or exported folder.
            source: name of the source, without passwords.

        Raises:
            PainseqError: the log that is to be continued is of a model of other classes or another scale.
        """
        if self.log is None:
            return
        predictor, notify = self.live.model, None if self.notifier is None else self.notifier.settings.to_dict()
        scale = None if predictor.scale is None else predictor.scale.name
        settings = {"live": asdict(self.live.settings), "notify": notify}
        self.log.start(Run(model, source, predictor.class_names, scale, settings))

    def end(self, reason: str, reader: Reader) -> None:
        """Write the last line of the log, if there is one: why the run ended, and what was counted."""
        if self.log is not None:
            counts = {"read": reader.read, "dropped": reader.dropped, "losses": reader.losses}
            self.log.end(reason, asdict(self.live.counts) | counts)

    def take(self, event: Picture | SignalLost) -> Iterator[Update]:
        """Take the next event of the source, and yield what is new."""
        if isinstance(event, SignalLost):
            self._received_s = math.inf
            at_s = self._clock.now_s()
            reading = self.live.lose_signal(0.0 if math.isnan(self._offset_s) else at_s - self._offset_s)
            yield self._told(Update(reading, at_s, None, reason=event.reason))
            return
        self._offset_s, self._received_s = event.captured_s - event.time_s, event.received_s
        for reading in self.live.push(event.image, event.time_s):
            yield self._told(self._update(reading, event))

    def stalled(self) -> Iterator[Update]:
        """Yield the loss of the signal if a live source is silent for the `gap_s` of the settings, and says nothing."""
        silent_s = self._clock.now_s() - self._received_s
        if silent_s > self.live.settings.gap_s:
            yield from self.take(SignalLost(self._clock.now_s(), f"no picture for {silent_s:.1f} s", 0.0))

    def finish(self) -> Iterator[Update]:
        """Yield what is new at the end of the source."""
        for reading in self.live.finish():
            yield self._told(self._update(reading, None if self.last is None else self.last.picture))

    def acknowledge(self) -> tuple[Notification, ...]:
        """Tell that a person has seen the notification; without one, that the followed face is the right person's."""
        events: tuple[Notification, ...] = ()
        if self.notifier is not None and self.last is not None:
            events = tuple(self.notifier.acknowledge(self.last.reading.time_s))
        if not events:
            self.live.confirm_person()
        for event in events:
            if self.log is not None:
                self.log.notification(event, self._clock.now_s())
        return events

    def _update(self, reading: Reading, picture: Picture | None) -> Update:
        at_s = reading.time_s + self._offset_s
        return Update(replace(reading, lag_s=self._clock.now_s() - at_s), at_s, picture)

    def _told(self, update: Update) -> Update:
        if self.notifier is not None:
            update = replace(update, notifications=tuple(self.notifier.push(update.reading)))
        self.last = update
        if self.log is not None:
            received_at_s = None if update.picture is None else update.picture.received_s
            self.log.reading(update.reading, update.at_s, update.reason, received_at_s)
            for event in update.notifications:
                self.log.notification(event, update.at_s)
        if self.recorder is not None:
            self.recorder.add(update.reading, self.live)
        if self.outlet is not None:
            is_on = self.notifier is not None and self.notifier.is_on
            self.outlet.push(update.reading, self._clock.now_s() - update.at_s, is_on)
        return update
