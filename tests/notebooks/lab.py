"""JupyterLab in a browser: start it, run a notebook, look at its outputs, move its sliders by keyboard and
its menus.
"""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from playwright.sync_api import Locator, Page

# Debian's Chromium as root, without a display, asking nothing of the network.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]
SETTINGS = {
    # Every cell is in the page, not only those in view.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
ERRORS = ".jp-OutputArea-output[data-mime-type*='error'], .jp-OutputArea-output[data-mime-type*='stderr']"


@contextmanager
def jupyterlab(folder: Path, state: Path) -> Iterator[str]:
    """Serve the notebooks of `folder` and yield the server's address; settings and logs go to `state`."""
    port = _prepare(state)
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", f"--ServerApp.root_dir={folder}"]
    with _serving([*command, *_options(port, state)], port, state / "server.log") as address:
        yield address


@contextmanager
def make_lab(clone: Path, state: Path) -> Iterator[str]:
    """Run `make lab` in a clone, with this Python, and yield the server's address."""
    port = _prepare(state)
    command = make(clone, state, "lab", f"ARGS={shlex.join(_options(port, state))}")
    with _serving(command, port, state / "server.log", env=make_environment(clone)) as address:
        yield address


def make(clone: Path, state: Path, *words: str) -> list[str]:
    """The command `make ...` in a clone that needs no `.venv` of its own."""
    ready = state / "ready"
    ready.touch()
    return ["make", f"--directory={clone}", f"PY={sys.executable}", f"READY={ready}", *words]


def make_environment(clone: Path) -> dict[str, str]:
    """What a shell has in which no `make` runs yet, with the package of the clone."""
    inherited = ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL")
    return {name: value for name, value in os.environ.items() if name not in inherited} | {
        "PYTHONPATH": str(clone)
    }


def _prepare(state: Path) -> str:
    """Write JupyterLab's settings, and return a free port."""
    for name, values in SETTINGS.items():
        file = state / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _options(port: str, state: Path) -> list[str]:
    server = ["--no-browser", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="]
    folders = {"user_settings_dir": state / "settings", "workspaces_dir": state / "workspaces"}
    return [*server, *(f"--LabApp.{name}={folder}" for name, folder in folders.items())]


@contextmanager
def _serving(command: list[str], port: str, log: Path, env: dict[str, str] | None = None) -> Iterator[str]:
    """Run a server's command, and end it and what it started."""
    address = f"http://127.0.0.1:{port}"
    with open(log, "w") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream, env=env, start_new_session=True)
    try:
        _wait_for(server, address, log)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


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


def run_all(page: Page, address: str, notebook: Path, seconds: float = 240) -> list[str]:
    """Open a notebook without outputs, run all its cells, and return the texts of errors and warnings."""
    to_run = len(_code(notebook))
    # In a workspace of its own no other tab opens.
    page.goto(f"{address}/lab/workspaces/{notebook.stem}/tree/{notebook.name}")
    _wait_for_kernel(page)
    _choose(page, "Run", "Run All Cells")
    _wait_for_cells(page, to_run, seconds)
    return errors(page)


def run_first(page: Page, count: int, notebook: Path, seconds: float = 120) -> list[str]:
    """Run the first code cells of the notebook that is open, as a reader does: by Shift and Enter, after the
    old outputs were cleared. Have it saved, and return errors and warnings.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    last = [number for number, cell in enumerate(cells) if cell.cell_type == "code"][count - 1]
    _wait_for_kernel(page)
    _choose(page, "Edit", "Clear Outputs of All Cells")
    page.locator(".jp-Notebook .jp-Cell").first.locator(".jp-MarkdownOutput").click()
    for _ in range(last + 1):
        page.keyboard.press("Shift+Enter")
    _wait_for_cells(page, count, seconds)
    _save(page, notebook, count, seconds)
    return errors(page)


def _wait_for_kernel(page: Page) -> None:
    kernel_is_ready = re.compile(r"^(?!No Kernel).* \| Idle$")
    page.locator("#jp-main-statusbar").get_by_text(kernel_is_ready).wait_for(timeout=90_000)


def _wait_for_cells(page: Page, count: int, seconds: float) -> None:
    """Wait until so many code cells have run, or one shows an error."""
    numbered = (
        "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].filter(e => /\\d/.test(e.innerText))"
    )
    ended = f'{numbered}.length === {count} || document.querySelector("{ERRORS}")'
    page.wait_for_function(ended, timeout=1000 * seconds)


def errors(page: Page) -> list[str]:
    """The texts of the errors and warnings that the open notebook shows."""
    return page.locator(ERRORS).all_inner_texts()


def save(page: Page, notebook: Path, seconds: float = 20) -> nbformat.NotebookNode:
    """Save the open notebook, all of whose cells ran, and return what is then in its file."""
    _save(page, notebook, len(_code(notebook)), seconds)
    return nbformat.read(notebook, as_version=4)


def _save(page: Page, notebook: Path, count: int, seconds: float) -> None:
    """Save the open notebook, and wait until its file says that so many code cells ran."""
    page.keyboard.press("Control+s")
    for _ in range(int(seconds / 0.2)):
        try:
            if sum(cell.execution_count is not None for cell in _code(notebook)) == count:
                return
        except nbformat.reader.NotJSONError:
            pass  # JupyterLab is just writing it
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not save {notebook.name}")


def _code(notebook: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def shut_down_kernel(page: Page, address: str, seconds: float = 20) -> None:
    """End the kernel of the notebook in view and wait for that, so that the next one has its memory."""
    before = _kernels(address)
    _choose(page, "Kernel", "Shut Down Kernel")
    for _ in range(int(seconds / 0.2)):
        if len(_kernels(address)) < len(before):
            return
        time.sleep(0.2)


def _kernels(address: str) -> list[dict]:
    with urllib.request.urlopen(f"{address}/api/kernels", timeout=5) as kernels:
        return json.load(kernels)


def _choose(page: Page, menu: str, entry: str) -> None:
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.get_by_role("menuitem", name=entry, exact=True).click()


def look(explorer: Locator) -> tuple[str, str]:
    """Return what the explorer shows: its picture's address and its line of text."""
    return explorer.locator("img.dhp-picture").get_attribute("src"), explorer.locator(
        ".dhp-text"
    ).inner_text()


def dead_controls(explorer: Locator, *, seconds: float = 10) -> dict[str, list[int]]:
    """Move every slider by arrow keys, then every menu; return which do nothing, as numbers from 0 in the
    page's order.

    A slider must change picture and text within `seconds`, which three presses share, as one step may be too
    small to see. A menu must change the picture at its next entry. Each control starts from where the ones
    before were left.
    """
    sliders = explorer.locator(".dhp-slider").get_by_role("slider").all()
    menus = explorer.locator("select").all()
    dead_sliders = [
        i for i, slider in enumerate(sliders) if not _answers(explorer, slider, _move_slider, 3, seconds)
    ]
    dead_menus = [i for i, menu in enumerate(menus) if not _answers(explorer, menu, _move_menu, 1, seconds)]
    return {"sliders": dead_sliders, "menus": dead_menus}


def _move_slider(slider: Locator) -> None:
    at_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
    slider.focus()
    slider.press("ArrowLeft" if at_end else "ArrowRight")


def _move_menu(menu: Locator) -> None:
    """Choose the next entry, or the one before where the last is chosen; arrow keys do not move a closed menu
    here.
    """
    chosen, count = menu.evaluate("menu => [menu.selectedIndex, menu.options.length]")
    menu.select_option(index=chosen + 1 if chosen < count - 1 else chosen - 1)


def _answers(
    explorer: Locator, control: Locator, move: Callable[[Locator], None], presses: int, seconds: float
) -> bool:
    before, is_menu = look(explorer), move is _move_menu
    for _ in range(presses):
        move(control)
        give_up = time.monotonic() + seconds / presses
        while time.monotonic() < give_up:
            picture, text = look(explorer)
            picture_changed, text_changed = picture != before[0], text != before[1]
            if picture_changed and (text_changed or is_menu):
                return True
            time.sleep(0.1)
    return False
