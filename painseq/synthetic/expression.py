"""The action units of a generated face over time, with and without pain.

Intensities are floats from 0 to 5, as FACS's A to E are 1 to 5. Pain follows Prkachin and Solomon (2008): brows
lowered, cheeks raised and lids tightened, nose wrinkled and upper lip raised, eyes closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from painseq.faces.pspi import pspi

Array = npt.NDArray[np.float64]
Stimulus = Literal["heat", "electrical", "clinical"]

AUS = ("AU4", "AU6", "AU7", "AU9", "AU10", "AU12", "AU25", "AU26", "AU43", "AU45")
AU43_CLOSED = 2.5
"""FACS has no intensity for closed eyes; here the eyes are closed from this intensity."""
REGIONS = ("brows", "eyes", "nose", "cheeks", "mouth")
REGION_AUS = {
    "brows": ("AU4",),
    "eyes": ("AU7", "AU43"),
    "nose": ("AU9",),
    "cheeks": ("AU6",),
    "mouth": ("AU10", "AU25", "AU26"),
}

# ---- Difficulty. Tuned on seed 0 only; all numbers that make the task easier or harder are here. ----

STOIC_SHARE = 0.10
"""Share of subjects who barely react."""
STOIC_EXPRESSIVENESS = (0.10, 0.30)
EXPRESSIVENESS = (0.80, 1.25)
"""Factor on every pain intensity of a subject, drawn uniformly."""
HEAT_GAIN = (0.0, 0.25, 0.45, 0.70, 1.0)
"""Fraction of the full intensity at BL1, PA1 .. PA4; stronger stimuli also become visible earlier."""
ELECTRICAL_GAIN = (0.0, 0.62, 1.0)
"""Fraction of the full intensity at no, low and high pain."""
ELECTRICAL_BURSTS = ((0, 0), (2, 3), (5, 6))
"""Minimum and maximum number of bursts in 10 s at no, low and high pain; a painful clip has at least one."""
ELECTRICAL_HOLD_S = ((0.0, 0.0), (0.3, 0.7), (0.7, 1.2))
"""Duration of a burst's apex at no, low and high pain, in seconds."""
TRIAL_SPREAD = 0.15
"""Standard deviation of the logarithm of a trial's strength: the same stimulus hurts more or less."""
ABSENT_AU = 0.12
"""Probability that an action unit of the subject's pain face is absent in one trial."""
AU_PROFILE = (0.6, 1.3)
"""Factor of a subject on each action unit, drawn uniformly."""
FULL_INTENSITY = {
    "heat": {"AU4": 4.8, "AU6": 3.2, "AU7": 4.6, "AU9": 3.2, "AU10": 3.4, "AU25": 1.5, "AU26": 0.8, "AU43": 4.0},
    "electrical": {"AU4": 4.4, "AU6": 3.6, "AU7": 4.8, "AU9": 3.8, "AU10": 3.0, "AU25": 2.0, "AU26": 1.2, "AU43": 4.4},
    "clinical": {"AU4": 4.2, "AU6": 4.2, "AU7": 4.4, "AU9": 2.8, "AU10": 3.6, "AU25": 1.8, "AU26": 0.6, "AU43": 4.4},
}
"""Intensities at gain 1 and expressiveness 1: the same action units, with different weights."""
AU43_FROM_STRENGTH = 0.6
"""Below this strength (gain x trial x subject) pain never closes the eyes; above it, in half of the episodes."""

# ---- Events in all classes, at these rates per second, so that they do not indicate pain. ----

BLINK_HZ = (0.15, 0.45)
SMILE_HZ = (0.02, 0.08)
TALK_HZ = (0.02, 0.07)
FROWN_HZ = (0.005, 0.03)
"""Brows lowered in thought or against the light, sometimes with narrowed lids or a wrinkled nose."""
REST_HZ = (0.005, 0.03)
"""Eyes closed for about a second, without pain."""


@dataclass(frozen=True)
class Temper:
    """How one subject's face reacts to pain, and how often it moves without pain.

    Args:
        expressiveness: factor on pain intensities.
        profile: (len(AUS),) factor on each action unit.
        rates_hz: events per second of blink, smile, talk, frown, rest.
    """

    expressiveness: float
    profile: Array
    rates_hz: dict[str, float]


@dataclass(frozen=True)
class Course:
    """Action units of one clip.

    Args:
        times_s: (N,) seconds from the first frame.
        au: (N, len(AUS)) intensities 0 to 5, of any cause.
        pain: (N, len(AUS)) the intensities caused by pain.
    """

    times_s: Array
    au: Array
    pain: Array

    @property
    def pspi(self) -> Array:
        """(N,) Prkachin and Solomon pain intensity, 0 to 16, of `au`."""
        units = by_unit(self.au)
        return pspi({**units, 43: units[43] >= AU43_CLOSED})

    @property
    def region_active(self) -> npt.NDArray[np.bool_]:
        """(N, len(REGIONS)) whether pain moves the region at intensity A (1) or more."""
        columns = [self.pain[:, [AUS.index(au) for au in REGION_AUS[region]]] for region in REGIONS]
        return np.stack([column.max(axis=1) >= 1.0 for column in columns], axis=1)


def by_unit(au: Array) -> dict[int, Array]:
    """Return the columns of (N, len(AUS)) by action unit number."""
    return {int(name.removeprefix("AU")): au[:, column] for column, name in enumerate(AUS)}


def draw_temper(rng: np.random.Generator) -> Temper:
    """Draw a subject's temper."""
    stoic = rng.random() < STOIC_SHARE
    ranges = {"blink": BLINK_HZ, "smile": SMILE_HZ, "talk": TALK_HZ, "frown": FROWN_HZ, "rest": REST_HZ}
    return Temper(
        expressiveness=float(rng.uniform(*(STOIC_EXPRESSIVENESS if stoic else EXPRESSIVENESS))),
        profile=rng.uniform(*AU_PROFILE, size=len(AUS)),
        rates_hz={name: float(rng.uniform(*limits)) for name, limits in ranges.items()},
    )


def frame_count(duration_s: float, fps: float) -> int:
    """Return the number of frames that start within the duration: 138 for 5.5 s at 25 fps."""
    return max(1, int(np.ceil(duration_s * fps - 1e-6)))


def draw_course(
    stimulus: Stimulus, level: float, duration_s: float, fps: float, temper: Temper, rng: np.random.Generator
) -> Course:
    """Draw the action units of one clip.

    Args:
        stimulus: kind of pain.
        level: 0 is no pain; up to 4 for heat, 2 for electrical, 1 for clinical pain. Fractional levels are
            interpolated.
        duration_s: length of the clip, in seconds.
        fps: frames per second.
        temper: the subject's temper.
        rng: random numbers.
    """
    times_s = np.arange(frame_count(duration_s, fps)) / fps
    pain = np.zeros((len(times_s), len(AUS)))
    if level:
        strength = float(np.exp(rng.normal(0.0, TRIAL_SPREAD)) * temper.expressiveness)
        pain = {"heat": _heat, "electrical": _electrical, "clinical": _clinical}[stimulus](
            level, strength, duration_s, times_s, temper.profile, rng
        )
    return Course(times_s, np.maximum(pain, _everyday(times_s, duration_s, temper, rng)), pain)


def _pulse(times_s: Array, onset_s: float, rise_s: float, hold_s: float, fall_s: float) -> Array:
    """Rise smoothly from 0 to 1, hold, and fall smoothly back."""
    up = np.clip((times_s - onset_s) / rise_s, 0.0, 1.0)
    down = np.clip((onset_s + rise_s + hold_s + fall_s - times_s) / fall_s, 0.0, 1.0)
    x = np.minimum(up, down)
    pulse: Array = x * x * (3.0 - 2.0 * x)
    return pulse


def _amplitudes(stimulus: Stimulus, strength: float, profile: Array, rng: np.random.Generator) -> Array:
    full = np.array([FULL_INTENSITY[stimulus].get(name, 0.0) for name in AUS])
    shown = rng.random(len(AUS)) >= ABSENT_AU
    amplitudes: Array = np.clip(full * strength * profile * shown, 0.0, 5.0)
    return amplitudes


def _episode(
    times_s: Array, amplitudes: Array, strength: float, shape: tuple[float, ...], rng: np.random.Generator
) -> Array:
    """Draw one onset, apex and offset in all action units, each with a random small delay."""
    au43 = AUS.index("AU43")
    peak = np.clip(amplitudes * rng.uniform(0.85, 1.15, len(AUS)), 0.0, 5.0)
    if strength < AU43_FROM_STRENGTH or rng.random() < 0.5:
        peak[au43] = 0.0
    onset_s, rise_s, hold_s, fall_s = shape
    lags_s = rng.uniform(0.0, 0.3, len(AUS)) * rise_s
    return np.stack(
        [_pulse(times_s, onset_s + lag, rise_s, hold_s, fall_s) * top for lag, top in zip(lags_s, peak, strict=True)],
        axis=1,
    )


def _at(level: float, steps: Sequence[float]) -> float:
    """Interpolate between values at whole levels, from 0."""
    return float(np.interp(level, range(len(steps)), steps))


def _heat(
    level: float, strength: float, duration_s: float, times_s: Array, profile: Array, rng: np.random.Generator
) -> Array:
    """Draw a slow ramp with a late apex that lasts to the end of the clip."""
    gain = _at(level, HEAT_GAIN)
    strength *= gain
    onset_s = (rng.uniform(0.05, 0.18) + 0.2 * (1.0 - gain)) * duration_s
    shape = (onset_s, rng.uniform(0.22, 0.40) * duration_s, rng.uniform(0.45, 0.9) * duration_s, 1.0)
    return _episode(times_s, _amplitudes("heat", strength, profile, rng), strength, shape, rng)


def _electrical(
    level: float, strength: float, duration_s: float, times_s: Array, profile: Array, rng: np.random.Generator
) -> Array:
    """Draw brief bursts with sharp onsets, one in each of several equal time slots."""
    strength *= _at(level, ELECTRICAL_GAIN)
    fewest, most = (
        max(1, round(_at(level, limits) * duration_s / 10)) for limits in zip(*ELECTRICAL_BURSTS, strict=True)
    )
    bursts = int(rng.integers(fewest, most + 1))
    shortest_s, longest_s = (_at(level, limits) for limits in zip(*ELECTRICAL_HOLD_S, strict=True))
    amplitudes = _amplitudes("electrical", strength, profile, rng)
    pain = np.zeros((len(times_s), len(AUS)))
    slot_s = duration_s / bursts
    for i in range(bursts):
        onset_s = (i + rng.uniform(0.05, 0.45)) * slot_s
        hold_s = rng.uniform(shortest_s, longest_s)
        shape = (onset_s, rng.uniform(0.10, 0.22), hold_s, rng.uniform(0.3, 0.6))
        pain = np.maximum(pain, _episode(times_s, amplitudes * rng.uniform(0.8, 1.1), strength, shape, rng))
    return pain


def _clinical(
    level: float, strength: float, duration_s: float, times_s: Array, profile: Array, rng: np.random.Generator
) -> Array:
    """Draw pain that comes and goes with one movement; most of the clip shows none."""
    strength *= level
    onset_s, rise_s, hold_s, fall_s = rng.uniform((0.2, 0.06, 0.06, 0.06), (0.55, 0.12, 0.16, 0.14)) * duration_s
    shape = (onset_s, rise_s, hold_s, fall_s)
    return _episode(times_s, _amplitudes("clinical", strength, profile, rng), strength, shape, rng)


def _everyday(times_s: Array, duration_s: float, temper: Temper, rng: np.random.Generator) -> Array:
    """Draw blinks, smiles, talking, frowns and resting eyes, independent of pain."""
    au = np.zeros((len(times_s), len(AUS)))

    def add(name: str, intensity: Array) -> None:
        column = AUS.index(name)
        au[:, column] = np.maximum(au[:, column], intensity)

    def moments(event: str) -> Array:
        count = rng.poisson(temper.rates_hz[event] * duration_s)
        return rng.uniform(-0.3, duration_s, count)

    for onset_s in moments("blink"):
        add("AU45", 5.0 * _pulse(times_s, onset_s, 0.10, rng.uniform(0.04, 0.12), 0.16))
    for onset_s in moments("rest"):
        add("AU43", 5.0 * _pulse(times_s, onset_s, 0.3, rng.uniform(0.4, 1.4), 0.3))
    for onset_s in moments("smile"):
        smile = _pulse(times_s, onset_s, rng.uniform(0.3, 0.6), rng.uniform(0.8, 2.5), rng.uniform(0.4, 0.9))
        strength = rng.uniform(1.5, 4.2)
        add("AU12", strength * smile)
        add("AU6", 0.75 * strength * smile)
        if rng.random() < 0.4:
            add("AU25", 2.5 * smile)
    for onset_s in moments("talk"):
        talk = _pulse(times_s, onset_s, 0.2, rng.uniform(0.8, 2.5), 0.2)
        beat = 0.5 - 0.5 * np.cos(2 * np.pi * rng.uniform(2.0, 3.6) * (times_s - onset_s))
        slow = 0.7 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.4, 0.9) * times_s + rng.uniform(0, 6))
        add("AU25", 3.2 * talk * beat * slow)
        add("AU26", 2.4 * talk * beat * slow)
    for onset_s in moments("frown"):
        frown = _pulse(times_s, onset_s, rng.uniform(0.15, 0.5), rng.uniform(0.3, 1.8), rng.uniform(0.3, 0.6))
        add("AU4", rng.uniform(0.8, 2.6) * frown)
        if rng.random() < 0.4:
            add("AU7", rng.uniform(1.0, 2.8) * frown)
        if rng.random() < 0.25:
            add(str(rng.choice(["AU9", "AU10"])), rng.uniform(0.8, 2.2) * frown)
    return au
