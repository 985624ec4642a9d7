"""FaceDancer's objective (Rosberg et al., WACV 2023), with the weights of its training code.

Changed on purpose: the perceptual network sees pictures as it was trained on them (the original feeds VGG16 the range
[-1, 1]); its features are scaled back so that the weight means the same. The identity encoder sees each picture once,
target and source together, where the original has passes of its own for the features of IFSR. The discriminator sees
the swapped faces once, for its own losses and for the generator's. The perceptual network sees the pairs that count.
R1 is taken every few steps, and weighs that many times as much (lazy regularisation: Karras et al., StyleGAN2, 2020,
appendix B).
"""

from keras import ops

from facedancer.train import losses
from facedancer.train.autodiff import input_gradient, rows_that_count

GRADIENT_PENALTY_WEIGHT = 10.0

# On the features of the perceptual network. The original's 0.85, which for VGG16 met features of [-1, 1], where ours,
# of [0, 255], are 127.5 times as large.
PERCEPTUAL_SCALES = {"vgg16": 0.85 / 127.5, "mobilenet_v2": 0.85}


class FaceDancerObjective:
    """Losses of a generator `swapped = G(target, source_embedding)` against a discriminator.

    Args:
        encoder: frozen model, faces [-1, 1] -> {"embedding": (batch, dim), tap: features}.
        perceptual: frozen model, faces [-1, 1] -> list of feature maps.
        perceptual_scale: factor on the features of the perceptual network.
        margins: tap of the encoder -> margin of IFSR.
        weights: object with `r_lambda`, `p_lambda`, `i_lambda`, `c_lambda`, `ifsr_lambda` and `ifsr_scale`;
            `truth_lambda`, of the distance to the true swap where a batch carries it; `r1_every`, steps; `jit_compile`,
            whether shapes must be fixed.

    Attributes:
        frozen: the models that it looks through.
    """

    def __init__(self, encoder, perceptual, perceptual_scale, margins, weights):
        self.encoder = encoder
        self.perceptual = perceptual
        self.perceptual_scale = perceptual_scale
        self.margins = margins
        self.weights = weights
        self.frozen = [encoder, perceptual]

    def forward(self, networks, batch, training):
        """Swaps a batch: `target`, `source` (batch, S, S, 3) in [-1, 1] -> tensors by name."""
        pair = self.encoder(ops.concatenate([batch["target"], batch["source"]]), training=False)
        target_features, source_features = {}, {}
        for name, features in pair.items():
            target_features[name], source_features[name] = ops.split(features, 2)
        source_embedding = source_features["embedding"]
        swapped = networks["generator"]([batch["target"], source_embedding], training=training)
        return {"target_features": target_features, "source_embedding": source_embedding, "swapped": swapped}

    def generator_losses(self, networks, batch, outputs, training):
        """Returns the weighted losses of the generator by name."""
        target, is_same, swapped = batch["target"], batch["is_same"], outputs["swapped"]
        target_features, weights = outputs["target_features"], self.weights
        swapped_features = self.encoder(swapped, training=False)
        cycled = networks["generator"]([swapped, target_features["embedding"]], training=training)
        identity = ops.mean(losses.cosine_distance(swapped_features["embedding"], outputs["source_embedding"]))
        reconstruction = ops.minimum(losses.masked_l1(target, swapped, is_same) / 2.0, 5.0)
        found = {
            "adversarial": losses.adversarial_by_slope(swapped, outputs["logits"], outputs["slope"]),
            "reconstruction": weights.r_lambda * reconstruction,
            "identity": weights.i_lambda * identity,
            "cycle": weights.c_lambda * ops.mean(ops.abs(target - cycled)),
            "perceptual": weights.p_lambda * self._perceptual_distance(target, swapped, is_same),
            "ifsr": weights.ifsr_lambda
            * losses.feature_similarity(target_features, swapped_features, self.margins, weights.ifsr_scale),
        }
        if "truth" in batch:
            distance = losses.masked_l1(batch["truth"], swapped, batch["has_truth"]) / 2.0
            found["truth"] = weights.truth_lambda * distance
        return found

    def discriminator_losses(self, networks, batch, swapped, training, step):
        """Returns the weighted losses of the discriminator by name, and its logits of `swapped` (batch, 1).

        Real pictures are the sources.

        `step` is the number of the step, a scalar tensor. `r1` is 0 in the steps that leave it out, and in the others
        as much more.
        """
        discriminator, real = networks["discriminator"], batch["source"]
        fake_logits = discriminator(swapped, training=training)
        real_logits = discriminator(real, training=training)

        def penalty():
            gradient = input_gradient(lambda x: discriminator(x, training=training), real)
            return every * GRADIENT_PENALTY_WEIGHT / 2.0 * losses.gradient_penalty(gradient)

        every = self.weights.r1_every
        if every == 1:
            r1 = penalty()
        else:
            r1 = ops.cond(ops.equal(step % every, 0), penalty, lambda: ops.zeros((), "float32"))
        return {"discriminator": losses.discriminator_adversarial(real_logits, fake_logits), "r1": r1}, fake_logits

    def _perceptual_distance(self, target, swapped, is_same):
        """Sum over the levels of the L1 distance of features, over pairs of one identity (Johnson et al., 2016)."""
        number = ops.shape(target)[0]
        if not self.weights.jit_compile:
            is_same, (target, swapped) = rows_that_count(is_same, [target, swapped])
        target_maps = self.perceptual(target, training=False)
        swapped_maps = self.perceptual(swapped, training=False)
        return self.perceptual_scale * sum(
            losses.masked_l1(a, b, is_same, number) for a, b in zip(target_maps, swapped_maps, strict=True)
        )
