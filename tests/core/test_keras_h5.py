"""Keras' HDF5 files read as data: strict about what is missing, left over or of another shape."""

import h5py
import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.core.keras_h5 import assign_weights, load_by_layer_name, read_keras_h5, save_keras_h5


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def build(keras, width=4, names=("first", "norm", "second")):
    layers = keras.layers
    x = image = keras.Input((8, 8, 3))
    x = layers.Conv2D(width, 3, name=names[0])(x)
    x = layers.BatchNormalization(name=names[1])(x)
    x = layers.ReLU(name="relu")(x)
    return keras.Model(image, layers.Dense(2, name=names[2])(x), name="small")


def randomize(model, seed=0):
    generator = np.random.default_rng(seed)
    model.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("way", ["whole", "weights", "ours"])
def test_round_trip(keras, tmp_path, way):
    model = randomize(build(keras))
    path = tmp_path / "model.weights.h5"
    if way == "ours":
        save_keras_h5(model, path)
    elif way == "whole":
        model.save(tmp_path / "model.h5")
        path = tmp_path / "model.h5"
    else:
        # Keras 3 writes weights alone by layer in this format only through the legacy module that `save` uses.
        from keras.src.legacy.saving import legacy_h5_format

        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
    stored = read_keras_h5(path)
    assert list(stored.weights) == ["first", "norm", "second"]
    assert (stored.config is None) == (way == "weights")
    other = load_by_layer_name(randomize(build(keras), seed=1), path)
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    image = np.random.default_rng(2).normal(size=(1, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(other(image), model(image), atol=1e-6)


def test_other_layers_are_named(keras, tmp_path):
    save_keras_h5(build(keras), tmp_path / "a.h5")
    with pytest.raises(UserError, match=r"a\.h5: lacks layers last; expected a small"):
        load_by_layer_name(build(keras, names=("first", "norm", "last")), tmp_path / "a.h5")
    shorter = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="first")])
    with pytest.raises(UserError, match=r"a\.h5: has unknown layers norm, second"):
        load_by_layer_name(shorter, tmp_path / "a.h5")


def test_other_shapes_are_named(keras, tmp_path):
    save_keras_h5(build(keras), tmp_path / "a.h5")
    with pytest.raises(UserError, match=r"a\.h5: first has weights of shapes .*3, 3, 3, 4.*expected .*3, 3, 3, 6"):
        load_by_layer_name(build(keras, width=6), tmp_path / "a.h5")
    with pytest.raises(UserError, match="this has weights"):
        assign_weights(build(keras).get_layer("first"), [np.zeros((3, 3, 3, 4))], "file", "this")


def test_names_split_over_attributes(tmp_path):
    """HDF5 attributes hold 64 kB; Keras splits longer lists of names."""
    layers = [f"layer_{i}" for i in range(5)]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["layer_names0"], file.attrs["layer_names1"] = np.bytes_(layers[:3]), np.bytes_(layers[3:])
        for i, layer in enumerate(layers):
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.bytes_([f"{layer}/kernel:0"])
            group[f"{layer}/kernel:0"] = np.full(2, float(i))
    stored = read_keras_h5(tmp_path / "a.h5")
    assert list(stored.weights) == layers
    np.testing.assert_array_equal(stored.weights["layer_4"]["layer_4/kernel:0"], [4.0, 4.0])


def test_files_of_keras_2(repository):
    path = repository.parent / "shared" / "fixtures" / "published_format" / "facedancer_default_keras28.h5"
    if not path.is_file():
        pytest.skip("needs ../shared/fixtures, which are not in the repository")
    stored = read_keras_h5(path)
    assert sum(array.size for layer in stored.weights.values() for array in layer.values()) == 24_505_894
    assert stored.config["class_name"] == "Functional"


def test_absent_damaged_and_other_files(keras, tmp_path):
    with pytest.raises(UserError, match=r"none\.h5: no such file"):
        read_keras_h5(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(UserError, match=r"text\.h5: not a whole HDF5 file"):
        read_keras_h5(tmp_path / "text.h5")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(UserError, match="without a Keras model's weights"):
        read_keras_h5(tmp_path / "data.h5")
    save_keras_h5(build(keras), tmp_path / "whole.h5")
    content = (tmp_path / "whole.h5").read_bytes()
    for keep in (0.3, 0.7, 0.99):
        (tmp_path / "part.h5").write_bytes(content[: int(keep * len(content))])
        with pytest.raises(UserError, match=r"part\.h5: not a whole HDF5 file"):
            read_keras_h5(tmp_path / "part.h5")
