"""Realism of swaps: distances between two sets of images in a network's feature space.

FID: Heusel et al., "GANs trained by a two time-scale update rule", NeurIPS 2017, section 4. KID: Bińkowski et al.,
"Demystifying MMD GANs", ICLR 2018, section 4. Both papers use features of Inception with TensorFlow's 2015 weights.
Here they come from MobileNetV2 or, on request, Keras' InceptionV3, so figures are only comparable within this project.
"""

from pathlib import Path

import numpy as np
from scipy import linalg

from facedancer.core.files import atomic_path
from facedancer.core.images import to_signed
from facedancer.core.inference import runner

MOBILENET, INCEPTION = "mobilenet_v2", "inception_v3"
FEATURES = {
    MOBILENET: "MobileNetV2 (ImageNet), the mean of its last feature map",
    INCEPTION: "InceptionV3 (ImageNet, as Keras publishes it), the mean of its last feature map",
}


def build_features(name, image_size):
    """Builds a feature network, one of `FEATURES`: (n, S, S, 3) signed RGB -> (n, d).

    Raises:
        UserError: if its weights are unavailable.
    """
    import keras

    from facedancer.arcface_model import perceptual

    if name == INCEPTION:
        return perceptual.build_inception(image_size)
    maps = perceptual.build_perceptual_network(name, image_size)
    return keras.Model(maps.input, keras.layers.GlobalAveragePooling2D()(maps.output[-1]))


class Realism:
    """Features of targets and swaps, stored in files group by group, so that memory stays bounded.

    Args:
        folder: folder for the groups' files.
        network: model, (n, S, S, 3) signed RGB -> features (n, d), see `build_features`.
    """

    def __init__(self, folder, network):
        self._folder = Path(folder)
        self._run = runner(network)

    def add(self, group, targets, swaps):
        """Stores the features of one group: lists or arrays (n, S, S, 3) uint8."""
        targets, swaps = (self._run(to_signed(np.stack(faces))).astype(np.float64) for faces in (targets, swaps))
        with atomic_path(self._folder / f"{group:05d}.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, targets=targets, swaps=swaps)

    def summarize(self, groups):
        """Returns the FID over `groups` groups of swaps against their targets, and a list of each group's KID."""
        moments = {"targets": Moments(), "swaps": Moments()}
        kids = []
        for group in range(groups):
            with np.load(self._folder / f"{group:05d}.npz", allow_pickle=False) as found:
                pair = {name: found[name] for name in moments}
            for name, features in pair.items():
                moments[name].add(features)
            if len(pair["swaps"]) > 1:
                kids.append(kernel_distance(pair["targets"], pair["swaps"]))
        return frechet_distance(*moments["targets"].result(), *moments["swaps"].result()), kids


class Moments:
    """Running mean and covariance of features."""

    def __init__(self):
        self._count, self._sum, self._products = 0, 0.0, 0.0

    def add(self, features):
        """Adds features (n, d)."""
        features = np.asarray(features, np.float64)
        self._count += len(features)
        self._sum = self._sum + features.sum(0)
        self._products = self._products + features.T @ features

    def result(self):
        """Returns mean (d,) and unbiased covariance (d, d)."""
        mean = self._sum / self._count
        return mean, (self._products - self._count * np.outer(mean, mean)) / max(self._count - 1, 1)


def frechet_distance(mean_a, covariance_a, mean_b, covariance_b):
    """Returns the squared Fréchet distance of two normal distributions (Dowson and Landau, 1982)."""
    # The trace of (A B)^½ equals that of (A^½ B A^½)^½, whose matrices are symmetric, even if A or B is singular.
    root = _root(covariance_a)
    between = np.sqrt(np.clip(linalg.eigvalsh(root @ covariance_b @ root), 0, None)).sum()
    distance = np.sum((mean_a - mean_b) ** 2) + np.trace(covariance_a) + np.trace(covariance_b) - 2 * between
    return float(max(distance, 0.0))


def kernel_distance(a, b):
    """Returns the unbiased squared MMD of features (n, d) and (m, d), by the kernel (x y / d + 1)³."""
    within_a, within_b, between = (((x @ y.T) / x.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    found = (within_a.sum() - np.trace(within_a)) / (n * (n - 1)) + (within_b.sum() - np.trace(within_b)) / (
        m * (m - 1)
    )
    return float(found - 2 * between.mean())


def _root(covariance):
    values, vectors = linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
