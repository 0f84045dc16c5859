"""What does guidance cost, and which part of its chain? Thresholding and intervals, measured on digits.

    python benchmarks/digit_guidance.py [--samples 160] [--seeds 3] [--steps 10] [--output ...]

The shipped conditional denoiser draws every class equally often by DDIM, once for each seed. Three tables:
the guidance scale with x0 left as it is, clipped to the data's range (static thresholding), and with dynamic
thresholding; and one scale that acts in a part of the chain alone. Prints the tables, and writes them as JSON
and Markdown: means over the seeds, and standard deviations behind them.

    accuracy            share of samples whose class the classifier recognises
    saturated           share of the pixels at the ends of the range
    the others          as in digit_samplers.py
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from statistics import mean, stdev

import torch
from common import (
    add_machine_options,
    command_line,
    heading,
    markdown_table,
    new_parser,
    page,
    save,
    set_threads,
)
from digit_samplers import QUALITY, quality

from dhp_lab.core.environment import environment
from dhp_lab.data.digits import CLASSES, SIDE, round_to_levels
from dhp_lab.diffusion.guidance import clipped, dynamically_thresholded, guided
from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.samplers import ddim, last, start
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.metrics.digit_classifier import class_accuracy
from dhp_lab.training.digit_denoiser import load_denoiser

Threshold = Callable[[Denoiser, NoiseSchedule], Denoiser]
QUANTILE = 0.9  # of dynamic thresholding: 6 of the 64 pixels lie beyond
WHOLE = (0, math.inf)


def unchanged(denoiser: Denoiser, schedule: NoiseSchedule) -> Denoiser:
    """Leave x0 as it is."""
    return denoiser


THRESHOLDS: dict[str, Threshold] = {
    "none": unchanged,
    "static": clipped,
    "dynamic": partial(dynamically_thresholded, quantile=QUANTILE),
}


@dataclass(frozen=True)
class Setting:
    """One row: a scale, what is done to x0, and the times at which the scale acts."""

    scale: float
    threshold: str = "static"
    interval: tuple[float, float] = WHOLE


SCALES = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 15.0)
INTERVALS = ((0, 200), (200, 500), (500, 1000), (200, 1000))
SETTINGS = (
    *(Setting(scale) for scale in SCALES),
    *(Setting(scale, kind) for scale in (8.0, 15.0) for kind in ("none", "dynamic")),
    *(Setting(8.0, "static", interval) for interval in INTERVALS),
)


def measure(setting: Setting, samples: int, steps: int, seeds: int) -> dict[str, list[float]]:
    """Return every figure of a setting, one for each seed."""
    network, config = load_denoiser("digits-conditional")
    schedule, labels = config.noise_schedule(), torch.arange(samples) % CLASSES
    free = guided(network, labels, scale=setting.scale, null=network.null, interval=setting.interval)
    denoiser = THRESHOLDS[setting.threshold](free, schedule)
    rows = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        x_T = start(schedule, (samples, 1, SIDE, SIDE), generator=generator)
        x = round_to_levels(last(ddim(denoiser, schedule, x_T, count=steps)).x)
        saturated = (x.abs() == 1).double().mean().item()
        rows.append(
            {"accuracy": class_accuracy(x, labels), "saturated": saturated, **asdict(quality(x, labels))}
        )
    return {name: [row[name] for row in rows] for name in rows[0]}


def measure_all(options: argparse.Namespace) -> Iterator[dict]:
    """Return all settings and what was measured of them."""
    for setting in SETTINGS:
        row = {"scale": setting.scale, "threshold": setting.threshold, "low": setting.interval[0]}
        row["high"] = None if setting.interval == WHOLE else setting.interval[1]
        yield row | {"measured": measure(setting, options.samples, options.steps, options.seeds)}


COLUMNS = {"accuracy": "accuracy", **QUALITY, "saturated": "pixels at the ends"}


def table(found: dict) -> str:
    """Return everything as Markdown."""
    whole = [row for row in found["rows"] if row["high"] is None]
    parts = [row for row in found["rows"] if row["high"] is not None]
    about = (
        f"{found['samples']} samples, DDIM, {found['steps']} steps, {found['seeds']} seeds: mean ± deviation"
    )
    return page(
        heading(found, about),
        markdown_table(
            ["guidance scale", "x0", *COLUMNS.values()],
            [[f"{row['scale']:g}", row["threshold"], *cells(row["measured"])] for row in whole],
        ),
        markdown_table(
            ["guidance scale", "acts at times", *COLUMNS.values()],
            [
                [f"{row['scale']:g}", f"{row['low']} .. {row['high']}", *cells(row["measured"])]
                for row in parts
            ],
        ),
    )


def cells(measured: dict[str, list[float]]) -> list[str]:
    """Return mean and standard deviation over the seeds, for every column."""
    values = [measured[name] for name in COLUMNS]
    return [f"{mean(one):.2f} ± {stdev(one) if len(one) > 1 else 0:.2f}" for one in values]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "digit_guidance")
    parser.add_argument("--samples", type=int, default=160, help="pictures for each figure")
    parser.add_argument("--seeds", type=int, default=3, help="how often each row is drawn")
    parser.add_argument("--steps", type=int, default=10, help="of DDIM")
    add_machine_options(parser, device=False)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    set_threads(options)
    found = {
        "command": command_line(__file__, options, ["samples", "seeds", "steps"]),
        "environment": environment(torch.device("cpu")),
        "samples": options.samples,
        "seeds": options.seeds,
        "steps": options.steps,
        "rows": list(measure_all(options)),
    }
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
