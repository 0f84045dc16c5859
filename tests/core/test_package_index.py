"""Archives through pip, which a made-up process stands for."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from dhp_lab.core import package_index
from dhp_lab.core.download import DownloadError
from dhp_lab.core.package_index import Archive, check_archive, fetch_archive

CONTENT = b"an archive"
WHEEL = Archive(
    "some-package", "1.2", "some_package-1.2-py3-none-any.whl", hashlib.sha256(CONTENT).hexdigest()
)
SOURCE = WHEEL._replace(file="some_package-1.2.tar.gz")


@pytest.fixture
def pip(monkeypatch):
    """A pip that writes some files or fails; returns its calls: words, requirements, folder."""

    def install(files=(), errors="", trouble=None):
        calls = []

        def run(command, **options):
            folder = Path(command[command.index("--dest") + 1])
            calls.append((command, (folder / "requirements.txt").read_text(), folder))
            assert options["capture_output"] and options["timeout"] > 0 and "shell" not in options
            if trouble:
                raise trouble
            for name, data in files:
                (folder / name).write_bytes(data)
            return subprocess.CompletedProcess(command, 1 if errors else 0, "", errors)

        monkeypatch.setattr(package_index.subprocess, "run", run)
        return calls

    return install


@pytest.mark.parametrize("archive", [WHEEL, SOURCE], ids=["wheel", "source"])
def test_pip_gets_the_sha256_before_it_looks_inside(pip, archive):
    calls = pip([(archive.file, CONTENT)])
    assert fetch_archive(archive) == CONTENT
    ((command, requirements, folder),) = calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert requirements == f"some-package==1.2 --hash=sha256:{archive.sha256}\n"
    assert {"--no-deps", "--require-hashes", "--no-input"} <= set(command)
    kind = "--only-binary" if archive is WHEEL else "--no-binary"
    assert command[command.index(kind) + 1] == ":all:"
    assert not folder.exists()


def test_a_source_archive_is_looked_at_without_fetching_a_builder_where_there_is_one(pip, monkeypatch):
    calls = pip([(SOURCE.file, CONTENT)])
    for found, expected in ((object(), True), (None, False)):
        monkeypatch.setattr(package_index.importlib.util, "find_spec", lambda name, found=found: found)
        fetch_archive(SOURCE)
        assert ("--no-build-isolation" in calls[-1][0]) is expected


RETRIES = "WARNING: Retrying after connection broken\n"
NOWHERE = (
    "ERROR: Could not find a version that satisfies the requirement some-package==1.2 (from versions: none)\n"
)


@pytest.mark.parametrize(
    "errors, reason",
    [
        (RETRIES + NOWHERE + "ERROR: No matching distribution found\n", "Could not find a version"),
        ("/usr/bin/python3: No module named pip\n", "this Python has no pip; install it"),
        ("something else\nand more\n", "and more"),
    ],
)
def test_its_failure_is_one_line(pip, errors, reason):
    calls = pip(errors=errors)
    with pytest.raises(DownloadError, match=f"^pip cannot fetch some-package 1.2: {reason}") as error:
        fetch_archive(WHEEL)
    assert "\n" not in str(error.value) and not calls[0][2].exists()


def test_one_that_hangs_is_ended(pip):
    pip(trouble=subprocess.TimeoutExpired("pip", 1))
    with pytest.raises(DownloadError, match="pip cannot fetch some-package 1.2: it took longer than 1800 s"):
        fetch_archive(WHEEL)


def test_what_is_not_the_original_is_refused(pip):
    pip([(WHEEL.file, b"another")])
    with pytest.raises(DownloadError, match=f"{WHEEL.file} is not the original: its sha256 is ae448ac8"):
        fetch_archive(WHEEL)
    pip([("other.whl", CONTENT)])
    with pytest.raises(DownloadError, match=f"pip brought no {WHEEL.file}"):
        fetch_archive(WHEEL)
    assert check_archive(WHEEL, CONTENT) is CONTENT
