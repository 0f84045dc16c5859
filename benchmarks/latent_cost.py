"""What does diffusion on latents save? Parameters, operations, seconds and memory, beside diffusion on the
pixels.

    python benchmarks/latent_cost.py [--batch 16] [--pictures 8] [--steps 25] [--runs 5] [--threads 0]
                                     [--output data/results/latent_cost.json]

Three second stages, each with a new text encoder of the shipped kind, draw and learn scenes of 64 x 64:

    latents, f = 4 and 8   the shipped U-Nets, on 4 x 16 x 16 and on 4 x 8 x 8 numbers
    pixels                 the U-Net of f = 4 with two more levels of its first width in front, on 3 x 64 x 64
                           numbers: from 16 x 16 down it is the same network, and its lowest level has the
                           same size

A training step is one of AdamW on --batch pictures. A sample is DDIM in --steps steps at guidance 4, two
evaluations a step, --pictures at a time, and the decoder of the first stage where there is one. What the
first stages cost besides is in a table of its own; their training step is one of Adam on as many pictures.

Costs do not depend on the weights: all networks are new. An operation is a multiplication or an addition,
counted by torch's FlopCounterMode in convolutions and matrix products. Seconds are medians with the least and
the greatest in brackets, after a run that is not counted. Each figure of memory is the greatest resident set
of a process of its own, beside what that process held before: Python, torch and the networks. Prints tables,
and writes them as JSON and Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from common import (
    add_machine_options,
    answer,
    command_line,
    heading,
    markdown_table,
    new_parser,
    options_as_words,
    page,
    run_child,
    save,
    spread,
)
from latent_cost_jobs import STAGES, do_job

SECOND_STAGES = {"pixels": "pixels", "f4": "latents, f = 4", "f8": "latents, f = 8"}
FIRST_STAGES = {"f4": "KL-reg, f = 4", "f8": "KL-reg, f = 8", "vq": "VQ-reg, f = 4"}
NUMBERS = ("batch", "pictures", "steps", "runs", "threads")


def measure_all(options: argparse.Namespace) -> dict:
    """Run all jobs, each in a fresh process; return every figure."""
    numbers = options_as_words(options, NUMBERS)

    def run(stage: str, model: str) -> dict:
        words = ["--stage", stage, "--model", model, *numbers]
        return {job: run_child(__file__, ["--job", job, *words]) for job in STAGES[stage]}

    second = {name: run("second", name) for name in SECOND_STAGES}
    return {
        "command": command_line(__file__, options, NUMBERS),
        "environment": second["pixels"]["train"]["environment"],
        **{name: getattr(options, name) for name in ("batch", "pictures", "steps")},
        "second": second,
        "first": {name: run("first", name) for name in FIRST_STAGES},
    }


def memory(found: dict) -> str:
    """Return what a job took beyond what its process held before, in MB."""
    return f"{found['peak_memory_mb'] - found['idle_memory_mb']:.0f} (of {found['peak_memory_mb']:.0f})"


def giga(count: float) -> str:
    """Return thousands of millions, with three digits."""
    return f"{count / 1e9:.3g}" if count < 1e12 else f"{count / 1e9:.0f}"


def shape(one: dict) -> str:
    """Return the shape of what a model works on."""
    return " x ".join(map(str, one["count"]["shape"]))


def second_lines(found: dict) -> dict[str, Callable[[dict], str]]:
    """Return the lines of the first table."""
    steps = found["steps"]

    def sample(one: dict) -> str:
        return giga(2 * steps * one["count"]["evaluation"] + one["count"]["decoder"])

    def decoder_seconds(one: dict) -> str:
        return spread(one["sample"]["decoder_seconds"], 4) if one["count"]["decoder"] else "-"

    return {
        "numbers a picture": shape,
        "parameters of the U-Net": lambda one: f"{one['count']['parameters']:,}",
        "parameters of the text encoder": lambda one: f"{one['count']['text_parameters']:,}",
        "10^9 operations an evaluation, one picture": lambda one: giga(one["count"]["evaluation"]),
        training_line(found): lambda one: giga(one["count"]["training"]),
        f"10^9 operations a sample, {steps} steps": sample,
        "s a training step": lambda one: spread(one["train"]["seconds"]),
        "s a sample, without the decoder": lambda one: spread(one["sample"]["seconds"]),
        "s a sample, the decoder": decoder_seconds,
        "MB in training": lambda one: memory(one["train"]),
        f"MB in drawing {found['pictures']}": lambda one: memory(one["sample"]),
    }


def first_lines(found: dict) -> dict[str, Callable[[dict], str]]:
    """Return the lines of the second table."""
    return {
        "latents": shape,
        "parameters": lambda one: f"{one['count']['parameters']:,}",
        "10^9 operations, encoder": lambda one: giga(one["count"]["encoder"]),
        "10^9 operations, decoder": lambda one: giga(one["count"]["decoder"]),
        training_line(found): lambda one: giga(one["count"]["training"]),
        "s to encode a picture": lambda one: spread(one["sample"]["encode_seconds"], 4),
        "s to decode a picture": lambda one: spread(one["sample"]["decode_seconds"], 4),
        "s a training step": lambda one: spread(one["train"]["seconds"]),
        "MB in training": lambda one: memory(one["train"]),
    }


def training_line(found: dict) -> str:
    """Return the name of the line of operations in training."""
    return f"10^9 operations a training step, {found['batch']} pictures"


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    parts = [heading(found)]
    for stage, names, lines in (
        ("second", SECOND_STAGES, second_lines(found)),
        ("first", FIRST_STAGES, first_lines(found)),
    ):
        rows = [[line, *(cell(found[stage][name]) for name in names)] for line, cell in lines.items()]
        parts.append(markdown_table([f"{stage} stage", *names.values()], rows))
    return page(*parts)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "latent_cost")
    parser.add_argument("--batch", type=int, default=16, help="pictures in a training step")
    parser.add_argument("--pictures", type=int, default=8, help="drawn at a time")
    parser.add_argument("--steps", type=int, default=25, help="of a sample")
    parser.add_argument("--runs", type=int, default=5)
    add_machine_options(parser, device=False)
    parser.add_argument("--job", choices=tuple(STAGES["first"]), help=argparse.SUPPRESS)
    parser.add_argument("--stage", choices=tuple(STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Parse the options; be the parent, or a child where --job is given."""
    options = make_parser().parse_args(arguments)
    if options.job:
        answer(lambda: do_job(options))
        return
    found = measure_all(options)
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()
