"""Send readings to LabStreamingLayer, with which laboratories record physiology beside them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence

from painseq.errors import PainseqError
from painseq.live.reading import STATES, Reading


class LslOutlet:
    """An outlet of numbers at irregular times, stamped with the times at which the pictures were taken.

    Its channels are the probability of each class (or the value), `state` as an index into
    `painseq.live.reading.STATES`, and `notification`, 1 while one is on. Probabilities and values are NaN unless the
    state is "ok".

    Args:
        name: of the stream.
        source_id: names the source, so that a recorder finds the stream again.
        class_names: in order of pain; empty for a regression model.

    Raises:
        PainseqError: pylsl, or its library, is not installed.
    """

    def __init__(self, name: str, source_id: str, class_names: Sequence[str]) -> None:
        try:
            self._lsl = importlib.import_module("pylsl")
        except (ImportError, RuntimeError, OSError) as error:
            raise PainseqError(
                f'LabStreamingLayer needs pylsl and its library liblsl: pip install "painseq[lsl]" ({error}).'
            ) from error
        self._class_names = tuple(class_names)
        channels = [*(class_names or ["value"]), "state", "notification"]
        info = self._lsl.StreamInfo(name, "Pain", len(channels), self._lsl.IRREGULAR_RATE, "float32", source_id)
        described = info.desc().append_child("channels")
        for label in channels:
            described.append_child("channel").append_child_value("label", label)
        self._outlet = self._lsl.StreamOutlet(info)

    def push(self, reading: Reading, age_s: float, is_on: bool) -> None:
        """Send a reading.

        Args:
            age_s: seconds since its picture was taken.
            is_on: whether a notification is on.
        """
        numbers = [reading.probabilities.get(name, math.nan) for name in self._class_names]
        if not self._class_names:
            numbers = [math.nan if reading.value is None else reading.value]
        taken_s = self._lsl.local_clock() - age_s
        self._outlet.push_sample([*numbers, float(STATES.index(reading.state)), float(is_on)], taken_s)
