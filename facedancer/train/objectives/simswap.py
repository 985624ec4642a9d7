"""SimSwap's objective (Chen et al., ACM Multimedia 2020), with the weights of its training code.

Batches of same-person pairs and of two-person pairs alternate (`--same_batches`). In the former the swap must equal the
target (reconstruction). In both it must have the source's identity, pass for real, and keep the features of a frozen
network near the target's. Only the last feature map is compared (weak feature matching), as earlier ones would keep the
target's identity. With the "patch" discriminator of the first training, features of all its layers are compared
instead.

Changed on purpose: the frozen network, whose features the projected discriminator also sees, is MobileNetV2; the
original has EfficientNet-Lite0. Both networks learn from the same batch; the original draws one for each. The identity
encoder sees the swap slightly shifted, scaled and sometimes mirrored. If a record has the true swap, `--truth_lambda`
compares with it; if it only has a mask of what a swap may change, everything else must stay the target's. A loss with
weight 0 is not computed.
"""

from dataclasses import dataclass

from facedancer.core.flags import flag
from facedancer.core.lazy import LazyModule
from facedancer.train.objectives.adversarial import GanWeights, deceiving_scales, judging_scales
from facedancer.train.objectives.lite import LITE

ops = LazyModule("keras.ops")
augment = LazyModule("facedancer.dataset.augment")
pairing = LazyModule("facedancer.dataset.pairing")
perceptual = LazyModule("facedancer.arcface_model.perceptual")
autodiff = LazyModule("facedancer.train.autodiff")
losses = LazyModule("facedancer.train.losses")

# Factors from differences in [-1, 1] to those of the original's images, which are normalized by ImageNet's deviations.
_TO_IMAGENET = (0.5 / 0.229, 0.5 / 0.224, 0.5 / 0.225)


@dataclass(frozen=True)
class Weights(GanWeights):
    """Weights of the losses, and their settings; names and defaults are the original's."""

    lambda_id: float = flag(30.0, "weight of the identity loss")
    lambda_feat: float = flag(10.0, "weight of feature matching")
    lambda_rec: float = flag(10.0, "weight of target reconstruction, in same-person pairs")
    lambda_gp: float = flag(0.0, "weight of WGAN's gradient penalty")
    lambda_r1: float = flag(0.0, "weight of R1, half the squared gradient at real images")

    @property
    def needs(self):
        """What the data must have, and why: name -> text."""
        return {} if self.lambda_id else {"truth": "--lambda_id is 0"}


_AS_PUBLISHED = {
    "arcface_path": "arcface_irse",
    "batch_size": 4,
    "lr": 4e-4,
    "lr_decay": 1.0,
    "same_ratio": 0.5,
    "same_batches": True,
}
# A preset's flags that differ from the defaults; flags on the command line override them.
PRESETS = {
    "simswap": _AS_PUBLISHED,
    "deep": _AS_PUBLISHED,
    "512": _AS_PUBLISHED,
    "lite": {
        **LITE,
        "truth_lambda": 10.0,
        "lambda_gan": 0.0,
        "lambda_id": 1.0,
        "lambda_feat": 1.0,
        "lambda_rec": 2.0,
    },
}


def build(config, frozen):
    """Builds the objective of a run.

    Args:
        config: `TrainConfig`.
        frozen: `session.Frozen`, the frozen networks that any family may use.
    """
    features = perceptual.build_perceptual_network("mobilenet_v2", config.image_size)
    return SimSwapObjective(frozen.encoder, features, config.network.discriminator == "patch", config.weights)


class SimSwapObjective:
    """Losses of a generator `swapped = G(target, source_embedding)`.

    Args:
        encoder: frozen model, faces (batch, S, S, 3) in [-1, 1] -> {"embedding": (batch, dim), …}.
        features: frozen model, faces (batch, S, S, 3) in [-1, 1] -> list of feature maps, the last four at strides 4,
            8, 16 and 32.
        judges_patches: whether the discriminator is a patch discriminator, which sees images instead of features.
        weights: `Weights`.

    Attributes:
        frozen: the frozen models that the losses use.
    """

    def __init__(self, encoder, features, judges_patches, weights):
        self.encoder = encoder
        self.features = features
        self.judges_patches = judges_patches
        self.weights = weights
        self.frozen = [encoder, features]

    def forward(self, networks, batch, training):
        """Swaps a batch: `target`, `source` (batch, S, S, 3) in [-1, 1] -> tensors by name."""
        source_embedding = self.encoder(batch["source"], training=False)["embedding"]
        swapped = networks["generator"]([batch["target"], source_embedding], training=training)
        return {"source_embedding": source_embedding, "swapped": swapped}

    def generator_losses(self, networks, batch, outputs, training):
        """Returns the weighted losses of the generator by name."""
        target, swapped, weights = batch["target"], outputs["swapped"], self.weights
        found = {}
        if weights.lambda_id:
            seen = self.encoder(augment.look_at(swapped, batch["views"]), training=False)["embedding"]
            found["identity"] = weights.lambda_id * ops.mean(losses.cosine_distance(seen, outputs["source_embedding"]))
        if weights.lambda_rec:
            factor = ops.convert_to_tensor(_TO_IMAGENET, "float32")
            target_scaled, swapped_scaled = factor * target, factor * swapped
            distance = losses.masked_l1(target_scaled, swapped_scaled, batch["is_same"])
            found["reconstruction"] = weights.lambda_rec * distance
            is_open = 1.0 - ops.maximum(batch["is_same"], batch["has_truth"])
            distance = losses.masked_l1(target_scaled, swapped_scaled, is_open, weight=1.0 - batch["mask"])
            found["background"] = weights.lambda_rec * distance
        discriminator = networks.get("discriminator")
        if discriminator and self.judges_patches:
            fake, real = (discriminator(self._in_unit(faces), training=training) for faces in (swapped, target))
            if weights.lambda_feat:
                scales = [losses.feature_matching(a, b) for a, b in zip(fake, real, strict=True)]
                found["features"] = weights.lambda_feat * sum(scales) / len(scales)
            logits = [scale[-1] for scale in fake]
        elif discriminator or weights.lambda_feat:
            fake = self.features(swapped, training=False)
            if weights.lambda_feat:
                wanted = self.features(target, training=False)[-1]
                found["features"] = weights.lambda_feat * ops.mean(ops.abs(fake[-1] - wanted))
            logits = [discriminator(fake[1:], training=training)] if discriminator else []
        if discriminator:
            found["adversarial"] = weights.lambda_gan * deceiving_scales(weights.gan_mode, logits)
        return found

    def discriminator_losses(self, networks, batch, swapped, training, step):
        """Returns the weighted losses of the discriminator by name, and its logits of `swapped` (batch, m).

        Real images are the targets.
        """
        discriminator, real, weights = networks["discriminator"], batch["target"], self.weights

        def judge(faces):
            if self.judges_patches:
                return [scale[-1] for scale in discriminator(self._in_unit(faces), training=training)]
            return [discriminator(self.features(faces, training=False)[1:], training=training)]

        def total(faces):
            return sum(ops.sum(scale) for scale in judge(faces))

        fake_logits, real_logits = judge(swapped), judge(real)
        judged = judging_scales(weights.gan_mode, real_logits, fake_logits)
        found = {"discriminator": weights.lambda_gan * judged}
        if weights.lambda_gp:
            # Uniform, from the batch's normally distributed shifts, so that a resumed run has the same numbers.
            share = 0.5 + 0.5 * ops.erf(batch["views"][:, 0] / (pairing.VIEW[0] * 2**0.5))[:, None, None, None]
            between = share * real + (1.0 - share) * swapped
            penalty = losses.unit_gradient_penalty(autodiff.input_gradient(total, between))
            found["gradient_penalty"] = weights.lambda_gp * penalty
        if weights.lambda_r1:
            penalty = losses.gradient_penalty(autodiff.input_gradient(total, real))
            found["r1"] = weights.lambda_r1 / 2.0 * penalty
        return found, ops.concatenate([ops.reshape(scale, (ops.shape(swapped)[0], -1)) for scale in fake_logits], 1)

    @staticmethod
    def _in_unit(faces):
        return (faces + 1.0) / 2.0
