"""Adversarial losses that families share, and their flags.

FaceDancer and ReSwapper have one discriminator with softplus losses and a lazy R1 penalty (Mescheder et al., 2018),
computed every few steps and weighted by their number (Karras et al., StyleGAN2, 2020, appendix B). SimSwap and HifiFace
have discriminators at several scales, with a choice of losses.
"""

from dataclasses import dataclass

from facedancer.core.console import UserError
from facedancer.core.flags import flag
from facedancer.core.lazy import LazyModule

ops = LazyModule("keras.ops")
autodiff = LazyModule("facedancer.train.autodiff")
losses = LazyModule("facedancer.train.losses")

GRADIENT_PENALTY_WEIGHT = 10.0
# Kinds of `losses.judging`.
GAN_MODES = ("hinge", "least_squares", "original", "wasserstein")


@dataclass(frozen=True)
class AdversarialWeights:
    """Flags of the discriminator; a family's `Weights` adds its own."""

    a_lambda: float = flag(0.0, "weight of the adversarial loss; 0 for no discriminator")
    r1_every: int = flag(16, "steps between R1 penalties; each is weighted by this number")

    def __post_init__(self):
        if self.r1_every < 1:
            raise UserError(f"--r1_every must be at least 1, not {self.r1_every}")
        self.refuse_negative("a_lambda")

    def refuse_negative(self, *names):
        """Raises `UserError` if one of these flags is below 0."""
        for name in names:
            if getattr(self, name) < 0:
                raise UserError(f"--{name} must not be negative, not {getattr(self, name)}")

    @property
    def is_adversarial(self):
        """Whether there is a discriminator."""
        return bool(self.a_lambda)

    @property
    def period(self):
        """Steps after which the work of a step repeats."""
        return self.r1_every if self.a_lambda else 1


@dataclass(frozen=True)
class GanWeights:
    """Flags of families whose authors name weights `lambda_<loss>`; a family's `Weights` adds its own."""

    gan_mode: str = flag("hinge", "kind of the adversarial loss", choices=GAN_MODES)
    lambda_gan: float = flag(1.0, "weight of the adversarial loss; 0 for no discriminator")

    def __post_init__(self):
        for name, value in vars(self).items():
            if name.startswith("lambda_") and value < 0:
                raise UserError(f"--{name} must not be negative, not {value}")

    @property
    def is_adversarial(self):
        """Whether there is a discriminator."""
        return bool(self.lambda_gan)

    @property
    def period(self):
        """Steps after which the work of a step repeats."""
        return 1


def discriminator_losses(discriminator, real, swapped, training, step, every):
    """Computes the losses of the discriminator.

    Args:
        discriminator: model, faces -> logits (batch, 1).
        real, swapped: (batch, S, S, 3) in [-1, 1].
        training: whether the discriminator is trained.
        step: number of the step, a scalar tensor.
        every: steps between R1 penalties.

    Returns:
        The losses by name, and the logits of `swapped`. `r1` is 0 in steps that skip it, and weighted by `every` in the
        others.
    """
    fake_logits = discriminator(swapped, training=training)
    real_logits = discriminator(real, training=training)

    def penalty():
        gradient = autodiff.input_gradient(lambda x: discriminator(x, training=training), real)
        return every * GRADIENT_PENALTY_WEIGHT / 2.0 * losses.gradient_penalty(gradient)

    r1 = penalty() if every == 1 else ops.cond(ops.equal(step % every, 0), penalty, lambda: ops.zeros((), "float32"))
    return {"discriminator": losses.discriminator_adversarial(real_logits, fake_logits), "r1": r1}, fake_logits


def deceiving_scales(kind, scales):
    """The generator's loss: the mean over a list of logits, one per scale; `kind` as for `losses.judging`."""
    return sum(losses.deceiving(kind, logits) for logits in scales) / len(scales)


def judging_scales(kind, real, fake):
    """The discriminator's loss: the mean over lists of logits of real and of swapped images, one per scale."""
    found = [
        losses.judging(kind, logits, is_real) for scales, is_real in ((real, True), (fake, False)) for logits in scales
    ]
    return sum(found) / len(real)
