"""The autoencoder's objective: each person's decoder reconstructs their face from the code of the warped one.

As in faceswap-pytorch, the losses are the mean absolute difference in [0, 1] and the difference of the absolute steps
between neighboring pixels, vertically and horizontally. Changed on purpose: one optimizer trains the encoder and all
decoders, where the original keeps separate encoder states per person. A decoder whose person is not in the batch gets
no gradient.
"""

from dataclasses import dataclass

from facedancer.core.console import UserError
from facedancer.core.flags import flag
from facedancer.core.lazy import LazyModule

ops = LazyModule("keras.ops")
autodiff = LazyModule("facedancer.train.autodiff")


@dataclass(frozen=True)
class Weights:
    """Weights of the losses, and the order of people; the defaults are the original's."""

    r_lambda: float = flag(1.0, "weight of the mean absolute difference")
    edge_lambda: float = flag(
        1.0, "weight of the edge loss, on differences between neighboring pixels; 0 in AE64 and AE128"
    )
    inner_loop: int = flag(100, "batches of one person before the next person's turn")
    log_interval: int | None = flag(
        None, "rounds of all people between checkpoints, validations and sample images, in place of steps"
    )

    def __post_init__(self):
        if self.inner_loop < 1 or (self.log_interval is not None and self.log_interval < 1):
            raise UserError("--inner_loop and --log_interval must be at least 1")

    @property
    def is_adversarial(self):
        """Whether there is a discriminator."""
        return False

    @property
    def period(self):
        """Steps after which the work of a step repeats."""
        return 1

    @property
    def needs(self):
        """What training cannot do without, and why: name -> text."""
        return {"people": "each person has a decoder"}


# A preset's flags that differ from the defaults; flags on the command line override them.
_ORIGINAL = {"batch_size": 64, "lr": 5e-5, "beta_1": 0.5, "beta_2": 0.999, "lr_decay": 1.0, "shrink_factor": 0.7,
             "arcface_path": "dlib_resnet"}  # fmt: skip
PRESETS = {
    "autoencoder": _ORIGINAL,
    "ae64": {**_ORIGINAL, "edge_lambda": 0.0},
    "ae128": {**_ORIGINAL, "edge_lambda": 0.0},
    "lite": {**_ORIGINAL, "batch_size": 16, "lr": 5e-4, "inner_loop": 1, "save_every": 500, "eval_every": 500},
}


def build(config, frozen):
    """Builds the objective of a run; `frozen` is not used."""
    return AutoencoderObjective(config.weights, has_fixed_shapes=config.jit_compile)


class AutoencoderObjective:
    """Losses of `decoder(encoder(warped))`, with the decoder of each face's person.

    Args:
        weights: `Weights`.
        has_fixed_shapes: whether networks must see whole batches, as compiled steps need.

    Attributes:
        frozen: none.
    """

    def __init__(self, weights, has_fixed_shapes=False):
        self.weights = weights
        self.has_fixed_shapes = has_fixed_shapes
        self.frozen = []

    def forward(self, networks, batch, training):
        """Encodes and decodes a batch: `warped` (batch, S, S, 3) in [-1, 1] and `people` -> tensors by name.

        Returns `swapped` (batch, S, S, 3), each face by its own person's decoder, 0 if there is none; and `has_decoder`
        (batch,) in {0, 1}.
        """
        encoded = networks["encoder"](batch["warped"], training=training)
        person, decoders = batch["people"][:, 0], len(networks) - 1
        faces = ops.zeros_like(batch["target"])
        for number in range(decoders):
            is_own = ops.cast(ops.equal(person, float(number)), "float32")
            decoder = networks[f"decoder{number}"]
            if self.has_fixed_shapes:
                faces = faces + is_own[:, None, None, None] * decoder(encoded, training=training)
                continue
            rows = ops.arange(ops.shape(person)[0], dtype="int32")
            counted, (some, rows) = autodiff.rows_that_count(is_own, [encoded, rows])
            own = counted[:, None, None, None] * decoder(some, training=training)
            faces = faces + ops.scatter(rows[:, None], own, ops.shape(faces))
        has_decoder = ops.cast(ops.logical_and(person >= 0, person < decoders), "float32")
        return {"swapped": faces, "has_decoder": has_decoder}

    def generator_losses(self, networks, batch, outputs, training):
        """Returns the weighted losses by name."""
        counted = outputs["has_decoder"][:, None, None, None]
        faces, target = (counted * (picture + 1.0) / 2.0 for picture in (outputs["swapped"], batch["target"]))
        found = {"reconstruction": self.weights.r_lambda * ops.mean(ops.abs(faces - target))}
        if self.weights.edge_lambda:
            found["edges"] = self.weights.edge_lambda * edge_distance(faces, target)
        return found


def edge_distance(a, b):
    """Mean difference of the absolute steps between neighboring pixels, vertically plus horizontally.

    Args:
        a, b: (n, H, W, C).
    """

    def steps(x):
        return ops.abs(x[:, 1:] - x[:, :-1]), ops.abs(x[:, :, 1:] - x[:, :, :-1])

    return sum(ops.mean(ops.abs(one - other)) for one, other in zip(steps(a), steps(b), strict=True))
