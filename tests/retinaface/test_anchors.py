import numpy as np
import pytest

from facedancer.retinaface.anchors import (
    CENTER_VARIANCE,
    SIZE_VARIANCE,
    box_overlaps,
    build_anchors,
    decode_boxes,
    decode_landmarks,
    suppress,
)


def test_anchors_stand_on_cell_centers_in_the_networks_order():
    anchors = build_anchors(64, 96)
    assert anchors.shape == (2 * (8 * 12 + 4 * 6 + 2 * 3), 4)
    assert anchors.dtype == np.float32
    np.testing.assert_array_equal(anchors[:4], [[4, 4, 16, 16], [4, 4, 32, 32], [12, 4, 16, 16], [12, 4, 32, 32]])
    np.testing.assert_array_equal(anchors[2 * 12], [4, 12, 16, 16])  # the second row follows the first
    np.testing.assert_array_equal(anchors[2 * 8 * 12], [8, 8, 64, 64])  # the next level
    np.testing.assert_array_equal(anchors[-1], [80, 48, 512, 512])


def test_anchors_are_shared_and_cannot_be_changed():
    assert build_anchors(64, 64) is build_anchors(64, 64)
    with pytest.raises(ValueError, match="read-only"):
        build_anchors(64, 64)[0] = 0


def test_decoding_inverts_the_encoding_of_the_training():
    generator = np.random.default_rng(0)
    anchors = build_anchors(96, 128)
    center = generator.uniform(10, 90, (len(anchors), 2))
    size = generator.uniform(5, 60, (len(anchors), 2))
    points = generator.uniform(0, 90, (len(anchors), 5, 2))
    encoded = np.concatenate(
        [
            (center - anchors[:, :2]) / (CENTER_VARIANCE * anchors[:, 2:]),
            np.log(size / anchors[:, 2:]) / SIZE_VARIANCE,
        ],
        axis=1,
    )
    boxes = decode_boxes(encoded, anchors)
    np.testing.assert_allclose(boxes, np.concatenate([center - size / 2, center + size / 2], 1), atol=1e-4)
    encoded = (points - anchors[:, None, :2]) / (CENTER_VARIANCE * anchors[:, None, 2:])
    np.testing.assert_allclose(decode_landmarks(encoded.reshape(-1, 10), anchors), points, atol=1e-4)


def test_decoding_takes_batches():
    offsets = np.random.default_rng(0).normal(size=(3, len(build_anchors(32, 32)), 14)).astype(np.float32)
    anchors = build_anchors(32, 32)
    boxes, points = decode_boxes(offsets[..., :4], anchors), decode_landmarks(offsets[..., 4:], anchors)
    assert boxes.shape == (3, len(anchors), 4)
    assert points.shape == (3, len(anchors), 5, 2)
    np.testing.assert_array_equal(boxes[1], decode_boxes(offsets[1, :, :4], anchors))
    np.testing.assert_array_equal(points[1], decode_landmarks(offsets[1, :, 4:], anchors))


def test_overlaps():
    box = np.array([0.0, 0, 10, 10])
    boxes = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4], [3, 3, 3, 3], [5, 5, 4, 4]])
    np.testing.assert_allclose(box_overlaps(box, boxes), [1, 1 / 3, 0, 0.04, 0, 0])
    np.testing.assert_array_equal(box_overlaps(boxes[4], boxes[4:5]), [0])  # empty boxes do not divide by zero


@pytest.mark.parametrize("max_overlap", [0.2, 0.4, 0.7])
def test_suppression_agrees_with_tensorflows(max_overlap):
    import tensorflow as tf

    generator = np.random.default_rng(1)
    corner = generator.uniform(0, 60, (300, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(5, 40, (300, 2))], 1).astype(np.float32)
    scores = generator.permutation(np.repeat(np.linspace(0, 1, 150), 2)).astype(np.float32)  # every score twice
    expected = tf.image.non_max_suppression(boxes, scores, len(boxes), max_overlap).numpy()
    kept = suppress(boxes, scores, max_overlap)
    assert 10 < len(kept) < len(boxes)
    np.testing.assert_array_equal(kept, expected)


def test_suppression_of_nothing():
    assert suppress(np.zeros((0, 4), np.float32), np.zeros(0, np.float32)).shape == (0,)
