"""Colour augmentation of aligned faces, after FaceDancer's training code (Rosberg et al., WACV 2023).

Changed on purpose: colours are changed in [0, 1], where saturation is defined, and the result is clipped.
"""

import tensorflow as tf

BRIGHTNESS = 0.15  # of a range of 1; the original's 0.3 is of [-1, 1], a range of 2
CONTRAST = (0.9, 1.1)
SATURATION = (0.9, 1.1)


def augment_face(face_unit, seed):
    """Changes brightness, contrast and saturation at random.

    Args:
        face_unit: (S, S, 3) float32 in [0, 1].
        seed: (2,) integer; equal seeds give equal results.

    Returns:
        (S, S, 3) float32 in [0, 1].
    """
    seeds = tf.random.split(seed, 3)
    face_unit = tf.image.stateless_random_brightness(face_unit, BRIGHTNESS, seeds[0])
    face_unit = tf.image.stateless_random_contrast(face_unit, *CONTRAST, seeds[1])
    face_unit = tf.image.stateless_random_saturation(tf.clip_by_value(face_unit, 0, 1), *SATURATION, seeds[2])
    return tf.clip_by_value(face_unit, 0, 1)
