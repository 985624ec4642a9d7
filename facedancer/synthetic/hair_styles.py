"""Hair styles: length, weight, combing direction and coverage. `hair` grows them."""

from dataclasses import dataclass

import numpy as np

from facedancer.synthetic.head import EARS, INSIDE_MOUTH


@dataclass(frozen=True)
class Style:
    """A style; lengths in decimeters.

    Attributes:
        count: strands on a full head, each with `points` points and `thickness`.
        comb: direction, a name known to `comb_directions`.
        length: of a strand; `sides` is the fraction of it at the sides and the nape.
        lift: how steeply strands leave the scalp.
        gravity: how quickly they bend down.
        hold: how closely they lie on the head, 0 to 1.
        layer: thickness of the hair on the head.
        unruly: how much the starts of strands and locks vary; `wander`, how much they sway along their length.
        clump: how far locks converge toward their tips, 0 to 1, with `strands_a_lock` strands each.
        curl: radius of curls, with `turns` radians per decimeter.
        curtain: how far beside the face the hair stays, as a fraction of the face's width; 0 lets it fall.
        tie: point where it is tied together, or None.
        bun: radius of the bun at the tie, 0 for a ponytail.
    """

    comb: str
    length: float
    sides: float = 1.0
    count: int = 11000
    points: int = 10
    thickness: float = 0.009
    lift: float = 0.4
    gravity: float = 0.15
    hold: float = 0.0
    layer: float = 0.05
    unruly: float = 0.12
    wander: float = 0.1
    clump: float = 0.45
    strands_a_lock: int = 24
    curl: float = 0.0
    turns: float = 0.0
    curtain: float = 0.0
    tie: tuple[float, float, float] | None = None
    bun: float = 0.0


_LONG = {
    "points": 26, "gravity": 1.1, "layer": 0.08, "lift": 0.3, "curtain": 0.9, "strands_a_lock": 30, "thickness": 0.008,
    "count": 12000,
}  # fmt: skip
_TIED = {"points": 22, "lift": 0.05, "hold": 0.35, "layer": 0.05, "gravity": 0.4, "clump": 0.3, "unruly": 0.05}

STYLES = {
    "bald": Style("whorl", 0.0, count=0),
    "buzz": Style("whorl", 0.07, count=16000, points=4, lift=1.2, layer=0.01, gravity=0.0, clump=0.0, thickness=0.007),
    "crop": Style("forward", 0.34, sides=0.35, count=11000, points=8, lift=0.45, layer=0.05, unruly=0.2, clump=0.6),
    "side": Style("parted", 0.62, sides=0.35, points=10, lift=0.5, layer=0.09, gravity=0.18, hold=0.15, clump=0.5),
    "quiff": Style("quiff", 0.65, sides=0.2, points=10, lift=0.9, layer=0.06, gravity=0.12, clump=0.55, unruly=0.14),
    "slick": Style("back", 0.9, sides=0.45, points=12, lift=0.25, hold=0.3, layer=0.05, gravity=0.12, unruly=0.06),
    "messy": Style("forward", 0.62, sides=0.5, points=10, lift=0.8, layer=0.10, unruly=0.42, wander=0.35, clump=0.7),
    "receding": Style("back", 0.35, sides=0.8, count=7000, points=8, lift=0.35, layer=0.03, unruly=0.14),
    "medium": Style("parted", 1.5, points=16, gravity=0.35, layer=0.10, lift=0.4, curtain=0.9, wander=0.25),
    "curly": Style(
        "whorl", 0.75, sides=0.7, count=10000, points=16, lift=1.6, layer=0.05, gravity=0.03, unruly=0.5, clump=0.5,
        curl=0.055, turns=26.0, strands_a_lock=14,
    ),
    "long": Style("parted", 3.6, wander=0.14, **_LONG),
    "long_side": Style("parted", 3.3, wander=0.3, **_LONG),
    "wavy": Style("parted", 3.2, wander=0.4, clump=0.6, curl=0.075, turns=6.5, **_LONG),
    "curly_long": Style("parted", 2.6, wander=0.4, clump=0.75, curl=0.075, turns=15.0, **_LONG),
    "fringe": Style("fringe", 3.2, wander=0.12, **_LONG),
    "bob": Style("parted", 1.75, wander=0.15, **(_LONG | {"points": 18, "gravity": 0.9, "layer": 0.10})),
    "bob_fringe": Style("fringe", 1.7, wander=0.1, **(_LONG | {"points": 18, "gravity": 0.9, "layer": 0.10})),
    "pixie": Style("swept", 0.72, sides=0.5, count=10000, points=10, lift=0.45, layer=0.09, gravity=0.16, unruly=0.16,
                   clump=0.6),
    "ponytail": Style("tied", 2.7, tie=(0.0, 7.85, -0.72), **_TIED),
    "bun": Style("tied", 3.4, tie=(0.0, 8.25, -0.62), bun=0.27, **(_TIED | {"points": 30})),
}  # fmt: skip

# The hairline, by z at the side of the resting head: nape, behind the ears, temples, forehead.
_LINE_Z = (-0.6, 0.0, 0.20, 0.42, 0.60, 0.72, 0.95, 1.20, 1.45, 1.60)
_LINE_Y = (6.76, 6.78, 6.98, 7.15, 7.12, 7.38, 7.70, 7.87, 7.93, 7.93)
_CROWN = np.array([0.0, 8.35, 0.05])


def scalp_density(hair, rest, masks):
    """How densely hair grows at (n, 3) points of the resting head with (n, 6) masks: (n,) in [0, 1]."""
    x, y, z = rest.T
    line = np.interp(z, _LINE_Z, _LINE_Y) - 0.02 + hair.hairline * (z > 0.9)
    temple = np.exp(-(((np.abs(x) - 0.50) / 0.17) ** 2)) * (z > 0.7)
    line = line + 0.32 * hair.recession * temple
    # Slightly uneven, never a sharp line.
    line = line + 0.025 * np.sin(9 * x + hair.seed % 7) + 0.018 * np.sin(23 * x + 17 * z + hair.seed % 11)
    density = np.clip((y - line) / 0.09, 0, 1) * (masks[:, EARS] < 0.3) * (masks[:, INSIDE_MOUTH] < 0.5) * (y > 6.5)
    if hair.style == "receding":
        crown = np.clip((y - 7.72 + 0.10 * np.abs(x)) / 0.15, 0, 1)
        density = density * (1 - crown * (1 - 0.06 * (1 - hair.recession)))
    return density


def root_lengths(hair, rest):
    """Returns the lengths (n,) of strands with roots at (n, 3) on the resting head."""
    style = STYLES[hair.style]
    top = np.clip((rest[:, 1] - 7.25) / 0.65, 0, 1)
    lengths = style.length * hair.length * (style.sides + (1 - style.sides) * top)
    if style.comb == "fringe":
        lengths = np.where(_in_fringe(rest), 0.80 * hair.length**0.5, lengths)
    if style.tie:
        # Up to the tie, then the same tail length for all.
        distance = np.linalg.norm(rest - style.tie, axis=1)
        lengths = 1.25 * distance + 0.55 * style.length * hair.length
    return lengths


def comb_directions(hair, rest, outward):
    """Returns unit combing directions (n, 3) along the scalp, at (n, 3) points of the resting head with normals."""
    style = STYLES[hair.style]
    x, y, z = rest.T
    side = np.sign(x - hair.parting + 1e-6)
    zero, one = np.zeros_like(x), np.ones_like(x)
    from_crown = rest - _CROWN
    match style.comb:
        case "whorl":
            ways = from_crown
        case "forward":
            ways = from_crown * [0.5, 0.8, 1.0] + np.column_stack([zero, zero, 0.7 * (y > 7.6)])
        case "back":
            ways = np.column_stack([0.25 * x, 0.1 * one, -one])
        case "quiff":
            front = np.clip((z - 0.3) / 0.8, 0, 1) * (y > 7.6)
            ways = np.column_stack([0.35 * np.sign(hair.parting) * one, 0.9 * front, 0.1 - 0.9 * (1 - front)])
            ways = np.where((y > 7.6)[:, None], ways, np.column_stack([zero, -one, -0.5 * one]))
        case "parted":
            ways = _sideways(side, x, y, z)
        case "swept":
            across = np.sign(hair.parting + 1e-6) * one
            ways = np.where(
                (y > 7.55)[:, None],
                np.column_stack([-across, -0.1 * one, 0.75 * np.clip(z, -0.3, 1)]),
                np.column_stack([zero, -one, 0.25 * np.sign(z - 0.3)]),
            )
        case "fringe":
            ways = _sideways(side, x, y, z)
            ways = np.where(_in_fringe(rest)[:, None], np.column_stack([0.35 * x, -0.25 * one, one]), ways)
        case "tied":
            ways = np.array(style.tie) - rest
    along = ways - (ways * outward).sum(1, keepdims=True) * outward
    return along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)


def _sideways(side, x, y, z):
    """Away from a parting on top of the head, and down at the sides and back."""
    top = np.clip((y - 7.55) / 0.4, 0, 1)
    front = np.clip((z + 0.1) / 0.6, 0, 1)
    across = side * top * (0.25 + 0.75 * front) + 0.12 * x
    return np.column_stack([across, -0.25 - 0.9 * (1 - top), -0.40 * front * top - 0.5 * (1 - front) * top])


def _in_fringe(rest):
    """Returns which roots belong to the bangs: those at the top front."""
    return (rest[:, 2] > 0.75) & (np.abs(rest[:, 0]) < 0.52) & (rest[:, 1] > 7.6)
