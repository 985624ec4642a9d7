"""Networks that people bring as ONNX files, run by ONNX Runtime: one picture in, one out."""

from pathlib import Path

import numpy as np

from facedancer.core.console import UserError


class OnnxNetwork:
    """A network whose input is pictures (n, 3, S, S) float32.

    Args:
        path: the .onnx file.

    Attributes:
        size: S, the side of the pictures in pixels.

    Raises:
        UserError: if ONNX Runtime is not installed, or the file is not such a network.
    """

    def __init__(self, path):
        try:
            import onnxruntime
            from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf
        except ImportError:
            raise UserError(f"{path} needs ONNX Runtime: pip install 'facedancer[onnxruntime]'") from None
        self.path = path
        if not Path(path).is_file():
            raise UserError(f"the network {path} is not there")
        try:
            self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except (Fail, InvalidGraph, InvalidProtobuf) as error:
            raise UserError(f"{path} is no ONNX network ({str(error).splitlines()[0]})") from None
        inputs = self._session.get_inputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or not isinstance(shape[2], int):
            raise UserError(
                f"{path} takes {[value.shape for value in inputs]}; expected one input (n, 3, S, S), S a number"
            )
        self.size = shape[2]
        self._name = inputs[0].name

    def __call__(self, pictures):
        """Returns the first output (n, …) for (n, S, S, 3) float32 pictures, one at a time, as most files take them.

        Raises:
            UserError: if it holds what are no finite numbers.
        """
        chw = np.ascontiguousarray(np.float32(pictures).transpose(0, 3, 1, 2))
        output = np.concatenate([self._session.run(None, {self._name: picture[None]})[0] for picture in chw])
        if not np.isfinite(output).all():
            raise UserError(f"{self.path} gave values that are no numbers; is the file whole?")
        return output
