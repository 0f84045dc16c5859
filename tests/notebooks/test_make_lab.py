"""A reader works in what `make lab` opens, and the clone stays as it was: tests pass, git sees nothing."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from chromium import CHROMIUM, needs_chromium
from nbformat.v4 import new_output

from dhp_lab.core.paths import ROOT

if CHROMIUM is not None:
    from lab import make, make_environment, make_lab, run_first

LESSON = "00_start_here.ipynb"
CLONED = ("dhp_lab", "tests", "benchmarks", "notebooks")
GIT = ["git", "-c", "user.name=reader", "-c", "user.email=reader@localhost"]


@pytest.fixture
def clone(tmp_path):
    """A committed copy of this work tree; the reader's own copies of the lessons are left alone."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in CLONED:
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb*"))
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy(path, clone / path.name)
    (clone / "data").symlink_to(ROOT / "data")
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*GIT, *words], cwd=clone, check=True)
    return clone


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder, hidden ones too."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*")}


def status(clone: Path) -> str:
    """What git says has changed."""
    command = [*GIT, "status", "--porcelain"]
    return subprocess.run(command, cwd=clone, check=True, capture_output=True, text=True).stdout


def solve(lesson: Path) -> None:
    """Put a right answer into the first exercise, and what its check says then, as a reader would."""
    notebook = nbformat.read(lesson, as_version=4)
    (stub,) = [cell for cell in notebook.cells if cell.source.startswith("def my_bits_per_pixel")]
    stub.source = (
        "def my_bits_per_pixel(num_bytes, height, width):\n    return 8 * num_bytes / height / width"
    )
    (check,) = [cell for cell in notebook.cells if "checks.bits_per_pixel(" in cell.source]
    praise = {"text/plain": "bits_per_pixel: correct"}
    check.outputs = [new_output("execute_result", praise, execution_count=4)]
    nbformat.write(notebook, lesson)


@needs_chromium
@pytest.mark.slow
def test_a_reader_runs_half_a_lesson_and_the_tests_still_pass(clone, browser, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    before, copy = hashes(clone / "notebooks"), clone / "my-lessons" / LESSON
    with make_lab(clone, state) as address:
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.goto(address, timeout=90_000)
        assert run_first(page, 3, copy) == []
        page.close()
    assert hashes(clone / "notebooks") == before and status(clone) == ""
    solve(copy)
    readers = copy.read_bytes()
    tests = "TESTS=tests/notebooks/test_notebooks.py tests/test_house.py"
    for words in (["test", "JOBS=0", tests], ["clean"]):
        done = subprocess.run(
            make(clone, state, *words), env=make_environment(clone), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert copy.read_bytes() == readers
    assert hashes(clone / "notebooks") == before and status(clone) == ""
