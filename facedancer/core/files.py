"""Files that are whole or absent: atomic writes, a journal that survives a kill, sorted listings."""

import contextlib
import json
import os
import platform
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from facedancer.core.console import UserError
from facedancer.core.regular_files import opened_regular
from facedancer.core.schemas import MOST_BYTES, decode, read_json

# Read once: reading it means setting it for a moment, which two threads must not do at the same time.
_UMASK = os.umask(0)
os.umask(_UMASK)

LOCK_NAME = ".lock"

# A file name that is no UTF-8 reaches us with lone surrogates; this error handler writes them as JSON's own escapes.
_ESCAPE = "backslashreplace"


@contextlib.contextmanager
def atomic_path(path, folder=None):
    """Yields a temporary path in a folder, by default `path`'s own; moved when the block ends well, removed otherwise.

    The suffix is kept, as libraries choose a format by it. Parent folders are made. An `OSError` that names no file, as
    that of a full disk, then names `path`.
    """
    path = Path(path)
    make_folder(path.parent)
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    # No format's suffix is so long that the name would be too long for the file system; a file's own may be.
    suffix = path.suffix if len(os.fsencode(path.suffix)) < 100 else ""
    handle, name = tempfile.mkstemp(prefix=".partial-", suffix=suffix, dir=folder or path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_UMASK)  # `mkstemp` makes files that only their owner reads
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise
    except RuntimeError as error:
        # HDF5 fails once more as it closes the file, and that hides the full disk.
        if isinstance(error.__context__, OSError) and error.__context__.errno:
            raise OSError(error.__context__.errno, os.strerror(error.__context__.errno), os.fspath(path)) from error
        raise
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
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors=_ESCAPE))


def keep_settings(path, settings, advice):
    """Keeps what a command was asked for beside what it makes, so that it goes on with the same alone.

    Args:
        path: the JSON file.
        settings: dictionary of what JSON has.
        advice: what to do where the file says something else, for people.

    Raises:
        UserError: if it does, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        write_json(path, settings)
        return
    try:
        found = read_json(path, dict)
    except UserError as error:
        raise UserError(f"{error}; {advice}") from None
    if found != settings:
        raise UserError(f"{path} is of a run with other settings ({found}); {advice}")


@contextlib.contextmanager
def only_writer(place, lock_name=LOCK_NAME, what=None):
    """Keeps other commands from writing to the same place while the block runs. A killed process holds no lock.

    Args:
        place: folder, made where it is absent.
        lock_name: hidden file in it that says so to other processes, and which process it is; gone afterwards.
        what: what is written there, for people; by default the place.

    Raises:
        UserError: if another process is in such a block, with its number.
    """
    make_folder(place)
    path = Path(place, lock_name)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another command is writing {what or place}{_holder(path)}; let it end, or give another name"
        ) from None
    try:
        # Where the file system has no locks, `filelock` itself writes the same into the file, and needs it as it is.
        if not hasattr(lock, "pid"):
            path.write_text(f"{os.getpid()}\n{platform.node()}\n", encoding="utf-8")
        yield
    finally:
        # Removed while it is held: who waits for it sees that its file is gone, and begins with a new one.
        path.unlink(missing_ok=True)
        lock.release()


def _holder(path):
    """Says which process holds a lock, as its file does; nothing in the moment before that is written."""
    try:
        number, machine, *_ = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ValueError):
        return ""
    return f" (process {number})" if machine == platform.node() else f" (process {number} on {machine})"


def make_folder(path):
    """Makes a folder with its parents. Raises `UserError` where that cannot be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}") from None


def list_files(folder):
    """Returns every file below `folder`, sorted by relative path, hidden files and folders left out, links followed.

    Raises `UserError` if `folder`, or one below it, is not a folder that can be read.
    """
    folder = Path(folder)

    def stop(error):
        raise UserError(f"cannot read the folder {error.filename}: {error.strerror}") from None

    def leads_back(path):
        return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())

    found = []
    for parent, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and not leads_back(Path(parent, name))]
        found.extend(Path(parent, name) for name in names if not name.startswith("."))
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


@contextlib.contextmanager
def naming(path):
    """Gives an `OSError` of the block the name of its file, which a full disk does not say."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise


class Journal:
    """A file of JSON lines, one for each piece of work done, so that a killed command can go on.

    A line torn by a kill is cut off when the journal is opened again.

    Args:
        path: the file, made with its folder where it is absent.
        keep: function of an entry that says what `entries` holds of it, where all of it would take too much memory.
        kind: type of an entry (see `core.schemas`), for journals that go on a long way with what they find.

    Raises:
        UserError: if a line is of another type.
    """

    def __init__(self, path, keep=lambda entry: entry, kind=dict):
        self.path = Path(path)
        self.entries = []
        make_folder(self.path.parent)
        whole = 0
        if self.path.exists():
            with opened_regular(self.path) as file:
                while line := file.readline(MOST_BYTES + 1):
                    if not line.endswith(b"\n") and len(line) <= MOST_BYTES:
                        break
                    where = f"{self.path}, line {len(self.entries) + 1}"
                    try:
                        self.entries.append(keep(decode(line, kind, where)))
                    except UserError as error:
                        raise UserError(f"{error}; remove the file to start again") from None
                    whole += len(line)
            os.truncate(self.path, whole)
        self._file = open(self.path, "a", encoding="utf-8", errors=_ESCAPE)  # noqa: SIM115, closed by close()

    def append(self, entry):
        """Adds one entry and hands it to the operating system at once."""
        with naming(self.path):
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()

    def close(self):
        with naming(self.path):
            self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
