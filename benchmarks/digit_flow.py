"""Few steps on digits: the shipped diffusion with three solvers and two spacings, and its reflow.

    python benchmarks/digit_flow.py [--seeds 3] [--samples 240] [--steps 500] [--save_weights]

Trains the reflow of ``training/digit_flow.py``, and draws from it and from the shipped denoiser. Prints the
table, and writes it as JSON and Markdown. The Fréchet distance is that of ``digit_samplers.py``, between
samples and training digits; figures are means over seeds of the starting noise, with 95 % intervals of
Student's t. The row "real digits" is that of as many test digits.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
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
from digit_samplers import quality
from few_steps import shown, summary

from dhp_lab.core.environment import environment
from dhp_lab.data.digits import SIDE, load_digits, round_to_levels
from dhp_lab.diffusion.flow import flow_euler, flow_sigma, flow_time, flow_times
from dhp_lab.diffusion.ideal import rescaled
from dhp_lab.diffusion.multistep import dpm_solver_2m
from dhp_lab.diffusion.samplers import ddim, last
from dhp_lab.diffusion.schedules import NoiseSchedule, from_sigmas
from dhp_lab.training.digit_denoiser import load_denoiser
from dhp_lab.training.digit_flow import FOLDER, FlowUNet, save_reflow, train_reflow

SETTINGS = (
    *(("DDIM", "even in DDPM's t", steps) for steps in (1, 2, 5, 10)),
    *(("DDIM", "even in the flow's t", steps) for steps in (2, 5)),
    *(("DPM-Solver++ 2M", "even in DDPM's t", steps) for steps in (5, 10)),
    *(("Euler, reflow", "even in the flow's t", steps) for steps in (1, 2, 5)),
)


def even_in_flow_time(trained_on: NoiseSchedule, steps: int) -> NoiseSchedule:
    """Return the noise levels at evenly spaced times of the flow, up to those of a network."""
    top = flow_time(trained_on.sigma(trained_on.steps))
    return from_sigmas("flow", flow_sigma(top * torch.arange(1, steps + 1).double() / steps))


def drawn(method: str, spacing: str, steps: int, eps: torch.Tensor, flow: FlowUNet) -> torch.Tensor:
    """Return digits from noise eps (B, 1, 8, 8)."""
    if method == "Euler, reflow":
        return last(flow_euler(flow, eps, flow_times(steps))).x
    unet, config = load_denoiser("digits")
    chain = config.noise_schedule()
    sampler = dpm_solver_2m if method.startswith("DPM") else ddim
    if spacing == "even in DDPM's t":
        return last(sampler(unet, chain, eps, count=steps)).x
    schedule = even_in_flow_time(chain, steps)
    start = schedule.sigma(steps).item() * eps
    return last(sampler(rescaled(unet, chain, schedule), schedule, start)).x


def measure_rows(flow: FlowUNet, options: argparse.Namespace) -> Iterator[dict]:
    """Measure every setting with every seed of the noise."""
    for method, spacing, steps in SETTINGS:
        found = []
        for seed in range(options.seeds):
            generator = torch.Generator().manual_seed(2000 + seed)
            eps = torch.randn(options.samples, 1, SIDE, SIDE, generator=generator)
            found.append(quality(round_to_levels(drawn(method, spacing, steps, eps, flow))))
        yield {
            "method": method,
            "spacing": spacing,
            "steps": steps,
            "frechet_distance": summary([one.frechet_distance for one in found]),
            "precision": summary([one.precision for one in found]),
            "recall": summary([one.recall for one in found]),
        }


def measure_all(options: argparse.Namespace) -> dict:
    """Return all figures, and what they depend on."""
    begin, losses = process_time(), []
    flow = train_reflow(options.steps, progress=lambda step, loss: losses.append(loss))
    seconds = process_time() - begin
    if options.save_weights:
        save_reflow(flow, steps=options.steps)
    tenth = max(1, len(losses) // 10)
    return {
        "command": command_line(__file__, options, ["seeds", "samples", "steps"]),
        "environment": environment(torch.device("cpu")),
        "seeds": options.seeds,
        "samples": options.samples,
        "training_seconds": seconds,
        "losses": [sum(losses[i : i + tenth]) / tenth for i in range(0, len(losses) - tenth + 1, tenth)],
        "real": quality(load_digits().test[: options.samples]).frechet_distance,
        "rows": list(measure_rows(flow, options)),
    }


def table(found: dict) -> str:
    """Return everything as Markdown."""
    rows = [
        [row["method"], row["spacing"], row["steps"]]
        + [shown(row[name]) for name in ("frechet_distance", "precision", "recall")]
        for row in found["rows"]
    ]
    rows.append(["real digits", "", "", f"{found['real']:.3f}", "", ""])
    return page(
        heading(found, f"{found['samples']} digits, {found['seeds']} seeds"),
        markdown_table(["method", "spacing", "NFE", "Fréchet distance", "precision", "recall"], rows),
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "digit_flow")
    parser.add_argument("--seeds", type=int, default=3, help="of the starting noise")
    parser.add_argument("--samples", type=int, default=240, help="digits for each seed")
    parser.add_argument("--steps", type=int, default=500, help="of the reflow's training")
    parser.add_argument("--save_weights", action="store_true", help=f"keep them in {FOLDER.name}/")
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
