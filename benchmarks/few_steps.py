"""What do few steps cost, and give? Diffusion, flow, reflow and consistency model on the islands.

    python benchmarks/few_steps.py [--seeds 3] [--steps 3000] [--save_weights]

For each seed the four networks of ``training/islands.py`` are trained with equal layers, batches and steps,
and each method draws 2000 points from the same noise. Prints the table, and writes it as JSON and Markdown.

    path     root mean square distance from the reference solution, which is the exact denoiser's flow
    cloud    sliced Wasserstein distance from 20 000 points of the data

Both are in units of the plane, as means over the seeds, with 95 % intervals of Student's t. The row "the
data" is the distance of 2000 other points of the data: no method can be expected to do better.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import asdict
from time import process_time

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
from scipy.stats import t as student_t

from dhp_lab.core.environment import environment
from dhp_lab.diffusion.flow import straightness
from dhp_lab.diffusion.mixture import ISLANDS
from dhp_lab.lessons.few_steps.methods import CONSISTENCY, METHODS, distances, draw, reference
from dhp_lab.training.islands import FOLDER, save_islands, train_islands

POINTS = 2000
STEPS = (1, 2, 4, 8, 16, 32)
SPACING = {"Euler, flow": "even in the flow's t", "Euler, reflow": "even in the flow's t"}  # else Karras


def settings() -> Iterator[tuple[str, str, int]]:
    """Return method, spacing and steps of each row; DDIM also at evenly spaced times."""
    for method in METHODS:
        for steps in STEPS:
            if method != CONSISTENCY or steps <= 4:
                yield method, SPACING.get(method, "Karras, ρ = 7"), steps
    for spacing in ("even in DDPM's t", "even in the flow's t"):
        for steps in STEPS:
            yield "DDIM", spacing, steps


def measure_seed(seed: int, steps: int, save_weights: bool) -> dict:
    """Return the distances of every setting for networks of one seed."""
    begin = process_time()
    models = train_islands(steps, seed=seed)
    seconds = process_time() - begin
    if save_weights and seed == 0:
        save_islands(models, FOLDER, steps=steps, seed=seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    eps = torch.randn(POINTS, 2, generator=generator)
    goal = reference(eps)
    rows = []
    for method, spacing, count in settings():
        with torch.no_grad():
            drawn = draw(models, method, spacing, count, eps)
        found = asdict(distances(drawn.samples, goal))
        rows.append({"evaluations": drawn.evaluations, **found})
    floor = ISLANDS.sample(POINTS, generator)
    return {
        "rows": rows,
        "training_seconds": seconds,
        "straightness": {
            name: straightness(getattr(models, name), eps, count=50).item() for name in ("flow", "reflow")
        },
        "data": distances(floor, goal).cloud,
        "exact": distances(goal, goal).cloud,
    }


def summary(values: list[float]) -> dict:
    """Return the mean, and half of the 95 % interval of Student's t; None for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return {"mean": mean, "half": None, "values": values}
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = student_t.ppf(0.975, len(values) - 1) * math.sqrt(variance / len(values))
    return {"mean": mean, "half": float(half), "values": values}


def measure_all(options: argparse.Namespace) -> dict:
    """Return all figures, and what they depend on."""
    seeds = [measure_seed(seed, options.steps, options.save_weights) for seed in range(options.seeds)]
    rows = [
        {
            "method": method,
            "spacing": spacing,
            "steps": count,
            "evaluations": seeds[0]["rows"][i]["evaluations"],
            "path": summary([seed["rows"][i]["path"] for seed in seeds]),
            "cloud": summary([seed["rows"][i]["cloud"] for seed in seeds]),
        }
        for i, (method, spacing, count) in enumerate(settings())
    ]
    straight = {name: summary([seed["straightness"][name] for seed in seeds]) for name in ("flow", "reflow")}
    return {
        "command": command_line(__file__, options, ["seeds", "steps"]),
        "environment": environment(torch.device("cpu")),
        "seeds": options.seeds,
        "points": POINTS,
        "training_steps": options.steps,
        "training_seconds": sum(seed["training_seconds"] for seed in seeds) / len(seeds),
        "rows": rows,
        "straightness": straight,
        "data": summary([seed["data"] for seed in seeds]),
        "exact": summary([seed["exact"] for seed in seeds]),
    }


def shown(found: dict) -> str:
    """Return a mean with its interval."""
    half = found["half"]
    return f"{found['mean']:.3f}" + ("" if half is None else f" ± {half:.3f}")


def table(found: dict) -> str:
    """Return everything as Markdown."""
    rows = [
        [
            row["method"],
            row["spacing"],
            row["steps"],
            row["evaluations"],
            shown(row["path"]),
            shown(row["cloud"]),
        ]
        for row in found["rows"]
    ]
    rows.append(["the exact denoiser's flow", "", "", "", "0", shown(found["exact"])])
    rows.append(["the data", "", "", "", "", shown(found["data"])])
    straight = [[name, shown(value)] for name, value in found["straightness"].items()]
    return page(
        heading(
            found, f"{found['points']} points, {found['seeds']} seeds, {found['training_steps']} steps each"
        ),
        markdown_table(["method", "spacing", "steps", "NFE", "path", "cloud"], rows),
        markdown_table(["network", "straightness"], straight),
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "few_steps")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3000, help="of training, for each network")
    parser.add_argument("--save_weights", action="store_true", help=f"keep those of seed 0 in {FOLDER.name}/")
    add_machine_options(parser, device=False)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    set_threads(options)
    found = measure_all(options)
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
