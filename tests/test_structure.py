"""The shape of the code: who imports whom, and that every command and layer can be reached."""

import ast
import functools
import os
import re
import subprocess
import sys

import pytest

from facedancer.cli import VERBS
from facedancer.models.families import FAMILIES

EVERYTHING = {
    "core", "retinaface", "arcface_model", "face_parts", "synthetic", "dataset", "models", "train", "media",
    "video_swap", "evaluate",
}  # fmt: skip
MAY_IMPORT = {
    "core": set(),
    "retinaface": {"core"},
    "arcface_model": {"core", "face_parts"},
    "models": {"core"},
    "synthetic": {"core"},
    "face_parts": {"core", "retinaface", "synthetic"},
    "dataset": {"core", "retinaface", "face_parts"},
    "train": {"core", "arcface_model", "dataset", "models"},
    "media": {"core"},
    "video_swap": {"core", "media", "retinaface", "arcface_model", "face_parts", "models"},
    "evaluate": EVERYTHING - {"train"},
    "commands": EVERYTHING | {"cli"},
    "cli": EVERYTHING,
}


def imported_parts(path):
    """The folders of ours that a module imports, wherever in it, and the `module:function` texts that it resolves."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "facedancer" and len(parts) > 1:
                yield parts[1]


def test_import_table(repository):
    package = repository / "facedancer"
    modules = sorted(package.rglob("*.py"))
    assert len(modules) > 20
    for path in modules:
        relative = path.relative_to(package)
        part = relative.parts[0].removesuffix(".py")
        if part in ("__init__", "__main__"):
            continue
        assert part in MAY_IMPORT, f"{relative}: no such folder in the import table"
        for imported in imported_parts(path):
            assert imported == part or imported in MAY_IMPORT[part], f"{relative} imports {imported}"


def test_layers_are_in_keras_backend_neutral_modules(repository):
    """Networks and losses are written with Keras alone, so that they run on any engine."""
    for folder in ("models", "retinaface", "arcface_model", "train/objectives"):
        for path in (repository / "facedancer" / folder).rglob("*.py"):
            if path.name == "onnx_export.py":  # tf2onnx converts graphs of TensorFlow
                continue
            assert "import tensorflow" not in path.read_text(encoding="utf-8"), path
    assert "tensorflow" not in (repository / "facedancer/train/losses.py").read_text(encoding="utf-8")


# These name the package, which has the name of its first family.
NAME_THE_PACKAGE = {"corner_resize.py", "logs.py", "provenance.py", "schedules.py", "batch.py"}


def named_families(path):
    """Families that a module names: as a text of its own, as a module that it imports, or as a variable."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in FAMILIES and path.name not in NAME_THE_PACKAGE:
            yield node.value
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            yield from (family for family in FAMILIES if name.lower() == family)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module.split(".")[-1], *(alias.name for alias in node.names)]
            yield from (name for name in names if name in FAMILIES and len(node.module.split(".")) > 1)


def test_no_family_is_named_where_all_are_served(repository):
    """A family is its two modules and one line of `models/families.py`."""
    package = repository / "facedancer"
    folders = ("core", "dataset", "video_swap", "evaluate")
    shared = [*(package / "train").glob("*.py"), *(path for x in folders for path in (package / x).rglob("*.py"))]
    assert len(shared) > 50
    assert {str(path): set(found) for path in shared if (found := list(named_families(path)))} == {}
    for family in FAMILIES:
        assert (package / "models" / f"{family}.py").is_file()
        assert (package / "train/objectives" / f"{family}.py").is_file()


@functools.cache
def help_of(verb):
    """Returns a verb's help, the libraries that were imported for it, and the processor's seconds it took."""
    before = os.times()
    words = [sys.executable, "-X", "importtime", "-m", "facedancer", verb, "--help"]
    done = subprocess.run(words, capture_output=True, text=True)
    after = os.times()  # the processor's, as other work may keep the process waiting
    assert done.returncode == 0, done.stderr
    imported = set(re.findall(r"^import time:.*\| +(\w+)$", done.stderr, re.MULTILINE))
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout, imported, seconds


def test_commands_live_in_packages(repository):
    """A command lives in the package whose work it does, or in `commands`; nothing lies beside the packages."""
    package = repository / "facedancer"
    assert {path.name for path in package.glob("*.py")} == {"__init__.py", "__main__.py", "cli.py"}
    modules = {module for module, _ in VERBS.values()}
    for module in modules:
        tree = ast.parse((repository / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        assert "main" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, module
    for path in (package / "commands").glob("[!_]*.py"):
        assert f"facedancer.commands.{path.stem}" in modules, path


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_fast_and_names_the_flags(verb):
    text, _, seconds = help_of(verb)
    assert "usage:" in text
    assert seconds < 2.0


@pytest.mark.parametrize("verb", VERBS)
def test_help_loads_no_deep_learning_library(verb):
    _, imported, _ = help_of(verb)
    assert {"argparse", "facedancer"} <= imported
    assert not {"tensorflow", "keras", "jax", "torch"} & imported


LAUNCHERS = {
    "dataset/crop_align.py": "crop_align",
    "dataset/dataset_sharding.py": "dataset_sharding",
    "dataset/triplets.py": "triplets",
    "train/train.py": "train",
    "video_swap/multi_face_single_source.py": "swap_video",
    "video_swap/interpolate.py": "interpolate",
    "video_swap/swap_grid.py": "swap_grid",
    "video_swap/swap_image.py": "swap_image",
}


@pytest.mark.parametrize("script", LAUNCHERS)
def test_launchers_have_the_flags_of_their_verb(repository, tmp_path, script):
    """The scripts of the mission are `facedancer <verb>`, from whatever folder they are called."""

    words = [sys.executable, repository / script, "--help"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found, expected = (set(re.findall(r"--\w+", text)) for text in (done.stdout, help_of(LAUNCHERS[script])[0]))
    assert len(found) > 4
    assert found == expected
