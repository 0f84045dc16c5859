"""TensorBoard inside a notebook: the button of lesson 07 in JupyterLab, and in the frame that it opens the
curves of a run.
"""

import os
import shutil
from pathlib import Path

import nbformat
import pytest

if os.environ.get("CI") != "true":  # there, playwright must be installed, and its absence is an error
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[test]")

from lab import CHROMIUM_FLAGS, jupyterlab, run_all
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect, sync_playwright
from torch.utils.tensorboard import SummaryWriter

CHROMIUM = shutil.which("chromium")
LESSON = Path(__file__).parents[2] / "notebooks" / "07_diffusion_hyperprior.ipynb"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """A notebook of the lesson's one cell with the button, beside the event files of a short run."""
    (button,) = [
        cell.source
        for cell in nbformat.read(LESSON, as_version=4).cells
        if cell.cell_type == "code" and "open TensorBoard" in cell.source
    ]
    path = tmp_path_factory.mktemp("notebooks") / "board.ipynb"
    with SummaryWriter(path.parent / "outputs" / "tensorboard") as board:
        for step in range(20):
            board.add_scalar("train/loss", 1 / (1 + step), step)
    where = new_code_cell("from pathlib import Path\noutputs = Path('outputs').resolve()")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=[where, new_code_cell(button)], metadata=kernel), path)
    return path


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium; on Debian: apt-get install chromium")
@pytest.mark.slow
def test_the_button_shows_tensorboard_in_the_notebook(notebook, tmp_path):
    with jupyterlab(notebook.parent, tmp_path) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        assert run_all(page, address, notebook) == []
        page.get_by_role("button", name="open TensorBoard").click()
        inside = page.locator(".jp-OutputArea iframe[title='TensorBoard']").content_frame
        expect(inside.get_by_text("train/loss", exact=True).first).to_be_visible(timeout=120_000)
        browser.close()
