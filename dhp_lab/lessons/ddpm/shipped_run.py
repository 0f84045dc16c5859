"""The training of the shipped denoiser of digits, as benchmarks/digit_training.py has stored it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor

from dhp_lab.core.paths import RESULTS
from dhp_lab.data.digits import SIDE
from dhp_lab.notebook.results import read_results, source_html

FILE = RESULTS / "digit_training.json"
ORDER = "after", "shipped", "ideal", "real"  # of the rows, by a word of their names; "after" n steps, rising


@dataclass(frozen=True)
class Samples:
    """What was drawn by one denoiser.

    Attributes:
        name: of the denoiser.
        digits: (n, 1, 8, 8) the first samples, in [-1, 1]; n = 0 for real digits.
        distance: Fréchet distance to the training digits, mean over the draws.
        deviation: its standard deviation over the draws.
        nearest: mean root mean square distance to the nearest training digit.
    """

    name: str
    digits: Tensor
    distance: float
    deviation: float
    nearest: float


@dataclass(frozen=True)
class ShippedRun:
    """A training of the network, and samples at moments of it.

    Attributes:
        losses: means over ``every`` training steps each.
        every: training steps.
        rows: samples by the name of their denoiser: moments of the training, its end, and what it is compared
            with.
        size: samples of each draw.
        source: the command and the machine, as HTML.
    """

    losses: list[float]
    every: int
    rows: dict[str, Samples]
    size: int
    source: str


def shipped_run(file: Path = FILE) -> ShippedRun:
    """Read what the benchmark wrote.

    Raises:
        FileNotFoundError: it has not run.
    """
    found = read_results(file)
    order = sorted(found["rows"], key=lambda one: [part in one["name"] for part in ORDER].index(True))
    rows = {
        one["name"]: Samples(
            one["name"],
            _pictures(one["digits"]),
            mean(one["frechet_distances"]),
            stdev(one["frechet_distances"]),
            one["nearest"],
        )
        for one in order
    }
    return ShippedRun(found["loss"], found["loss_every"], rows, found["samples"], source_html(found))


def _pictures(digits: list[str]) -> Tensor:
    """Grey levels 0 .. 16, 64 of them in a string -> (n, 1, 8, 8) in [-1, 1]."""
    levels = [[int(level) for level in digit.split()] for digit in digits]
    return torch.tensor(levels, dtype=torch.float32).view(-1, 1, SIDE, SIDE) / 8 - 1
