"""Files are whole or absent, whatever happens to the program that writes them."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import pytest

from facedancer.core.console import UserError
from facedancer.core.files import (
    LOCK_NAME,
    Journal,
    atomic_path,
    keep_settings,
    list_files,
    make_folder,
    only_writer,
    write_atomic,
    write_json,
)


def test_write_atomic_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    write_atomic(path, "first")
    write_atomic(path, b"second")
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_a_failing_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.h5"
    write_atomic(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        assert temporary.suffix == ".h5"
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.h5"
    write_atomic(path, "old")
    code = f"""
        import os, signal
        from facedancer.core.files import atomic_path
        with atomic_path({str(path)!r}) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_permissions_are_ordinary_also_with_threads(tmp_path, monkeypatch):
    """Asking for the umask changes it for a moment, for all threads: writing must not ask."""
    umask = os.umask(0)
    os.umask(umask)
    monkeypatch.delattr(os, "umask")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: write_atomic(tmp_path / str(i), "x"), range(20)))
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_a_full_disk_names_the_file(tmp_path):
    """The limit on a file's size stands for a full disk: the write fails in the middle."""
    code = f"""
        import resource
        from facedancer.core.files import write_atomic
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            write_atomic({str(tmp_path / "big")!r}, b"x" * 20_000)
        except OSError as error:
            print(error.filename)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "big"), done.stderr
    assert not any(tmp_path.iterdir())


def test_an_error_of_a_library_names_the_file(tmp_path):
    """PyAV's names the temporary one and cannot be renamed."""
    with pytest.raises(OSError) as raised, atomic_path(tmp_path / "out.mp4") as temporary:
        raise av.error.OSError(errno.ENOSPC, "No space", str(temporary))
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "out.mp4"))
    assert not any(tmp_path.iterdir())


def test_a_full_disk_names_the_hdf5_file(tmp_path):
    """The HDF5 library itself closes the file in vain, hides why, and crashes."""
    code = f"""
        import errno, numpy, resource
        from facedancer.core.keras_h5 import written_hdf5
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            with written_hdf5({str(tmp_path / "gen.h5")!r}) as file:
                file.create_dataset("weights", data=numpy.ones(100_000))
        except OSError as error:
            print(error.errno == errno.EFBIG, error.filename)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.stdout.strip() == f"True {tmp_path / 'gen.h5'}", done.stderr
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_names_the_file(tmp_path, monkeypatch):
    """Not the temporary one, of which nobody knows."""

    def refuses(prefix, suffix, dir):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{dir}/{prefix}{suffix}")

    monkeypatch.setattr(tempfile, "mkstemp", refuses)
    with pytest.raises(PermissionError) as raised:
        write_atomic(tmp_path / "out.json", "{}")
    assert raised.value.filename == str(tmp_path / "out.json")


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        make_folder(tmp_path / "file" / "folder")
    with pytest.raises(UserError, match="cannot make the folder"):
        write_atomic(tmp_path / "file" / "x.txt", "x")


def test_write_json_keeps_other_scripts_and_odd_names(tmp_path):
    value = {"Ωmega": "日本", "no UTF-8": "caf\udce9"}
    write_json(tmp_path / "a.json", value)
    assert "日本" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


def test_list_files(tmp_path):
    names = ["b/2.jpg", "a b/1.jpg", "b/10.jpg", "c.jpg", "日本/é.png", ".git/x", "b/.DS_Store", "b/deep/er/1.jpg"]
    for name in names:
        write_atomic(tmp_path / name, "x")
    found = [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path)]
    assert found == ["a b/1.jpg", "b/10.jpg", "b/2.jpg", "b/deep/er/1.jpg", "c.jpg", "日本/é.png"]


def test_list_files_follows_links_but_not_in_circles(tmp_path):
    write_atomic(tmp_path / "store" / "1.jpg", "x")
    write_atomic(tmp_path / "data" / "anna" / "1.jpg", "x")
    (tmp_path / "data" / "bert").symlink_to(tmp_path / "store")
    (tmp_path / "data" / "anna" / "up").symlink_to(tmp_path / "data")
    found = [path.relative_to(tmp_path / "data").as_posix() for path in list_files(tmp_path / "data")]
    assert found == ["anna/1.jpg", "bert/1.jpg"]


def test_list_files_of_what_is_no_folder(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the folder .*none: No such file"):
        list_files(tmp_path / "none")
    write_atomic(tmp_path / "file", "x")
    with pytest.raises(UserError, match=r"cannot read the folder .*file: Not a directory"):
        list_files(tmp_path / "file")


def test_list_files_stops_at_an_unreadable_folder():
    """Root may read everything, so that the listing is then done by nobody."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        write_atomic(Path(folder, "closed", "1.jpg"), "x")
        Path(folder, "closed").chmod(0)
        user = os.geteuid()
        try:
            os.seteuid(65534 if user == 0 else user)
            with pytest.raises(UserError, match=r"cannot read the folder .*closed: Permission denied"):
                list_files(folder)
        finally:
            os.seteuid(user)
            Path(folder, "closed").chmod(0o700)


def test_journal_goes_on_after_a_torn_line(tmp_path):
    path = tmp_path / "new" / "journal.jsonl"
    with Journal(path) as journal:
        journal.append({"file": "日本 1.jpg", "n": 1})
        journal.append({"file": "caf\udce9.jpg", "n": 2})
    with open(path, "ab") as file:
        file.write(b'{"file": "torn')
    with Journal(path) as journal:
        assert [entry["file"] for entry in journal.entries] == ["日本 1.jpg", "caf\udce9.jpg"]
        journal.append({"n": 3})
    with Journal(path, keep=lambda entry: entry["n"]) as journal:
        assert journal.entries == [1, 2, 3]


def test_journal_entries_survive_a_kill(tmp_path):
    code = f"""
        import os, signal
        from facedancer.core.files import Journal
        journal = Journal({str(tmp_path / "j.jsonl")!r})
        for n in range(5):
            journal.append({{"n": n}})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    with Journal(tmp_path / "j.jsonl") as journal:
        assert journal.entries == [{"n": n} for n in range(5)]


def test_journal_refuses_what_is_no_json(tmp_path):
    (tmp_path / "j.jsonl").write_text('{"a": 1}\nnonsense\n')
    with pytest.raises(UserError, match=r"line 2: not JSON .*remove the file"):
        Journal(tmp_path / "j.jsonl")
    assert (tmp_path / "j.jsonl").read_text() == '{"a": 1}\nnonsense\n'


def test_settings_are_kept_and_others_refused(tmp_path):
    path = tmp_path / "out/settings.json"
    keep_settings(path, {"seed": 1}, "give another --output")
    keep_settings(path, {"seed": 1}, "give another --output")
    with pytest.raises(UserError, match=r"other settings \({'seed': 1}\); give another --output"):
        keep_settings(path, {"seed": 2}, "give another --output")
    path.write_text("{")
    with pytest.raises(UserError, match=r"not JSON .*; give another --output"):
        keep_settings(path, {"seed": 1}, "give another --output")


def test_a_temporary_name_is_not_too_long(tmp_path):
    """A file system takes 255 bytes, of which a suffix may be nearly all."""
    for name in ("a" * 251 + ".txt", "a." + "b" * 253, "é" * 125 + ".txt"):
        write_atomic(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"


def test_one_writer_at_a_time(tmp_path):
    second = only_writer(tmp_path / "out")
    said = pytest.raises(UserError, match=rf"another command is writing .*out \(process {os.getpid()}\); let it end")
    with only_writer(tmp_path / "out"), only_writer(tmp_path / "out", ".other.lock"), said:
        second.__enter__()
    with only_writer(tmp_path / "out"):
        assert (tmp_path / "out" / LOCK_NAME).is_file()
    assert not (tmp_path / "out").exists()


def test_a_writer_leaves_no_empty_folder_behind(tmp_path):
    with pytest.raises(UserError), only_writer(tmp_path / "a" / "b" / "c"):
        write_atomic(tmp_path / "a" / "file", "kept")
        raise UserError("wrong")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "file"]


def test_a_killed_writer_holds_no_lock(tmp_path):
    code = (
        "import os, signal\n"
        "from facedancer.core.files import only_writer\n"
        f"with only_writer({str(tmp_path)!r}):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert (tmp_path / LOCK_NAME).is_file()
    with only_writer(tmp_path), pytest.raises(UserError, match=rf"\(process {os.getpid()}\)"):
        only_writer(tmp_path).__enter__()
