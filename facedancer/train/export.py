"""Export: `<export_dir>/<log_name>/facedancer_<step>` in all formats, with `card.json` beside them."""

import hashlib
from pathlib import Path

from facedancer.core.card import ExportCard, write_card
from facedancer.core.files import atomic_path
from facedancer.core.keras_h5 import save_keras_h5
from facedancer.models.keras2 import is_originals, save_keras2_h5
from facedancer.models.onnx_export import save_onnx


def export_swapper(swapper, folder, *, family, step, shrink_factor, identity_encoder, training, licence, onnx=True):
    """Writes a trained swapper in all formats.

    Args:
        swapper: model with inputs `target` (n, S, S, 3) in [-1, 1] and `source_embedding` (n, dim).
        folder: where to.
        family, step, shrink_factor, identity_encoder, training, licence: for the card (`core.card.ExportCard`).
        onnx: whether ONNX is among them; Keras writes it on TensorFlow alone.

    Returns:
        List of the paths written: `.h5`, `.keras`, `.onnx`, and, of a network that the original knows, `_keras2.h5`,
        which its scripts read.
    """
    names = (f"{family}_{step}{ending}" for ending in (".h5", ".keras", ".onnx", "_keras2.h5"))
    paths = [Path(folder) / name for name in names]
    save_keras_h5(swapper, paths[0])
    with atomic_path(paths[1]) as temporary:
        swapper.save(temporary)
    if onnx:
        save_onnx(swapper, paths[2])
    if is_originals(swapper):
        save_keras2_h5(swapper, paths[3])
    paths = [path for path in paths if path.is_file()]
    target, source_embedding = swapper.inputs
    card = ExportCard(
        family=family,
        image_size=target.shape[1],
        embedding_dim=source_embedding.shape[1],
        shrink_factor=shrink_factor,
        identity_encoder=identity_encoder,
        step=step,
        training=training,
        licence=licence,
        files={path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in paths},
    )
    write_card(folder, card)
    return paths
