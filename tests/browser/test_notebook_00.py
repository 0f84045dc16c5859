"""Notebook 00 as a reader meets it: opened in JupyterLab, run from top to bottom, its sliders moved by keyboard."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest

if os.environ.get("CI") != "true":  # there, playwright must be installed, and its absence is an error
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[test]")

from lab import CHROMIUM_FLAGS, changes_both, jupyterlab, look, run_all
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium")
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_start_here.ipynb"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium; on Debian: apt-get install chromium")
def test_sliders_change_picture_and_text(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    copy = folder / NOTEBOOK.name
    nbformat.write(notebook, copy)
    with jupyterlab(folder, tmp_path) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        assert run_all(page, address, copy) == []
        explorer = page.locator(".dhp-explorer")
        explorer.locator("img.dhp-picture[src]").wait_for()
        assert all(look(explorer))
        sliders = explorer.locator(".dhp-slider").get_by_role("slider").all()
        assert len(sliders) >= 2, "the explorer has fewer than two sliders"
        dead = [i for i, slider in enumerate(sliders) if not changes_both(explorer, slider)]
        assert dead == [], f"sliders {dead} (from 0, in the page's order) did not change picture and text"
        browser.close()
