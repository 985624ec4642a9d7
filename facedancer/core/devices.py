"""Device selection for TensorFlow. A requested GPU is used or is an error; it never falls back to the CPU."""

import contextlib
import functools
import os
import re
from pathlib import Path

from facedancer.core.console import UserError, caught_messages

# What TensorFlow's C++ says while it loads and looks for GPUs, before its own level of messages counts: information and
# warnings, and that a machine without NVIDIA's driver has none.
_START = re.compile(r"WARNING: All log messages before absl::|[IW]\d{4} |E\d{4} .*(cuInit|Unable to register cu)")


def add_device_flag(parser):
    """Adds `--device_id` to a command's parser."""
    parser.add_argument(
        "--device_id",
        type=int,
        metavar="N",
        help="GPU to use, -1 for the CPU (default: the first GPU found, else the CPU; the choice is printed)",
    )


@functools.cache
def select_device(device_id=None):
    """Restricts TensorFlow to one device. Call it before any other use of TensorFlow; later calls do nothing.

    Args:
        device_id: number of a GPU, -1 for the CPU, None for the first GPU if there is one, else the CPU.

    Returns:
        The device's name: `"GPU 0 (NVIDIA H200)"`, `"CPU"`.

    Raises:
        UserError: if there is no such GPU.
    """
    said = start_keras()
    with quiet_start():
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    if device_id is None:
        device_id = 0 if gpus else -1
    if device_id == -1:
        tf.config.set_visible_devices([], "GPU")
        return "CPU"
    if not 0 <= device_id < len(gpus):
        why = "".join(f" ({line.partition('] ')[2]})" for line in said if line.startswith("E"))
        found = f"GPUs 0 to {len(gpus) - 1}" if len(gpus) > 1 else "GPU 0 alone" if gpus else f"no GPU{why}"
        raise UserError(
            f"GPU {device_id} was asked for, TensorFlow finds {found}; --device_id -1 works on the CPU,"
            " and `pip install 'facedancer[gpu]'` brings NVIDIA's libraries"
        )
    gpu = gpus[device_id]
    tf.config.set_visible_devices(gpu, "GPU")
    # Otherwise TensorFlow reserves all of the GPU's memory.
    tf.config.experimental.set_memory_growth(gpu, True)
    name = tf.config.experimental.get_device_details(gpu).get("device_name", "unnamed")
    return f"GPU {device_id} ({name})"


@functools.cache
def start_keras():
    """Imports Keras and its backend, which looks for GPUs, without printing; call it before any other import of Keras.

    Returns:
        List of the lines that it would have printed.
    """
    said = []
    with quiet_start(said):
        import keras

        if keras.config.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices("GPU")
    return said


def quiet_start(said=None):
    """Returns a context that hides TensorFlow's startup messages; `TF_CPP_MIN_LOG_LEVEL=0` shows them.

    Args:
        said: list to append them to.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        return contextlib.nullcontext()
    return caught_messages((said if said is not None else []).append, _START.match)


def computes_bfloat16():
    """Returns whether the processor has bfloat16 instructions; True if the system does not say."""
    listed = Path("/proc/cpuinfo")
    flags = listed.read_text(encoding="utf-8").split() if listed.is_file() else ["amx_bf16"]
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
