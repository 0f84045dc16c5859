"""Execute notebooks in place and keep only what belongs into the repository (`make notebooks`).

python tests/notebooks/execute_notebooks.py notebooks/00_start_here.ipynb ...
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def clean(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop widgets (they are dead without a kernel), timings, and all metadata but the kernel and the cells'
    tags.
    """
    nb.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in nb.cells:
        cell.metadata = nbformat.from_dict({"tags": cell.metadata.tags} if cell.metadata.get("tags") else {})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET_VIEW not in output.get("data", {})]
    return nb


def execute(path: Path) -> None:
    """Run a notebook from top to bottom in a fresh kernel and write it back; an error leaves the file as it
    was.
    """
    nb = nbformat.read(path, as_version=4)
    client = NotebookClient(
        nb, kernel_name="python3", timeout=None, resources={"metadata": {"path": path.parent}}
    )
    client.store_widget_state = False
    client.execute()
    nbformat.write(clean(nb), path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        start = time.perf_counter()
        execute(Path(name))
        print(f"{name}: {time.perf_counter() - start:.0f} s")
