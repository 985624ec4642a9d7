"""HifiFace's objective (Wang et al., IJCAI 2021), weighted and averaged as in the unofficial PyTorch implementation.

The losses ask that a swap have the source's shape in the target's pose, measured by landmarks of its coefficients
(shape), and the source's identity (identity); that it equal the target if both show one person (reconstruction), and
become the target again when swapped back (cycle); that it look like the target to a perceptual network (perceptual),
and pass for real to discriminators at three scales (adversarial). Masks must cover the target's face (mask). Shape,
identity, mask and reconstruction apply to the full size and to the generator's quarter-size swap. Image differences are
measured in [0, 1].

Changed on purpose: the perceptual loss is LPIPS, whose files the user provides, or the same formula on MobileNetV2
without LPIPS's learned weights; it compares with the true swap, not the target, if a record has one. The identity
encoder sees the swap slightly shifted, scaled and sometimes mirrored. The encoder of coefficients sees the same crop in
training as in swapping. Both networks learn from one batch. A loss with weight 0 is not computed.
"""

from dataclasses import dataclass

from facedancer.core.flags import flag
from facedancer.core.lazy import LazyModule
from facedancer.train.objectives.adversarial import GanWeights, deceiving_scales, judging_scales
from facedancer.train.objectives.lite import LITE

ops = LazyModule("keras.ops")
augment = LazyModule("facedancer.dataset.augment")
lpips = LazyModule("facedancer.arcface_model.lpips")
perceptual = LazyModule("facedancer.arcface_model.perceptual")
face_shapes = LazyModule("facedancer.arcface_model.face_shapes")
layers = LazyModule("facedancer.models.layers")
losses = LazyModule("facedancer.train.losses")


@dataclass(frozen=True)
class Weights(GanWeights):
    """Weights of the losses; the defaults are the original's."""

    lambda_shape: float = flag(0.5, "weight of the distance to the source's 3D shape, in pixels of a 224-pixel face")
    lambda_id: float = flag(5.0, "weight of the identity loss")
    lambda_mask: float = flag(100.0, "weight of the distance between predicted masks and the records' masks")
    lambda_rec: float = flag(20.0, "weight of target reconstruction, in same-person pairs")
    lambda_cyc: float = flag(1.0, "weight of the cycle loss")
    lambda_lpips: float = flag(5.0, "weight of the perceptual loss")
    perceptual_network: str = flag(
        "lpips",
        "network of the perceptual loss: LPIPS on VGG16, from files you provide, or the same loss on MobileNetV2",
        choices=("lpips", "mobilenet_v2"),
    )

    @property
    def needs(self):
        """What the data must have, and why: name -> text."""
        found = {}
        if not (self.lambda_id or self.lambda_shape):
            found["truth"] = "--lambda_id and --lambda_shape are 0"
        if self.lambda_mask:
            found["masks"] = "--lambda_mask"
        return found


# A preset's flags that differ from the defaults; flags on the command line override them.
PRESETS = {
    "hififace": {
        "arcface_path": "insightface_r100",
        "batch_size": 16,
        "beta_2": 0.999,
        "lr_decay": 1.0,
        "same_ratio": 0.5,
    },
    "lite": {
        **LITE,
        "truth_lambda": 10.0,
        "lambda_gan": 0.0,
        "lambda_shape": 0.05,
        "lambda_id": 0.5,
        "lambda_mask": 1.0,
        "lambda_rec": 4.0,
        "lambda_cyc": 0.0,
        "lambda_lpips": 0.2,
        "perceptual_network": "mobilenet_v2",
    },
}


def build(config, frozen):
    """Builds the objective of a run.

    Args:
        config: `TrainConfig`.
        frozen: `session.Frozen`, the frozen networks that any family may use.

    Raises:
        UserError: if the files of LPIPS are missing.
    """
    features = None
    if config.weights.lambda_lpips:
        if config.weights.perceptual_network == "lpips":
            features = lpips.load_lpips(config.image_size)
        else:
            features = perceptual.build_perceptual_network("mobilenet_v2", config.image_size)
    return HifiFaceObjective(frozen.encoder, frozen.face_shapes, features, config.weights)


class HifiFaceObjective:
    """Losses of a generator of `models.hififace`.

    Args:
        encoder: frozen model, faces (batch, S, S, 3) in [-1, 1] -> {"embedding": (batch, dim), …}.
        shapes: `face_shapes.FaceShapes`.
        features: frozen model: LPIPS, or faces (batch, S, S, 3) in [-1, 1] -> list of feature maps; None if
            `weights.lambda_lpips` is 0.
        weights: `Weights`.

    Attributes:
        frozen: the frozen models that the losses use.
    """

    def __init__(self, encoder, shapes, features, weights):
        self.encoder, self.shapes, self.features, self.weights = encoder, shapes, features, weights
        self.frozen = [encoder, *shapes.models, *([features] if features else [])]

    def forward(self, networks, batch, training):
        """Swaps a batch: `target`, `source` (batch, S, S, 3) in [-1, 1] -> tensors by name."""
        embedding = self.encoder(batch["source"], training=False)["embedding"]
        inputs = face_shapes.swapper_inputs(self.shapes, batch["target"], batch["source"], embedding)
        source, target = inputs[2:]
        outputs = networks["generator"](inputs, training=training)
        return {**outputs, "source_embedding": embedding, "source_coefficients": source, "target_coefficients": target}

    def generator_losses(self, networks, batch, outputs, training):
        """Returns the weighted losses of the generator by name."""
        weights = self.weights
        target, swapped, swapped_low = (
            _in_unit(x) for x in (batch["target"], outputs["swapped"], outputs["swapped_low"])
        )
        # The encoders see the small swap at full size.
        enlarged = ops.image.resize(outputs["swapped_low"], batch["target"].shape[1:3], interpolation="bilinear")
        both = (outputs["swapped"], enlarged)
        found = {}
        if weights.lambda_shape or weights.lambda_cyc:
            coefficients = [self.shapes.coefficients(faces) for faces in both[: 2 if weights.lambda_shape else 1]]
        if weights.lambda_shape:
            wanted = layers.fuse_coefficients(
                outputs["source_coefficients"], outputs["target_coefficients"], self.shapes.shape_dim
            )
            landmarks = [self.shapes.landmarks(values) for values in (wanted, *coefficients)]
            found["shape"] = weights.lambda_shape * shape_loss(*landmarks)
        if weights.lambda_id:
            seen = [self.encoder(augment.look_at(faces, batch["views"]), training=False)["embedding"] for faces in both]
            found["identity"] = weights.lambda_id * identity_loss(outputs["source_embedding"], *seen)
        if weights.lambda_mask:
            found["mask"] = weights.lambda_mask * mask_loss(batch["mask"], outputs["mask"], outputs["mask_low"])
        if weights.lambda_rec:
            distance = reconstruction_loss(target, swapped, swapped_low, batch["is_same"])
            found["reconstruction"] = weights.lambda_rec * distance
        if weights.lambda_cyc:
            own = self.encoder(batch["target"], training=False)["embedding"]
            inputs = [outputs["swapped"], own, outputs["target_coefficients"], coefficients[0]]
            back = networks["generator"](inputs, training=training)["swapped"]
            found["cycle"] = weights.lambda_cyc * cycle_loss(target, _in_unit(back))
        if weights.lambda_lpips:
            has_truth = batch["has_truth"][:, None, None, None]
            wanted = has_truth * batch["truth"] + (1.0 - has_truth) * batch["target"]
            found["perceptual"] = weights.lambda_lpips * self._perceptual_distance(wanted, outputs["swapped"])
        if "discriminator" in networks:
            logits = [scale[-1] for scale in networks["discriminator"](outputs["swapped"], training=training)]
            found["adversarial"] = weights.lambda_gan * deceiving_scales(weights.gan_mode, logits)
        return found

    def _perceptual_distance(self, wanted, swapped):
        if self.weights.perceptual_network == "lpips":
            return ops.mean(self.features([wanted, swapped], training=False)["distance"])
        maps = [self.features(faces, training=False) for faces in (wanted, swapped)]
        return losses.perceptual_distance(*maps)

    def discriminator_losses(self, networks, batch, swapped, training, step):
        """Returns the weighted losses of the discriminator by name, and its logits of `swapped` (batch, m).

        Real images are the targets.
        """
        real, fake = (
            [scale[-1] for scale in networks["discriminator"](faces, training=training)]
            for faces in (batch["target"], swapped)
        )
        found = {"discriminator": self.weights.lambda_gan * judging_scales(self.weights.gan_mode, real, fake)}
        return found, ops.concatenate([ops.reshape(scale, (ops.shape(swapped)[0], -1)) for scale in fake], 1)


def _in_unit(faces):
    return (faces + 1.0) / 2.0


def quarter(picture):
    """Scales images to a quarter of their size by bilinear sampling: (n, H, W, C) -> (n, H/4, W/4, C)."""
    return ops.average_pool(picture[:, 1:-1, 1:-1], 2, 4)  # the middle 2×2 of each 4×4 pixels


def shape_loss(wanted, swapped, swapped_low):
    """Mean distance of landmarks from those of the source's shape in the target's pose, in pixels of a 224-pixel face.

    Args:
        wanted, swapped, swapped_low: landmarks (n, 68, 2) of the fused coefficients and of the two swaps.
    """
    return ops.mean(ops.abs(wanted - swapped)) + ops.mean(ops.abs(wanted - swapped_low))


def identity_loss(source, swapped, swapped_low):
    """1 - cosine similarity of the source's and the swaps' embeddings (n, d), summed over the two swaps."""
    return ops.mean(losses.cosine_distance(source, swapped)) + ops.mean(losses.cosine_distance(source, swapped_low))


def mask_loss(face, mask, mask_low):
    """Distance of masks (n, H, W, 1) and (n, H/4, W/4, 1) from that of the target's face, (n, H, W, 1) in [0, 1]."""
    return ops.mean(ops.abs(face - mask)) + ops.mean(ops.abs(quarter(face) - mask_low))


def reconstruction_loss(target, swapped, swapped_low, is_same):
    """Distance of swaps from the target over same-person pairs; `is_same` (n,) in {0, 1}."""
    return losses.masked_l1(target, swapped, is_same) + losses.masked_l1(quarter(target), swapped_low, is_same)


def cycle_loss(target, back):
    """Distance of the target from its swap swapped back, both (n, H, W, C)."""
    return ops.mean(ops.abs(target - back))
