"""Logs scalars, images and text to TensorBoard (without TensorFlow) and to Weights & Biases.

TensorBoard's own writer needs TensorFlow, writes in a thread, and crashes with a traceback on a full disk.
"""

import os
import platform
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.metadata import create_summary_metadata as hparams_metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

from facedancer.core.console import UserError
from facedancer.core.files import make_folder, naming
from facedancer.core.images import encode_image
from facedancer.core.records import write_frame

# The format version at the start of a file.
_VERSION = "brain.Event:2"


class TensorBoardLog:
    """A run's event file.

    Args:
        folder: folder to write it to.
    """

    def __init__(self, folder):
        make_folder(folder)
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        name = f"events.out.tfevents.{seconds}.{platform.node()}.{os.getpid()}.{nanoseconds:09d}"
        self._path = Path(folder, name)
        self._file = open(self._path, "xb")  # noqa: SIM115, closed by close()
        self._write_event(Event(wall_time=time.time(), file_version=_VERSION))

    def scalars(self, values, step):
        """Writes a dictionary of numbers."""
        self._write([Summary.Value(tag=name, simple_value=value) for name, value in values.items()], step)

    def image(self, name, image_uint8, step):
        """Writes an image, (H, W, 3) uint8 RGB."""
        height, width = image_uint8.shape[:2]
        content = encode_image(image_uint8, ".png")
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
        self._write([Summary.Value(tag=name, image=image)], step)

    def text(self, name, text, step):
        """Writes a Markdown text."""
        tensor = TensorProto(dtype=DT_STRING, tensor_shape=TensorShapeProto(), string_val=[text.encode()])
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self._write([Summary.Value(tag=name, tensor=tensor, metadata=metadata)], step)

    def settings(self, values):
        """Writes a dictionary of numbers, strings and booleans as TensorBoard hyperparameters."""
        session = SessionStartInfo(start_time_secs=time.time())
        for name, value in values.items():
            kind = "bool" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "string"
            setattr(session.hparams[name], f"{kind}_value", value)
        metadata = hparams_metadata(HParamsPluginData(session_start_info=session))
        self._write([Summary.Value(tag=SESSION_START_INFO_TAG, metadata=metadata)], 0)

    def close(self):
        with naming(self._path):
            self._file.close()

    def _write(self, values, step):
        self._write_event(Event(step=step, wall_time=time.time(), summary=Summary(value=values)))

    def _write_event(self, event):
        with naming(self._path):
            write_frame(self._file, event.SerializeToString())
            self._file.flush()


class WandbLog:
    """A log for Weights & Biases; `WANDB_MODE=offline` keeps it local.

    Args:
        folder: folder to write it to.
        name: name of the run; a resumed run keeps its name.

    Raises:
        UserError: if the library is not installed.
    """

    def __init__(self, folder, name):
        try:
            import wandb
        except ImportError:
            raise UserError("--wandb: not installed; pip install 'facedancer[wandb]'") from None
        make_folder(folder)
        self._wandb = wandb
        quiet = wandb.Settings(silent=True)
        identifier = f"{name}-{os.stat(folder).st_ino}"
        self._run = wandb.init(
            project="facedancer", name=name, id=identifier, resume="allow", dir=str(folder), settings=quiet
        )

    def scalars(self, values, step):
        self._run.log(values, step=step)

    def image(self, name, image_uint8, step):
        self._run.log({name: self._wandb.Image(image_uint8)}, step=step)

    def text(self, name, text, step):
        self._run.summary[name] = text

    def settings(self, values):
        self._run.config.update(values, allow_val_change=True)

    def close(self):
        self._run.finish()


class Logs:
    """Passes each call on to several logs, or none."""

    def __init__(self, logs):
        self._logs = logs

    def __getattr__(self, name):
        def call(*args):
            for log in self._logs:
                getattr(log, name)(*args)

        return call
