"""Each lesson as a reader meets it: opened in JupyterLab, run from top to bottom, its explorer moved.

One JupyterLab and one browser serve all lessons; each has its own page, and its kernel ends with its test.
"""

import os
import shutil
from pathlib import Path

import nbformat
import pytest

if os.environ.get("CI") != "true":  # there, playwright must be installed, and its absence is an error
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[test]")

from lab import CHROMIUM_FLAGS, dead_controls, jupyterlab, look, run_all, shut_down_kernel
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium")
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


# An explorer whose second slider and whose second menu nothing listens to, and a warning.
BROKEN = """
import warnings
import matplotlib.pyplot as plt
from dhp_lab.notebook.sliders import Choice, Explorer, Slider
from dhp_lab.notebook.html import Rendered, picture_bytes

def render(wired, forgotten, colour, ignored):
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.bar([0], [wired], color=colour)
    return Rendered(picture_bytes(figure), "a bar", f"<p>{wired}</p>")

warnings.warn("look here")
Explorer(render, [Slider("wired", "wired", 1, 9, 1, 9), Slider("forgotten", "forgotten", 1, 9, 1, 3),
    Choice("colour", "colour", ["red", "blue"]), Choice("ignored", "ignored", ["a", "b"])], size=(200, 100))
"""

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium; on Debian: apt-get install chromium"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with all notebooks, their outputs cleared, and a broken one."""
    folder = tmp_path_factory.mktemp("notebooks")
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.update(outputs=[], execution_count=None)
        nbformat.write(notebook, folder / path.name)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=[new_code_cell(BROKEN)], metadata=kernel), folder / "broken.ipynb")
    return folder


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    """The address of the JupyterLab that serves the folder."""
    with jupyterlab(folder, tmp_path_factory.mktemp("jupyterlab")) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """A page of its own for one notebook, whose kernel ends with it."""
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    yield page
    try:
        shut_down_kernel(page, address)
    finally:
        page.close()


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_lesson_runs_and_its_explorer_answers(path, folder, address, page):
    assert run_all(page, address, folder / path.name) == []
    explorer = page.locator(".dhp-explorer")
    explorer.locator("img.dhp-picture[src]").wait_for()
    assert all(look(explorer)), "the explorer shows no picture, or no text under it"
    assert explorer.locator(".dhp-slider").count() >= 2, "the explorer has fewer than two sliders"
    assert dead_controls(explorer) == {"sliders": [], "menus": []}


@needs_chromium
@pytest.mark.slow
def test_warnings_and_dead_controls_are_noticed(folder, address, page):
    (warning,) = run_all(page, address, folder / "broken.ipynb")
    assert "look here" in warning
    explorer = page.locator(".dhp-explorer")
    explorer.locator("img.dhp-picture[src]").wait_for()
    assert dead_controls(explorer, seconds=6) == {"sliders": [1], "menus": [1]}
