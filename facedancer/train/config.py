"""The configuration of a run: flags of the run, its data and optimizers, the family's networks and its losses.

All are flags with the original's names and defaults, and are stored flat in the run's JSON file.
"""

import argparse
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from facedancer.core.console import UserError
from facedancer.core.flags import add_flags, flag, flag_values, flags_of, word_type
from facedancer.core.schemas import read_json
from facedancer.models.families import DEFAULT_FAMILY, FAMILIES, find_family
from facedancer.train.objectives import find_objective


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a training run.

    Attributes:
        network: the family's `Config`: shapes of its networks. Its `embedding_dim` is not yet the identity encoder's.
        weights: `Weights` of the family's objective.
        All other attributes are flags.

    Raises:
        UserError: if a value is out of range, or two do not go together.
    """

    data_dir: str = flag(
        None, "glob of the training shards, such as 'shards/celeba_train_*-of-*.records'", metavar="GLOB"
    )
    eval_dir: str | None = flag(None, "glob of the validation shards", metavar="GLOB")
    family: str = flag(
        DEFAULT_FAMILY, "family of networks; `--family NAME --help` lists its flags", choices=[*FAMILIES]
    )
    preset: str = flag(
        None, "preset of network size and training settings (default: the family's first)", metavar="NAME"
    )
    load: int | None = flag(None, "step of the checkpoint to resume from (default: the last)", metavar="STEP")
    export: bool = flag(False, "export the model after training, or immediately with --load")
    finetune: str | None = flag(None, "exported model or generator file to start from", metavar="FILE")
    freeze: tuple[str, ...] | None = flag(
        None, "name prefixes of layers to freeze, such as `encoder` or `mapping`", metavar="NAME"
    )
    num_steps: int | None = flag(None, "total number of training steps (default: set by --num_epochs)")
    num_epochs: int = flag(500, "passes over the data")
    batch_size: int = flag(10, "pairs per batch, over all devices")
    accumulate: int = flag(1, "split each batch into this many equal parts, to save memory")
    seed: int = flag(0, "random seed of initial weights, data order, pairs and augmentation")

    arcface_path: str = flag(
        "arcface_res50", "identity encoder: a name from `facedancer weights list`, or a file", metavar="FILE"
    )
    eval_model_expface: str = flag(
        "fer_expression", "expression encoder for validation: a name or a file", metavar="FILE"
    )
    shrink_factor: float = flag(1.0, "shrink factor that the faces were aligned with")

    z_id_size: int | None = flag(None, "length of the identity embedding, which must be the encoder's (default)")

    lr: float = flag(1e-4, "learning rate of both optimizers")
    beta_1: float = flag(0.0, "Adam's decay rate for the mean gradient")
    beta_2: float = flag(0.99, "Adam's decay rate for the mean squared gradient")
    lr_schedule: str = flag(
        "exponential", "exponential, as in the paper, or cosine, to 0", choices=("exponential", "cosine")
    )
    lr_decay: float = flag(0.97, "learning rate decay factor per 100,000 steps, applied continuously")
    warmup: int = flag(0, "steps over which the learning rate rises from 0")
    ema: float = flag(0.999, "decay of the generator's moving average, which is exported; 0 for none")
    truth_lambda: float = flag(0.0, "weight of the distance to the true swap, if a record carries it")
    change_lambda: float = flag(6.0, "extra weight of pixels where the true swap differs from the target")

    shuffle: bool = flag(True, "reshuffle the data every epoch")
    same_ratio: float = flag(0.2, "share of same-person pairs, averaged over batches")
    same_batches: bool = flag(False, "group same-person pairs into whole batches; at 0.5, every second batch")
    device_id: int | None = flag(None, "GPU to use, -1 for the CPU (default: the first GPU found, else the CPU)")
    strategy: str = flag(
        "single",
        "single: one device; mirrored: all GPUs of this machine; multiworker: several machines, set by TF_CONFIG",
        choices=("single", "mirrored", "multiworker"),
    )
    precision: str = flag(
        "float32", "precision of the trained networks; weights stay float32", choices=("float32", "bfloat16", "float16")
    )
    jit_compile: bool = flag(False, "compile the train step with XLA; always on with JAX")
    deterministic: bool = flag(False, "make training bit-for-bit reproducible; slower")

    log_name: str = flag(None, "name of the run (default: the family's)", metavar="NAME")
    run_dir: str = flag("runs", "folder for runs; a run's own folder is <run_dir>/<log_name>", metavar="DIR")
    log_dir: str | None = flag(
        None, "write TensorBoard logs to <log_dir>/<log_name> (default: the run's folder)", metavar="DIR"
    )
    chkp_dir: str | None = flag(None, "the same for checkpoints", metavar="DIR")
    result_dir: str | None = flag(None, "the same for swap grids", metavar="DIR")
    export_dir: str | None = flag(None, "the same for exports", metavar="DIR")
    save_every: int = flag(1000, "steps between checkpoints; the last step is always saved")
    keep: int = flag(5, "number of checkpoints to keep, besides the best by validation")
    eval_every: int = flag(1000, "steps between validations and swap grids")
    log_every: int = flag(10, "steps between TensorBoard scalars, and between checks for non-finite losses")
    wandb: bool = flag(False, "also log to Weights & Biases (pip install 'facedancer[wandb]')")
    profile: int = flag(0, "number of steps to profile for TensorBoard, from the run's tenth on")
    dry_run: bool = flag(False, "print the run's configuration and what a step costs; write nothing")

    network: object = field(default=None)
    weights: object = field(default=None)

    def __post_init__(self):
        counts = ("batch_size", "accumulate", "image_size", "num_epochs", "num_steps", "save_every", "eval_every")
        for name in (*counts, "log_every", "keep"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, not {getattr(self, name)}")
        for name in ("seed", "warmup", "profile", "truth_lambda", "change_lambda"):
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
        if not self.log_name or Path(self.log_name).name != self.log_name:
            raise UserError(f"--log_name must be a plain name, not {self.log_name!r}")
        if self.seen_factor > 1.001:
            raise UserError(
                f"--shrink_factor {self.shrink_factor} leaves no margin for --coverage {self.network.coverage}: align"
                f" the faces with `crop_align --shrink_factor {self.network.coverage}`, or give --coverage 1"
            )
        numbers = [value for value in self.to_json().values() if isinstance(value, float)]
        if not all(map(math.isfinite, numbers)):
            raise UserError("a flag is not a finite number")

    @property
    def image_size(self):
        """Side of the faces in pixels."""
        return self.network.image_size

    @property
    def seen_factor(self):
        """Shrink factor of the part of the faces that the networks see, which may be only their middle."""
        return self.shrink_factor / getattr(self.network, "coverage", 1.0)

    def folder(self, kind):
        """Returns the folder of "checkpoints", "logs", "results" or "exports"; "" is the run's own folder."""
        flags = {"checkpoints": self.chkp_dir, "logs": self.log_dir, "results": self.result_dir}
        flags |= {"exports": self.export_dir, "": self.chkp_dir}
        if flags[kind] is not None:
            return Path(flags[kind]) / self.log_name
        return Path(self.run_dir) / self.log_name / kind

    def training_folders(self):
        """Returns the folders that a run writes to and no other run may use: each once, the run's own first."""
        folders = [self.folder(kind) for kind in ("", "logs", "results")]
        return list({folder.resolve(): folder for folder in folders}.values())

    def steps_in_all(self, count):
        """Returns the total number of steps of a run on `count` faces."""
        return self.num_steps or max(1, self.num_epochs * count // self.batch_size)

    def stream_options(self):
        """Returns the `StreamOptions` of the training stream, the same for every engine."""
        from facedancer.dataset.pairing import People, StreamOptions

        people = None
        if "people" in self.weights.needs:
            people = People(self.network.people, self.weights.inner_loop, self.network.coverage)
        return StreamOptions(
            self.batch_size, self.image_size, self.same_ratio, self.same_batches, self.shuffle, seed=self.seed,
            people=people,
        )  # fmt: skip

    def to_json(self):
        """Returns name -> value of all flags, as JSON-able values."""
        return {**flag_values(self), **flag_values(self.network), **flag_values(self.weights)}

    @classmethod
    def from_json(cls, values):
        """Builds a configuration from name -> value of some flags; the preset fills in missing ones and None.

        Raises:
            UserError: if a flag is unknown, or a value is out of range.
        """
        given = {name: tuple(x) if isinstance(x, list) else x for name, x in values.items() if x is not None}
        family = given.get("family", DEFAULT_FAMILY)
        networks, objective = find_family(family), find_objective(family)
        preset = given.setdefault("preset", next(iter(networks.PRESETS)))
        if preset not in networks.PRESETS:
            raise UserError(f"--preset {preset}: {family} has {', '.join(networks.PRESETS)}")
        given = {"log_name": family, **objective.PRESETS[preset], **given}
        parts = [{item.name for item in flags_of(part)} for part in (cls, networks.Config, objective.Weights)]
        if unknown := sorted(given.keys() - set().union(*parts)):
            raise UserError(f"unknown in a configuration: {', '.join(unknown)}")
        run, shapes, weights = ({name: given[name] for name in given.keys() & part} for part in parts)
        network = replace(networks.PRESETS[preset], **shapes)
        return cls(**run, network=network, weights=objective.Weights(**weights))


def build_parser(family):
    """Builds the parser of a family's flags."""
    parser = argparse.ArgumentParser(
        prog="facedancer train",
        description="Trains a face-swap model. The same command resumes a run that was stopped.",
    )
    networks, objective = find_family(family), find_objective(family)
    add_flags(parser, TrainConfig)
    add_flags(parser.add_argument_group(f"networks of {family}"), networks.Config, networks.PRESETS)
    add_flags(parser.add_argument_group(f"losses of {family}"), objective.Weights)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="JSON file of these flags, such as a run's config.json; flags override its values",
    )
    for name in ("shift", "scale"):
        parser.add_argument(f"--{name}", type=float, default=0.5, metavar="X", help="only 0.5, as faces are in [-1, 1]")
    return parser


def parse_config(argv=None):
    """Parses the command line. A flag's value is that given, else that in `--config`, else the preset's or default.

    Returns:
        A `TrainConfig`.

    Raises:
        UserError: if a value is out of range, or the `--config` file is not a configuration.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--family", choices=[*FAMILIES])
    first.add_argument("--config")
    found, _ = first.parse_known_args(argv)
    stored = _read_config(found.config) if found.config else {}
    family = found.family or stored.get("family", DEFAULT_FAMILY)
    parser = build_parser(family)
    values = vars(parser.parse_args(argv))
    path = values.pop("config")
    for name in ("shift", "scale"):
        if values.pop(name) != 0.5:
            raise UserError(f"--{name} can only be 0.5: faces are in [-1, 1] everywhere")
    if path:
        check_types(f"--config {path}", stored, family)
    given = {**stored, **{name: x for name, x in values.items() if x is not None}}
    if "data_dir" not in given:
        parser.error("the following arguments are required: --data_dir")
    return TrainConfig.from_json(given)


def _read_config(path):
    """Reads flags from a JSON file: an object of flags, or a run's config.json with them under `config`."""
    try:
        values = read_json(path, dict)
    except FileNotFoundError:
        raise UserError(f"--config {path} is not there") from None
    except UserError as error:
        raise UserError(f"--config {error}; not a JSON object of flags") from None
    values = values.get("config", values)
    if not isinstance(values, dict):
        raise UserError(f"--config {path}: not a JSON object of flags")
    # A run's own file holds every flag; null leaves the choice to the preset.
    return {name: value for name, value in values.items() if value is not None}


def check_types(where, values, family):
    """Checks the values of a configuration file.

    Args:
        where: the file, for messages.
        values: name -> value from JSON.
        family: name of the family.

    Raises:
        UserError: if a name is not a flag of the family, or a value is not of its flag's type.
    """
    parts = (TrainConfig, find_family(family).Config, find_objective(family).Weights)
    flags = [item for part in parts for item in flags_of(part)]
    types = {item.name: word_type(item.type) for item in flags}
    lists = {item.name for item in flags if "tuple" in str(item.type)}
    if unknown := sorted(values.keys() - types.keys()):
        raise UserError(f"{where}: no flag of {family} is named {unknown[0]}")
    for name, value in values.items():
        if isinstance(value, list) != (name in lists):
            what = "a list of" if name in lists else "one"
            raise UserError(f"{where}: {name} is {json.dumps(value)}, not {what} {types[name].__name__}")
        for word in value if isinstance(value, list) else [value]:
            fits = isinstance(word, types[name]) or (types[name] is float and type(word) is int)
            if not fits or (isinstance(word, bool) and types[name] is not bool):
                raise UserError(f"{where}: {name} is {json.dumps(value)}, not {types[name].__name__}")
