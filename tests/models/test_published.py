import functools
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.core.keras_h5 import save_keras_h5
from facedancer.models import load_swapper
from facedancer.models.facedancer import UP_TYPES, build_discriminator, build_generator
from facedancer.models.keras2 import save_keras2_h5
from facedancer.models.published import load_discriminator, load_generator

# Files in the published format

GENERATORS = ["facedancer_default", "facedancer_every_block"]


@pytest.fixture(scope="module")
def loaded(published):
    """Returns a function that loads a file's network for all tests: they leave its weights as they are."""
    return functools.cache(lambda name, load: load(published / f"{name}.h5"))


def check_outputs(model, io_path):
    with np.load(io_path) as stored:
        inputs = [stored[name] for name in sorted(stored) if name.startswith("input")]
        expected = stored["output"]
    output = model(inputs if len(inputs) > 1 else inputs[0])
    assert np.abs(output - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("style", ["", "_keras28"])
@pytest.mark.parametrize("name", GENERATORS)
def test_published_generator_gives_the_same_pictures(published, loaded, name, style):
    swapper = loaded(f"{name}{style}", load_swapper)
    assert [x.name for x in swapper.inputs] == ["target", "source_embedding"]
    check_outputs(swapper, published / f"{name}_io.npz")


def test_published_checkpoint_gives_the_same_pictures(published):
    weights = published / "facedancer_default_gen_30.h5"
    for architecture in (None, published / "facedancer_default_gen_keras28.json"):
        check_outputs(load_generator(weights, architecture), published / "facedancer_default_io.npz")


def test_published_discriminator_gives_the_same_logits(published, loaded):
    discriminator = loaded("facedancer_discriminator", load_discriminator)
    check_outputs(discriminator, published / "facedancer_discriminator_io.npz")


def test_published_generator_loads_fast_and_small(published):
    """In a process of its own: time of the load, and memory with that of TensorFlow."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("needs Linux, whose /proc tells a process's peak memory")
    code = (
        "import sys, time\n"
        "from facedancer.models import load_swapper\n"
        "started = time.process_time()\n"
        "load_swapper(sys.argv[1])\n"
        "seconds = time.process_time() - started\n"  # of all cores, but not of other processes
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(seconds, int(status['VmHWM'].split()[0]) * 1024)"
    )
    command = [sys.executable, "-c", code, published / "facedancer_default.h5"]
    seconds, memory = map(float, subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())
    assert seconds < 6.0
    assert memory < 1.5e9


# Written in the published format


def renumbered(names, kinds):
    """Maps layer names that Keras 2 numbered on to the numbers of a fresh session."""
    counted = {}
    first = Counter()
    for name, kind in sorted(zip(names, kinds, strict=True), key=lambda pair: number(pair[0])):
        if re.fullmatch(r"[a-z_.2]+?(_\d+)?", name) and name != "final":
            stem = re.sub(r"_\d+$", "", name)
            index = first[kind] + (kind == "InputLayer")
            counted[name] = f"{stem}_{index}" if index else stem
            first[kind] += 1
        else:
            counted[name] = name
    return counted


def number(name):
    found = re.search(r"_(\d+)$", name)
    return int(found[1]) if found else 0


def structure(path, renumber):
    """Everything in a Keras 2 file but the values of the weights, with names that do not depend on the session."""
    with h5py.File(path) as file:
        config = json.loads(file.attrs["model_config"])
        layers = config["config"]["layers"]
        names = [layer["name"] for layer in layers]
        changed = renumbered(names, [layer["class_name"] for layer in layers]) if renumber else {n: n for n in names}
        assert len(set(changed.values())) == len(names)

        def rename(value):
            if isinstance(value, dict):
                return {key: rename(item) for key, item in value.items()}
            if isinstance(value, list):
                return [rename(item) for item in value]
            return changed.get(value, value) if isinstance(value, str) else value

        def rename_path(item):
            return "/".join(changed.get(part, part) for part in item.split("/"))

        found = {"config": rename(config), "attributes": dict(file.attrs), "members": {}}
        found["config"]["config"]["name"] = "model"
        del found["attributes"]["model_config"]

        def visit(item_path, item):
            attributes = {
                key: [rename_path(name) for name in np.asarray(value).astype(str)] if key.endswith("_names") else value
                for key, value in item.attrs.items()
            }
            shape = (item.shape, item.dtype) if isinstance(item, h5py.Dataset) else None
            # AdaIN's own `dense` and `dense_1` bear the names of layers, but are none.
            inner = item_path if "ada_in" not in item_path else item_path.split("/dense")[0]
            found["members"][rename_path(inner) + item_path[len(inner) :]] = (shape, attributes)

        file.visititems(visit)
    return found


@pytest.mark.parametrize(
    ("name", "load", "renumber"),
    [
        ("facedancer_default", load_swapper, False),
        ("facedancer_every_block", load_swapper, True),
        ("facedancer_discriminator", load_discriminator, True),
    ],
)
def test_written_file_has_the_published_structure(published, loaded, tmp_path, name, load, renumber):
    network = loaded(name, load)
    save_keras2_h5(network, tmp_path / "written.h5")
    written, expected = structure(tmp_path / "written.h5", False), structure(published / f"{name}.h5", renumber)
    assert written["attributes"] == expected["attributes"]
    for layer, reference in zip(
        written["config"]["config"]["layers"], expected["config"]["config"]["layers"], strict=True
    ):
        assert layer == reference
    assert written["config"] == expected["config"]
    assert written["members"].keys() == expected["members"].keys()
    for member, description in expected["members"].items():
        assert written["members"][member] == description, member
    for array, reference in zip(load(tmp_path / "written.h5").get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(array, reference)


# There and back


def save_checkpoint(model, path):
    """As the trainer does: the architecture's JSON beside a whole `.h5`."""
    path.with_name("gen.json").write_text(model.to_json())
    save_keras_h5(model, path)


def save_weights_alone(model, path):
    save_checkpoint(model, path)
    with h5py.File(path, "a") as file:
        group = file["model_weights"]
        for name in list(group):
            file.move(f"model_weights/{name}", name)
        file.attrs["layer_names"] = group.attrs["layer_names"]
        del file["model_weights"], file.attrs["model_config"]


FORMATS = {
    "whole .h5": (save_keras_h5, "model.h5"),
    ".keras": (lambda model, path: model.save(path), "model.keras"),
    "Keras 2": (save_keras2_h5, "model.h5"),
    "checkpoint": (save_checkpoint, "gen_30.h5"),
    "weights alone": (save_weights_alone, "gen_30.h5"),
}


@pytest.mark.parametrize(("save", "file_name"), FORMATS.values(), ids=FORMATS)
def test_networks_survive_every_format(tiny_config, inputs_of, randomize, tmp_path, save, file_name):
    config = tiny_config()
    for build, load in ((build_generator, load_generator), (build_discriminator, load_discriminator)):
        network = randomize(build(config))
        inputs = inputs_of(network)
        inputs = inputs if len(inputs) > 1 else inputs[0]
        save(network, tmp_path / file_name)
        restored = load(tmp_path / file_name)
        assert [layer.name for layer in restored.layers] == [layer.name for layer in network.layers]
        np.testing.assert_array_equal(restored(inputs), network(inputs))


# Any depth, size and block type is read from the file; five, as only some places make a type's wiring peculiar.
@pytest.mark.parametrize(
    "changes",
    [
        {"up_types": UP_TYPES[:3]},
        {"up_types": UP_TYPES[3:]},
        {"up_types": ("add", "no_skip", "do_affa"), "mapping_depth": 0},
        {"up_types": ("concat", "add", "d_affa"), "mapping_depth": 1, "embedding_dim": 3},
        {"up_types": ("add",) * 4, "widths": (5, 6, 7, 8), "image_size": 16},
    ],
)
def test_shapes_are_read_from_the_file(tiny_config, inputs_of, randomize, tmp_path, changes):
    generator = randomize(build_generator(tiny_config(**changes)))
    inputs = inputs_of(generator)
    for save in (save_keras_h5, save_keras2_h5):
        save(generator, tmp_path / "generator.h5")
        np.testing.assert_array_equal(load_swapper(tmp_path / "generator.h5")(inputs), generator(inputs))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_keras_itself_loads_an_export(tiny_config, inputs_of, randomize, tmp_path, suffix):
    generator = randomize(build_generator(tiny_config(up_types=("d_affa", "do_affa", "affa"))))
    generator.save(tmp_path / f"export{suffix}")
    restored = keras.models.load_model(tmp_path / f"export{suffix}")
    assert [x.name for x in restored.inputs] == ["target", "source_embedding"]
    inputs = inputs_of(generator)
    np.testing.assert_array_equal(restored(inputs), generator(inputs))


def test_model_trained_in_mixed_precision_loads_in_float32(tiny_config, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        save_keras_h5(build_generator(tiny_config()), tmp_path / "mixed.h5")
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in load_swapper(tmp_path / "mixed.h5").layers} == {"float32"}


# Damaged files


def remove_tensor(file):
    del file["model_weights/conv2d_4/conv2d_4/kernel:0"]


def remove_tensor_and_its_entry(file):
    remove_tensor(file)
    file["model_weights/conv2d_4"].attrs["weight_names"] = [b"conv2d_4/bias:0"]


def rename_tensor(file):
    file.move("model_weights/conv2d_4/conv2d_4/kernel:0", "model_weights/conv2d_4/conv2d_4/kernal:0")


def rename_tensor_and_its_entry(file):
    rename_tensor(file)
    file["model_weights/conv2d_4"].attrs["weight_names"] = [b"conv2d_4/kernal:0", b"conv2d_4/bias:0"]


def rename_layer_of_weights(file):
    group = file["model_weights"]
    group.move("conv2d_4", "conv2d_99")
    names = group.attrs["layer_names"].tolist()
    group.attrs["layer_names"] = ["conv2d_99" if name == "conv2d_4" else name for name in names]


def reshape_tensor(file):
    group = file["model_weights/conv2d_4/conv2d_4"]
    flat = group["kernel:0"][()].reshape(-1)
    del group["kernel:0"]
    group["kernel:0"] = flat


def add_tensor(file):
    file["model_weights/conv2d_4/conv2d_4/extra:0"] = np.zeros(3, np.float32)


def add_tensor_and_its_entry(file):
    add_tensor(file)
    group = file["model_weights/conv2d_4"]
    group.attrs["weight_names"] = [*group.attrs["weight_names"].tolist(), "conv2d_4/extra:0"]


def add_layer_of_weights(file):
    group = file["model_weights"]
    group["conv2d_99/conv2d_99/kernel:0"] = np.zeros(3, np.float32)
    group["conv2d_99"].attrs["weight_names"] = [b"conv2d_99/kernel:0"]
    group.attrs["layer_names"] = [*group.attrs["layer_names"].tolist(), "conv2d_99"]


def swap_adain(file):
    group = file["model_weights/ada_in"]
    group.attrs["weight_names"] = np.roll(group.attrs["weight_names"], 2).tolist()


def edit_config(edit):
    def damage(file):
        config = json.loads(file.attrs["model_config"])
        layers = {layer["name"]: layer for layer in config["config"]["layers"]}
        edit(config["config"]["layers"], layers)
        file.attrs["model_config"] = json.dumps(config).encode()

    return damage


DAMAGES = {
    "tensor removed": (remove_tensor, "conv2d_4/kernel:0"),
    "tensor and entry removed": (remove_tensor_and_its_entry, "conv2d_4"),
    "tensor renamed": (rename_tensor, "conv2d_4/kernel:0"),
    "tensor and entry renamed": (rename_tensor_and_its_entry, "kernal"),
    "layer of weights renamed": (rename_layer_of_weights, "conv2d_4"),
    "tensor reshaped": (reshape_tensor, "conv2d_4"),
    "tensor added": (add_tensor, "extra:0"),
    "tensor and entry added": (add_tensor_and_its_entry, "extra"),
    "layer of weights added": (add_layer_of_weights, "conv2d_99"),
    "scale and offset exchanged": (swap_adain, "ada_in"),
    "weights missing": (lambda file: file.pop("model_weights"), "without a Keras model's weights"),
    "configuration no JSON": (lambda file: file.attrs.modify("model_config", b"{"), "JSON"),
    "configuration of another shape": (lambda file: file.attrs.modify("model_config", b"[1]"), "configuration"),
    "layer left out": (edit_config(lambda every, by_name: every.remove(by_name["conv2d_4"])), "conv2d_4"),
    "layer too many": (
        edit_config(lambda every, by_name: every.append({**by_name["conv2d_4"], "name": "conv2d_99"})),
        "conv2d_99",
    ),
    "unknown layer": (
        edit_config(lambda every, by_name: by_name["conv2d_4"].update(class_name="Lambda")),
        "Lambda",
    ),
    "layer without settings": (edit_config(lambda every, by_name: by_name["conv2d_4"].pop("config")), "config"),
    "other epsilon": (
        edit_config(lambda every, by_name: by_name["instance_normalization"]["config"].update(epsilon=1e-5)),
        "instance_normalization has epsilon",
    ),
    "other slope": (
        edit_config(lambda every, by_name: by_name["leaky_re_lu"]["config"].update(alpha=0.3)),
        "leaky_re_lu has negative_slope 0.3",
    ),
    "other width": (
        edit_config(lambda every, by_name: by_name["conv2d_4"]["config"].update(filters=5)),
        "conv2d",
    ),
    "other wiring": (
        edit_config(lambda every, by_name: by_name["final"]["inbound_nodes"][0].reverse()),
        "has kernel_size",
    ),
    "mask and features exchanged": (
        edit_config(lambda every, by_name: by_name["adaptive_attention"]["inbound_nodes"][0].reverse()),
        "32x32 is Conv2D",
    ),
}


def check_refused(load, path, named):
    with pytest.raises(UserError, match=named) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message


@pytest.fixture(scope="module")
def whole(tiny_config, tmp_path_factory):
    """A generator in the published format and in Keras', files that load, which tests copy to damage."""
    path, generator = tmp_path_factory.mktemp("whole") / "generator", build_generator(tiny_config())
    save_keras2_h5(generator, path.with_suffix(".h5"))
    generator.save(path.with_suffix(".keras"))
    for suffix in (".h5", ".keras"):
        load_swapper(path.with_suffix(suffix))
    return path


@pytest.mark.parametrize(("damage", "named"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_file_is_refused(whole, tmp_path, damage, named):
    path = tmp_path / "damaged.h5"
    shutil.copyfile(whole.with_suffix(".h5"), path)
    with h5py.File(path, "a") as file:
        damage(file)
    check_refused(load_swapper, path, named)


def remove_kernel(file):
    del file["layers/conv2d_4/vars/0"]


def reshape_kernel(file):
    remove_kernel(file)
    file["layers/conv2d_4/vars/0"] = np.zeros(3, np.float32)


KERAS_DAMAGES = {
    "removed": (remove_kernel, "conv2d_4/vars/0, the kernel of layer encoder_8x8"),
    "reshaped": (reshape_kernel, "encoder_8x8"),
    "renamed": (lambda file: file.move("layers/conv2d_4", "layers/conv2d_99"), "conv2d_4/vars/0"),
    "added": (lambda file: file.create_dataset("layers/conv2d_4/vars/2", data=[1.0]), "conv2d_4/vars/2"),
    "layer added": (lambda file: file.create_dataset("layers/conv2d_99/vars/0", data=[1.0]), "conv2d_99/vars/0"),
}


@pytest.mark.parametrize(("damage", "named"), KERAS_DAMAGES.values(), ids=KERAS_DAMAGES)
def test_damaged_keras_file_is_refused(whole, tmp_path, damage, named):
    damaged = tmp_path / "damaged.keras"
    with zipfile.ZipFile(whole.with_suffix(".keras")) as archive, zipfile.ZipFile(damaged, "w") as copy:
        weights = archive.extract("model.weights.h5", tmp_path)
        with h5py.File(weights, "a") as file:
            damage(file)
        copy.write(weights, "model.weights.h5")
        copy.writestr("config.json", archive.read("config.json"))
    check_refused(load_swapper, damaged, named)


def test_compressed_keras_file_is_refused(whole, tmp_path):
    """Keras compresses nothing; what is compressed may be of any size."""
    packed = tmp_path / "packed.keras"
    with (
        zipfile.ZipFile(whole.with_suffix(".keras")) as archive,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as copy,
    ):
        for name in archive.namelist():
            copy.writestr(name, archive.read(name))
    check_refused(load_swapper, packed, "compressed, as Keras never does")


@pytest.mark.parametrize(
    ("layer", "setting", "value", "named"),
    [
        ("Conv2D", "filters", 10**9, "expected 1000000000 wide"),
        ("Dense", "units", 10**9, "expected 1000000000 wide"),
        ("InputLayer", "batch_shape", [None, 10**9, 10**9, 3], "an input of length 1000000000"),
    ],
)
def test_configuration_larger_than_the_weights_is_refused_before_it_is_built(
    tiny_config, tmp_path, layer, setting, value, named
):
    path = tmp_path / "large.h5"
    save_keras_h5(build_generator(tiny_config()), path)
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        next(x for x in config["config"]["layers"] if x["class_name"] == layer)["config"][setting] = value
        file.attrs["model_config"] = json.dumps(config)
    check_refused(load_swapper, path, named)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_truncated_file_is_refused(tiny_config, tmp_path, suffix):
    path = tmp_path / f"generator{suffix}"
    build_generator(tiny_config()).save(path)
    whole = path.read_bytes()
    for share in (0, 0.3, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        check_refused(load_swapper, path, None)


def test_what_is_no_model_is_refused(tmp_path):
    page = tmp_path / "page.h5"
    page.write_text("<!DOCTYPE html><html><body>404: not found</body></html>")
    check_refused(load_swapper, page, "HDF5")
    archive = tmp_path / "archive.keras"
    archive.write_bytes(b"PK\x05\x06" + bytes(18))  # an empty ZIP file
    check_refused(load_swapper, archive, "config.json")
    check_refused(load_swapper, tmp_path / "absent.h5", "no such file")


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_other_models_are_refused(tiny_config, tmp_path, suffix):
    image = keras.Input((32, 32, 3))
    others = {
        "sequential": keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]),
        "classifier": keras.Model(image, keras.layers.BatchNormalization()(image)),
        "filter": keras.Model(image, keras.layers.Conv2D(3, 3)(image)),
        "discriminator": build_discriminator(tiny_config()),
    }
    for name, model in others.items():
        path = tmp_path / f"{name}{suffix}"
        model.save(path)
        check_refused(load_swapper, path, None)
        if name != "discriminator":
            check_refused(load_discriminator, path, None)
    path = tmp_path / f"generator{suffix}"
    build_generator(tiny_config()).save(path)
    check_refused(load_discriminator, path, "discriminator")


def test_weights_alone_need_their_architecture(tiny_config, tmp_path):
    path = tmp_path / "gen_30.h5"
    save_weights_alone(build_generator(tiny_config()), path)
    architecture = tmp_path / "gen.json"
    architecture.write_text("not JSON")
    check_refused(load_swapper, architecture, "HDF5")
    with pytest.raises(UserError, match=r"gen\.json: not JSON"):
        load_swapper(path)
    architecture.unlink()
    with pytest.raises(UserError, match=r"gen\.json: no such file"):
        load_swapper(path)


def test_other_models_are_not_written(tmp_path):
    image = keras.Input((32, 32, 3))
    with pytest.raises(UserError, match="BatchNormalization"):
        save_keras2_h5(keras.Model(image, keras.layers.BatchNormalization()(image)), tmp_path / "other.h5")
    assert list(tmp_path.iterdir()) == []
