"""Files that are whole or absent: atomic writes, a journal that survives a kill, sorted listings."""

import contextlib
import json
import os
import tempfile
from pathlib import Path

from facedancer.core.console import UserError


@contextlib.contextmanager
def atomic_path(path):
    """Yields a temporary path beside `path`, moved there when the block ends well, removed otherwise.

    The suffix is kept, as libraries choose a format by it. Parent folders are made.
    """
    path = Path(path)
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(prefix=".partial-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _default_permissions(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path, content):
    """Writes text or bytes to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        if isinstance(content, str):
            temporary.write_text(content, encoding="utf-8")
        else:
            temporary.write_bytes(content)


def write_json(path, value):
    """Writes `value` as indented JSON, whole or not at all."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def make_folder(path):
    """Makes a folder with its parents. Raises `UserError` where a file is in the way or it is not allowed."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}") from None


def list_files(folder):
    """Returns every file below `folder`, sorted by relative path, hidden files and folders left out.

    Raises `UserError` if `folder` is not a folder that can be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")

    def stop(error):
        raise UserError(f"cannot read the folder {error.filename}: {error.strerror}") from None

    found = []
    for parent, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.extend(Path(parent, name) for name in names if not name.startswith("."))
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


class Journal:
    """A file of JSON lines, one for each piece of work done, so that a killed command can go on.

    A line torn by a kill is cut off when the journal is opened again.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.entries = []
        make_folder(self.path.parent)
        whole = 0
        if self.path.exists():
            with open(self.path, "rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    try:
                        self.entries.append(json.loads(line))
                    except ValueError:
                        raise UserError(
                            f"{self.path}, line {len(self.entries) + 1}, is not JSON; remove the file to start again"
                        ) from None
                    whole += len(line)
            os.truncate(self.path, whole)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115, closed by close()

    def append(self, entry):
        """Adds one entry and hands it to the operating system at once."""
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self):
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _default_permissions(path):
    """`mkstemp` makes files that only their owner reads; ours are ordinary files."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)
