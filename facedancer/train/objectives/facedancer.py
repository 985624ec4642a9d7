"""FaceDancer's objective (Rosberg et al., WACV 2023), with the weights of its training code.

Changed on purpose: the perceptual network sees images normalized as in its training (the original feeds VGG16 the
range [-1, 1]); its features are scaled back so that the weight means the same. The identity encoder sees each image
once, target and source together, where the original has separate passes for IFSR's features; without IFSR, it sees the
swap slightly shifted, scaled and sometimes mirrored. The discriminator sees the swapped faces once, for its own losses
and for the generator's. The perceptual network sees only the pairs that count. R1 is computed every few steps and
weighted by their number (lazy regularization: Karras et al., StyleGAN2, 2020, appendix B). A loss with weight 0 is not
computed.

The correct swap is known in two cases: if target and source show one person, it is the target; and a record may hold
the true swap. Reconstruction and perceptual losses compare with it, and pixels where it differs from the target weigh
more. If it is not known, only the target's pixels outside the record's mask are compared. For such pairs there are two
options. With `own_lambda`, the swap is used as a target, and swapping it back must return the original target: that
pair's truth is known, and it has no seams that would give it away. With `i_away`, the identity loss aims past the
source, away from the target, since a face halfway between the two looks like neither. With `e_lambda`, the swap's
expression and pose, by its landmarks, must match those of the true swap, or of the target if none is known.
"""

from dataclasses import dataclass
from typing import Annotated

import msgspec

from facedancer.core.console import UserError
from facedancer.core.flags import flag
from facedancer.core.lazy import LazyModule
from facedancer.core.schemas import read_json
from facedancer.train.objectives import adversarial
from facedancer.train.objectives.adversarial import AdversarialWeights
from facedancer.train.objectives.lite import LITE

keras = LazyModule("keras")
ops = LazyModule("keras.ops")
augment = LazyModule("facedancer.dataset.augment")
perceptual = LazyModule("facedancer.arcface_model.perceptual")
face_motion = LazyModule("facedancer.arcface_model.face_motion")
autodiff = LazyModule("facedancer.train.autodiff")
losses = LazyModule("facedancer.train.losses")

# Factors on the perceptual network's features. The original's 0.85 was for VGG16 on images in [-1, 1]; ours, on
# [0, 255], gives features 127.5 times as large.
PERCEPTUAL_SCALES = {"vgg16": 0.85 / 127.5, "mobilenet_v2": 0.85}


class _Margins(msgspec.Struct, frozen=True):
    """The file that `facedancer ifsr_calibrate` writes."""

    version: int
    encoder: str
    margins: dict[str, Annotated[float, msgspec.Meta(ge=0.0, le=2.0)]]


@dataclass(frozen=True)
class Weights(AdversarialWeights):
    """Weights of the losses, and their settings; the defaults are the paper's."""

    perceptual_network: str = flag("vgg16", "network of the perceptual loss", choices=("vgg16", "mobilenet_v2"))
    a_lambda: float = flag(1.0, "weight of the adversarial loss; 0 for no discriminator")
    r_lambda: float = flag(5.0, "weight of the reconstruction loss, which includes true swaps")
    own_lambda: float = flag(0.0, "weight of reconstructing targets from their own swaps, if no true swap is known")
    p_lambda: float = flag(0.2, "weight of the perceptual loss")
    i_lambda: float = flag(10.0, "weight of the identity loss")
    i_away: float = flag(0.0, "how far past the source, away from the target, identities aim if no true swap is known")
    e_lambda: float = flag(0.0, "weight of the distance in expression and pose")
    c_lambda: float = flag(1.0, "weight of the cycle loss")
    ifsr_lambda: float = flag(1.0, "weight of IFSR")
    ifsr_scale: float = flag(1.2, "factor on the margins of IFSR")
    ifsr_blocks: tuple[str, ...] | None = flag(
        None, "identity encoder layers for IFSR (default: the encoder's)", metavar="LAYER"
    )
    ifsr_margin: tuple[float, ...] | None = flag(None, "margins of these layers (default: the encoder's)")
    ifsr_margins: str | None = flag(None, "file of margins, written by `facedancer ifsr_calibrate`", metavar="FILE")
    p_blocks: tuple[int, ...] | None = flag(None, "levels of the perceptual network, counted from 1 (default: all)")

    def __post_init__(self):
        super().__post_init__()
        self.refuse_negative("own_lambda", "i_away", "e_lambda")
        if self.ifsr_blocks and self.ifsr_margin and len(self.ifsr_blocks) != len(self.ifsr_margin):
            raise UserError(f"{len(self.ifsr_margin)} --ifsr_margin for {len(self.ifsr_blocks)} --ifsr_blocks")

    @property
    def needs(self):
        """What the data must have, and why: name -> text."""
        if self.c_lambda or self.a_lambda or self.ifsr_lambda:
            return {}
        return {"truth": "--a_lambda, --c_lambda and --ifsr_lambda are 0"}


# A preset's flags that differ from the defaults; flags on the command line override them.
PRESETS = {
    "facedancer": {},
    "lite": {
        **LITE,
        "perceptual_network": "mobilenet_v2",
        "r_lambda": 10.0,
        "p_lambda": 0.5,
        "i_lambda": 1.0,
        "c_lambda": 0.0,
        "ifsr_lambda": 0.0,
        "a_lambda": 0.0,
    },
}


def build(config, frozen):
    """Builds the objective of a run.

    Args:
        config: `TrainConfig`.
        frozen: `session.Frozen`, the frozen networks that any family may use.

    Raises:
        UserError: if weights, margins or layers named by flags do not exist.
    """
    weights, identity = config.weights, frozen.identity
    margins = identity.ifsr_margins
    if weights.ifsr_margins:
        margins = read_margins(weights.ifsr_margins, identity.name, margins)
    return FaceDancerObjective(
        frozen.encoder,
        _build_perceptual(weights, config.image_size),
        PERCEPTUAL_SCALES[weights.perceptual_network],
        _pick_margins(weights, margins, frozen.encoder, config.arcface_path),
        weights,
        config.change_lambda,
        face_motion.build_face_motion(config.image_size, config.seen_factor) if weights.e_lambda else None,
        has_fixed_shapes=config.jit_compile,
    )


class FaceDancerObjective:
    """Losses of a generator `swapped = G(target, source_embedding)` against a discriminator.

    Args:
        encoder: frozen model, faces (batch, S, S, 3) in [-1, 1] -> {"embedding": (batch, dim), tap: features}.
        perceptual: frozen model, faces (batch, S, S, 3) in [-1, 1] -> list of feature maps.
        perceptual_scale: factor on the perceptual network's features.
        margins: tap of the encoder -> margin of IFSR.
        weights: `Weights`.
        change_lambda: extra weight of pixels where truth and target differ.
        motion: frozen model, faces (batch, S, S, 3) in [-1, 1] -> (batch, dim) expression and pose; None if
            `weights.e_lambda` is 0.
        has_fixed_shapes: whether networks must see whole batches, as compiled steps need.

    Attributes:
        frozen: the frozen models that the losses use.
    """

    def __init__(
        self,
        encoder,
        perceptual,
        perceptual_scale,
        margins,
        weights,
        change_lambda,
        motion=None,
        has_fixed_shapes=False,
    ):
        self.encoder = encoder
        self.perceptual = perceptual
        self.perceptual_scale = perceptual_scale
        self.margins = margins
        self.weights = weights
        self.change_lambda = change_lambda
        self.has_fixed_shapes = has_fixed_shapes
        self.motion = motion
        self.frozen = [encoder, perceptual, *([motion] if motion else [])]

    def forward(self, networks, batch, training):
        """Swaps a batch: `target`, `source` (batch, S, S, 3) in [-1, 1] -> tensors by name."""
        if self.weights.c_lambda or self.weights.ifsr_lambda or self.weights.i_away:
            pair = self.encoder(ops.concatenate([batch["target"], batch["source"]]), training=False)
            halves = {name: ops.split(features, 2) for name, features in pair.items()}
            target_features = {name: parts[0] for name, parts in halves.items()}
            source_embedding = halves["embedding"][1]
        else:
            target_features, source_embedding = None, self.encoder(batch["source"], training=False)["embedding"]
        swapped = networks["generator"]([batch["target"], source_embedding], training=training)
        return {"target_features": target_features, "source_embedding": source_embedding, "swapped": swapped}

    def generator_losses(self, networks, batch, outputs, training):
        """Returns the weighted losses of the generator by name."""
        target, swapped, weights = batch["target"], outputs["swapped"], self.weights
        has_truth = batch["has_truth"][:, None, None, None]
        wanted = has_truth * batch["truth"] + (1.0 - has_truth) * target
        is_known = ops.maximum(batch["has_truth"], batch["is_same"])
        weight = 1.0 + self.change_lambda * losses.difference(wanted, target)
        reconstruction = losses.masked_l1(wanted, swapped, is_known, weight=weight) / 2.0
        background = losses.masked_l1(target, swapped, 1.0 - is_known, weight=1.0 - batch["mask"]) / 2.0
        found = {
            "reconstruction": weights.r_lambda * ops.minimum(reconstruction, 5.0),
            "background": weights.r_lambda * background,
        }
        if weights.p_lambda:
            known, faces = self._rows_that_count(is_known, [wanted, swapped])
            distance = self._perceptual_distance(*faces, known, ops.shape(target)[0])
            found["perceptual"] = weights.p_lambda * distance
        # IFSR needs features at the target's positions; without it, the encoder may see another view.
        seen = swapped if weights.ifsr_lambda else augment.look_at(swapped, batch["views"])
        features = self.encoder(seen, training=False)
        aim = outputs["source_embedding"]
        if weights.i_away:
            away = weights.i_away * (1.0 - is_known)[:, None]
            aim += away * (aim - outputs["target_features"]["embedding"])
        distance = losses.cosine_distance(features["embedding"], aim)
        found["identity"] = weights.i_lambda * ops.mean(distance)
        if weights.ifsr_lambda:
            found["ifsr"] = weights.ifsr_lambda * losses.feature_similarity(
                outputs["target_features"], features, self.margins, weights.ifsr_scale
            )
        if weights.e_lambda:
            views = [self.motion(augment.look_at(faces, batch["views"]), training=False) for faces in (swapped, wanted)]
            found["expression"] = weights.e_lambda * losses.root_mean_square(views[0] - views[1])
        if weights.own_lambda:
            found["own_swaps"] = weights.own_lambda * self._own_swaps(networks, target, swapped, is_known, training)
        if weights.c_lambda:
            embedding = outputs["target_features"]["embedding"]
            cycled = networks["generator"]([swapped, embedding], training=training)
            found["cycle"] = weights.c_lambda * ops.mean(ops.abs(target - cycled))
        if "logits" in outputs:
            adversarial = losses.adversarial_by_slope(swapped, outputs["logits"], outputs["slope"])
            found["adversarial"] = weights.a_lambda * adversarial
        return found

    def discriminator_losses(self, networks, batch, swapped, training, step):
        """Returns the weighted losses of the discriminator by name, and its logits of `swapped` (batch, 1).

        Real images are the sources; see `adversarial.discriminator_losses`.
        """
        return adversarial.discriminator_losses(
            networks["discriminator"], batch["source"], swapped, training, step, self.weights.r1_every
        )

    def _own_swaps(self, networks, target, swapped, is_known, training):
        """Distance of targets from their swaps swapped back, over pairs without a known swap."""
        weights, number = self.weights, ops.shape(target)[0]
        # The first swap gets no gradient: otherwise it would learn to hide the target in itself.
        is_counted, (target, swapped) = self._rows_that_count(1.0 - is_known, [target, ops.stop_gradient(swapped)])
        embedding = self.encoder(target, training=False)["embedding"]
        back = networks["generator"]([swapped, embedding], training=training)
        weight = 1.0 + self.change_lambda * losses.difference(target, swapped)
        found = weights.r_lambda * losses.masked_l1(target, back, is_counted, number, weight) / 2.0
        if weights.p_lambda:
            found += weights.p_lambda * self._perceptual_distance(target, back, is_counted, number)
        return found

    def _perceptual_distance(self, wanted, swapped, is_counted, number):
        """Sum over the levels of the L1 distance of features (Johnson et al., 2016), over the pairs that count.

        `number` is the number of pairs in the whole batch.
        """
        maps = [self.perceptual(faces, training=False) for faces in (wanted, swapped)]
        return self.perceptual_scale * sum(
            losses.masked_l1(a, b, is_counted, number) for a, b in zip(*maps, strict=True)
        )

    def _rows_that_count(self, is_counted, tensors):
        """`autodiff.rows_that_count`, or all rows if shapes must be fixed."""
        return (is_counted, tensors) if self.has_fixed_shapes else autodiff.rows_that_count(is_counted, tensors)


def _build_perceptual(weights, image_size):
    network = perceptual.build_perceptual_network(weights.perceptual_network, image_size)
    if not weights.p_blocks:
        return network
    levels = len(network.outputs)
    if not all(1 <= level <= levels for level in weights.p_blocks):
        raise UserError(f"--p_blocks are numbers from 1 to {levels}, not {' '.join(map(str, weights.p_blocks))}")
    network = keras.Model(network.input, [network.outputs[level - 1] for level in weights.p_blocks])
    network.trainable = False
    return network


def _pick_margins(weights, margins, encoder, name):
    """Returns tap -> margin of IFSR: the encoder's own `margins`, overridden by flags."""
    blocks = weights.ifsr_blocks or tuple(margins)
    if unknown := [block for block in blocks if block not in encoder.output]:
        raise UserError(f"--ifsr_blocks: {unknown[0]} is not a tap of {name}; it has {', '.join(margins)}")
    picked = weights.ifsr_margin or tuple(margins[block] for block in blocks)
    if len(picked) != len(blocks):
        raise UserError(f"{len(picked)} --ifsr_margin for {len(blocks)} taps")
    return dict(zip(blocks, picked, strict=True))


def read_margins(path, encoder, taps):
    """Reads IFSR margins that `facedancer ifsr_calibrate` wrote.

    Args:
        path: the JSON file.
        encoder: name of the encoder that they must belong to.
        taps: the encoder's taps.

    Returns:
        Tap -> margin, in the order of `taps`.

    Raises:
        UserError: if the file is missing, not such a file, or for another encoder.
    """
    try:
        found = read_json(path, _Margins)
    except FileNotFoundError:
        raise UserError(f"--ifsr_margins {path} is not there; make it with `facedancer ifsr_calibrate`") from None
    except UserError as error:
        raise UserError(f"--ifsr_margins {error}; not what `facedancer ifsr_calibrate` writes") from None
    if found.encoder != encoder:
        raise UserError(f"--ifsr_margins {path}: for {found.encoder}, but the run's identity encoder is {encoder}")
    if found.version != 1 or found.margins.keys() != set(taps):
        raise UserError(f"--ifsr_margins {path}: not the margins of this version's {encoder}; make them again")
    return {tap: found.margins[tap] for tap in taps}
