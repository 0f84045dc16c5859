"""Files that the Python package index holds, fetched by this Python's pip as any package is.

Only the archive comes, no dependencies, and nothing is installed. pip compares its sha256 before it looks
into it (a source archive's metadata is made by running its setup), and so does `fetch_archive` afterwards.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from dhp_lab.core.download import DownloadError

TIMEOUT = 1800.0  # seconds for an archive; then pip is ended
WHEEL = ".whl"


class Archive(NamedTuple):
    """A file of the index.

    Attributes:
        package, version: as pip takes them.
        file: its name.
        sha256: of its bytes.
    """

    package: str
    version: str
    file: str
    sha256: str


def fetch_archive(archive: Archive) -> bytes:
    """Fetch an archive through pip, and return its bytes once they are known to be the original's.

    Raises:
        DownloadError: pip is missing, cannot reach the index, or brought something else; the message is one
            line with pip's reason.
        OSError: the disk's own trouble.
    """
    with tempfile.TemporaryDirectory(prefix="dhp-") as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}\n")
        _run(archive, [*_options(archive), "--dest", folder, "--requirement", str(wanted)])
        path = Path(folder) / archive.file
        if not path.is_file():
            raise DownloadError(f"pip brought no {archive.file}")
        return check_archive(archive, path.read_bytes())


def check_archive(archive: Archive, data: bytes) -> bytes:
    """Return an archive's bytes as they are.

    Raises:
        DownloadError: their sha256 is another.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != archive.sha256:
        raise DownloadError(
            f"{archive.file} is not the original: its sha256 is {found}, not {archive.sha256}"
        )
    return data


def _options(archive: Archive) -> list[str]:
    """Of pip's command line: the one kind of file, quietly, without questions."""
    words = ["--no-deps", "--require-hashes", "--quiet", "--disable-pip-version-check", "--no-input"]
    if archive.file.endswith(WHEEL):
        return [*words, "--only-binary", ":all:"]
    has_builder = importlib.util.find_spec("setuptools") is not None  # else pip fetches one for itself
    return [*words, "--no-binary", ":all:", *(["--no-build-isolation"] if has_builder else [])]


def _run(archive: Archive, words: list[str]) -> None:
    """Run `pip download`.

    Raises:
        DownloadError: it failed, with its own reason.
    """
    command = [sys.executable, "-m", "pip", "download", *words]
    what = f"pip cannot fetch {archive.package} {archive.version}"
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, text=True)  # noqa: S603 (no shell)
    except subprocess.TimeoutExpired:
        raise DownloadError(f"{what}: it took longer than {TIMEOUT:g} s, and was ended") from None
    if done.returncode:
        raise DownloadError(f"{what}: {_reason(done.stderr)}")


def _reason(errors: str) -> str:
    """pip's first error, or what Python said that cannot start it."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return f"this Python has no pip; install it (`{sys.executable} -m ensurepip`)"
    causes = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return [*causes, *lines[-1:], "it gave no reason"][0]
