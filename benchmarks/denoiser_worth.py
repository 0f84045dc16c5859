"""What is the denoiser worth? Three rate-distortion curves over the same pictures, side by side.

    python benchmarks/denoiser_worth.py [--joint data/results/fourth.json] [--control
        data/results/control.json]

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
from saving import save
from scipy.interpolate import PchipInterpolator

from dhp_lab.metrics.rd_curves import Curve, bd_rate, smallest_gain

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results"
RATES = (0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 2.0)  # bits per pixel of the table
RANGE = (0.1, 0.6)  # where the least gain is looked for


def curve(report: dict, codec: str) -> Curve:
    """Return (bpp, PSNR) of one codec of an evaluation."""
    points = [point for point in report["points"] if point["codec"] == codec]
    return [point["bpp"] for point in points], [point["psnr"] for point in points]


def at(rates: tuple[float, ...], bpp: list[float], db: list[float]) -> list[float | None]:
    """Return PSNR at given rates, None outside the curve."""
    order = np.argsort(bpp)
    reads = PchipInterpolator(np.log(np.array(bpp)[order]), np.array(db)[order], extrapolate=False)(
        np.log(rates)
    )
    return [None if np.isnan(value) else float(value) for value in reads]


def compare(curves: dict[str, Curve]) -> list[dict]:
    """Return K = 1 against each other curve: BD-rate, and the least gain in dB over RANGE."""
    test = curves["K = 1"]
    rows = []
    for name, anchor in curves.items():
        if anchor is not test:
            gain = smallest_gain(anchor, test, low=RANGE[0], high=RANGE[1])
            rows.append(
                {
                    "test": "K = 1",
                    "anchor": name,
                    "least_gain": gain,
                    "bd_rate": asdict(bd_rate(anchor, test)),
                }
            )
    return rows


def table(curves: dict[str, Curve], rows: list[dict]) -> str:
    """Return the curves at RATES, and the comparisons, as Markdown."""
    lines = [
        "| PSNR in dB at bits per pixel | " + " | ".join(f"{rate:g}" for rate in RATES) + " |",
        "|---" * (len(RATES) + 1) + "|",
    ]
    for name, (bpp, db) in curves.items():
        cells = ("-" if value is None else f"{value:.2f}" for value in at(RATES, bpp, db))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| K = 1 against | BD-rate | least gain, {RANGE[0]:g} to {RANGE[1]:g} bpp |",
        "|---|---|---|",
    ]
    lines += [
        f"| {row['anchor']} | {row['bd_rate']['percent']:+.1f} % | {row['least_gain']:+.2f} dB |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Read both evaluations, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--joint", type=Path, default=RESULTS / "fourth.json")
    parser.add_argument("--control", type=Path, default=RESULTS / "control.json")
    parser.add_argument("--output", type=Path, default=RESULTS / "denoiser.json")
    options = parser.parse_args()
    joint, control = (json.loads(path.read_text()) for path in (options.joint, options.control))
    curves = {
        "K = 1": curve(joint, "dhp K=1"),
        "K = 0": curve(joint, "dhp K=0"),
        "no denoiser": curve(control, "dhp K=0"),
    }
    rows = compare(curves)
    found = {
        "command": "python benchmarks/denoiser_worth.py",
        "evaluations": {"joint": joint["about"]["command"], "control": control["about"]["command"]},
        "psnr": {
            name: dict(zip(map(str, RATES), at(RATES, *points), strict=True))
            for name, points in curves.items()
        },
        "comparisons": rows,
    }
    save(found, table(curves, rows), options.output)


if __name__ == "__main__":
    main()
