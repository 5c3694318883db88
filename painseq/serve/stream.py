"""A stream of camera pictures over a websocket: the newest wins, and each answer is of one picture.

The client first sends `{"token": ..., "models": [names], "notify": {...}}`, of which all but the token can be left out,
and is told `{"type": "ready", ...}`. Then each binary message is a picture: 8 bytes, the time of capture in
milliseconds as a little-endian float64, and a JPEG. Answers name that time. `docs/serve.md` describes all messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import struct
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from painseq.errors import PainseqError
from painseq.live import LivePredictor, LiveSettings, Notification, Notifier, NotifySettings, Reading
from painseq.model.predictor import Predictor
from painseq.serve.guard import Rate, is_token
from painseq.serve.service import Service
from painseq.serve.uploads import decode_jpeg
from painseq.serve.worker import QueueFull

log = logging.getLogger("painseq.serve")

CAPTURED = struct.Struct("<d")
REFERENCE_S = 10.0
"""Seconds of the stream from which the reference of a person is made, for models that need one."""
SEND_S = 10.0
POLICY, FAILED, TRY_LATER = 1008, 1011, 1013
_LATEST_MS = 1e15
_TICK_S = 0.01
_NUMBERS = ("on", "off", "on_s", "off_s", "tau_s", "rest_s")


class Stream:
    """What is remembered of one client's pictures; used by one thread at a time.

    Args:
        models: name -> model; notifications watch the first.
        settings: how streams are predicted.
        max_pixels: most pixels of a picture.
        notify: None: no notifications.

    Raises:
        PainseqError: a model cannot read streams.
    """

    def __init__(
        self,
        models: Mapping[str, Predictor],
        settings: LiveSettings,
        max_pixels: int,
        notify: NotifySettings | None = None,
    ) -> None:
        self._live = {
            name: LivePredictor(model, _with_reference(settings, model), source="The camera")
            for name, model in models.items()
        }
        self._max_pixels = max_pixels
        self._last: dict[str, Reading] = {}
        self._captured_ms = -math.inf
        first = next(iter(models.values()))
        scale = None if first.scale is None else first.scale.name
        self._notifier = None if notify is None else Notifier(notify, first.class_names, scale)

    def read(self, message: bytes) -> list[dict[str, Any]]:
        """Read a picture, and return what is to be told.

        Raises:
            PainseqError: no picture, or one that is not newer than the last.
        """
        (captured_ms,) = CAPTURED.unpack_from(message) if len(message) > CAPTURED.size else (math.nan,)
        if not abs(captured_ms) < _LATEST_MS:
            raise PainseqError("A picture is 8 bytes of its time of capture (float64, ms), and a JPEG.")
        if captured_ms <= self._captured_ms:
            raise PainseqError("The picture is not newer than the last one.")
        image = decode_jpeg(message[CAPTURED.size :], self._max_pixels)
        self._captured_ms = captured_ms
        events: list[Notification] = []
        for name, live in self._live.items():
            readings = live.push(image, captured_ms / 1000)
            if readings:
                self._last[name] = readings[-1]
            if self._notifier is not None and live is next(iter(self._live.values())):
                events += [event for reading in readings for event in self._notifier.push(reading)]
        return [self._told(captured_ms), *map(_event, events)]

    def lose_signal(self) -> list[dict[str, Any]]:
        """Tell that no pictures come, and return what is to be told."""
        for name, live in self._live.items():
            self._last[name] = live.lose_signal(self._captured_ms / 1000)
        watched = next(iter(self._last.values()))
        events = [] if self._notifier is None else self._notifier.push(watched)
        return [self._told(self._captured_ms), *map(_event, events)]

    def acknowledge(self) -> list[dict[str, Any]]:
        """Tell that somebody has seen the notification, and return what is to be told."""
        if self._notifier is None or not math.isfinite(self._captured_ms):
            return []
        return [*map(_event, self._notifier.acknowledge(self._captured_ms / 1000))]

    def confirm_person(self) -> None:
        """Tell that somebody knows the new face."""
        for live in self._live.values():
            live.confirm_person()

    def _told(self, captured_ms: float) -> dict[str, Any]:
        readings = [*self._last.values()]
        first = readings[0] if readings else None
        movements = next((reading.movements for reading in readings if reading.movements), None)
        return {
            "type": "reading",
            "captured_ms": captured_ms,
            "state": "warming_up" if first is None else first.state,
            "box": None if first is None or first.box is None else [round(side, 1) for side in first.box],
            "movements": None if movements is None else {name: round(value, 4) for name, value in movements.items()},
            "models": {name: reading.to_dict() for name, reading in self._last.items()},
        }


class _Inbox:
    """What has come and waits: the newest picture alone, and the requests of people."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.picture: tuple[bytes, float] | None = None
        self.dropped = 0
        self.asked: set[str] = set()
        self.error: PainseqError | None = None
        self.is_closed = False

    def take(self) -> tuple[bytes, float] | None:
        picture, self.picture = self.picture, None
        return picture

    async def fill(self, socket: WebSocket, service: Service) -> None:
        """Receive until the client goes, or does what it may not."""
        options = service.options
        rate = Rate(options.messages_per_s, 2 * options.messages_per_s)
        try:
            while True:
                message = await asyncio.wait_for(socket.receive(), options.idle_s)
                if message["type"] == "websocket.disconnect":
                    self.is_closed = True
                    return
                if not rate.takes():
                    raise PainseqError(f"More than {options.messages_per_s:g} messages a second came.")
                if message.get("bytes") is not None:
                    self._add(message["bytes"], options.max_message_bytes)
                elif (asked := _parsed(message.get("text")).get("type")) in ("acknowledge", "confirm_person"):
                    self.asked.add(asked)
                else:
                    raise PainseqError('A text message is {"type": "acknowledge"} or {"type": "confirm_person"}.')
                self.changed.set()
        except TimeoutError:
            self.error = PainseqError(f"Nothing came for {options.idle_s:g} s.")
        except PainseqError as error:
            self.error = error
        finally:
            self.changed.set()

    def _add(self, data: bytes, max_bytes: int) -> None:
        if len(data) > max_bytes:
            raise PainseqError(f"A message has {len(data)} bytes; at most {max_bytes} are taken.")
        self.dropped += self.picture is not None
        self.picture = (data, time.monotonic())


async def run_stream(socket: WebSocket, service: Service) -> None:
    """Talk with one client until it goes; see the top of this module."""
    await socket.accept()
    try:
        hello = await _hello(socket, service)
        if service.sessions >= service.options.max_sessions:
            raise QueueFull("The service is busy with other streams. Try again later.")
        service.sessions += 1
        try:
            await _talk(socket, service, hello)
        finally:
            service.sessions -= 1
    except PainseqError as error:
        await _send(socket, {"type": "error", "error": str(error)})
        await socket.close(TRY_LATER if isinstance(error, QueueFull) else POLICY)
    except (WebSocketDisconnect, TimeoutError):
        return  # The client has gone, or does not take what it is sent.
    except RuntimeError:
        if WebSocketState.DISCONNECTED in (socket.client_state, socket.application_state):
            return  # As above, in Starlette's words.
        log.exception("A stream failed")
        await _send(socket, {"type": "error", "error": "The service failed; its log says why."})
        await socket.close(FAILED)


async def _hello(socket: WebSocket, service: Service) -> dict[str, Any]:
    try:
        message = await asyncio.wait_for(socket.receive(), service.options.head_s)
    except TimeoutError as error:
        raise PainseqError("The first message did not come.") from error
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    hello = _parsed(message.get("text"))
    if not is_token(hello.get("token"), service.options.token):
        raise PainseqError("The token is missing or wrong. It is in the address that the service printed at its start.")
    return hello


async def _talk(socket: WebSocket, service: Service, hello: Mapping[str, Any]) -> None:
    models, notify, options = service.chosen(hello.get("models")), _notify(hello.get("notify")), service.options
    stream = await service.run(lambda: Stream(models, options.live, options.max_stream_pixels, notify))
    ready = {"type": "ready", "models": [*models], "max_message_bytes": options.max_message_bytes}
    await _send(socket, ready)
    inbox = _Inbox()
    filling = asyncio.create_task(inbox.fill(socket, service))
    try:
        await _answer(socket, service, stream, inbox)
    finally:
        filling.cancel()


async def _answer(socket: WebSocket, service: Service, stream: Stream, inbox: _Inbox) -> None:
    gap_s = service.options.live.gap_s
    read_s: float | None = None  # When the last picture was read; None while there is no signal.
    while not inbox.is_closed:
        left_s = gap_s if read_s is None else max(_TICK_S, read_s + gap_s - time.monotonic())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(inbox.changed.wait(), left_s)
        inbox.changed.clear()
        if inbox.error is not None:
            raise inbox.error
        if "confirm_person" in inbox.asked:
            await service.run(stream.confirm_person)
        if "acknowledge" in inbox.asked:
            await _send_all(socket, await service.run(stream.acknowledge))
        inbox.asked.clear()
        picture = inbox.take()
        if picture is not None and await _read(socket, service, stream, inbox, picture):
            read_s = time.monotonic()
        elif read_s is not None and time.monotonic() - read_s >= gap_s and not inbox.is_closed:
            read_s = None
            await _send_all(socket, await service.run(stream.lose_signal), lag_ms=None, dropped=inbox.dropped)


async def _read(
    socket: WebSocket, service: Service, stream: Stream, inbox: _Inbox, picture: tuple[bytes, float]
) -> bool:
    """Answer a picture; return false if it is none."""
    data, received_s = picture
    try:
        told = await service.run(lambda: stream.read(data))
    except QueueFull:
        raise
    except PainseqError as error:
        told, is_read = [{"type": "error", "error": str(error)}], False
    else:
        is_read = True
    if not inbox.is_closed:
        lag_ms = round(1000 * (time.monotonic() - received_s), 1)
        await _send_all(socket, told, lag_ms=lag_ms, dropped=inbox.dropped)
    return is_read


async def _send_all(socket: WebSocket, messages: list[dict[str, Any]], **of_readings: float | None) -> None:
    for message in messages:
        await _send(socket, message | (of_readings if message["type"] == "reading" else {}))


async def _send(socket: WebSocket, message: Mapping[str, Any]) -> None:
    await asyncio.wait_for(socket.send_text(json.dumps(message, allow_nan=False)), SEND_S)


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise PainseqError("The message is no JSON object.")
    return found


def _notify(asked: object) -> NotifySettings | None:
    """Return what a client asks to be notified of: `{"on": 0.7, ...}`, with any of the numbers of `NotifySettings`."""
    if asked is None:
        return None
    if not isinstance(asked, dict) or not all(
        name in _NUMBERS and type(value) in (int, float) and abs(value) < _LATEST_MS for name, value in asked.items()
    ):
        raise PainseqError(f"notify is an object with numbers of the names {', '.join(_NUMBERS)}.")
    numbers: dict[str, Any] = {name: float(value) for name, value in asked.items()}
    return NotifySettings(**numbers)


def _event(event: Notification) -> dict[str, Any]:
    number = event.number if math.isfinite(event.number) else None
    return {
        "type": "notification",
        "event": event.kind,
        "captured_ms": round(event.time_s * 1000, 3),
        "watched": event.watched,
        "number": number if number is None else round(number, 6),
    }


def _with_reference(settings: LiveSettings, model: Predictor) -> LiveSettings:
    needs = model.record.by_person != "none"
    return replace(settings, reference_s=(settings.reference_s or REFERENCE_S) if needs else 0.0)
