"""Which sampler for which number of steps? Steps, time, quality, diversity and control, measured on digits.

    python benchmarks/digit_samplers.py [--samples 360] [--seed 0] [--output data/results/digit_samplers.json]

Each sampler draws from the shipped denoiser of digits, and from the conditional one at guidance 3 with every
class equally often. A second table changes the guidance scale. Prints the tables, and writes them as JSON and
Markdown.

    Fréchet distance,   samples against the training digits, in our classifier's features
    precision, recall
    diversity           mean distance of two samples of one class, 1 = as in the training digits
    control             share of conditional samples whose class the classifier recognises

The line "real digits" is that of the 360 test digits: no sampler can be expected to do better with as many
samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter

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
from torch import Tensor

from dhp_lab.codec.checkpoint import model_id
from dhp_lab.core.environment import environment
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.core.weights import CONFIG, WEIGHTS
from dhp_lab.data.digits import CLASSES, SIDE, load_digits, round_to_levels
from dhp_lab.diffusion.guidance import guided
from dhp_lab.diffusion.ideal import rescaled
from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.samplers import (
    State,
    ddim,
    ddpm,
    euler_maruyama,
    last,
    predictor_corrector,
    probability_flow,
    start,
)
from dhp_lab.diffusion.schedules import NoiseSchedule, geometric
from dhp_lab.metrics.digit_classifier import class_accuracy, digit_classifier, diversity
from dhp_lab.metrics.feature_distances import frechet_distance, precision_recall
from dhp_lab.training.digit_denoiser import LESSONS, load_denoiser

SCALE = 3.0  # of guidance in the first table
SCALES = (0.0, 1.0, 2.0, 3.0, 5.0, 7.5, 15.0)  # in the second
DETERMINISTIC = (ddim, probability_flow)  # they draw no noise
QUALITY = {
    "frechet_distance": "Fréchet distance",
    "precision": "precision",
    "recall": "recall",
    "diversity": "diversity",
}


@dataclass(frozen=True)
class Setting:
    """A sampler with its number of steps; on the denoiser's own schedule, or on another by ``rescaled``."""

    name: str
    steps: int
    sampler: Callable[..., Iterator[State]]
    schedule: NoiseSchedule | None = None


CORRECTED = partial(predictor_corrector, corrector_steps=5)
SETTINGS = (
    Setting("DDPM", 1000, ddpm),
    Setting("DDPM", 50, ddpm),
    *(Setting("DDIM", steps, ddim) for steps in (50, 20, 5)),
    *(Setting("Euler-Maruyama", steps, euler_maruyama) for steps in (1000, 200)),
    Setting("Euler-Maruyama, exploding", 1000, euler_maruyama, geometric(1000)),
    Setting("predictor-corrector, exploding", 100, CORRECTED, geometric(100)),
    *(Setting("probability flow (Heun)", steps, probability_flow) for steps in (25, 10)),
)
OF_SCALES = Setting("DDIM", 50, ddim)


@dataclass(frozen=True)
class Quality:
    """How a set of pictures compares with the training digits; see the module's docstring."""

    frechet_distance: float
    precision: float
    recall: float
    diversity: float


def quality(x: Tensor, labels: Tensor | None = None) -> Quality:
    """Compare pictures with the training digits; labels None takes those that the classifier predicts."""
    digits, classifier = load_digits(), digit_classifier()
    real, found = classifier.features(digits.train), classifier.features(x)
    classes = classifier.predict(x) if labels is None else labels
    relative = diversity(found, classes) / diversity(real, digits.train_labels)
    precision, recall = precision_recall(real, found)
    return Quality(frechet_distance(real, found), precision, recall, relative)


def draw(
    setting: Setting, denoiser: Denoiser, own_schedule: NoiseSchedule, samples: int, seed: int
) -> tuple[Tensor, int, float]:
    """Return samples at the data's grey levels, the number of evaluations of the denoiser, and seconds."""
    generator = torch.Generator().manual_seed(seed)
    evaluations = 0

    def counted(x_t: Tensor, t: Tensor) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return denoiser(x_t, t)

    schedule = setting.schedule or own_schedule
    evaluated = counted if setting.schedule is None else rescaled(counted, own_schedule, schedule)
    x_T = start(schedule, (samples, 1, SIDE, SIDE), generator=generator)
    options = {"count": setting.steps}
    if setting.sampler not in DETERMINISTIC:
        options["generator"] = generator
    begin = perf_counter()
    x = last(setting.sampler(evaluated, schedule, x_T, **options)).x
    return round_to_levels(x), evaluations, perf_counter() - begin


def compare_samplers(samples: int, seed: int, settings: tuple[Setting, ...] = SETTINGS) -> Iterator[dict]:
    """Measure every setting, one after the other: cost of one picture, quality, control at guidance SCALE."""
    (free, free_config), (conditional, config) = (load_denoiser(name) for name in LESSONS)
    labels = torch.arange(samples) % CLASSES
    for setting in settings:
        x, evaluations, seconds = draw(setting, free, free_config.noise_schedule(), samples, seed)
        denoiser = guided(conditional, labels, scale=SCALE, null=conditional.null)
        of_class, _, _ = draw(setting, denoiser, config.noise_schedule(), samples, seed)
        yield {
            "name": setting.name,
            "steps": setting.steps,
            "evaluations": evaluations,
            "milliseconds": 1000 * seconds / samples,
            "quality": asdict(quality(x)),
            "control": class_accuracy(of_class, labels),
        }


def compare_scales(samples: int, seed: int) -> Iterator[dict]:
    """Measure guidance scales with DDIM in 50 steps."""
    conditional, config = load_denoiser("digits-conditional")
    labels = torch.arange(samples) % CLASSES
    for scale in SCALES:
        denoiser = guided(conditional, labels, scale=scale, null=conditional.null)
        x, _, _ = draw(OF_SCALES, denoiser, config.noise_schedule(), samples, seed)
        control = class_accuracy(x, labels)
        yield {"scale": scale, "quality": asdict(quality(x, labels)), "control": control}


def cells(row: dict) -> list[str]:
    """Return the cells of quality and control."""
    return [*(f"{row['quality'][name]:.2f}" for name in QUALITY), f"{row['control']:.1%}"]


def table(found: dict) -> str:
    """Return everything as Markdown."""
    samplers = [
        [row["name"], row["steps"], row["evaluations"], f"{row['milliseconds']:.1f}", *cells(row)]
        for row in found["samplers"]
    ]
    samplers.append(["real digits", "", "", "", *cells(found["real"])])
    heads = ["sampler", "steps", "network evaluations", "ms a picture", *QUALITY.values()]
    scales = [[f"{row['scale']:g}", *cells(row)] for row in found["scales"]]
    return page(
        heading(found, f"{found['samples']} samples each"),
        markdown_table([*heads, f"control, guidance {found['guidance']:g}"], samplers),
        markdown_table(["guidance scale (DDIM, 50 steps)", *QUALITY.values(), "control"], scales, align="r"),
    )


def identity(name: str) -> str:
    """Return a hash of a shipped denoiser's files."""
    return model_id(*((CHECKPOINTS / name / file).read_bytes() for file in (CONFIG, WEIGHTS))).hex()


def measure_all(options: argparse.Namespace) -> dict:
    """Return all figures, and what they depend on."""
    digits = load_digits()
    real = asdict(quality(digits.test, digits.test_labels))
    settings = tuple(setting for setting in SETTINGS if setting.steps <= options.most_steps)
    return {
        "command": command_line(__file__, options, ["samples", "seed"]),
        "environment": environment(torch.device("cpu")),
        "models": {name: identity(name) for name in LESSONS},
        "samples": options.samples,
        "guidance": SCALE,
        "real": {"quality": real, "control": class_accuracy(digits.test, digits.test_labels)},
        "samplers": list(compare_samplers(options.samples, options.seed, settings)),
        "scales": list(compare_scales(options.samples, options.seed)),
    }


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "digit_samplers")
    parser.add_argument("--samples", type=int, default=360, help="pictures for each figure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most_steps", type=int, default=1000, help="leave out samplers of more steps")
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
