"""The window lies where the template says, at any size and shrink factor, and passes gradients."""

import keras
import numpy as np
import pytest

from facedancer.arcface_model.face_window import FaceWindow, Window, sampling_matrix, window_positions
from facedancer.core.alignment import landmark_template

WINDOWS = [Window(112), Window(60, 20.0, 25.0, 0.75), Window(20, 18.0, 22.0, 3.5)]


def template_picture(size, shrink_factor):
    """A picture (1, S, S, 2) whose values are the template coordinates x, y of its own pixels."""
    line = (np.arange(size) * 112.0 / size - 56.0 * (1.0 - shrink_factor)) / shrink_factor
    return np.stack(np.meshgrid(line, line), -1)[None].astype(np.float32)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("size", "shrink_factor"), [(64, 1.0), (112, 0.9), (256, 0.7), (257, 0.5)])
def test_lies_on_the_template(window, size, shrink_factor):
    picture = template_picture(size, shrink_factor)
    found = np.asarray(FaceWindow(**vars(window), shrink_factor=shrink_factor)(picture))[0]
    assert found.shape == (window.size, window.size, 2)
    steps = window.step * np.arange(window.size)
    wanted = np.stack(np.meshgrid(window.x + steps, window.y + steps), -1)
    # Where the triangle reaches beyond the border the picture does not go on as a ramp.
    reach = max(window.step, 112 / size / shrink_factor)
    inside = ((wanted - reach > picture.min()) & (wanted + reach < picture.max())).all(-1)
    assert inside.mean() > 0.5
    difference = (found - wanted)[inside]
    assert np.abs(difference).max() < 0.1  # a triangle's center, sampled at a few pixels
    assert np.abs(difference.mean(0)).max() < 0.01


def test_agrees_with_the_alignment():
    """What is aligned with a template is looked up at that template."""
    window = Window(100, 5.0, 9.0, 0.9)
    landmarks = (landmark_template(112) - [window.x, window.y]) / window.step
    for size, shrink_factor in ((128, 1.0), (200, 0.8)):
        columns, rows = window_positions(window, size, shrink_factor)
        for (x, y), (expected_x, expected_y) in zip(landmarks, landmark_template(size, shrink_factor), strict=True):
            assert np.interp(x, np.arange(100), columns) == pytest.approx(expected_x)
            assert np.interp(y, np.arange(100), rows) == pytest.approx(expected_y)


def test_arcface_crop_of_its_own_size_is_unchanged(waves):
    faces = waves(2, 112).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(FaceWindow(112)(faces)), faces)


def test_reduces_without_aliasing_and_goes_on_at_the_border():
    checkers = np.indices((448, 448)).sum(0) % 2 * 2.0 - 1.0
    found = np.asarray(FaceWindow(112)(checkers[None, :, :, None].astype(np.float32)))
    assert np.abs(found[:, 1:-1, 1:-1]).max() < 1e-6
    for window in (*WINDOWS, Window(10, -30.0, 100.0, 5.0)):
        matrix = sampling_matrix(window_positions(window, 70)[0], 70)
        np.testing.assert_allclose(matrix.sum(1), 1.0, atol=1e-6)
        assert (matrix >= 0).all()


def test_passes_gradients(input_gradient):
    inputs = keras.Input((128, 128, 3))
    model = keras.Model(inputs, FaceWindow(60, 20.0, 25.0, 0.75)(inputs))
    gradient = input_gradient(model, np.ones((1, 128, 128, 3)))
    seen = gradient[0, 40:60, 40:60]
    assert (seen > 0).all()
    assert (gradient[0, :5] == 0).all()


def test_survives_saving_with_every_argument_off_its_default(reloaded, waves, tmp_path):
    layer = FaceWindow(40, x=12.0, y=20.0, step=1.5, shrink_factor=0.8, name="window")
    expected = reloaded(layer, waves(1, 96).astype(np.float32), tmp_path / "window.keras")
    other = np.asarray(FaceWindow(40)(waves(1, 96).astype(np.float32)))
    assert expected.shape == other.shape and np.abs(expected - other).max() > 1


def test_computes_in_the_precision_of_the_policy(mixed_precision, waves):
    faces = waves(1, 96).astype(np.float32) / 255
    layer = FaceWindow(40, step=2.0)
    assert layer(faces).dtype == "float16"
    np.testing.assert_allclose(layer(faces), FaceWindow(40, step=2.0, dtype="float32")(faces), atol=2e-3)


def test_refuses_faces_that_are_not_square():
    with pytest.raises(ValueError, match="square"):
        FaceWindow(40)(np.zeros((1, 64, 60, 3), np.float32))
