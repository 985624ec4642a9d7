"""Exports of small networks, untrained, for the commands."""

import keras

from facedancer.core.card import ExportCard, write_card
from facedancer.core.weights import get_weights
from facedancer.models.facedancer import Config, build_generator


def write_small_export(folder):
    """Writes a FaceDancer for faces of 32 pixels and dlib's identities, with its card, into a new folder; its path."""
    for name in ("retinaface_mobilenet025", "dlib_resnet"):
        get_weights(name)
    keras.utils.set_random_seed(0)
    config = Config(
        image_size=32, embedding_dim=128, mapping_depth=1, mapping_size=8, widths=(4, 8), up_types=("affa", "concat"),
        discriminator_widths=(4, 8),
    )  # fmt: skip
    folder.mkdir()
    path = folder / "facedancer_0.h5"
    build_generator(config).save(path)
    card = ExportCard(
        "facedancer", image_size=32, embedding_dim=128, shrink_factor=0.86, identity_encoder="dlib_resnet"
    )
    write_card(folder, card)
    return path
