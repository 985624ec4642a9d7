"""The provenance of a run: library versions, code revision, fingerprint of the data."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

_ENDS = 1 << 16


def describe(shards, count):
    """Returns a JSON-able dictionary, for reading and comparing: `versions`, `revision`, `data`."""
    return {
        "versions": library_versions(),
        "revision": code_revision(),
        "data": {"faces": count, "shards": len(shards), "sha256": data_fingerprint(shards)},
    }


def library_versions():
    """Returns name -> version of the installed libraries that affect a run's results."""
    found = {"python": platform.python_version()}
    for name in ("facedancer", "keras", "tensorflow", "jax", "jaxlib", "torch", "numpy", "pillow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def code_revision():
    """Returns the code's Git commit, with `+` if files differ from it; None outside a checkout."""
    folder = Path(__file__).resolve().parents[2]

    def git(*words):
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        if git("rev-parse", "--show-toplevel") != str(folder):
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except FileNotFoundError:  # no Git here
        return None


def data_fingerprint(shards):
    """Returns a SHA-256 of the shards' names, sizes, first and last 64 KiB; reading it all would take too long."""
    digest = hashlib.sha256()
    for path in shards:
        size = os.path.getsize(path)
        digest.update(f"{os.path.basename(path)} {size}\n".encode(errors="surrogateescape"))
        with open(path, "rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(0, size - _ENDS))
            digest.update(file.read(_ENDS))
    return digest.hexdigest()
