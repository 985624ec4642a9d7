"""Losses as functions of tensors, in `keras.ops`. Each returns an unweighted scalar."""

import numpy as np
from keras import ops


def cosine_distance(a, b):
    """1 - cosine similarity of each row, all other axes flattened: (batch, …), (batch, …) -> (batch,)."""
    a, b = (ops.reshape(x, (ops.shape(x)[0], -1)) for x in (a, b))
    a, b = (ops.normalize(x, axis=-1, epsilon=1e-6) for x in (a, b))
    return 1.0 - ops.sum(a * b, axis=-1)


def masked_l1(a, b, is_counted, number=None, weight=1.0):
    """Mean absolute difference over the pairs that count; the others contribute zero.

    It is averaged over the whole batch, so replicas may hold any share of those pairs.

    Args:
        a, b: (batch, H, W, C).
        is_counted: (batch,) in {0, 1}.
        number: number of pairs in the whole batch, if `a` and `b` are a part of it.
        weight: (batch, H, W, 1), weight of each pixel, or a number.
    """
    number = ops.shape(a)[0] if number is None else number
    return ops.sum(is_counted * ops.mean(weight * ops.abs(a - b), axis=(1, 2, 3))) / ops.cast(number, "float32")


def difference(a, b):
    """Where two images (batch, S, S, 3) in [-1, 1] differ: (batch, S, S, 1), from 0 up to 1 at an eighth of the range.

    Smoothed over 5×5 pixels, since details of two images may coincide by chance.
    """
    apart = ops.minimum(4.0 * ops.mean(ops.abs(a - b), axis=-1, keepdims=True), 1.0)
    return ops.average_pool(apart, 5, 1, padding="same")


def true_swap_distance(batch, swapped, change_lambda):
    """Mean absolute difference in [0, 1] to the true swap, over the pairs that have one; the others contribute zero.

    Args:
        batch: `target`, `truth` (batch, S, S, 3) in [-1, 1], `has_truth` (batch,) in {0, 1}.
        swapped: (batch, S, S, 3) in [-1, 1].
        change_lambda: extra weight of pixels where truth and target differ.
    """
    weight = 1.0 + change_lambda * difference(batch["truth"], batch["target"])
    return masked_l1(batch["truth"], swapped, batch["has_truth"], weight=weight) / 2.0


def adversarial_by_slope(swapped, logits, slope):
    """Non-saturating loss of the generator (Goodfellow et al., 2014): mean softplus(-D(swapped)).

    The discriminator's own loss, mean softplus(D(swapped)), has already been differentiated through D. For each
    image with logit l, the derivative of this loss is -exp(-l) times that one, so no second pass through D is needed.

    Args:
        swapped: (batch, S, S, 3).
        logits: (batch, 1), D(swapped).
        slope: (batch, S, S, 3), gradient of mean softplus(D(swapped)) with respect to `swapped`.

    Returns:
        The loss; its gradient reaches `swapped` and the generator, but not D.
    """
    # Beyond 80 the exponential overflows float32.
    ratio = -ops.exp(ops.minimum(-ops.cast(logits, "float32"), 80.0))
    linear = ops.sum(ops.reshape(ratio, (-1, 1, 1, 1)) * ops.cast(slope, "float32") * swapped)
    return ops.mean(ops.softplus(-logits)) + (linear - ops.stop_gradient(linear))


def discriminator_adversarial(real_logits, fake_logits):
    """softplus(-D(real)) + softplus(D(fake))."""
    return ops.mean(ops.softplus(-real_logits)) + ops.mean(ops.softplus(fake_logits))


def judging(kind, logits, is_real):
    """A discriminator's loss for its logits of images that are all real or all swapped.

    Args:
        kind: "hinge" (Lim and Ye, 2017), "least_squares" (Mao et al., 2017), "original",
            the cross entropy (Goodfellow et al., 2014), or "wasserstein" (Arjovsky et al., 2017).
        logits: tensor of any shape.
        is_real: whether the images are real.
    """
    sign = 1.0 if is_real else -1.0
    match kind:
        case "hinge":
            return ops.mean(ops.relu(1.0 - sign * logits))
        case "least_squares":
            return ops.mean(ops.square(logits - float(is_real)))
        case "original":
            return ops.mean(ops.softplus(-sign * logits))
        case "wasserstein":
            return -sign * ops.mean(logits)
    raise ValueError(f"no adversarial loss is named {kind}")


def deceiving(kind, logits):
    """A generator's loss for a discriminator's logits of its images; arguments as for `judging`."""
    # Without the hinge, so that the generator still learns from images that already pass for real.
    return -ops.mean(logits) if kind == "hinge" else judging(kind, logits, is_real=True)


def feature_matching(features, wanted):
    """Mean absolute difference of a discriminator's features, averaged over its layers and times four.

    Wang et al., pix2pixHD, 2018, equation 3, with the factors of its code. The last layer, the logits, is skipped.

    Args:
        features, wanted: lists of (n, H, W, C).
    """
    pairs = zip(features[:-1], wanted[:-1], strict=True)
    distances = [ops.mean(ops.abs(ops.cast(a, "float32") - ops.cast(b, "float32"))) for a, b in pairs]
    return 4.0 * sum(distances) / len(distances)


def root_mean_square(values):
    """Mean over the batch of the root mean square of each row: (batch, dim) -> ()."""
    return ops.mean(ops.sqrt(ops.mean(ops.square(values), axis=-1) + 1e-12))


def unit_gradient_penalty(gradient):
    """Mean squared deviation of the gradient's norm at each image from 1 (WGAN-GP: Gulrajani et al., 2017)."""
    norms = ops.sqrt(ops.sum(ops.square(gradient), axis=(1, 2, 3)) + 1e-12)
    return ops.mean(ops.square(norms - 1.0))


def gradient_penalty(gradient):
    """Mean squared norm of the gradient at each real image (R1: Mescheder et al., 2018, equation 9)."""
    return ops.mean(ops.sum(ops.square(gradient), axis=(1, 2, 3)))


def feature_similarity(target_features, swapped_features, margins, margin_scale):
    """IFSR (Rosberg et al., WACV 2023): keeps intermediate features near the target's, up to a margin.

    Args:
        target_features, swapped_features: dictionaries of (batch, …) features by tap.
        margins: tap -> m, the distance up to which there is no loss; the keys select the taps.
        margin_scale: s, a factor on all margins.

    Returns:
        Sum over the taps of max(0, mean distance - s m).
    """
    return sum(
        ops.relu(ops.mean(cosine_distance(target_features[tap], swapped_features[tap])) - margin_scale * margin)
        for tap, margin in margins.items()
    )


def structural_similarity(a, b):
    """SSIM (Wang et al., 2004, equation 13) of images in [0, 1]: (batch, S, S, C) twice -> (batch,).

    Its window is a Gaussian of 11 pixels with standard deviation 1.5, and always lies within the image.
    """
    places = np.arange(11) - 5
    window = np.exp(-(places**2) / (2 * 1.5**2))
    window /= window.sum()

    def smoothed(x):
        rows, columns = (_sliding(window, size) for size in x.shape[1:3])
        return ops.einsum("xw,nywc->nyxc", columns, ops.einsum("yh,nhwc->nywc", rows, x))

    maps = ops.concatenate([a, b, a * a, b * b, a * b], axis=-1)
    mean_a, mean_b, square_a, square_b, product = ops.split(smoothed(maps), 5, axis=-1)
    covariance = product - mean_a * mean_b
    variances = square_a - mean_a**2 + square_b - mean_b**2
    small, smaller = 0.03**2, 0.01**2
    similarity = (2 * mean_a * mean_b + smaller) * (2 * covariance + small)
    similarity /= (mean_a**2 + mean_b**2 + smaller) * (variances + small)
    return ops.mean(similarity, axis=(1, 2, 3))


def _sliding(window, size):
    """Returns the matrix (size - n + 1, size) that slides a window of n numbers over a line of pixels."""
    matrix = np.zeros((size - len(window) + 1, size), np.float32)
    for place, row in enumerate(matrix):
        row[place : place + len(window)] = window
    return matrix


def perceptual_distance(features, wanted):
    """LPIPS (Zhang et al., CVPR 2018, equation 1) with equal weights: squared differences of unit feature vectors.

    Args:
        features, wanted: lists of feature maps (n, h, w, C).

    Returns:
        The sum over the maps of the mean over images and positions.
    """
    pairs = [
        [ops.normalize(ops.cast(x, "float32"), axis=-1, epsilon=1e-6) for x in pair]
        for pair in zip(features, wanted, strict=True)
    ]
    return sum(ops.mean(ops.sum(ops.square(a - b), axis=-1)) for a, b in pairs)
