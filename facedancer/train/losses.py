"""Losses as functions of tensors, in `keras.ops`. Each returns a scalar and carries no weight."""

from keras import ops


def cosine_distance(a, b):
    """1 - cosine similarity of each row, all other axes flattened: (batch, …), (batch, …) -> (batch,)."""
    a, b = (ops.reshape(x, (ops.shape(x)[0], -1)) for x in (a, b))
    a, b = (ops.normalize(x, axis=-1, epsilon=1e-6) for x in (a, b))
    return 1.0 - ops.sum(a * b, axis=-1)


def masked_l1(a, b, is_same):
    """Mean absolute difference over the pairs of one identity, the others counted as zero.

    Averaged over the whole batch, so that replicas may hold any share of those pairs.

    Args:
        a, b: (batch, H, W, C).
        is_same: (batch,) in {0, 1}.
    """
    return ops.mean(is_same * ops.mean(ops.abs(a - b), axis=(1, 2, 3)))


def generator_adversarial(fake_logits):
    """Non-saturating loss of the generator (Goodfellow et al., 2014): softplus(-D(fake))."""
    return ops.mean(ops.softplus(-fake_logits))


def discriminator_adversarial(real_logits, fake_logits):
    """softplus(-D(real)) + softplus(D(fake))."""
    return ops.mean(ops.softplus(-real_logits)) + ops.mean(ops.softplus(fake_logits))


def gradient_penalty(gradient):
    """Squared norm of the gradient at each real picture, averaged (R1: Mescheder et al., 2018, equation 9)."""
    return ops.mean(ops.sum(ops.square(gradient), axis=(1, 2, 3)))


def feature_similarity(target_features, swapped_features, margins, margin_scale):
    """IFSR (Rosberg et al., WACV 2023): keeps intermediate features near the target's, up to a margin.

    Args:
        target_features, swapped_features: dictionaries of (batch, …) features by tap.
        margins: tap -> m, the distance up to which a swap is free; its keys pick the taps.
        margin_scale: s, by which all margins are multiplied.

    Returns:
        Sum over the taps of max(0, mean distance - s m).
    """
    return sum(
        ops.relu(ops.mean(cosine_distance(target_features[tap], swapped_features[tap])) - margin_scale * margin)
        for tap, margin in margins.items()
    )
