"""What is the denoiser worth? Three rate-distortion curves over the same pictures, side by side.

    python benchmarks/denoiser_worth.py [--joint data/results/fourth.json]
                                        [--control data/results/control.json]
                                        [--output data/results/denoiser.json]

K = 1 and K = 0 of the shipped model's fourth stage, before it had coding passes, and the same codec trained
for as many steps from the same start without any denoiser. The curves come from two runs of `dhp evaluate`;
the commands are in the files. Prints a table, and writes it as JSON and Markdown. Rates differ from curve to
curve, so gains are read at equal rate (pchip over log rate).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from common import RESULTS, command_line, markdown_table, new_parser, page, percent_cell, save
from scipy.interpolate import PchipInterpolator

from dhp_lab.metrics.rd_curves import Curve, bd_rate, smallest_gain

RATES = (0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 2.0)  # bits per pixel of the table
RANGE = (0.1, 0.6)  # where the least gain is looked for
TEST = "K = 1"


def curve(report: dict, codec: str) -> Curve:
    """Return (bpp, PSNR) of one codec of an evaluation."""
    points = [point for point in report["points"] if point["codec"] == codec]
    return [point["bpp"] for point in points], [point["psnr"] for point in points]


def psnr_at(rates: tuple[float, ...], bpp: list[float], psnr: list[float]) -> list[float | None]:
    """Return PSNR at given rates, None outside the curve."""
    order = np.argsort(bpp)
    log_rates, values = np.log(np.array(bpp)[order]), np.array(psnr)[order]
    read = PchipInterpolator(log_rates, values, extrapolate=False)(np.log(rates))
    return [None if np.isnan(value) else float(value) for value in read]


def compare(curves: dict[str, Curve]) -> list[dict]:
    """Return K = 1 against each other curve: BD-rate, and the least gain in dB over RANGE."""
    rows = []
    for name, anchor in curves.items():
        if name == TEST:
            continue
        row = {"test": TEST, "anchor": name}
        row["least_gain"] = smallest_gain(anchor, curves[TEST], low=RANGE[0], high=RANGE[1])
        row["bd_rate"] = asdict(bd_rate(anchor, curves[TEST]))
        rows.append(row)
    return rows


def table(found: dict) -> str:
    """Return the curves at RATES, and the comparisons, as Markdown."""
    curves = [
        [name, *("-" if value is None else f"{value:.2f}" for value in at.values())]
        for name, at in found["psnr"].items()
    ]
    comparisons = [
        [row["anchor"], percent_cell(row["bd_rate"]), f"{row['least_gain']:+.2f} dB"]
        for row in found["comparisons"]
    ]
    return page(
        markdown_table(["PSNR in dB at bits per pixel", *(f"{rate:g}" for rate in RATES)], curves),
        markdown_table(
            ["K = 1 against", "BD-rate", f"least gain, {RANGE[0]:g} to {RANGE[1]:g} bpp"], comparisons
        ),
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "denoiser")
    parser.add_argument("--joint", type=Path, default=RESULTS / "fourth.json")
    parser.add_argument("--control", type=Path, default=RESULTS / "control.json")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Read both evaluations, print, write."""
    options = make_parser().parse_args(arguments)
    joint, control = (json.loads(path.read_text("utf-8")) for path in (options.joint, options.control))
    curves = {
        TEST: curve(joint, "dhp K=1"),
        "K = 0": curve(joint, "dhp K=0"),
        "no denoiser": curve(control, "dhp K=0"),
    }
    found = {
        "command": command_line(__file__, options, []),
        "evaluations": {"joint": joint["about"]["command"], "control": control["about"]["command"]},
        "psnr": {
            name: dict(zip(map(str, RATES), psnr_at(RATES, *points), strict=True))
            for name, points in curves.items()
        },
        "comparisons": compare(curves),
    }
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
