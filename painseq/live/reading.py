"""What a live model says of one sample of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

from painseq.errors import PainseqError

State = Literal["warming_up", "ok", "no_face", "other_face", "signal_lost"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Reading:
    """What a live model says of one sample. Only the state "ok" comes with a prediction; no other means "no pain".

    Args:
        time_s: when the picture was taken, in seconds on the source's clock.
        state: "ok"; "warming_up": too little was seen since the start, or since a gap, or the reference of the person
            is being collected; "no_face"; "other_face": the person may have changed, and too little was seen of the new
            one; "signal_lost": there are no pictures.
        label: a class name; None unless the state is "ok", and for a regression model.
        probabilities: class name -> probability; empty without a label.
        value: a number on the model's scale; None unless the state is "ok", and for a classifier.
        box: left, top, right, bottom of the cropped area in pixels of the picture; None without a face.
        faces: number of faces that the locator saw when it last looked.
        skipped: whether little had moved, or nothing new had come, so that the last features were held.
        held: whether the prediction is the last one, since the next hop is not due.
        window_s: time that the prediction covers, in seconds.
        seconds: time spent on the sample by stage: "face", "features", "head".
        movements: name -> facial movement from 0 to 1, if the model takes them.
        lag_s: seconds from the picture's capture until now; None if that is not known.
    """

    time_s: float
    state: State
    label: str | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    value: float | None = None
    box: tuple[float, ...] | None = None
    faces: int = 0
    skipped: bool = False
    held: bool = False
    window_s: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    movements: Mapping[str, float] = field(default_factory=dict)
    lag_s: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON, rounded to microseconds and millionths."""
        return {name: _rounded(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, found: Mapping[str, object]) -> Reading:
        """Read what `to_dict` gave; unknown keys are ignored.

        Raises:
            PainseqError: an unknown state, or a time that is no number.
        """
        if found.get("state") not in STATES or not isinstance(found.get("time_s"), int | float):
            raise PainseqError(f"not a reading: {dict(found)!r:.200}")
        known = {name: found[name] for name in cls.__dataclass_fields__ if name in found}
        return cls(**known)  # type: ignore[arg-type]


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, tuple) else value
