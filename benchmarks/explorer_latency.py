"""How long does a reader wait after moving a slider of lesson 00?

    python benchmarks/explorer_latency.py [--side 512] [--output data/results/explorer.json]

Renders positions never seen before, a new lambda at each K, then a new K for a file that is there, then the
same again from the cache; prints the median and the greatest seconds, and writes them as JSON and Markdown.
The browser's own drawing is not counted.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter

import numpy as np
import torch
from common import command_line, heading, load_codec, markdown_table, new_parser, page, save

from dhp_lab.lessons.start_here.explorer import CodecExplorer

STEPS = (0, 1, 4)
POSITIONS = 9  # of the slider of lambda, for each K


def wait(explorer: CodecExplorer, **position: float) -> float:
    """Return the seconds from one moved control to the new picture."""
    start = perf_counter()
    for name, value in position.items():
        explorer.controls[name].value = value
    return perf_counter() - start


def measure(explorer: CodecExplorer) -> dict[str, list[float]]:
    """Return the seconds of every kind of move."""
    seconds = {}
    for steps in STEPS:
        wait(explorer, steps=steps)
        rates = np.geomspace(2e-5, 9e-3, POSITIONS) * (1 + steps / 100)  # new ones for each K
        seconds[f"new lambda, K = {steps}"] = [wait(explorer, lambda_rate=float(rate)) for rate in rates]
    for name in ("new K", "seen before"):
        seconds[name] = [wait(explorer, steps=steps) for steps in (0, 1, 2, 3)]
    return seconds


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    rows = [
        [name, f"{median(values):.3f}", f"{max(values):.3f}"] for name, values in found["seconds"].items()
    ]
    return page(
        heading(found, f"{found['threads']} threads", f"model {found['model_id']}"),
        markdown_table(["moved", "s to the new picture: median", "greatest"], rows),
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "explorer")
    parser.add_argument("--side", type=int, default=512, help="of the photo, in pixels")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    model = load_codec()
    found = {
        "command": command_line(__file__, options, ["side"]),
        "threads": torch.get_num_threads(),
        "model_id": model.model_id.hex(),
        "seconds": measure(CodecExplorer(model, photo="astronaut", side=options.side)),
    }
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
