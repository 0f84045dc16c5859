"""How long does a reader wait after moving a slider of lesson 00?

    python benchmarks/explorer_latency.py [--side 512] [--output data/results/explorer.json]

Renders positions never seen before, a new lambda at each K, then a new K for a known file, then the same again from the
cache; prints the median and the greatest seconds and writes them as JSON. The browser's own drawing is not counted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch

from dhp_lab.checkpoints import default_checkpoint, write_atomic
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.explorers import CodecExplorer

ROOT = Path(__file__).resolve().parents[1]


def wait(explorer: CodecExplorer, **position) -> float:
    """Seconds from one moved control to the new picture."""
    start = perf_counter()
    for name, value in position.items():
        explorer.controls[name].value = value
    return perf_counter() - start


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    found = {"command": f"python benchmarks/explorer_latency.py --side {options.side}", "threads": torch.get_num_threads(),
             "model_id": model.model_id.hex(), "seconds": seconds}
    write_atomic(options.output, (json.dumps(found, indent=1) + "\n").encode())
    for name, values in seconds.items():
        print(f"{name:<20} median {median(values):.3f} s, greatest {max(values):.3f} s")


if __name__ == "__main__":
    main()
