"""Encoders take aligned faces of any size, give the same in batches and in a loss, and tell people apart."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from drawn_faces import draw_face

import facedancer.arcface_model as package
from facedancer.arcface_model.dlib_resnet import IFSR_TAPS
from facedancer.arcface_model.encoder import ExpressionEmbedder, IdentityEncoder


@pytest.fixture(scope="module")
def identity(embedded):
    return IdentityEncoder(embedded("dlib_resnet"))


@pytest.fixture(scope="module")
def expression(embedded):
    return ExpressionEmbedder(embedded("fer_expression"))


def test_package_imports_no_deep_learning_library():
    code = "import sys, facedancer.arcface_model as package; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert package.IdentityEncoder is IdentityEncoder and package.ExpressionEmbedder is ExpressionEmbedder
    assert not hasattr(package, "Encoder")


def test_batches_do_not_change_the_embeddings(identity, waves):
    faces = waves(70, 48)
    embeddings = identity(faces)
    assert embeddings.shape == (70, identity.dim) == (70, 128) and embeddings.dtype == np.float32
    for i in (0, 31, 32, 69):
        np.testing.assert_allclose(embeddings[i], identity(faces[i : i + 1])[0], atol=2e-4)
    assert identity(faces[:0]).shape == (0, 128)


def test_sizes_and_shrink_factors_agree(identity, embedded):
    """A face keeps its embedding where it is aligned larger, or with more background around it."""
    import cv2

    face = draw_face(3, 256)
    reference = identity(face[None])[0]
    for size, shrink_factor in ((128, 1.0), (320, 1.0), (256, 0.8)):
        # The same template on another crop: pixel p of the reference is at (p - 128) * f * scale + size / 2.
        scale = size / 256
        matrix = np.array([[shrink_factor * scale, 0, size / 2 * (1 - shrink_factor)]] * 2)
        matrix[1] = [0, shrink_factor * scale, size / 2 * (1 - shrink_factor)]
        flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        crop = cv2.warpAffine(face, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        other = IdentityEncoder(embedded("dlib_resnet"), shrink_factor, image_size=size)(crop[None])[0]
        assert cosine(reference, other) > 0.97
    assert cosine(reference, identity(draw_face(9, 256)[None])[0]) < 0.9


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_refuses_other_arrays(identity, waves):
    for faces in (waves(1, 48).astype(np.float32), waves(1, 48)[0], waves(1, 48)[:, :40], waves(1, 48)[..., :1]):
        with pytest.raises(ValueError, match=r"expected \(n, S, S, 3\) uint8"):
            identity(faces)


def test_model_for_losses(identity, waves, input_gradient):
    faces = waves(2, 64)
    model = identity.build_model(64)
    outputs = model(faces / np.float32(127.5) - 1)
    np.testing.assert_allclose(outputs["embedding"], identity(faces), atol=2e-4)
    assert list(outputs) == ["embedding", *IFSR_TAPS] == ["embedding", *identity.ifsr_margins]
    assert all(0.05 < margin < 0.5 for margin in identity.ifsr_margins.values())
    assert not model.trainable and not model.trainable_weights and len(model.weights) > 50
    embedding_alone = keras.Model(model.input, model.output["embedding"])
    gradient = input_gradient(embedding_alone, faces / np.float32(127.5) - 1)
    assert np.isfinite(gradient).all() and (np.abs(gradient).max((1, 2, 3)) > 1e-3).all()


def test_precision_of_the_policy_does_not_matter(identity, expression, waves, mixed_precision):
    faces = waves(1, 64) / np.float32(127.5) - 1
    mixed = identity.build_model(64)(faces)
    assert {keras.backend.standardize_dtype(output.dtype) for output in mixed.values()} == {"float32"}
    assert expression.build_model(64)(faces).dtype == "float32"
    keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(mixed["embedding"], identity.build_model(64)(faces)["embedding"])


def test_shrink_factor_of_the_model(identity, waves):
    faces = waves(1, 64) / np.float32(127.5) - 1
    whole, central = (np.asarray(identity.build_model(64, f)(faces)["embedding"]) for f in (1.0, 0.7))
    assert np.abs(whole - central).max() > 0.1


def test_centered_embeddings_tell_photographs_apart(identity, real_faces):
    """Cosines of the same and of different people, as the measurements that chose window and center say."""
    from facedancer.core.alignment import align_matrix, warp_to_aligned
    from facedancer.core.images import read_image
    from facedancer.retinaface import FaceDetector, largest_face

    detector = FaceDetector()
    people = sorted(real_faces.iterdir())[:12]
    images = [read_image(path) for folder in people for path in sorted(folder.glob("*.jpg"))[:4]]
    faces = [largest_face(found) for found in detector.detect(images)]
    crops = [
        warp_to_aligned(image, align_matrix(face.landmarks, 128), 128)
        for image, face in zip(images, faces, strict=True)
    ]
    embeddings = identity(np.stack(crops))
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = units @ units.T
    person = np.arange(len(units)) // 4
    same = (person[:, None] == person) & ~np.eye(len(units), dtype=bool)
    different = person[:, None] != person
    assert cosines[same].mean() > 0.6 and abs(cosines[different].mean()) < 0.15
    assert np.mean(cosines[same] > 0.4) > 0.95 and np.mean(cosines[different] < 0.4) > 0.95
    assert 0.7 < embeddings.std(0).mean() < 1.4


def test_expression_embeddings(expression, waves, input_gradient):
    faces = waves(2, 64)
    model = expression.build_model(64)
    embeddings = expression(faces)
    assert embeddings.shape == (2, expression.dim) == (2, 128)
    np.testing.assert_allclose(model(faces / np.float32(127.5) - 1), embeddings, atol=1e-5)
    assert not model.trainable and not model.trainable_weights
    gradient = input_gradient(model, faces / np.float32(127.5) - 1)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
