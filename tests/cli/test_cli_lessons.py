"""`dhp lessons`: the reader's copies beside the committed lessons."""

import re
import shutil
import subprocess

import nbformat
import pytest
from programs import dhp, refused

from dhp_lab.core import paths

LINK = re.compile(r"\]\((?!https?:|#|attachment:)([^)#\s]+)|(?:href|src)=\"(?!https?:|data:|#)([^\"#]+)")


@pytest.fixture
def copies(monkeypatch, tmp_path):
    """Another place for the copies: that of the clone is the reader's."""
    monkeypatch.setattr(paths, "LESSON_COPIES", tmp_path / "my-lessons")
    return paths.LESSON_COPIES


def links(notebook) -> list[str]:
    """The relative links of a notebook's prose."""
    cells = nbformat.read(notebook, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return [first or second for first, second in LINK.findall(prose)]


def test_the_lessons_are_copied_and_a_newer_one_is_named(copies):
    result = dhp("lessons")
    assert (result.exit_code, result.stdout) == (0, f"your copies of the lessons are in {copies}\n")
    committed = {path.name: path.read_bytes() for path in paths.LESSONS.glob("*.ipynb")}
    assert {path.name: path.read_bytes() for path in copies.glob("*.ipynb")} == committed
    (copies / ".copied.json").unlink()
    (copies / "00_start_here.ipynb").write_text("mine")
    assert dhp("lessons").stdout.splitlines()[1:] == [
        "00_start_here.ipynb: you changed it, so it stays; today's lesson is 00_start_here.newer.ipynb"
    ]
    assert (copies / "00_start_here.ipynb").read_text() == "mine"


def test_what_a_lesson_links_to_is_there_from_its_copy_too():
    """The copies lie as deep as the lessons: beside their neighbours, and as far from the clone's files."""
    assert paths.LESSON_COPIES.parent == paths.LESSONS.parent
    for notebook in paths.LESSONS.glob("*.ipynb"):
        assert [link for link in links(notebook) if not (paths.LESSONS / link).exists()] == []


def test_links_are_found(tmp_path):
    prose = '[next](01_ddpm.ipynb#noise) ![a](../a.png) <a href="02.ipynb">b</a> [c](https://c.org) [d](#d)'
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(prose)]), tmp_path / "a.ipynb"
    )
    assert links(tmp_path / "a.ipynb") == ["01_ddpm.ipynb", "../a.png", "02.ipynb"]


def test_git_ignores_the_copies():
    asked = [paths.LESSON_COPIES / "00_start_here.ipynb", paths.LESSONS / "00_start_here.ipynb"]
    command = ["git", "check-ignore", "--no-index", *asked]
    ignored = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT)
    if ignored.returncode == 128:
        pytest.skip("this is no clone")
    assert ignored.stdout.splitlines() == [str(asked[0])]


def test_make_clean_takes_nothing_of_the_readers(tmp_path):
    shutil.copy(paths.ROOT / "Makefile", tmp_path)
    kept = [
        "my-lessons/00_start_here.ipynb",
        "my-lessons/.copied.json",
        "my-lessons/tools/__pycache__/mine.txt",
    ]
    for name in [*kept, "dhp_lab/__pycache__/a.pyc", ".venv/bin/python", "dhp_lab.egg-info/PKG-INFO"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    command = ["make", "clean"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"Makefile", *kept}


def test_a_package_without_its_clone(monkeypatch, tmp_path, copies):
    monkeypatch.setattr(paths, "LESSONS", tmp_path / "notebooks")
    assert "there are no lessons at" in refused("lessons")
    assert not copies.exists()
