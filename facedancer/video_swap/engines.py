"""Inference engines for a swap network: Keras, ONNX Runtime or OpenVINO; results agree within 2/255.

All of them run the folded network (see `folding`). ONNX Runtime reads an ONNX file that is written once, and again if
the export changes; OpenVINO reads TensorFlow's graph.
"""

import functools
import hashlib
import importlib
import importlib.util
import os
import tempfile
from pathlib import Path

import numpy as np

from facedancer.core.console import UserError
from facedancer.core.fetching import cache_folder, sha256_of
from facedancer.core.files import make_folder
from facedancer.media.job import SEGMENT_FRAMES

ENGINES = ("keras", "onnxruntime", "openvino")
AUTO = "auto"
PRECISIONS = ("float32", "bfloat16")

# Pixels of faces in one batch. On a CPU, two faces of 256² take 8 % less time each than one; more gain nothing.
_PROCESSOR_PIXELS, _GPU_PIXELS = 2**17, 2**20


def choose_engine(name, device, is_video):
    """Returns the engine to use for `name`, one of `ENGINES` or `AUTO`.

    On every CPU measured, OpenVINO takes 0.65 to 0.85 of Keras' time per face, but starts some seconds later. That pays
    off for videos. Only Keras and ONNX Runtime use a GPU.

    Args:
        name: one of `ENGINES`, or `AUTO`.
        device: "CPU", or the name of a GPU.
        is_video: whether a video is swapped.
    """
    if name != AUTO:
        return name
    return "openvino" if is_video and device == "CPU" and importlib.util.find_spec("openvino") else "keras"


def load_engine(path, name="keras", precision="float32", decoder=None):
    """Loads an exported swapper for inference.

    Args:
        path, decoder: as for `models.load_swapper`.
        name: one of `ENGINES`.
        precision: one of `PRECISIONS`, for the network's inner layers.

    Returns:
        An object with the attributes `image_size`, `embedding_dim` and `coefficients_dim` (None if it takes none),
        `batch_size` (the best number of faces per batch), and the method `predict_on_batch`. That takes a dictionary of
        `target` (n, S, S, 3) in [-1, 1], `source_embedding` (n, dim) and, if needed, `source_coefficients` and
        `target_coefficients` (n, c), and returns the swapped faces (n, S, S, 3) in [-1, 1]; all are float32.

    Raises:
        UserError: if the file is not a swapper, or the engine is not installed or lacks the precision.
    """
    return {"keras": _Keras, "onnxruntime": _OnnxRuntime, "openvino": _OpenVino}[name](Path(path), precision, decoder)


class DecoderEngine:
    """Runs a swapper with one decoder per person: one engine per decoder, loaded on first use.

    Args:
        path, name, precision: as for `load_engine`.
        first: index of the decoder to load immediately.

    Attributes:
        image_size, embedding_dim, coefficients_dim, batch_size: as for `load_engine`.
    """

    def __init__(self, path, name, precision, first=0):
        self._load = functools.cache(functools.partial(load_engine, path, name, precision))
        engine = self._load(first)
        self.image_size, self.batch_size = engine.image_size, engine.batch_size
        self.embedding_dim = self.coefficients_dim = None

    def predict_on_batch(self, inputs):
        """Like an engine's; takes a dictionary of `target` and, in place of embeddings, `decoder` (n,), indices."""
        target, decoder = inputs["target"], np.asarray(inputs["decoder"])
        swapped = np.empty_like(target)
        for number in np.unique(decoder):
            swapped[decoder == number] = self._load(int(number)).predict_on_batch({"target": target[decoder == number]})
        return swapped


class _Engine:
    def __init__(self, sizes, on_gpu=False):
        """Takes the sizes of the inputs' second axes, by name."""
        self.image_size = image_size = sizes["target"]
        self.embedding_dim, self.coefficients_dim = sizes.get("source_embedding"), sizes.get("source_coefficients")
        faces = (_GPU_PIXELS if on_gpu else _PROCESSOR_PIXELS) // image_size**2
        # A power of two divides a segment of a video, so that a resumed run has the same batches.
        self.batch_size = min(1 << max(0, faces.bit_length() - 1), SEGMENT_FRAMES)


class _Keras(_Engine):
    def __init__(self, path, precision, decoder):
        import tensorflow as tf

        from facedancer.models import load_swapper
        from facedancer.models.folding import fold

        # Mixed: norms and weights stay float32.
        policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]
        model = fold(load_swapper(path, decoder), policy, _normalize_pictures)
        # XLA measured slower.
        run = tf.function(model, autograph=False, jit_compile=False)
        specs = {tensor.name: tensor.shape[1:] for tensor in model.inputs}

        @functools.cache
        def graph(count):
            """Returns the graph for one batch size, which the normalization needs to know; there are few."""
            return run.get_concrete_function({name: tf.TensorSpec((count, *rest)) for name, rest in specs.items()})

        def predict(inputs):
            tensors = {name: tf.convert_to_tensor(x, tf.float32) for name, x in inputs.items()}
            return graph(len(inputs["target"]))(tensors).numpy()

        self.predict_on_batch = predict
        on_gpu = bool(tf.config.get_visible_devices("GPU"))
        super().__init__({tensor.name: tensor.shape[1] for tensor in model.inputs}, on_gpu)


def _normalize_pictures(x, scale, offset, epsilon):
    """`folding.normalize_features` in half the time on a CPU.

    Instance normalization is batch normalization of a single image, for which oneDNN has a fast operation.
    """
    import tensorflow as tf

    from facedancer.models.folding import normalize_features

    count, _, _, channels = x.shape
    if count is None:  # while Keras infers shapes
        return normalize_features(x, scale, offset, epsilon)
    scale, offset = (tf.cast(value, tf.float32) for value in (scale, offset))
    scale, offset = (tf.unstack(tf.broadcast_to(value, (count, channels))) for value in (scale, offset))
    # The public function silently raises an epsilon as small as 1e-8; this raw operation does not.
    normalized = [
        tf.raw_ops.FusedBatchNormV3(
            x=picture, scale=factor, offset=shift, mean=[], variance=[], epsilon=epsilon, is_training=True
        ).y
        for picture, factor, shift in zip(tf.split(x, count), scale, offset, strict=True)
    ]
    return tf.concat(normalized, 0)


class _OnnxRuntime(_Engine):
    def __init__(self, path, precision, decoder):
        runtime = _imported("onnxruntime")
        if precision != "float32":
            raise UserError("onnxruntime computes in float32 on CPUs; for bfloat16 take --engine keras or openvino")
        options = runtime.SessionOptions()
        # Spinning threads would take CPU time from those that decode and encode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in runtime.get_available_providers()]
        self._session = runtime.InferenceSession(converted(path, decoder), options, providers)
        sizes = {end.name: end.shape[1] for end in self._session.get_inputs()}
        super().__init__(sizes, providers[0] != "CPUExecutionProvider")

    def predict_on_batch(self, inputs):
        return self._session.run(None, inputs)[0]


class _OpenVino(_Engine):
    """Reads TensorFlow's graph, which keeps the layout of images; an ONNX file takes a third longer to run."""

    def __init__(self, path, precision, decoder):
        openvino = _imported("openvino")
        core = openvino.Core()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "network.pb")
            file.write_bytes(_frozen_graph(path, decoder))
            network = core.read_model(file)
        places = {end: end.any_name.partition(":")[0] for end in network.inputs}
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        }

        @functools.cache
        def compiled(count):
            """Returns the network compiled for one batch size; there are few, and an open size is slower."""
            shaped = network.clone()
            shaped.reshape({end.any_name: [count, *list(end.partial_shape)[1:]] for end in places})
            return core.compile_model(shaped, "CPU", settings)

        def predict(inputs):
            run = compiled(len(inputs["target"]))
            return run({end.any_name: np.float32(inputs[name]) for end, name in places.items()})[0]

        self.predict_on_batch = predict
        super().__init__({name: end.partial_shape[1].get_length() for end, name in places.items()})


def _frozen_graph(path, decoder):
    """Returns the folded network as a serialized TensorFlow graph with its weights."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from facedancer.models import load_swapper
    from facedancer.models.folding import fold

    model = fold(load_swapper(path, decoder), normalize=_normalize_by_moments)
    specs = {x.name: tf.TensorSpec((None, *x.shape[1:]), tf.float32, name=x.name) for x in model.inputs}
    traced = tf.function(model, autograph=False).get_concrete_function(specs)
    return convert_variables_to_constants_v2(traced).graph.as_graph_def().SerializeToString()


def _normalize_by_moments(x, scale, offset, epsilon):
    """`folding.normalize_features` in the form that OpenVINO fuses to one operation."""
    from keras import ops

    apart = x - ops.mean(x, (1, 2), keepdims=True)
    variance = ops.mean(ops.square(apart), (1, 2), keepdims=True)
    return apart / ops.sqrt(variance + epsilon) * scale[:, None, None] + offset[:, None, None]


def converted(path, decoder=None):
    """Returns the path of the folded network as ONNX; writes it unless it exists for the file's current content.

    It is kept in the cache folder, as the file's own folder may be the package's or read-only.
    """
    place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]
    name = f"{place}.onnx" if decoder is None else f"{place}-{decoder}.onnx"
    content = sha256_of(path)[:12] if path.is_file() else ""
    folder = cache_folder() / "engines"
    target = folder / f"{content}-{name}"
    if not target.is_file():
        from facedancer.models import load_swapper
        from facedancer.models.folding import fold
        from facedancer.models.onnx_export import save_onnx

        model = fold(load_swapper(path, decoder))
        make_folder(folder)
        for old in folder.glob(f"????????????-{name}"):
            old.unlink(missing_ok=True)
        save_onnx(model, target)
    return target


def _imported(package):
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise UserError(f"--engine {package} is not installed; pip install 'facedancer[{package}]'") from None
