"""How long does a reader wait after moving a slider of lesson 00?

    python benchmarks/explorer_latency.py [--side 512] [--output data/results/explorer.json]

Renders positions never seen before, a new lambda at each K, then a new K for a known file, then the same
again from the cache; prints the median and the greatest seconds, and writes them as JSON and Markdown. The
browser's own drawing is not counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from saving import save

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.paths import default_checkpoint
from dhp_lab.lessons.start_here.explorer import CodecExplorer

ROOT = Path(__file__).resolve().parents[1]


def wait(explorer: CodecExplorer, **position) -> float:
    """Seconds from one moved control to the new picture."""
    start = perf_counter()
    for name, value in position.items():
        explorer.controls[name].value = value
    return perf_counter() - start


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    lines = [
        f"`{found['command']}`, {found['threads']} threads; model {found['model_id']}",
        "",
        "| moved | s to the new picture: median | greatest |",
        "|---|---:|---:|",
    ]
    return "\n".join(
        [
            *lines,
            *(
                f"| {name} | {median(values):.3f} | {max(values):.3f} |"
                for name, values in found["seconds"].items()
            ),
        ]
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "results" / "explorer.json")
    options = parser.parse_args()
    model = DiffusionHyperprior.from_pretrained(default_checkpoint())
    explorer, seconds = CodecExplorer(model, photo="astronaut", side=options.side), {}
    for steps in (0, 1, 4):
        wait(explorer, steps=steps)
        rates = np.geomspace(2e-5, 9e-3, 9) * (1 + steps / 100)
        seconds[f"new lambda, K = {steps}"] = [wait(explorer, lambda_rate=float(rate)) for rate in rates]
    seconds["new K"] = [wait(explorer, steps=steps) for steps in (0, 1, 2, 3)]
    seconds["seen before"] = [wait(explorer, steps=steps) for steps in (0, 1, 2, 3)]
    found = {
        "command": f"python benchmarks/explorer_latency.py --side {options.side}",
        "threads": torch.get_num_threads(),
        "model_id": model.model_id.hex(),
        "seconds": seconds,
    }
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
