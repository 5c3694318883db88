"""The appearance of a generated subject, the background and the camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

SKINS: tuple[Colour, ...] = (
    (240, 205, 182), (229, 188, 160), (214, 168, 136), (194, 145, 110), (164, 115, 82), (128, 86, 60), (98, 66, 48),
)  # fmt: skip
HAIRS: tuple[Colour, ...] = (
    (32, 26, 24), (58, 40, 30), (92, 64, 42), (140, 104, 64), (188, 156, 104), (120, 58, 34), (150, 148, 146),
)  # fmt: skip
IRISES: tuple[Colour, ...] = ((70, 45, 28), (92, 66, 36), (84, 98, 66), (92, 120, 146), (58, 40, 30))
CLOTHES: tuple[Colour, ...] = ((60, 72, 96), (120, 44, 48), (70, 92, 70), (38, 38, 42), (186, 182, 174), (110, 90, 120))
WALLS: tuple[Colour, ...] = ((176, 182, 186), (204, 196, 180), (120, 132, 144), (86, 92, 96), (196, 204, 200))


@dataclass(frozen=True)
class Look:
    """The look of one subject. Lengths are in half face widths from the point between the eyes, y down."""

    sex: str
    age: int
    jaw: float
    chin: float
    top: float
    eye_x: float
    eye_w: float
    eye_h: float
    brow_y: float
    brow_w: float
    brow_arch: float
    nose_w: float
    nose_y: float
    mouth_y: float
    mouth_w: float
    lip_h: float
    tilt: float
    skin: Colour
    hair: Colour
    brow: Colour
    iris: Colour
    hair_style: str
    hairline: float
    glasses: bool
    beard: float
    wrinkles: float
    light: tuple[float, float]
    ambient: float
    cast: Colour
    zoom: float
    place: tuple[float, float]
    noise: float
    wall: Colour
    clothes: Colour
    motion: float


def draw_look(rng: np.random.Generator) -> Look:
    """Draw a random subject."""
    uniform = rng.uniform
    sex = "m" if rng.random() < 0.5 else "w"
    age = int(rng.integers(20, 65))

    def pick(colours: tuple[Colour, ...], spread: float) -> Colour:
        colour = np.array(colours[rng.integers(len(colours))]) * uniform(1 - spread, 1 + spread, 3)
        red, green, blue = np.clip(colour, 8, 248)
        return float(red), float(green), float(blue)

    skin = pick(SKINS, 0.04)
    hair = pick(HAIRS if skin[0] > 205 else HAIRS[:3], 0.08)
    if age > 50 and rng.random() < 0.6:
        hair = (165.0, 162.0, 160.0)
    style = rng.choice(["short", "short", "bald", "fringe"] if sex == "m" else ["long", "long", "short", "fringe"])
    return Look(
        sex=sex,
        age=age,
        jaw=float(uniform(1.8, 2.15) + (0.2 if sex == "m" else 0.0)),
        chin=float(uniform(1.26, 1.42)),
        top=float(uniform(-1.28, -1.14)),
        eye_x=float(uniform(0.40, 0.46)),
        eye_w=float(uniform(0.18, 0.215)),
        eye_h=float(uniform(0.085, 0.115)),
        brow_y=float(uniform(-0.30, -0.24)),
        brow_w=float(uniform(0.035, 0.06) * (1.2 if sex == "m" else 0.9)),
        brow_arch=float(uniform(0.03, 0.10)),
        nose_w=float(uniform(0.85, 1.2)),
        nose_y=float(uniform(0.53, 0.61)),
        mouth_y=float(uniform(0.86, 0.94)),
        mouth_w=float(uniform(0.33, 0.41)),
        lip_h=float(uniform(0.07, 0.11) * (0.85 if sex == "m" else 1.1)),
        tilt=float(uniform(-0.02, 0.02)),
        skin=skin,
        hair=hair,
        brow=(hair[0] * 0.75, hair[1] * 0.72, hair[2] * 0.70) if sum(hair) < 330 else (96.0, 78.0, 62.0),
        iris=pick(IRISES, 0.1),
        hair_style=str(style),
        hairline=float(uniform(-0.82, -0.64)),
        glasses=bool(rng.random() < 0.22),
        beard=float(uniform(0.15, 0.6)) if sex == "m" and rng.random() < 0.45 else 0.0,
        wrinkles=float(np.clip((age - 25) / 90 + uniform(-0.05, 0.1), 0.0, 0.5)),
        light=(float(uniform(-0.6, 0.6)), float(uniform(-0.6, -0.1))),
        ambient=float(uniform(0.35, 0.6)),
        cast=(float(uniform(0.95, 1.05)), 1.0, float(uniform(0.94, 1.05))),
        zoom=float(uniform(0.90, 1.08)),
        place=(float(uniform(0.46, 0.54)), float(uniform(0.44, 0.48))),
        noise=float(uniform(1.0, 3.5)),
        wall=pick(WALLS, 0.08),
        clothes=pick(CLOTHES, 0.1),
        motion=float(uniform(0.3, 1.0)),
    )
