"""Networks that users provide as ONNX files, run by ONNX Runtime: one image in, one out."""

import numpy as np

from facedancer.core.console import UserError
from facedancer.core.regular_files import opened_regular

_MOST_SIDE = 4096


class OnnxNetwork:
    """A network that takes images (n, 3, S, S) float32.

    Args:
        path: the .onnx file.

    Attributes:
        size: S, the side of the images in pixels.

    Raises:
        UserError: if ONNX Runtime is not installed, or the file is not such a network.
    """

    def __init__(self, path):
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as state
        except ImportError:
            raise UserError(f"{path} needs ONNX Runtime: pip install 'facedancer[onnxruntime]'") from None
        self._errors = (
            state.EngineError, state.EPFail, state.Fail, state.InvalidArgument, state.InvalidGraph,
            state.InvalidProtobuf, state.NoModel, state.NotImplemented, state.RuntimeException,
        )  # fmt: skip
        self.path = path
        content = _read(path)
        try:
            self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except (
            *self._errors,
            RuntimeError,
            ValueError,
        ) as error:  # the last one occurs if a name in the message is not UTF-8
            raise UserError(f"{path} is not an ONNX network ({str(error).splitlines()[0]})") from None
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type == "tensor(float)" else ()
        if len(shape) != 4 or shape[1] != 3 or not isinstance(shape[2], int) or not 1 <= shape[2] <= _MOST_SIDE:
            raise UserError(
                f"{path} takes {[value.shape for value in inputs]}; expected one input (n, 3, S, S), S a number"
            )
        self.size = shape[2]
        self._name = inputs[0].name

    def __call__(self, pictures):
        """Returns the first output (n, …) for images (n, S, S, 3) float32, run one at a time, as most files require.

        Raises:
            UserError: if it fails, or its output is not finite.
        """
        chw = np.ascontiguousarray(np.float32(pictures).transpose(0, 3, 1, 2))
        try:
            outputs = [self._session.run(None, {self._name: picture[None]})[0] for picture in chw]
            output = np.concatenate(outputs).astype(np.float32, copy=False)
        except (*self._errors, RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"{self.path} does not work on images ({str(error).splitlines()[0]})") from None
        if not np.isfinite(output).all():
            raise UserError(f"{self.path} returned values that are not finite; is the file complete?")
        return output


def _read(path):
    """Returns the bytes of an ONNX file, which must contain all its weights."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        with opened_regular(path) as file:
            content = file.read()
        model = onnx.load_from_string(content)
    except FileNotFoundError:
        raise UserError(f"the network {path} is not there") from None
    except DecodeError:
        raise UserError(f"{path} is not an ONNX network, or a truncated one") from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model)):
        raise UserError(f"{path} keeps weights in other files; they must be in it")
    return content


def _tensors(message):
    """Yields every tensor of an ONNX message, including those of nested graphs."""
    import onnx

    waiting = [message]
    while waiting:
        found = waiting.pop()
        if isinstance(found, onnx.TensorProto):
            yield found
            continue
        for field, value in found.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if hasattr(value, "ListFields") else value)
