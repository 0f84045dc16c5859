"""Each lesson as a reader meets it: opened in JupyterLab, run from top to bottom, its explorer moved.

A lesson runs once, and all its tests look at that run. Where there is no browser, nbclient runs it, and the
explorers stay unmoved. One JupyterLab and one browser serve all lessons of a worker.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from chromium import CHROMIUM, needs_chromium
from execute_notebooks import execute
from nbformat.v4 import new_code_cell, new_notebook, new_output
from notebook_rules import RULES

if CHROMIUM is not None:
    from lab import dead_controls, errors, jupyterlab, look, run_all, save, shut_down_kernel
    from playwright.sync_api import Page

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
COMPARED = "nbval-check-output"
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}

# An explorer whose second slider and whose second menu nothing listens to, and a warning.
BROKEN = """
import warnings
import matplotlib.pyplot as plt
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider
from dhp_lab.notebook.html import Rendered, picture_bytes

def render(wired, forgotten, colour, ignored):
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.bar([0], [wired], color=colour)
    return Rendered(picture_bytes(figure), "a bar", f"<p>{wired}</p>")

warnings.warn("look here")
controls = [Slider("wired", "wired", 1, 9, 1, 9), Slider("forgotten", "forgotten", 1, 9, 1, 3),
    Dropdown("colour", "colour", ["red", "blue"]), Dropdown("ignored", "ignored", ["a", "b"])]
Explorer(render, controls, size=(200, 100))
"""


@dataclass
class Lesson:
    """One lesson after its one run."""

    committed: nbformat.NotebookNode
    executed: nbformat.NotebookNode
    page: Page | None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for notebooks that run; outputs of theirs stay in it."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    """The address of the JupyterLab that serves the folder."""
    with jupyterlab(folder, tmp_path_factory.mktemp("jupyterlab")) as address:
        yield address


@contextmanager
def page_of(browser, address) -> Iterator[Page]:
    """A page of its own for one notebook, whose kernel ends with it."""
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    try:
        yield page
        shut_down_kernel(page, address)
    finally:
        page.close()


@pytest.fixture
def page(browser, address):
    """A page for one test."""
    with page_of(browser, address) as page:
        yield page


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def lesson(request, folder):
    """A lesson that was run from top to bottom, its outputs cleared before."""
    committed = nbformat.read(request.param, as_version=4)
    notebook = copy.deepcopy(committed)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    path = folder / request.param.name
    nbformat.write(notebook, path)
    if CHROMIUM is None:
        execute(path)
        yield Lesson(committed, nbformat.read(path, as_version=4), None)
        return
    address = request.getfixturevalue("address")
    with page_of(request.getfixturevalue("browser"), address) as page:
        shown_errors = run_all(page, address, path)
        assert not shown_errors, "\n".join(shown_errors)
        yield Lesson(committed, save(page, path), page)


def shown(cell) -> list[str]:
    """What a cell printed, and the text and HTML of what it displayed."""
    printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    displayed = [output.get("data", {}) for output in cell.outputs]
    return [printed, *(data[mime] for data in displayed for mime in sorted(data) if mime.startswith("text/"))]


def changed_outputs(committed, executed) -> list[str]:
    """The outputs of cells with the tag that are not those of the repository."""
    pairs = zip(committed.cells, executed.cells, strict=True)
    tagged = [(old, new) for old, new in pairs if COMPARED in old.metadata.get("tags", ())]
    return [f"{shown(new)} instead of {shown(old)}" for old, new in tagged if shown(new) != shown(old)]


@pytest.mark.slow
def test_lesson_runs_and_its_numbers_are_those_of_the_repository(lesson):
    assert RULES["no_error_output"](lesson.executed) == []
    silent = [cell.source for cell in lesson.executed.cells if cell.get("execution_count", 1) is None]
    assert [source for source in silent if source.strip()] == []
    changed = changed_outputs(lesson.committed, lesson.executed)
    assert not changed, "\n".join(["`make notebooks` would change:", *changed])


@needs_chromium
@pytest.mark.slow
def test_its_explorer_answers(lesson):
    explorer = lesson.page.locator(".dhp-explorer")
    explorer.locator("img.dhp-picture[src]").wait_for()
    assert all(look(explorer)), "the explorer shows no picture, or no text under it"
    sliders, menus = (explorer.locator(kind).count() for kind in (".dhp-slider", "select"))
    assert sliders >= 2 or (sliders and menus >= 2), "the explorer has one slider alone, or none"
    assert dead_controls(explorer) == {"sliders": [], "menus": []}
    assert errors(lesson.page) == []


@needs_chromium
@pytest.mark.slow
def test_warnings_and_dead_controls_are_noticed(folder, address, page):
    path = folder / "broken.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(BROKEN)], metadata=KERNEL), path)
    (warning,) = run_all(page, address, path)
    assert "look here" in warning
    explorer = page.locator(".dhp-explorer")
    explorer.locator("img.dhp-picture[src]").wait_for()
    assert dead_controls(explorer, seconds=6) == {"sliders": [1], "menus": [1]}


def test_changed_outputs_are_noticed():
    printed = new_output("stream", text="0.3 bits\n")
    displayed = new_output("display_data", {"text/html": "<p>1</p>", "image/png": "iVBORw0KGgo="})
    cell = new_code_cell("f()", outputs=[printed, displayed], metadata={"tags": [COMPARED]})
    committed = new_notebook(cells=[cell, new_code_cell("g()", outputs=[printed])])

    def run_again(change) -> list[str]:
        executed = copy.deepcopy(committed)
        change(executed)
        return changed_outputs(committed, executed)

    assert run_again(lambda nb: None) == []
    assert run_again(lambda nb: nb.cells[0].outputs[1].data.update({"image/png": "other"})) == []
    assert run_again(lambda nb: nb.cells[1].outputs.clear()) == []  # it has no tag
    assert len(run_again(lambda nb: nb.cells[0].outputs[0].update(text="0.4 bits\n"))) == 1
    assert len(run_again(lambda nb: nb.cells[0].outputs[1].data.update({"text/html": "<p>2</p>"}))) == 1
    assert len(run_again(lambda nb: nb.cells[0].outputs.clear())) == 1
