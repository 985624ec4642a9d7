"""The configuration of a run: a frozen dataclass whose fields are the flags, with the original's names and defaults."""

import argparse
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import get_args

from facedancer.core.console import UserError, add_boolean


def _flag(default, help, **options):
    """A field with the text and argparse options of its flag."""
    return field(default=default, metadata={"help": help, **options})


@dataclass(frozen=True)
class TrainConfig:
    """A training run; the defaults are preset `facedancer`, the paper's 256-pixel network."""

    data_dir: str = _flag(None, "glob of the shards to train on, such as 'shards/celeba_train_*-of-*.records'")
    eval_dir: str | None = _flag(None, "glob of the shards to validate on")
    preset: str = _flag("facedancer", "size of the networks and what they train with", choices=("facedancer", "lite"))
    load: int | None = _flag(None, "step of the checkpoint to go on from, by default the last", metavar="STEP")
    export: bool = _flag(False, "export the model: after training, or at once with --load")
    finetune: str | None = _flag(None, "exported model or generator file to begin with", metavar="FILE")
    freeze: tuple[str, ...] | None = _flag(
        None, "beginnings of names of layers that stay as they are, such as `encoder` or `mapping`"
    )
    num_steps: int | None = _flag(None, "training steps in all; by default --num_epochs decides")
    num_epochs: int = _flag(500, "passes over the data")
    batch_size: int = _flag(10, "pairs in a batch, over all devices")
    accumulate: int = _flag(1, "equal parts of a batch that are taken one after another, for less memory")
    seed: int = _flag(0, "of initial weights, order of the data, pairs and augmentation")

    arcface_path: str = _flag("arcface_res50", "identity encoder: a name of `facedancer weights list`, or a file")
    eval_model_expface: str = _flag("fer_expression", "expression embedder for validation, likewise")
    perceptual_network: str = _flag("vgg16", "network of the perceptual loss", choices=("vgg16", "mobilenet_v2"))
    shrink_factor: float = _flag(1.0, "shrink factor that the faces were aligned with")

    image_size: int | None = _flag(None, "side of the faces in pixels; by default the preset's: 256, lite 128")
    z_id_size: int | None = _flag(None, "length of the identity embedding; by default the encoder's, which it must be")
    mapping_depth: int | None = _flag(None, "dense layers of the mapping network; by default the preset's: 4, lite 2")
    mapping_size: int | None = _flag(None, "their width; by default the preset's: 512, lite 192")
    up_types: tuple[str, ...] | None = _flag(
        None,
        "decoder blocks, lowest resolution first, of affa, d_affa, do_affa, concat, add, no_skip; by default the"
        " preset's: no_skip no_skip affa affa affa concat, lite no_skip affa affa concat",
    )

    lr: float = _flag(1e-4, "learning rate of both optimizers")
    beta_1: float = _flag(0.0, "share of the average gradient that a step of Adam keeps")
    lr_schedule: str = _flag("exponential", "as the paper, or to 0 at the last step", choices=("exponential", "cosine"))
    lr_decay: float = _flag(0.97, "factor on the learning rate every 100,000 steps, applied continuously")
    warmup: int = _flag(0, "steps in which the learning rate rises from 0")
    ema: float = _flag(0.999, "share of the generator's moving average that a step keeps, 0 for none; it is exported")
    r1_every: int = _flag(16, "steps between two R1 penalties, each as heavy as so many")
    a_lambda: float = _flag(1.0, "weight of the adversarial loss, 0 for no discriminator")
    r_lambda: float = _flag(5.0, "weight of the reconstruction loss")
    change_lambda: float = _flag(6.0, "by how much pixels weigh more in it, where the true swap is not as the target")
    own_lambda: float = _flag(0.0, "weight of giving targets back from their own swaps, where no true swap is known")
    p_lambda: float = _flag(0.2, "weight of the perceptual loss")
    i_lambda: float = _flag(10.0, "weight of the identity loss")
    c_lambda: float = _flag(1.0, "weight of the cycle loss")
    ifsr_lambda: float = _flag(1.0, "weight of IFSR")
    ifsr_scale: float = _flag(1.2, "factor on the margins of IFSR")
    ifsr_blocks: tuple[str, ...] | None = _flag(None, "taps of the identity encoder for IFSR; by default the encoder's")
    ifsr_margin: tuple[float, ...] | None = _flag(None, "their margins; by default the encoder's")
    ifsr_margins: str | None = _flag(
        None, "file of `facedancer ifsr_calibrate` with the encoder's margins", metavar="FILE"
    )
    p_blocks: tuple[int, ...] | None = _flag(None, "levels of the perceptual network, from 1; by default all")

    shuffle: bool = _flag(True, "shuffle the data anew in each epoch")
    same_ratio: float = _flag(0.2, "share of pairs of one identity; at least one in each batch")
    device_id: int | None = _flag(None, "GPU to use, -1 for the CPU; by default the first that is found")
    strategy: str = _flag(
        "single",
        "devices: one; mirrored, all GPUs of this machine; multiworker, several machines, which TF_CONFIG names",
        choices=("single", "mirrored", "multiworker"),
    )
    precision: str = _flag(
        "float32", "of the trained networks; weights stay float32", choices=("float32", "bfloat16", "float16")
    )
    jit_compile: bool = _flag(False, "compile the step with XLA; JAX always does")
    deterministic: bool = _flag(False, "the same weights from the same command, bit for bit; slower")

    log_name: str = _flag("facedancer", "name of the run")
    run_dir: str = _flag("runs", "all of a run goes to its folder <log_name>, where no other flag says otherwise")
    log_dir: str | None = _flag(None, "TensorBoard logs go to its folder <log_name>; by default to the run's folder")
    chkp_dir: str | None = _flag(None, "likewise checkpoints")
    result_dir: str | None = _flag(None, "likewise swap grids")
    export_dir: str | None = _flag(None, "likewise exports")
    save_every: int = _flag(1000, "steps between checkpoints; the last step is always saved")
    keep: int = _flag(5, "checkpoints that are kept, beside the best by validation")
    eval_every: int = _flag(1000, "steps between validations and swap grids")
    log_every: int = _flag(10, "steps between scalars in TensorBoard, and between looks for a loss that is no number")
    wandb: bool = _flag(False, "log to Weights & Biases as well (pip install 'facedancer[wandb]')")
    profile: int = _flag(0, "so many steps, from the run's tenth on, are profiled for TensorBoard")
    dry_run: bool = _flag(False, "print what the run would be and what a step takes, write nothing")

    def __post_init__(self):
        counts = ("batch_size", "accumulate", "image_size", "num_epochs", "num_steps", "save_every", "eval_every")
        counts += ("log_every", "keep", "r1_every")
        for name in counts:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, not {getattr(self, name)}")
        for name in ("seed", "warmup", "profile", "change_lambda", "own_lambda"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} must not be negative, not {getattr(self, name)}")
        if self.batch_size % self.accumulate:
            raise UserError(f"--accumulate {self.accumulate} does not divide --batch_size {self.batch_size}")
        if not 0.0 <= self.ema < 1.0:
            raise UserError(f"--ema must be at least 0 and below 1, not {self.ema}")
        if not 0.0 < self.same_ratio <= 1.0:
            raise UserError(f"--same_ratio must be above 0 and at most 1, not {self.same_ratio}")
        if not 0.0 < self.shrink_factor <= 1.0:
            raise UserError(f"--shrink_factor must be above 0 and at most 1, not {self.shrink_factor}")
        if self.ifsr_blocks and self.ifsr_margin and len(self.ifsr_blocks) != len(self.ifsr_margin):
            raise UserError(f"{len(self.ifsr_margin)} --ifsr_margin for {len(self.ifsr_blocks)} --ifsr_blocks")
        if not self.log_name or Path(self.log_name).name != self.log_name:
            raise UserError(f"--log_name must be a plain name, not {self.log_name!r}")
        numbers = [value for value in asdict(self).values() if isinstance(value, float)]
        if not all(map(math.isfinite, numbers)):
            raise UserError("a flag is not a finite number")

    def folder(self, kind):
        """Returns where things go: kind "checkpoints", "logs", "results", "exports", or "" for the run's own folder."""
        flags = {"checkpoints": self.chkp_dir, "logs": self.log_dir, "results": self.result_dir}
        flags |= {"exports": self.export_dir, "": self.chkp_dir}
        if flags[kind] is not None:
            return Path(flags[kind]) / self.log_name
        return Path(self.run_dir) / self.log_name / kind

    @classmethod
    def from_json(cls, values):
        """Rebuilds a configuration from what `dataclasses.asdict` and JSON made of it.

        Raises:
            UserError: if there is a field that is not known.
        """
        if unknown := sorted(values.keys() - {item.name for item in fields(cls)}):
            raise UserError(f"unknown in a configuration: {', '.join(unknown)}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


# What a preset changes, beside the networks' shape (`models.facedancer.PRESETS`). A person's flag comes before it.
PRESETS = {
    "facedancer": {},
    "lite": {
        "batch_size": 8,
        "arcface_path": "dlib_resnet",
        "perceptual_network": "mobilenet_v2",
        # It learns from the exact truth, in hours on a processor: docs/training.md has what was tried.
        "lr": 5e-4,
        "beta_1": 0.9,
        "warmup": 200,
        "r_lambda": 10.0,
        "p_lambda": 0.5,
        "i_lambda": 1.0,
        "c_lambda": 0.0,
        "ifsr_lambda": 0.0,
        "a_lambda": 0.0,
        "save_every": 500,
        "eval_every": 200,
    },
}


def build_parser():
    """Builds the parser from the fields of `TrainConfig`."""
    parser = argparse.ArgumentParser(prog="train.py", description="Trains a face swapper.")
    for item in fields(TrainConfig):
        options = {key: value for key, value in item.metadata.items() if key != "help"}
        shown = "" if item.default is None else f" (default {_as_text(item.default)})"
        options["help"] = item.metadata["help"] + shown
        kind = _word_type(item.type)
        if kind is bool:
            add_boolean(parser, f"--{item.name}", None, options["help"])
            continue
        if "tuple" in str(item.type):
            options["nargs"] = "+"
        parser.add_argument(f"--{item.name}", type=kind, **options)
    parser.add_argument("--config", metavar="FILE", help="JSON of these flags, such as a run's config.json; flags win")
    for name in ("shift", "scale"):
        parser.add_argument(f"--{name}", type=float, default=0.5, help="only 0.5: faces are in [-1, 1] everywhere")
    return parser


def parse_config(argv=None):
    """Resolves flags: the person's, else those of `--config`, else the preset's, else the default.

    Raises:
        UserError: if a value is out of range, or the file of `--config` is no configuration.
    """
    parser = build_parser()
    values = vars(parser.parse_args(argv))
    path = values.pop("config")
    for name in ("shift", "scale"):
        if values.pop(name) != 0.5:
            raise UserError(f"--{name} can only be 0.5: faces are in [-1, 1] everywhere")
    given = {**(_read_config(path) if path else {}), **{name: x for name, x in values.items() if x is not None}}
    given = {name: tuple(x) if isinstance(x, list) else x for name, x in given.items()}
    if "data_dir" not in given:
        parser.error("the following arguments are required: --data_dir")
    preset = given.get("preset", "facedancer")
    return TrainConfig(**{**PRESETS[preset], **given})


def _read_config(path):
    """Reads the flags in a JSON file, by themselves or as the `config` of a run's config.json."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        values = values.get("config", values)
        # A run's own file says everything; what it leaves open, the preset and the flags say.
        values = {name: value for name, value in values.items() if value is not None}
    except FileNotFoundError:
        raise UserError(f"--config {path} is not there") from None
    except (ValueError, AttributeError) as error:
        raise UserError(f"--config {path}: not a JSON object of flags ({error})") from None
    types = {item.name: _word_type(item.type) for item in fields(TrainConfig)}
    if unknown := sorted(values.keys() - types.keys()):
        raise UserError(f"--config {path}: no flag is named {unknown[0]}")
    for name, value in values.items():
        for word in value if isinstance(value, list) else [value]:
            fits = isinstance(word, types[name]) or (types[name] is float and type(word) is int)
            if not fits or (isinstance(word, bool) and types[name] is not bool):
                raise UserError(f"--config {path}: {name} is {json.dumps(value)}, not {types[name].__name__}")
    return values


def _as_text(value):
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _word_type(annotation):
    """The type of one word of a flag: `tuple[float, ...] | None` -> float."""
    inner = [part for part in get_args(annotation) if part not in (NoneType, Ellipsis)]
    return _word_type(inner[0]) if inner else annotation
