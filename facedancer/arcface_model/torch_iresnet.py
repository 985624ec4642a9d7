"""InsightFace's IResNet read from a PyTorch state dict, `ms1mv3_arcface_r100_fp16_backbone.pth` and its like.

A checkpoint of HifiFace's training (`.ckpt`) has one too, the identity encoder of its generator.
Batch normalization behind a convolution or the dense layer is folded into it, as `iresnet` has it.
"""

import numpy as np

from facedancer.arcface_model.iresnet import EPSILON, WINDOW, build_iresnet
from facedancer.core.console import UserError
from facedancer.core.keras_h5 import assign_weights
from facedancer.core.torch_file import read_torch_state_dict
from facedancer.core.weights_to_come import weights_to_come

_STAGES = range(1, 5)
_IN_CHECKPOINT = "generator.id_extractor.f_id."
_AFFINE = ("weight", "bias", "running_mean", "running_var")


def load_torch_iresnet(path):
    """Builds the network of a file, without unpickling it; as `torch_iresnet`."""
    if path.suffix != ".ckpt":
        return torch_iresnet(read_torch_state_dict(path), path)
    whole = read_torch_state_dict(path, "state_dict")
    prefix = _IN_CHECKPOINT
    state = {name.removeprefix(prefix): array for name, array in whole.items() if name.startswith(prefix)}
    return torch_iresnet(state, path)


@weights_to_come()
def torch_iresnet(state, path):
    """Builds the network that a state dict has the tensors of.

    Args:
        state: name -> array, as `torch_file.read_torch_state_dict` returns it.
        path: the file, for the error.

    Returns:
        `(model, units)`: see `iresnet.build_iresnet`.

    Raises:
        UserError: in one line, what does not fit.
    """
    state = {name: np.asarray(array, np.float32) for name, array in state.items() if "num_batches" not in name}
    units = tuple(len({name.split(".")[1] for name in state if name.startswith(f"layer{stage}.")}) for stage in _STAGES)
    try:
        widths = tuple(state[f"layer{stage}.0.conv2.weight"].shape[0] for stage in _STAGES)
        model = build_iresnet(units, widths, state["fc.weight"].shape[0])
        places = dict(_arrays(state, units))
    except KeyError as error:
        raise UserError(f"{path}: not InsightFace's IResNet (lacks {error})") from None
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: not InsightFace's IResNet ({error})") from None
    if state:
        raise UserError(f"{path}: has {min(state)}, which an IResNet does not have")
    for name, arrays in places.items():
        assign_weights(model.get_layer(name), arrays, path, name)
    return model, units


def _arrays(state, units):
    """The name of each of our layers and its weights, taken out of the state."""

    def affine(place):
        return [state.pop(f"{place}.{end}") for end in _AFFINE]

    def convolution(place, norm):
        kernel = state.pop(f"{place}.weight").transpose(2, 3, 1, 0)
        return _folded(kernel, state.pop(f"{place}.bias", 0.0), affine(norm))

    def slopes(place):
        return [state.pop(f"{place}.weight").reshape(1, 1, -1)]

    yield "stem_conv", convolution("conv1", "bn1")
    yield "stem_prelu", slopes("prelu")
    for stage, count in zip(_STAGES, units, strict=True):
        for unit in range(count):
            name, place = f"layer{stage}_unit{unit}", f"layer{stage}.{unit}"
            yield f"{name}_bn", affine(f"{place}.bn1")
            yield f"{name}_conv1", convolution(f"{place}.conv1", f"{place}.bn2")
            yield f"{name}_prelu", slopes(f"{place}.prelu")
            yield f"{name}_conv2", convolution(f"{place}.conv2", f"{place}.bn3")
            if not unit:
                yield f"{name}_shortcut", convolution(f"{place}.downsample.0", f"{place}.downsample.1")
    yield "final_bn", affine("bn2")
    kernel, bias = state.pop("fc.weight"), state.pop("fc.bias")
    side = WINDOW.size // 16
    kernel = kernel.reshape(len(kernel), -1, side, side).transpose(2, 3, 1, 0)  # channels last
    yield "embedding", _folded(kernel.reshape(-1, kernel.shape[-1]), bias, affine("features"))


def _folded(kernel, bias, affine):
    weight, offset, mean, variance = affine
    factor = weight / np.sqrt(variance + EPSILON)
    return [kernel * factor, (bias - mean) * factor + offset]
