"""Files that are whole or absent: atomic writes, a journal that survives a kill, sorted listings."""

import contextlib
import json
import os
import tempfile
from pathlib import Path

from facedancer.core.console import UserError

# Read once: reading it means setting it for a moment, which two threads must not do at the same time.
_UMASK = os.umask(0)
os.umask(_UMASK)

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
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged; {advice}") from None
    if found != settings:
        raise UserError(f"{path} is of a run with other settings ({found}); {advice}")


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


class Journal:
    """A file of JSON lines, one for each piece of work done, so that a killed command can go on.

    A line torn by a kill is cut off when the journal is opened again.

    Args:
        path: the file, made with its folder where it is absent.
        keep: function of an entry that says what `entries` holds of it, where all of it would take too much memory.
    """

    def __init__(self, path, keep=lambda entry: entry):
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
                        self.entries.append(keep(json.loads(line)))
                    except ValueError:
                        raise UserError(
                            f"{self.path}, line {len(self.entries) + 1}, is not JSON; remove the file to start again"
                        ) from None
                    whole += len(line)
            os.truncate(self.path, whole)
        self._file = open(self.path, "a", encoding="utf-8", errors=_ESCAPE)  # noqa: SIM115, closed by close()

    def append(self, entry):
        """Adds one entry and hands it to the operating system at once."""
        with self._named_errors():
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()

    def close(self):
        with self._named_errors():
            self._file.close()

    @contextlib.contextmanager
    def _named_errors(self):
        try:
            yield
        except OSError as error:  # a full disk does not say which file it was
            error.filename = error.filename or os.fspath(self.path)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
