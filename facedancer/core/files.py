"""Files that are either complete or absent: atomic writes, a journal that survives a kill, sorted listings."""

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

# Read once: reading the umask means setting it for a moment, which is not thread-safe.
_UMASK = os.umask(0)
os.umask(_UMASK)

LOCK_NAME = ".lock"

# File names that are not UTF-8 contain lone surrogates; this error handler writes them as JSON escapes.
_ESCAPE = "backslashreplace"


@contextlib.contextmanager
def atomic_path(path, folder=None):
    """Yields a temporary path in a folder, by default that of `path`; moved to `path` on success, removed on failure.

    The suffix is kept, since libraries choose the format by it. Parent folders are created. An `OSError` that names no
    file, such as a full disk, or the temporary one, is given the name `path`.
    """
    path = Path(path)
    make_folder(path.parent)
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    # The suffix of a known format never makes the name too long for the file system; an arbitrary one might.
    suffix = path.suffix if len(os.fsencode(path.suffix)) < 100 else ""
    try:
        handle, name = tempfile.mkstemp(prefix=".partial-", suffix=suffix, dir=folder or path.parent)
    except OSError as error:  # in a folder that cannot be written, for example
        error.filename = os.fspath(path)
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_UMASK)  # `mkstemp` creates files that only the owner can read
        os.replace(temporary, path)
    except OSError as error:
        if not error.errno or error.filename not in (None, "", name, temporary):
            raise
        # A new one, since PyAV's cannot be renamed.
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path, content):
    """Writes text or bytes to `path` atomically."""
    with atomic_path(path) as temporary:
        if isinstance(content, str):
            temporary.write_text(content, encoding="utf-8")
        else:
            temporary.write_bytes(content)


def write_json(path, value):
    """Writes `value` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors=_ESCAPE))


def keep_settings(path, settings, advice):
    """Stores a command's settings beside its output, so that it only resumes with the same settings.

    Args:
        path: the JSON file.
        settings: dictionary of JSON values.
        advice: what to do if the stored settings differ, for the error message.

    Raises:
        UserError: if they differ, or the file is damaged.
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
        raise UserError(f"{path} belongs to a run with other settings ({found}); {advice}")


@contextlib.contextmanager
def only_writer(place, lock_name=LOCK_NAME, what=None):
    """Keeps other commands from writing to the same place while the block runs. A killed process leaves no lock.

    Args:
        place: folder, created if missing, and removed again if nothing is written to it.
        lock_name: hidden file in it that is locked and names the process; removed afterward.
        what: what is written there, for the error message; by default the place.

    Raises:
        UserError: if another process holds the lock, with its number.
    """
    path = Path(place, lock_name)
    made = [folder for folder in path.parents if not folder.exists()]
    make_folder(place)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another command is writing {what or place}{_holder(path)}; let it end, or give another name"
        ) from None
    try:
        # Without file-system locks, `filelock` writes the same text itself and relies on it.
        if not hasattr(lock, "pid"):
            with naming(what or place):
                path.write_text(f"{os.getpid()}\n{platform.node()}\n", encoding="utf-8")
        yield
    finally:
        # Removed while held: a waiting process notices that the file is gone and starts with a new one.
        path.unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # that it is not empty
            for folder in made:
                folder.rmdir()


def _holder(path):
    """Returns the process that holds a lock, as its file says; empty just before that is written."""
    try:
        number, machine, *_ = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ValueError):
        return ""
    return f" (process {number})" if machine == platform.node() else f" (process {number} on {machine})"


def make_folder(path):
    """Creates a folder and its parents. Raises `UserError` if that fails."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}") from None


def list_files(folder):
    """Returns every file below `folder`, sorted by relative path. Skips hidden files and folders, and follows links.

    Raises `UserError` if `folder` or a folder below it cannot be read.
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
    """Adds the file's name to an `OSError` in the block; a full disk names none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise


class Journal:
    """A file of JSON lines, one per finished piece of work, so that a killed command can resume.

    A line truncated by a kill is removed when the journal is reopened.

    Args:
        path: the file; created with its folder if missing.
        keep: function of an entry that returns what to hold in `entries`, if whole entries would take too much memory.
        kind: type of an entry (see `core.schemas`).

    Raises:
        UserError: if a line has another type.
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
        """Appends one entry and flushes it to the operating system."""
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
