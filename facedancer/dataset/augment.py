"""Prepares a batch's pictures for the networks, with random augmentation; part of the train step, on its device.

Color augmentation follows FaceDancer's training code (Rosberg et al., WACV 2023). Deliberate change: colors are changed
in [0, 1], where saturation is defined, and the result is clipped. The random numbers are drawn with the batch
(`pairing.pair_window`).
"""

from keras import ops


def prepare_batch(batch):
    """Converts a batch's pictures to what networks and losses take.

    Args:
        batch: `target`, `source`, `truth` (n, S, S, 3) uint8; `mask` (n, S, S, 1) uint8; `colors` (n, 2, 3) float32;
            optionally `warped`, like the pictures; and anything else.

    Returns:
        The same, with augmented pictures in [-1, 1] float32, the truth with the target's colors; `mask` in [0, 1]; no
        `colors`.
    """
    batch = dict(batch)
    colors = batch.pop("colors")
    for name, index in (("target", 0), ("source", 1), ("truth", 0), ("warped", 0)):
        if name not in batch:  # only some streams have `warped`
            continue
        face_unit = ops.cast(batch[name], "float32") / 255.0
        batch[name] = change_colors(face_unit, colors[:, index]) * 2.0 - 1.0
    return {**batch, "mask": ops.cast(batch["mask"], "float32") / 255.0}


def look_at(faces, views):
    """Shifts, scales and mirrors faces, differentiably; border pixels are replicated.

    A network that only ever sees one view of a picture can be fooled by patterns that are invisible to people.

    Args:
        faces: (n, S, S, 3) float32.
        views: (n, 4) float32: shift to the right and down, as shares of the side; the logarithm of the scale; and 1,
            or -1 to mirror.

    Returns:
        (n, S, S, 3) float32.
    """
    scale = ops.exp(-views[:, 2])
    columns = _sampling(views[:, 0], scale * views[:, 3], faces.shape[2])
    rows = _sampling(views[:, 1], scale, faces.shape[1])
    return ops.einsum("nxw,nywc->nyxc", columns, ops.einsum("nyh,nhwc->nywc", rows, faces))


def _sampling(shift, step, size):
    """Returns the matrices (n, size, size) that sample a line of pixels by linear interpolation."""
    pixels = ops.arange(size, dtype="float32")
    middle = (size - 1) / 2
    places = middle + (pixels[None] - middle) * step[:, None] - shift[:, None] * size
    places = ops.clip(places, 0.0, size - 1.0)
    return ops.relu(1.0 - ops.abs(places[:, :, None] - pixels[None, None]))


def change_colors(face_unit, colors):
    """Changes brightness, contrast and saturation.

    Args:
        face_unit: (n, S, S, 3) float32 in [0, 1].
        colors: (n, 3) float32: an offset; a factor on the distance from each channel's mean; a factor on HSV
            saturation. (0, 1, 1) changes nothing.

    Returns:
        (n, S, S, 3) float32 in [0, 1].
    """
    brightness, contrast, saturation = (colors[:, index, None, None, None] for index in range(3))
    mean = ops.mean(face_unit, axis=(1, 2), keepdims=True)
    face_unit = ops.clip((face_unit - mean) * contrast + mean + brightness, 0.0, 1.0)
    # The saturation of HSV is (value - least) / value, at most 1; its product with a factor moves each channel that
    # much away from the value.
    value = ops.max(face_unit, axis=-1, keepdims=True)
    span = value - ops.min(face_unit, axis=-1, keepdims=True)
    factor = ops.minimum(saturation, value / ops.maximum(span, 1e-6))
    return value - (value - face_unit) * factor
