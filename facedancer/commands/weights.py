"""The command `facedancer weights`: lists, fetches, verifies and converts weights."""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from facedancer.core.card import read_card, write_card
from facedancer.core.console import UserError, command, progress, say
from facedancer.core.devices import start_keras
from facedancer.core.fetching import sha256_of, weights_folder
from facedancer.core.keras_h5 import read_keras_h5, save_keras_h5
from facedancer.core.weights import REGISTRY, get_weights, verify_weights

_TORCH = (".pth", ".ckpt", ".tar")
_NETWORKS = (".h5", ".keras", ".onnx", *_TORCH)


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer weights", description="Lists, fetches, verifies and converts weights."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="lists the weights, their sources and licenses, and whether they are installed")
    get = verbs.add_parser("get", help="fetches and converts weights that are not installed yet")
    get.add_argument("names", nargs="*", metavar="NAME", help="names from the list (default: all default networks)")
    verbs.add_parser("verify", help="compares the files with the checksums recorded when they were fetched")
    convert = verbs.add_parser("convert", help="converts a published swap model to ours; other files are only checked")
    convert.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="swap model of any family; RetinaFace and ArcFace files are only checked",
    )
    convert.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write (default: <file>_keras3.h5, with --keras2 _keras2.h5, with --half _half.h5; without a card"
        " in a folder of the same name)",
    )
    convert.add_argument("--keras2", action="store_true", help="write a file that the original's own scripts read")
    convert.add_argument("--half", action="store_true", help="write float16 weights, which halves the size")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.verb == "list":
        list_weights()
    elif args.verb == "get":
        names = args.names or [name for name, entry in REGISTRY.items() if entry.is_embedded]
        for name in progress(names, desc="weights", unit="file"):
            say(f"{name}: {get_weights(name)}")
    elif args.verb == "verify":
        verify()
    else:
        convert(args.file, args.output, args.keras2, args.half)


def list_weights():
    """Prints a table of the registry."""
    say(f"files lie in {weights_folder()}")
    for name, entry in REGISTRY.items():
        here = "here" if (weights_folder() / entry.file).is_file() else "absent"
        size = f"{entry.megabytes} MB" if entry.megabytes else ""
        checksum = getattr(entry.origin, "sha256", None)
        origin = (
            f"{entry.origin}{f', SHA-256 {checksum[:12]}…' if checksum else ''}" if entry.origin else "you provide it"
        )
        if Path(entry.file).is_absolute():
            origin = "in the package"
        say(f"{name:24}{here:8}{size:>7}  {entry.file}\n{'':8}{entry.what}; {origin}; {entry.licence}")


def verify():
    """Prints the state of each file; raises `UserError` if one has changed."""
    states = {name: verify_weights(name) for name in REGISTRY}
    for name, state in states.items():
        say(f"{name:24}{state}")
    if changed := [name for name, state in states.items() if state == "changed"]:
        raise UserError(f"{', '.join(changed)}: not the file that was fetched; remove it and fetch it again")


def convert(path, output, keras2, half=False):
    """Loads a file completely; writes a swapper in another format, and prints how other networks are used as they are.

    The swapper's card is copied along to another folder. For a published file, which has none, a card with its authors'
    conventions is written next to the converted file, which therefore gets its own folder.

    Args:
        path: the file.
        output: the `.h5` to write, or None for the default.
        keras2: write the original's format.
        half: write float16 weights.

    Raises:
        UserError: if the file is not a known, complete network, or if the card would also apply to another network in
            the output's folder.
    """
    kind = _kind_of(path)
    start_keras()
    if kind != "swapper":
        if keras2 or half or output:
            raise UserError(f"{path} is {kind}, which is used as it is; only swappers are converted")
        say(f"{path} is {kind}, whole, and used as it is: {_check_encoder(path, kind)}")
        return
    from facedancer.models import load_swapper
    from facedancer.models.families import DEFAULT_FAMILY, card_of
    from facedancer.models.keras2 import save_keras2_h5

    if keras2 and half:
        raise UserError("--half: the original's scripts read only float32; leave out --half or --keras2")
    ending = "keras2" if keras2 else "half" if half else "keras3"
    card, name = read_card(path), f"{path.stem}_{ending}"
    output = output or (path.parent if card or keras2 else path.with_name(name)) / f"{name}.h5"
    if output.resolve() == path.resolve():
        raise UserError(f"--output {output} is the file itself; choose another")
    if output.suffix != ".h5":
        raise UserError(f"--output {output}: the name must end in .h5")
    if not card and not keras2:
        _check_alone(output)
    model = load_swapper(path)
    inputs = {tensor.name: tensor.shape for tensor in model.inputs}
    of_model = card_of(path, inputs["target"][1], inputs.get("source_embedding", (None, None))[1])
    if keras2:
        if of_model.family != DEFAULT_FAMILY:
            raise UserError(f"{path}: --keras2 is for FaceDancer, this is of the family {of_model.family}")
        save_keras2_h5(model, output)
    else:
        save_keras_h5(model, output, half)
    if not card and not keras2:
        card = replace(of_model, network=asdict(model.shapes) if hasattr(model, "shapes") else {})
    if card and output.parent.resolve() != path.parent.resolve():
        write_card(output.parent, replace(card, files={output.name: {"sha256": sha256_of(output)}}))
    say(f"{path}: {model.count_params():,} parameters, all used; written to {output}")


def _check_alone(output):
    """Raises `UserError` if a card next to `output` would also apply to another network."""
    others = sorted(output.parent.glob("*")) if output.parent.is_dir() else []
    if other := next((file for file in others if file.suffix in _NETWORKS and file.name != output.name), None):
        raise UserError(f"--output {output}: its card.json would apply to {other.name} as well; choose another folder")


def _kind_of(path):
    """Returns the kind of network by the file's content; a file that does not tell is taken for a swapper."""
    if path.suffix == ".onnx":
        from facedancer.models.inswapper_files import takes_source

        return "swapper" if takes_source(path) else "an identity encoder"
    if path.suffix in _TORCH:
        from facedancer.models.families import FAMILIES, find_family

        is_swapper = read_card(path) or any(find_family(name).publishes(path) for name in FAMILIES)
        return "swapper" if is_swapper else "an identity encoder"
    if path.suffix != ".keras":
        stored = read_keras_h5(path)
        description = json.dumps(stored.config)
        if '"SSH"' in description or '"retinaface' in description:
            return "a face detector"
        if "OutputLayer" in stored.weights or "stem_conv" in stored.weights:
            return "an identity encoder"
    return "swapper"


def _check_encoder(path, kind):
    """Loads a file completely and returns how it is used."""
    if kind == "a face detector":
        from facedancer.retinaface.conversion import load_retinaface

        load_retinaface(path)
        return f"--retina_path {path}"
    from facedancer.arcface_model import IdentityEncoder

    return f"--arcface_path {path}, embeddings of {IdentityEncoder(path).dim}"
