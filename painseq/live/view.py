"""Show a live run: in the terminal, and in a window with the picture."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageTk
from rich.console import Group
from rich.table import Table
from rich.text import Text

from painseq.errors import PainseqError
from painseq.faces.opencv import import_cv2
from painseq.live.notify import Notification
from painseq.live.reading import Reading, State
from painseq.live.session import LiveSession, Update

CAPTION = "Research software, not a medical device. Nobody's safety may depend on it."
STATE_TEXTS: dict[State, str] = {
    "warming_up": "warming up: too little was seen yet",
    "ok": "ok",
    "no_face": "no face",
    "other_face": "the person may have changed",
    "signal_lost": "signal lost",
}
_BAR, _RATE_OVER = 30, 50
_GREEN, _GREY, _ORANGE = (80, 220, 80), (160, 160, 160), (0, 160, 255)


class View:
    """What there is to see of a live run.

    Args:
        session: the run.
        scale: (lowest, highest) value of a regression model; None for a classifier.
    """

    def __init__(self, session: LiveSession, scale: tuple[float, float] | None = None) -> None:
        self.session = session
        self.scale = scale
        self.note = ""
        self._image: NDArray[np.uint8] | None = None
        self._at_s: deque[float] = deque(maxlen=_RATE_OVER)
        self._lags_s: deque[float] = deque(maxlen=_RATE_OVER)

    def add(self, update: Update) -> None:
        """Take what is new."""
        self._image = self._image if update.picture is None else update.picture.image
        self._at_s.append(update.at_s)
        if update.reading.lag_s is not None:
            self._lags_s.append(update.reading.lag_s)
        self.told(update.notifications)

    def told(self, events: Sequence[Notification]) -> None:
        """Take events of notifications."""
        for event in events:
            self.note = f"notification {event.kind}: {event.watched} {event.number:.2f}"

    @property
    def fps(self) -> float:
        """Readings a second, of the last ones."""
        apart_s = self._at_s[-1] - self._at_s[0] if len(self._at_s) > 1 else 0.0
        return (len(self._at_s) - 1) / apart_s if apart_s > 0 else 0.0

    def line(self, read: int, dropped: int) -> str:
        """Return the newest reading, rate, lag and counts in a line.

        Args:
            read: pictures of the source.
            dropped: those that were not taken.
        """
        counts = self.session.live.counts
        lag_ms = 1000 * median(self._lags_s) if self._lags_s else 0.0
        return (
            f"{_sentence(self.session.last)}; {self.fps:.1f} frames a second, lag {lag_ms:.0f} ms; pictures: {read} "
            f"read, {dropped} dropped; frames: {counts.skipped} skipped, {counts.processed} processed"
        )

    def renderable(self, read: int, dropped: int) -> Group:
        """Return what a terminal shows; see `line`."""
        last = self.session.last
        parts: list[Any] = [Text(self.line(read, dropped))]
        if last is not None:
            bars = Table.grid(padding=(0, 1))
            for name, share, number in self._bars(last.reading):
                filled = round(_BAR * share)
                bars.add_row(name, Text("█" * filled + "░" * (_BAR - filled)), number)
            parts.append(bars)
        notifier = self.session.notifier
        if notifier is not None:
            number = "-" if notifier.number is None else f"{notifier.number:.2f}"
            parts.append(Text(f"Watched: {notifier.watched}, smoothed {number}. {self.note}".strip()))
            if notifier.is_on:
                parts.append(Text("NOTIFICATION. Press Enter to acknowledge it.", style="bold reverse"))
        return Group(*parts, Text(f"{CAPTION} Ctrl-C ends.", style="dim"))

    def _bars(self, reading: Reading) -> list[tuple[str, float, str]]:
        names = self.session.live.model.class_names
        if self.scale is None:
            return [
                (
                    name,
                    reading.probabilities.get(name, 0.0),
                    f"{reading.probabilities[name]:.2f}" if reading.label else "-",
                )
                for name in names
            ]
        low, high = self.scale
        if reading.value is None:
            return [("value", 0.0, "-")]
        return [("value", min(1.0, max(0.0, (reading.value - low) / (high - low))), f"{reading.value:.2f}")]

    def pictured(self) -> NDArray[np.uint8] | None:
        """Return what a window shows, (H, W, 3) RGB: the newest picture, dark without a signal; None before it."""
        if self._image is None or self.session.last is None:
            return None
        return self.drawn(self._image if self.session.last.picture is not None else self._image // 4)

    def drawn(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a picture with the face's box, the state and the bars, (H, W, 3) RGB."""
        cv2 = import_cv2()
        image = np.ascontiguousarray(picture).copy()
        last = self.session.last
        if last is None:
            return image
        reading = last.reading
        if reading.box is not None:
            left, top, right, bottom = (round(side) for side in reading.box)
            cv2.rectangle(image, (left, top), (right, bottom), _GREEN if reading.state == "ok" else _GREY, 2)
        scale = max(0.4, image.shape[0] / 900)
        row = round(28 * scale)
        texts = [STATE_TEXTS[reading.state]]
        is_on = self.session.notifier is not None and self.session.notifier.is_on
        texts += ["NOTIFICATION: press a key to acknowledge it"] if is_on else []
        for number, text in enumerate(texts, start=1):
            colour = _ORANGE[::-1] if number > 1 or reading.state != "ok" else _GREEN
            cv2.putText(image, text, (8, number * row), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
        for number, (name, share, told) in enumerate(self._bars(reading), start=len(texts)):
            y = number * row + row // 3
            cv2.rectangle(image, (8, y), (8 + round(share * image.shape[1] / 3), y + row - 4), _GREEN, -1)
            place = (12, y + row - 9)
            cv2.putText(
                image, f"{name} {told}", place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA
            )
        return image


class Window:
    """A window with the picture, for one thread.

    Args:
        title: of the window.

    Raises:
        PainseqError: there is no display, or this Python has no Tk.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter
        except ImportError as error:
            raise PainseqError(
                f"A window needs Tk, which this Python does not have: {error} (Debian: apt install python3-tk). Leave "
                "--window out."
            ) from error
        try:
            self._root = tkinter.Tk(className="painseq")
        except tkinter.TclError as error:
            raise PainseqError(f"There is no display for a window: {error}. Leave --window out.") from error
        self._root.title(title)
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        self._root.bind("<Key>", self._press)
        self._picture = tkinter.Label(self._root, borderwidth=0)
        self._picture.pack()
        self._pressed = self._closed = False

    def _press(self, event: Any) -> None:
        self._pressed = True

    def _close(self) -> None:
        self._closed = True
        self._root.destroy()

    def show(self, image: NDArray[np.uint8]) -> bool:
        """Show an image, (H, W, 3) RGB, unless the window was closed; return whether a key was pressed."""
        if self._closed:
            return False
        shown = ImageTk.PhotoImage(Image.fromarray(image), master=self._root)
        self._picture.configure(image=shown)
        self._shown = shown  # Tk itself keeps no reference.
        self._root.update()
        pressed, self._pressed = self._pressed, False
        return pressed


def _sentence(update: Update | None) -> str:
    if update is None:
        return "waiting for the first picture"
    reading = update.reading
    text = STATE_TEXTS[reading.state] + (f" ({update.reason})" if update.reason else "")
    if reading.label is not None:
        return f"{text}: {reading.label} {reading.probabilities[reading.label]:.2f}"
    return text if reading.value is None else f"{text}: {reading.value:.2f}"
