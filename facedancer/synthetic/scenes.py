"""The third draw, a scene: pose, expression, gaze, light, camera, background, occluders, clothes and quality."""

from dataclasses import dataclass, replace

import numpy as np

# Expressions as morph weights; a drawn expression is a share of one of them and a little of others.
EXPRESSIONS = {
    "neutral": {},
    "smile": {
        "mouthSmileLeft": 0.75, "mouthSmileRight": 0.75, "cheekSquintLeft": 0.5, "cheekSquintRight": 0.5,
        "eyeSquintLeft": 0.3, "eyeSquintRight": 0.3, "mouthDimpleLeft": 0.2, "mouthDimpleRight": 0.2,
    },
    "grin": {
        "mouthSmileLeft": 0.85, "mouthSmileRight": 0.85, "mouthUpperUpLeft": 0.45, "mouthUpperUpRight": 0.45,
        "mouthLowerDownLeft": 0.35, "mouthLowerDownRight": 0.35, "jawOpen": 0.06, "cheekSquintLeft": 0.6,
        "cheekSquintRight": 0.6, "eyeSquintLeft": 0.4, "eyeSquintRight": 0.4,
    },
    "laugh": {
        "mouthSmileLeft": 0.85, "mouthSmileRight": 0.85, "jawOpen": 0.35, "mouthUpperUpLeft": 0.5,
        "mouthUpperUpRight": 0.5, "mouthLowerDownLeft": 0.35, "mouthLowerDownRight": 0.35, "cheekSquintLeft": 0.7,
        "cheekSquintRight": 0.7, "eyeSquintLeft": 0.5, "eyeSquintRight": 0.5,
    },
    "surprise": {
        "jawOpen": 0.5, "browInnerUp": 0.9, "browOuterUpLeft": 0.8, "browOuterUpRight": 0.8, "eyeWideLeft": 0.8,
        "eyeWideRight": 0.8,
    },
    "anger": {
        "browDownLeft": 0.9, "browDownRight": 0.9, "noseSneerLeft": 0.5, "noseSneerRight": 0.5,
        "mouthPressLeft": 0.5, "mouthPressRight": 0.5, "eyeSquintLeft": 0.4, "eyeSquintRight": 0.4,
    },
    "sadness": {"mouthFrownLeft": 0.8, "mouthFrownRight": 0.8, "browInnerUp": 0.7, "eyeSquintLeft": 0.2},
    "closed": {"eyeBlinkLeft": 0.98, "eyeBlinkRight": 0.98},
    "kiss": {"mouthPucker": 0.8},
    "talk": {"jawOpen": 0.28, "mouthFunnel": 0.35},
    "smirk": {"mouthSmileLeft": 0.7, "cheekSquintLeft": 0.3, "mouthDimpleLeft": 0.3},
}  # fmt: skip
_CHANCES = {
    "neutral": 0.24, "smile": 0.20, "grin": 0.13, "laugh": 0.08, "surprise": 0.06, "anger": 0.06, "sadness": 0.05,
    "closed": 0.03, "kiss": 0.03, "talk": 0.08, "smirk": 0.04,
}  # fmt: skip
_SUBTLE = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "eyeSquintLeft",
    "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawLeft", "jawRight", "mouthLeft", "mouthRight",
    "mouthPressLeft", "mouthPressRight", "mouthStretchLeft", "mouthStretchRight", "mouthShrugLower", "jawForward",
)  # fmt: skip
# How much the lids follow the eyes up and down, per degree.
_LID_FOLLOWS = 1 / 30

BACKGROUNDS = {"studio": 0.16, "room": 0.40, "street": 0.16, "landscape": 0.28}
OCCLUDERS = {"microphone": 0.22, "hand": 0.30, "phone": 0.16, "cup": 0.14, "strands": 0.18}


@dataclass(frozen=True)
class Light:
    """Light from all directions.

    Attributes:
        lobes: (k, 7) float64, soft lamps: unit direction to it, sharpness, radiance (linear RGB). The radiance from
            a direction d is `radiance * exp(sharpness * (d . direction - 1))`.
        above, below: (3,) radiance from the zenith and the nadir, interpolated between.
        seed: of the sampling of the lamps.
    """

    lobes: np.ndarray
    above: np.ndarray
    below: np.ndarray
    seed: int

    @property
    def brightness(self):
        """Returns the approximate irradiance (3,) over pi of a surface that faces the camera."""
        facing = np.clip(0.5 + 0.5 * self.lobes[:, 2:3], 0, 1)
        return (self.lobes[:, 4:] * facing * 2 / self.lobes[:, 3:4]).sum(0) + 0.5 * (self.above + self.below)


@dataclass(frozen=True)
class Camera:
    """The camera, always straight in front; the head turns instead.

    Attributes:
        distance: to the head in decimeters.
        half_height: decimeters shown above and below the picture's center, at the head's distance.
        center: (x, y) of the picture's center, decimeters from the center of the resting face.
        exposure: factor, 1 for correct exposure.
    """

    distance: float
    half_height: float
    center: tuple[float, float]
    exposure: float


@dataclass(frozen=True)
class Quality:
    """Camera degradation: blur in pixels of a 256-pixel picture, noise as a standard deviation on a 0 to 1 scale."""

    blur: float
    noise: float
    contrast: float


@dataclass(frozen=True)
class Garment:
    """Clothing: linear colors; "crew", "v" or "shirt"; "plain", "stripes" or "checks"."""

    color: tuple[float, float, float]
    second_color: tuple[float, float, float]
    cut: str
    pattern: str


@dataclass(frozen=True)
class Scene:
    """Everything about a picture except who is in it.

    Attributes:
        number: the seed.
        pose: yaw, pitch, roll in degrees (see `geometry.rotation`).
        expression: morph name -> weight.
        gaze: yaw and pitch of the eyes within the head, degrees.
        pupil: radius of the pupils as an angle on the eyeball, radians.
        light: `Light`.
        camera: `Camera`.
        background: a name of `BACKGROUNDS`, with `background_seed`.
        glasses: seed of a pair of glasses, or None.
        occluder: a name of `OCCLUDERS` or None, with `occluder_seed`.
        garment: `Garment`.
        quality: `Quality`.
        place: (x, y, z) of the person in the world, decimeters; differs between people side by side.
    """

    number: int
    pose: tuple[float, float, float]
    expression: dict
    gaze: tuple[float, float]
    pupil: float
    light: Light
    camera: Camera
    background: str
    background_seed: int
    glasses: int | None
    occluder: str | None
    occluder_seed: int
    garment: Garment
    quality: Quality
    place: tuple[float, float, float] = (0.0, 0.0, 0.0)


def draw_scene(seed):
    """Returns the `Scene` with that number."""
    random = np.random.default_rng([int(seed), *b"scene"])
    pose = (
        float(np.clip(random.normal(0, 16), -65, 65)),
        float(np.clip(random.normal(-1, 7), -24, 24)),
        float(np.clip(random.normal(0, 6), -25, 25)),
    )
    # Eyes look at the camera, or anywhere.
    at_camera = random.random() < 0.6
    gaze = (
        float(np.clip(random.normal(-0.9 * pose[0] if at_camera else 0, 4 if at_camera else 10), -28, 28)),
        float(np.clip(random.normal(-0.9 * pose[1] if at_camera else 0, 3 if at_camera else 6), -16, 16)),
    )
    return Scene(
        number=int(seed),
        pose=pose,
        expression=with_lids(draw_expression(random), gaze),
        gaze=gaze,
        pupil=float(random.uniform(0.13, 0.20)),
        light=draw_light(random),
        camera=Camera(
            distance=float(random.uniform(9, 24)),
            half_height=float(random.uniform(1.4, 1.9)),
            center=(float(random.normal(0, 0.10)), float(random.normal(-0.02, 0.09))),
            exposure=float(np.exp(random.normal(0, 0.13))),
        ),
        background=str(random.choice(list(BACKGROUNDS), p=list(BACKGROUNDS.values()))),
        background_seed=int(random.integers(2**31)),
        glasses=int(random.integers(2**31)) if random.random() < 0.06 else None,
        occluder=str(random.choice(list(OCCLUDERS), p=list(OCCLUDERS.values()))) if random.random() < 0.05 else None,
        occluder_seed=int(random.integers(2**31)),
        garment=draw_garment(random),
        quality=Quality(
            blur=float(abs(random.normal(0, 0.3)) + (random.uniform(0.2, 0.8) if random.random() < 0.12 else 0)),
            noise=float(0.002 + 0.012 * random.random() ** 2),
            contrast=float(random.uniform(0.9, 1.12)),
        ),
    )


def draw_expression(random):
    """Returns an expression: a share of a named one, slightly asymmetric, and a little of others."""
    chosen = EXPRESSIONS[random.choice(list(_CHANCES), p=list(_CHANCES.values()))]
    strength, tilt = random.uniform(0.4, 0.95), random.normal(0, 0.08)
    expression = {}
    for name, weight in chosen.items():
        side = 1 + tilt if name.endswith("Left") else 1 - tilt if name.endswith("Right") else 1
        expression[name] = weight * (1.0 if "Blink" in name else strength * side)
    for name in random.choice(_SUBTLE, 4, replace=False):
        expression[str(name)] = expression.get(str(name), 0.0) + abs(random.normal(0, 0.10))
    return {name: float(np.clip(weight, 0, 1)) for name, weight in expression.items()}


def with_lids(expression, gaze):
    """Returns the expression with eyelids that follow the gaze (degrees)."""
    lids = "eyeLookUp" if gaze[1] > 0 else "eyeLookDown"
    weight = float(min(abs(gaze[1]) * _LID_FOLLOWS, 0.8))
    return expression | {f"{lids}Left": weight, f"{lids}Right": weight}


def draw_light(random):
    """Returns a `Light`: a key light, a fill light from the other side, sometimes a backlight, and ambient light, with
    about the same total brightness.
    """

    def tint(warmth):
        return np.array([1.0, 0.93 + 0.05 * warmth, 0.82 + 0.22 * warmth])

    def towards(azimuth, elevation):
        return [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]

    def lobe(azimuth, elevation, sharpness, color):
        return [*towards(azimuth, elevation), sharpness, *(color * sharpness / 2)]

    azimuth, elevation = random.uniform(-1.15, 1.15), random.uniform(0.05, 0.95)
    warmth = random.uniform(-0.9, 0.9)
    sharpness = float(np.exp(random.uniform(np.log(2.5), np.log(45))))
    lobes = [lobe(azimuth, elevation, sharpness, tint(warmth) * random.uniform(0.6, 1.3))]
    fill = tint(random.uniform(-0.6, 0.9)) * random.uniform(0.18, 0.55)
    lobes.append(
        lobe(-np.sign(azimuth) * random.uniform(0.3, 1.2), random.uniform(-0.1, 0.5), random.uniform(2, 5), fill)
    )
    if random.random() < 0.4:
        rim = tint(random.uniform(-0.9, 0.9)) * random.uniform(0.3, 1.2)
        side = float(random.choice([-1, 1]))
        lobes.append(lobe(side * random.uniform(1.9, 2.7), random.uniform(0.1, 0.7), random.uniform(8, 40), rim))
    round_about = tint(random.uniform(-0.5, 0.9)) * random.uniform(0.24, 0.6)
    return Light(
        lobes=np.array(lobes),
        above=round_about * random.uniform(0.9, 1.4),
        below=round_about * tint(random.uniform(-1.0, 0.2)) * random.uniform(0.3, 0.8),
        seed=int(random.integers(2**31)),
    )


def draw_garment(random):
    """Returns a `Garment` in a typical clothing color."""

    def color():
        if random.random() < 0.5:  # black to white, slightly blue or brown
            return np.exp(random.uniform(np.log(0.02), np.log(0.75))) * np.exp(random.normal(0, 0.08, 3))
        hue = random.uniform(0, 2 * np.pi)
        vivid = 0.5 + 0.4 * np.cos(hue + np.array([0, 2.1, 4.2]))
        return np.exp(random.normal(-1.9, 0.6)) * (0.4 + 1.2 * random.random() * vivid)

    return Garment(
        color=tuple(float(x) for x in np.clip(color(), 0.01, 0.8)),
        second_color=tuple(float(x) for x in np.clip(color(), 0.01, 0.8)),
        cut=str(random.choice(["crew", "v", "shirt"], p=[0.45, 0.25, 0.30])),
        pattern=str(random.choice(["plain", "stripes", "checks"], p=[0.7, 0.17, 0.13])),
    )


def portrait_scene(seed):
    """Returns a portrait `Scene`: frontal, evenly lit, without occluders."""
    scene = draw_scene(seed)
    light = Light(
        lobes=np.array([[0.45, 0.45, 0.77, 4.0, 2.2, 2.1, 2.0], [-0.6, 0.2, 0.77, 3.0, 0.6, 0.6, 0.65]]),
        above=np.full(3, 0.45),
        below=np.full(3, 0.30),
        seed=0,
    )
    return replace(
        scene,
        pose=(0.0, 0.0, 0.0),
        expression={},
        gaze=(0.0, 0.0),
        light=light,
        camera=Camera(distance=18.0, half_height=1.8, center=(0.0, 0.0), exposure=1.0),
        background="studio",
        glasses=None,
        occluder=None,
        quality=Quality(blur=0.0, noise=0.002, contrast=1.0),
    )
