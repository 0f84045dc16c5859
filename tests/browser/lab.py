"""JupyterLab in a browser: start it, run a notebook, look at its outputs, move its sliders by keyboard."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from playwright.sync_api import Locator, Page

# Debian's Chromium as root, without a display, asking nothing of the network.
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SETTINGS = {
    # Every cell is in the page, not only those in view.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
ERRORS = ".jp-OutputArea-output[data-mime-type*='error'], .jp-OutputArea-output[data-mime-type*='stderr']"


@contextmanager
def jupyterlab(folder: Path, state: Path) -> Iterator[str]:
    """Serve the notebooks of `folder` and yield the server's address; settings and logs go to `state`."""
    for name, values in SETTINGS.items():
        file = state / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={address.rpartition(':')[2]}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", "--IdentityProvider.token="]
    command += [f"--LabApp.user_settings_dir={state / 'settings'}", f"--LabApp.workspaces_dir={state / 'workspaces'}"]
    with open(state / "server.log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for(server, address, state / "server.log")
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)


def _wait_for(server: subprocess.Popen, address: str, log: Path, seconds: float = 40) -> None:
    for _ in range(int(seconds / 0.2)):
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
            return
        except urllib.error.URLError:
            if server.poll() is not None:
                break
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not answer at {address}:\n{log.read_text()[-3000:]}")


def run_all(page: Page, address: str, notebook: Path, seconds: float = 60) -> list[str]:
    """Open a notebook without outputs, run all its cells, and return the texts of errors and warnings."""
    cells = nbformat.read(notebook, as_version=4).cells
    to_run = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in cells)
    page.goto(f"{address}/lab/tree/{notebook.name}")
    kernel_is_ready = re.compile(r"^(?!No Kernel).* \| Idle$")
    page.locator("#jp-main-statusbar").get_by_text(kernel_is_ready).wait_for(timeout=40_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    numbered = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].filter(e => /\\d/.test(e.innerText))"
    ended = f'{numbered}.length === {to_run} || document.querySelector("{ERRORS}")'
    page.wait_for_function(ended, timeout=1000 * seconds)
    return page.locator(ERRORS).all_inner_texts()


def look(explorer: Locator) -> tuple[str, str]:
    """Return what the explorer shows: its picture's address and its line of text."""
    return explorer.locator("img.dhp-picture").get_attribute("src"), explorer.locator(".dhp-text").inner_text()


def changes_both(explorer: Locator, slider: Locator, presses: int = 3, seconds: float = 10) -> bool:
    """Move a slider by up to `presses` arrow keys; return whether picture and text both change from what they were."""
    before = look(explorer)
    at_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
    for _ in range(presses):
        slider.focus()
        slider.press("ArrowLeft" if at_end else "ArrowRight")
        for _ in range(int(seconds / presses / 0.1)):
            if all(now != then for now, then in zip(look(explorer), before)):
                return True
            time.sleep(0.1)
    return False
