"""FaceDancer's objective (Rosberg et al., WACV 2023), with the weights of its training code.

Changed on purpose: the perceptual network sees pictures as it was trained on them (the original feeds VGG16 the range
[-1, 1]); its features are scaled back so that the weight means the same. The identity encoder sees each picture once,
target and source together, where the original has passes of its own for the features of IFSR; without IFSR it looks at
the swap a little shifted, scaled and at times mirrored. The discriminator sees the swapped faces once, for its own
losses and for the generator's. The perceptual network sees the pairs that count. R1 is taken every few steps, and
weighs that many times as much (lazy regularisation: Karras et al., StyleGAN2, 2020, appendix B). A loss with weight 0
is not computed.

What a swap should be is known where target and source show one identity, which is the target, and where a record
carries the true swap: reconstruction and perceptual loss compare with it, the pixels where it differs from the target
more heavily. Where it is not known, the target's pixels outside the record's mask are. With `own_lambda` such a swap is
then taken for a target itself, and is to give the first target back: a pair whose truth is known again, and which has
no seams to be seen by.
"""

from keras import ops

from facedancer.dataset.augment import look_at
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
        weights: object with the weights `r_lambda`, `p_lambda`, `i_lambda`, `c_lambda`, `a_lambda`, `own_lambda` (of
            giving targets back from their swaps) and `ifsr_lambda`; `ifsr_scale`; `change_lambda`, by how much pixels
            weigh more where truth and target differ; `r1_every`, steps; `jit_compile`, whether shapes must be fixed.

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
        if self.weights.c_lambda or self.weights.ifsr_lambda:
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
        weight = 1.0 + weights.change_lambda * losses.difference(wanted, target)
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
        # Features for IFSR must lie where the target's do; without it the encoder may look from elsewhere.
        seen = swapped if weights.ifsr_lambda else look_at(swapped, batch["views"])
        features = self.encoder(seen, training=False)
        distance = losses.cosine_distance(features["embedding"], outputs["source_embedding"])
        found["identity"] = weights.i_lambda * ops.mean(distance)
        if weights.ifsr_lambda:
            found["ifsr"] = weights.ifsr_lambda * losses.feature_similarity(
                outputs["target_features"], features, self.margins, weights.ifsr_scale
            )
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

    def _own_swaps(self, networks, target, swapped, is_known, training):
        """How far targets are from what their swaps give back, over pairs whose swap is not known."""
        weights, number = self.weights, ops.shape(target)[0]
        # The first swap is taken for a picture: otherwise it would learn to hide the target in itself.
        is_counted, (target, swapped) = self._rows_that_count(1.0 - is_known, [target, ops.stop_gradient(swapped)])
        embedding = self.encoder(target, training=False)["embedding"]
        back = networks["generator"]([swapped, embedding], training=training)
        weight = 1.0 + weights.change_lambda * losses.difference(target, swapped)
        found = weights.r_lambda * losses.masked_l1(target, back, is_counted, number, weight) / 2.0
        if weights.p_lambda:
            found += weights.p_lambda * self._perceptual_distance(target, back, is_counted, number)
        return found

    def _perceptual_distance(self, wanted, swapped, is_counted, number):
        """Sum over the levels of the L1 distance of features (Johnson et al., 2016), over the pairs that count.

        `number` is that of the pairs in the whole batch.
        """
        maps = [self.perceptual(faces, training=False) for faces in (wanted, swapped)]
        return self.perceptual_scale * sum(
            losses.masked_l1(a, b, is_counted, number) for a, b in zip(*maps, strict=True)
        )

    def _rows_that_count(self, is_counted, tensors):
        """As `autodiff.rows_that_count`, unless shapes must be fixed."""
        return (is_counted, tensors) if self.weights.jit_compile else rows_that_count(is_counted, tensors)
