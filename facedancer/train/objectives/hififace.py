"""HifiFace's losses (Wang et al., IJCAI 2021), as the unofficial PyTorch implementation weighs and averages them.

They are parts of an objective that does not exist yet: what looks at the pictures for them, the network of coefficients
and the parametric face, is in `arcface_model`. Pictures are in [0, 1] here, as there. Each loss is the sum of that of
the swap and that of the swap at a quarter of the size, which the generator gives beside it.
"""

from keras import ops

from facedancer.train.losses import cosine_distance, masked_l1

SHAPE_WEIGHT, IDENTITY_WEIGHT = 0.5, 5.0


def quarter(picture):
    """A picture at a quarter of the size, by bilinear samples: (n, H, W, C) -> (n, H/4, W/4, C)."""
    return ops.average_pool(picture[:, 1:-1, 1:-1], 2, 4)  # of four by four pixels the middle ones


def shape_loss(wanted, swapped, swapped_low):
    """How far landmarks are from those of the source's shape in the target's pose, in pixels of 224.

    Args:
        wanted, swapped, swapped_low: landmarks (n, 68, 2), of fused coefficients and of those of the swaps.
    """
    return ops.mean(ops.abs(wanted - swapped)) + ops.mean(ops.abs(wanted - swapped_low))


def identity_loss(source, swapped, swapped_low):
    """1 - cosine of embeddings (n, d) of the source and of the swaps."""
    return ops.mean(cosine_distance(source, swapped)) + ops.mean(cosine_distance(source, swapped_low))


def person_loss(shape, identity):
    """The weighted sum of `shape_loss` and `identity_loss`."""
    return SHAPE_WEIGHT * shape + IDENTITY_WEIGHT * identity


def mask_loss(face, mask, mask_low):
    """How far masks (n, H, W, 1), (n, H/4, W/4, 1) are from where the target's face is, (n, H, W, 1) in {0, 1}."""
    return ops.mean(ops.abs(face - mask)) + ops.mean(ops.abs(quarter(face) - mask_low))


def reconstruction_loss(target, swapped, swapped_low, is_same):
    """How far swaps are from the target where source and target are one picture, (n,) in {0, 1}."""
    return masked_l1(target, swapped, is_same) + masked_l1(quarter(target), swapped_low, is_same)


def cycle_loss(target, back):
    """How far the target is from what a swap becomes that is given the target's identity."""
    return ops.mean(ops.abs(target - back))
