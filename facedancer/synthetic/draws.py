"""The three independent random draws behind a picture: an identity, a person and a scene.

An *identity* is what a swap must transfer: the inner face's shape, brows, lips, irises and skin details. A *person* is
everything else about somebody: head, ears, neck, skin tone, hair and beard. They combine freely with each other and
with a *scene* (`scenes`), so the true result of a swap can be rendered. Identity and person share a `Kind` (sex, age,
ancestry), so that a complete person looks consistent.

Each draw depends only on its seed. Colors are linear RGB reflectances.
"""

import functools
from dataclasses import dataclass

import numpy as np

# Skin reflectances, light to dark; hair and irises; all linear.
SKIN_TONES = np.array(
    [
        [0.64, 0.44, 0.355],
        [0.56, 0.37, 0.28],
        [0.45, 0.285, 0.20],
        [0.32, 0.185, 0.12],
        [0.195, 0.106, 0.066],
        [0.115, 0.064, 0.043],
    ]
)
HAIR_COLORS = {
    "black": (0.013, 0.010, 0.009),
    "dark brown": (0.034, 0.020, 0.012),
    "brown": (0.075, 0.040, 0.020),
    "light brown": (0.16, 0.088, 0.040),
    "blond": (0.34, 0.21, 0.10),
    "red": (0.20, 0.065, 0.022),
}
GRAY_HAIR = np.array([0.36, 0.35, 0.34])
IRISES = np.array(
    [
        [0.045, 0.021, 0.010],
        [0.10, 0.050, 0.019],
        [0.15, 0.11, 0.042],
        [0.09, 0.14, 0.085],
        [0.095, 0.17, 0.26],
        [0.21, 0.27, 0.31],
    ]
)

HAIR_STYLES = {
    "man": {
        "buzz": 0.13, "crop": 0.20, "side": 0.17, "quiff": 0.10, "slick": 0.08, "messy": 0.10, "curly": 0.08,
        "receding": 0.07, "bald": 0.05, "medium": 0.02,
    },
    "woman": {
        "long": 0.17, "long_side": 0.11, "wavy": 0.13, "fringe": 0.08, "bob": 0.11, "bob_fringe": 0.06, "pixie": 0.06,
        "ponytail": 0.10, "bun": 0.08, "curly_long": 0.07, "curly": 0.03,
    },
}  # fmt: skip
BEARDS = {"none": 0.57, "stubble": 0.24, "short": 0.08, "full": 0.04, "goatee": 0.04, "moustache": 0.03}

# Pairs of morphs at the two ends of a slider.
_ENDS = (
    ("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward"), ("concave", "convex"),
    ("compress", "uncompress"),
)  # fmt: skip

# Spread of the sliders of a feature, in units of the morph's own length, and of those single out of it. Held to what
# faces have: the morphs' ends are caricatures.
_FACE_SPREAD = {
    "nose": 0.57, "mouth": 0.57, "eye": 0.62, "chin": 0.55, "cheek": 0.60, "forehead": 0.48, "eyebrows": 0.64,
    "head": 0.32,
}  # fmt: skip
_CAUTIOUS = {
    "nose-scale-depth": 0.6, "nose-hump": 0.7, "nose-curve": 0.8, "nose-point": 0.8, "nose-volume": 0.7,
    "nose-septumangle": 0.6, "nose-greek": 0.6, "nose-trans": 0.5, "nose-scale-vert": 0.8, "mouth-trans": 0.6,
    "mouth-lowerlip-ext": 0.5, "mouth-upperlip-ext": 0.5, "mouth-scale-depth": 0.5, "eye-push": 0.5, "eye-trans": 0.6,
    "eye-scale": 0.7, "chin-jaw-drop": 0.5, "chin-prognathism": 0.5, "chin-cleft": 0.6, "eyebrows-trans": 0.7,
    "head-age": 0.3, "mouth-dimples": 0.6, "mouth-laugh-lines": 0.5, "chin-bones": 0.8,
}  # fmt: skip
# Where the sliders of women's faces lie on average; men's lie as far on the other side.
_WOMANLY = {
    "eye-scale": 0.30, "eye-height2": 0.15, "mouth-upperlip-volume": 0.22, "mouth-lowerlip-volume": 0.22,
    "mouth-upperlip-height": 0.10, "mouth-lowerlip-height": 0.10, "mouth-scale-horiz": -0.12, "chin-width": -0.25,
    "chin-height": -0.15, "chin-bones": -0.15, "chin-prominent": -0.10, "nose-scale-horiz": -0.15, "nose-width2": -0.15,
    "nose-volume": -0.12, "nose-hump": -0.12, "nose-scale-vert": -0.08, "nose-point": 0.12, "cheek-volume": 0.10,
    "cheek-bones": 0.12, "forehead-nubian": 0.10, "forehead-trans": -0.10, "eyebrows-trans": 0.12,
}  # fmt: skip
_PERSON_FEATURES = ("head", "ear", "neck", "forehead", "chin", "cheek")
LARGEST_SLIDER = 0.9
LARGEST_DEVIATION = 2.0  # of what sliders are drawn from, in standard deviations
LARGEST_SPREAD = 0.0055  # of landmarks along a principal direction, decimeters a landmark
INNER_LANDMARKS = slice(17, 68)  # brows, eyes, nose and lips of the 68


@dataclass(frozen=True)
class Kind:
    """The broad kind of a person.

    Attributes:
        sex: 0 a woman's face, 1 a man's.
        age: years.
        ancestry: weights of African, Asian and European shapes, sum 1.
        is_fair: whether skin, hair and eyes may be light.
        hair: natural color, of scalp, brows and beard.
    """

    sex: float
    age: float
    ancestry: tuple[float, float, float]
    is_fair: bool
    hair: tuple[float, float, float]

    @property
    def aged(self):
        """Returns 0 for young, 1 for old."""
        return float(np.clip((self.age - 20) / 55, 0, 1))


@dataclass(frozen=True)
class Brow:
    """A pair of eyebrows: lengths in decimeters on the resting head."""

    height: float
    arch: float
    thickness: float
    gap: float
    length: float
    density: float
    color: tuple[float, float, float]


@dataclass(frozen=True)
class Identity:
    """What a swap must transfer.

    Attributes:
        number: the seed.
        kind: `Kind`.
        shape: morph name -> weight; acts on the inner face.
        brow: `Brow`.
        iris: color of the irises.
        lip_tint: factor from the skin's color to the lips'.
        wrinkles: 0 smooth to 1.
        freckles, moles, redness, mottling, shadows: strengths of the skin's details; shadows are those round the eyes.
        eyeliner: 0 none to 1.
        lashes: length of the eyelashes, 1 on average.
        complexion: factor on the skin's red, green and blue within the face.
        texture: (3,) shift of the noise that the details are made of.
    """

    number: int
    kind: Kind
    shape: dict
    brow: Brow
    iris: tuple[float, float, float]
    lip_tint: tuple[float, float, float]
    wrinkles: float
    freckles: float
    moles: float
    redness: float
    mottling: float
    shadows: float
    eyeliner: float
    lashes: float
    complexion: tuple[float, float, float]
    texture: tuple[float, float, float]


@dataclass(frozen=True)
class Hair:
    """The hair of a head.

    Attributes:
        style: a name of `HAIR_STYLES`.
        color: of the strands.
        length: factor on the style's.
        curl: factor on the style's waves.
        parting: where it is parted, decimeters to the left of the middle.
        hairline: how much higher than usual it begins, decimeters.
        recession: how far the temples are bare, 0 to 1.
        volume: how far it stands off the head, 1 on average.
        density: 1 full, below it thin.
        seed: of the strands.
    """

    style: str
    color: tuple[float, float, float]
    length: float
    curl: float
    parting: float
    hairline: float
    recession: float
    volume: float
    density: float
    seed: int


@dataclass(frozen=True)
class Person:
    """What a person keeps when another identity is swapped onto them.

    Attributes:
        number: the seed.
        kind: `Kind`.
        shape: morph name -> weight; acts outside the inner face.
        skin: color.
        texture: (3,) shift of the noise that the skin outside the face is made of.
        oiliness: strength of the skin's shine, 1 on average.
        hair: `Hair`.
        beard: a name of `BEARDS`.
    """

    number: int
    kind: Kind
    shape: dict
    skin: tuple[float, float, float]
    texture: tuple[float, float, float]
    oiliness: float
    hair: Hair
    beard: str


def draw_kind(seed):
    """Returns a `Kind`."""
    random = _random(seed, "kind")
    sex = random.beta(1.0, 12.0)
    if random.random() < 0.5:
        sex = 1 - sex
    age = 18 + 60 * random.beta(1.1, 2.3)
    ancestry = random.dirichlet([0.28, 0.28, 0.28])
    is_fair = bool(ancestry[2] > 0.45 + random.normal(0, 0.12))
    chances = [0.10, 0.24, 0.26, 0.20, 0.14, 0.06] if is_fair else [0.72, 0.25, 0.03, 0, 0, 0]
    hair = np.array(HAIR_COLORS[random.choice(list(HAIR_COLORS), p=chances)]) * random.uniform(0.75, 1.25)
    return Kind(sex=float(sex), age=float(age), ancestry=_tuple(ancestry), is_fair=is_fair, hair=_tuple(hair))


def draw_identity(seed):
    """Returns the `Identity` with that number."""
    random = _random(seed, "identity")
    kind = draw_kind(seed)
    made_up = kind.sex < 0.5 and random.random() < 0.45
    man = kind.sex > 0.5
    hair = np.array(kind.hair)
    iris = IRISES[
        random.choice(6, p=[0.16, 0.26, 0.18, 0.13, 0.15, 0.12] if kind.is_fair else [0.72, 0.26, 0.02, 0, 0, 0])
    ]
    lip = np.array([random.uniform(0.84, 0.98), random.uniform(0.56, 0.76), random.uniform(0.58, 0.80)]) + 0.04 * man
    if made_up:
        lip *= [1.0, random.uniform(0.45, 0.9), random.uniform(0.5, 0.95)]
    brow_color = np.minimum(1.0, 0.10 / hair.max()) * hair * random.uniform(0.6, 1.1)
    return Identity(
        number=int(seed),
        kind=kind,
        shape=_macro_shape(kind, random) | _sliders(_FACE_SPREAD, kind, random),
        brow=Brow(
            height=float(random.normal(0, 0.039)),
            arch=float(np.clip(random.normal(0.028 if man else 0.044, 0.021), 0.0, 0.08)),
            thickness=float(np.clip(random.normal(0.038 if man else 0.023, 0.013 if man else 0.009), 0.012, 0.060)),
            gap=float(np.clip(random.normal(0.115, 0.042), 0.04, 0.19)),
            length=float(np.clip(random.normal(0.42, 0.035), 0.33, 0.50)),
            density=float(random.uniform(0.35, 1.2)),
            color=_tuple(brow_color),
        ),
        iris=_tuple(iris * random.uniform(0.75, 1.2)),
        lip_tint=_tuple(lip),
        wrinkles=float(np.clip(kind.aged * random.uniform(0.8, 1.3) + random.normal(0.03, 0.05), 0, 1.2)),
        freckles=float(max(0.0, random.normal(-0.1, 0.5)) if kind.is_fair else 0.0),
        moles=float(random.random() ** 2),
        redness=float(random.uniform(0.2, 1.1)),
        mottling=float(random.uniform(0.4, 1.0) + 0.6 * kind.aged),
        shadows=float(random.uniform(0.2, 1.0) + 0.4 * kind.aged),
        eyeliner=float(random.uniform(0.4, 1.0)) if made_up else 0.0,
        lashes=float(random.uniform(0.5, 0.9) if man else random.uniform(0.8, 1.5)),
        complexion=_tuple(_skin_shift(random, 0.06, 1.4)),
        texture=_tuple(random.uniform(0, 500, 3)),
    )


def draw_person(seed, kind=None):
    """Returns the `Person` with that number; by default of the same `Kind` as the identity with that number."""
    random = _random(seed, "person")
    kind = kind or draw_kind(seed)
    man = kind.sex > 0.5
    dark, middle, fair = kind.ancestry
    tone = dark * random.normal(4.1, 0.6) + middle * random.normal(1.5, 0.5) + fair * random.normal(0.7, 0.5)
    tone = float(np.clip(tone, 0, len(SKIN_TONES) - 1.001))
    low = int(tone)
    skin = SKIN_TONES[low] + (tone - low) * (SKIN_TONES[low + 1] - SKIN_TONES[low])
    color = _grayed(kind, random)
    styles = HAIR_STYLES["man" if man else "woman"]
    style = str(random.choice(list(styles), p=np.array(list(styles.values())) / sum(styles.values())))
    if dark > 0.6 and style in ("side", "slick", "quiff", "messy") and random.random() < 0.7:
        style = "buzz" if random.random() < 0.5 else "curly"
    grown = str(random.choice(list(BEARDS), p=list(BEARDS.values())))
    shape = _macro_shape(kind, random) | _sliders(dict.fromkeys(_PERSON_FEATURES, 0.27), kind, random)
    return Person(
        number=int(seed),
        kind=kind,
        shape=shape,
        skin=_tuple(skin * _skin_shift(random, 0.06, 0.8)),
        texture=_tuple(random.uniform(0, 500, 3)),
        oiliness=float(random.uniform(0.6, 1.3)),
        hair=Hair(
            style=style,
            color=_tuple(color),
            length=float(random.uniform(0.8, 1.2)),
            curl=float(random.uniform(0.5, 1.5) * (1.4 if dark > 0.5 else 1.0)),
            parting=float(random.normal(0, 0.10) if not man else random.choice([-1, 1]) * random.uniform(0.1, 0.35)),
            hairline=float(random.normal(0, 0.045)),
            recession=float(np.clip(random.normal(0.25 + 0.5 * kind.aged, 0.25), 0, 1)) if man else 0.0,
            volume=float(random.uniform(0.75, 1.25)),
            density=float(random.uniform(0.85, 1.0) - 0.25 * kind.aged * random.random()),
            seed=int(random.integers(2**31)),
        ),
        beard=grown if man else "none",
    )


def _random(seed, purpose):
    """Returns a separate generator for each seed and purpose."""
    return np.random.default_rng([int(seed), *purpose.encode()])


def _tuple(values):
    return tuple(float(value) for value in values)


def _skin_shift(random, brightness, warmth):
    """Returns random factors (3,) on skin color: in brightness, and from pale and pink to sallow."""
    return np.exp(random.normal(0, brightness) + random.normal(0, warmth) * np.array([0.025, -0.005, -0.03]))


def _grayed(kind, random):
    """Returns a hair color (3,) for that age, or a dyed one."""
    color = np.array(kind.hair)
    if kind.sex < 0.5 and random.random() < 0.15:
        color = np.array(HAIR_COLORS[random.choice(list(HAIR_COLORS))])
    gray = np.clip((kind.age - 38) / 32, 0, 1) * random.random() ** (0.4 if kind.sex > 0.5 else 1.2)
    return color * (1 - gray) + GRAY_HAIR * random.uniform(0.6, 1.2) * gray


def _macro_shape(kind, random):
    """Returns the morphs of ancestry, sex, age and weight for a kind."""
    weight = float(np.clip(random.normal(0.5, 0.2), 0, 1))
    build = {"minweight": max(0, 1 - 2 * weight), "averageweight": 1 - abs(2 * weight - 1)}
    build["maxweight"] = max(0, 2 * weight - 1) * 0.8
    shape = {}
    for sex, share_of_sex in (("female", 1 - kind.sex), ("male", kind.sex)):
        for age, share_of_age in (("young", 1 - kind.aged), ("old", kind.aged)):
            share = share_of_sex * share_of_age
            for ancestry, part in zip(("african", "asian", "caucasian"), kind.ancestry, strict=True):
                shape[f"{ancestry}-{sex}-{age}"] = part * share
            for name, part in build.items():
                shape[f"universal-{sex}-{age}-averagemuscle-{name}"] = part * share
    return {name: float(value) for name, value in shape.items() if value}


def _sliders(spread, kind, random):
    """Draws the sliders of the features in `spread`, roughly symmetric between the sides of the face."""
    names = slider_names()
    keys, matrix = _slider_spread(tuple(spread.items()))
    drawn = matrix @ np.clip(random.normal(size=len(keys)), -LARGEST_DEVIATION, LARGEST_DEVIATION)
    values = {}
    for key, value in zip(keys, drawn, strict=True):
        womanly = next((mean for part, mean in _WOMANLY.items() if key.startswith(part)), 0.0)
        values[key] = value + (1 - 2 * kind.sex) * womanly
    weights = {}
    for feature in spread:
        for low, high in names.get(feature, ()):
            key = low.removeprefix("l-").removeprefix("r-")
            value = values[key] + (random.normal(0, 0.04) if key != low else 0.0)
            weights[high if value > 0 else low] = float(min(abs(value), LARGEST_SLIDER))
    if "head" in spread:
        for name in ("head-diamond", "head-invertedtriangular", "head-oval", "head-rectangular", "head-round",
                     "head-square", "head-triangular"):  # fmt: skip
            weights[name] = float(max(0.0, random.normal(-0.1, 0.25)))
    for name in ("brown-1", "cheek-1", "cheek-2", "jaw-1", "mouth-1", "mouth-2", "nose-1", "nose-2", "nose-3", "eye-1"):
        if "nose" in spread and random.random() < 0.4:
            side = "l" if random.random() < 0.5 else "r"
            weights[f"asym-{name}-{side}"] = float(abs(random.normal(0, 0.25)))
    return weights


@functools.cache
def _slider_spread(spread):
    """Returns how independent normal numbers become sliders whose combined effect stays within that of real faces.

    Many sliders push in the same direction, and independent draws add up to caricatures. So their effect on the
    normalized landmarks is decomposed into principal directions, and the spread along each is limited to
    `LARGEST_SPREAD`.

    Returns:
        names of the sliders, (k,), and the matrix (k, k) to them from k normal numbers.
    """
    from facedancer.synthetic.head import load_head

    head = load_head()
    moves, widths = {}, {}
    for feature, width in spread:
        for low, high in slider_names().get(feature, ()):
            key = low.removeprefix("l-").removeprefix("r-")
            caution = next((factor for part, factor in _CAUTIOUS.items() if part in key), 1.0)
            widths[key] = width * caution
            move = (head.offsets({high: 1.0}) - head.offsets({low: 1.0}))[head.landmarks[INNER_LANDMARKS]] / 2
            moves[key] = moves.get(key, 0.0) + move
    rest = head.vertices[head.landmarks[INNER_LANDMARKS]]
    in_place = [np.tile(axis, (len(rest), 1)) for axis in np.eye(3)] + [rest - rest.mean(0)]
    basis = np.linalg.qr(np.stack([each.ravel() for each in in_place], 1))[0]
    width = np.array(list(widths.values()))
    effects = np.stack([move.ravel() for move in moves.values()]) * width[:, None]
    effects -= effects @ basis @ basis.T
    directions, sizes, _ = np.linalg.svd(effects / np.sqrt(len(rest)), full_matrices=False)
    shrink = np.minimum(1.0, LARGEST_SPREAD / np.maximum(sizes, 1e-9))
    return tuple(moves), width[:, None] * (directions * shrink) @ directions.T


def slider_names():
    """Returns feature -> list of (low end, high end) of its sliders, by the names of the morphs."""
    from facedancer.synthetic.head import load_head

    names = load_head().morphs
    sliders = {}
    for name in names:
        for low, high in _ENDS:
            stem = name.removesuffix(f"-{low}")
            if stem != name and f"{stem}-{high}" in names:
                feature = stem.removeprefix("l-").removeprefix("r-").split("-")[0]
                sliders.setdefault(feature, []).append((name, f"{stem}-{high}"))
    return sliders
