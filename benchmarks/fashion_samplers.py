"""Diffusion, flow matching or a distilled model in how many steps? Cost and quality, on Fashion-MNIST.

    python benchmarks/fashion_samplers.py [--samples 2000] [--seed 0] [--output FILE.json]

Each network draws as many samples of each class. Prints a table, and writes it as JSON and Markdown.

    class accuracy      share of samples in which the shipped classifier finds the class asked for
    Fréchet distance    samples against the 10 000 training pictures, in the classifier's features
    precision, recall   in the same features, against 2 000 training pictures
    nearest             mean distance of a sample to the nearest training picture, root mean square over
                        pixels in [-1, 1]: 0 where the training pictures come back

Intervals are of 95 %: Wilson's for shares, 1.96 standard deviations of a bootstrap over the samples for the
distance. The line "held out" is that of test pictures: no sampler can be expected to do better with as many.
The ideal denoiser is pure memorisation: it draws training pictures alone. A network evaluation is one
for one picture; guidance takes two a step.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import torch
from common import (
    add_machine_options,
    command_line,
    heading,
    listed,
    markdown_table,
    new_parser,
    one_of,
    page,
    save,
    set_threads,
)
from torch import Tensor

from dhp_lab.codec.checkpoint import model_id
from dhp_lab.core.environment import environment
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.core.weights import CONFIG, WEIGHTS
from dhp_lab.data.fashion import CLASSES, SIDE, Fashion, load_fashion, round_to_levels
from dhp_lab.diffusion.consistency import consistency_sample
from dhp_lab.diffusion.flow import flow_euler, flow_heun, flow_times
from dhp_lab.diffusion.guidance import LabelDenoiser, guided
from dhp_lab.diffusion.ideal import IdealDenoiser
from dhp_lab.diffusion.process import Denoiser, noise_like
from dhp_lab.diffusion.samplers import ddim, last, probability_flow, start
from dhp_lab.diffusion.schedules import cosine
from dhp_lab.metrics.class_measures import class_accuracy
from dhp_lab.metrics.fashion_classifier import fashion_classifier
from dhp_lab.metrics.feature_distances import frechet_distance, precision_recall
from dhp_lab.training.consistency_run import step_levels
from dhp_lab.training.denoiser_run import FLOW_TIMES
from dhp_lab.training.digit_denoiser import load_denoiser
from dhp_lab.training.fashion_models import FASHION

BATCH = 250  # pictures that are drawn at once
RESAMPLES = 200  # of the bootstrap
NEIGHBOURS = 2000  # training pictures for precision and recall
Draw = Callable[[Tensor, torch.Generator], Tensor]
"""``draw(labels, generator)``: classes (B,) to pictures (B, 1, 28, 28)."""


@dataclass(frozen=True)
class Setting:
    """A network, a sampler and how many steps it makes, with the scale of guidance."""

    network: str
    sampler: str
    steps: int
    scale: float = 1.0


SETTINGS = (
    *(Setting("fashion-diffusion", "DDIM", 20, scale) for scale in (1.0, 2.0, 3.0)),
    *(Setting("fashion-diffusion", "DDIM", steps, 2.0) for steps in (10, 5, 2)),
    Setting("fashion-diffusion", "Heun", 5, 2.0),
    *(Setting("fashion-flow", "Euler", 20, scale) for scale in (1.0, 2.0, 3.0)),
    *(Setting("fashion-flow", "Euler", steps, 2.0) for steps in (10, 5, 2)),
    Setting("fashion-flow", "Heun", 5, 2.0),
    *(Setting("fashion-distilled", "jumps", steps, 2.0) for steps in (4, 2, 1)),
    Setting("ideal denoiser", "DDIM", 20),
)


def drawing(setting: Setting, fashion: Fashion) -> Draw:
    """Return the function that draws with a setting's network and sampler."""
    shape = (1, SIDE, SIDE)
    if setting.network == "ideal denoiser":
        schedule = cosine(1000)
        ideal = IdealDenoiser(fashion.train, schedule, fashion.train_labels)
        return lambda labels, generator: (
            last(
                ddim(
                    lambda x, t: ideal(x, t, labels),
                    schedule,
                    start(schedule, (len(labels), *shape), generator=generator),
                    count=setting.steps,
                )
            ).x
        )
    network, config = load_denoiser(setting.network)
    schedule = config.noise_schedule()

    def of_class(denoiser: LabelDenoiser, labels: Tensor) -> Denoiser:
        if setting.scale == 1:
            return lambda x, t: denoiser(x, t, labels)
        return guided(denoiser, labels, scale=setting.scale, null=network.null)

    def draw(labels: Tensor, generator: torch.Generator) -> Tensor:
        noise = noise_like(torch.empty(len(labels), *shape), generator)
        if setting.sampler == "jumps":
            levels = step_levels(setting.steps)
            model = config.consistency(network, labels)
            return consistency_sample(model, levels[0] * noise, levels, generator=generator)
        if config.prediction == "flow":
            velocity = of_class(lambda x, t, label: network(x, FLOW_TIMES * t, label), labels)
            solver = flow_heun if setting.sampler == "Heun" else flow_euler
            return last(solver(velocity, noise, flow_times(setting.steps))).x
        denoiser = of_class(config.denoiser(network), labels)
        x_T = start(schedule, noise.shape, generator=generator)
        solver = probability_flow if setting.sampler == "Heun" else ddim
        return last(solver(denoiser, schedule, x_T, count=setting.steps)).x

    return draw


def evaluations(setting: Setting) -> int:
    """Return how often the network is evaluated for one picture."""
    doubled = 2 if setting.sampler != "jumps" and setting.scale != 1 else 1
    steps = setting.steps
    if setting.sampler == "Heun":  # a flow's last step is Euler's
        steps = 2 * steps - (setting.network == "fashion-flow")
    return doubled * steps


def drawn(setting: Setting, fashion: Fashion, samples: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Return samples at the data's grey levels, their classes, and the seconds that they took."""
    labels = torch.arange(samples) % CLASSES
    generator = torch.Generator().manual_seed(seed)
    draw, begin = drawing(setting, fashion), perf_counter()
    with torch.no_grad():
        parts = [round_to_levels(draw(part, generator)) for part in labels.split(BATCH)]
    return torch.cat(parts), labels, perf_counter() - begin


def wilson(share: float, count: int) -> list[float]:
    """Return the ends of Wilson's interval of 95 % for a share of ``count`` draws."""
    z2 = 1.96**2 / count
    middle, half = share + z2 / 2, math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    return [(middle - half) / (1 + z2), (middle + half) / (1 + z2)]


def distance_error(real: Tensor, found: Tensor, seed: int) -> float:
    """Return 1.96 standard deviations of the Fréchet distance over bootstrap samples of the features."""
    generator = torch.Generator().manual_seed(seed)
    again = [
        frechet_distance(real, found[torch.randint(len(found), (len(found),), generator=generator)])
        for _ in range(RESAMPLES)
    ]
    return 1.96 * torch.tensor(again).std().item()


def nearest(x: Tensor, train: Tensor) -> float:
    """Return the mean distance of pictures to the nearest training picture, root mean square over pixels."""
    flat = train.flatten(1)
    least = [torch.cdist(part.flatten(1), flat).min(1).values for part in x.split(BATCH)]
    return torch.cat(least).mean().item() / SIDE


def features_of(x: Tensor) -> Tensor:
    """Return the classifier's features (N, 64) of pictures, batch by batch."""
    classifier = fashion_classifier()
    with torch.no_grad():
        return torch.cat([classifier.features(part) for part in x.split(BATCH)])


def quality(x: Tensor, labels: Tensor, fashion: Fashion, real: Tensor, seed: int) -> dict:
    """Return the measures of the module's docstring; ``real``: features of the training pictures."""
    found, accuracy = features_of(x), class_accuracy(x, labels, fashion_classifier())
    precision, recall = precision_recall(real[:: len(real) // NEIGHBOURS], found)
    return {
        "class_accuracy": accuracy,
        "class_accuracy_interval": wilson(accuracy, len(x)),
        "frechet_distance": frechet_distance(real, found),
        "frechet_distance_error": distance_error(real, found, seed),
        "precision": precision,
        "recall": recall,
        "nearest": nearest(x, fashion.train),
    }


def measured(settings: tuple[Setting, ...], fashion: Fashion, samples: int, seed: int) -> Iterator[dict]:
    """Measure every setting, one after the other."""
    real = features_of(fashion.train)
    for setting in settings:
        x, labels, seconds = drawn(setting, fashion, samples, seed)
        yield {
            "network": setting.network,
            "sampler": setting.sampler,
            "steps": setting.steps,
            "guidance": setting.scale,
            "evaluations": evaluations(setting),
            "milliseconds": 1000 * seconds / samples,
            **quality(x, labels, fashion, real, seed),
        }


def cells(row: dict) -> list[str]:
    """Return the cells of quality."""
    low, high = row["class_accuracy_interval"]
    return [
        f"{row['class_accuracy']:.1%} ({low:.1%}..{high:.1%})",
        f"{row['frechet_distance']:.2f} ± {row['frechet_distance_error']:.2f}",
        *(f"{row[name]:.2f}" for name in ("precision", "recall")),
        f"{row['nearest']:.3f}",
    ]


def table(found: dict) -> str:
    """Return everything as Markdown."""
    rows = [
        [
            row["network"],
            f"{row['sampler']}, {row['steps']}",
            f"{row['guidance']:g}",
            row["evaluations"],
            f"{row['milliseconds']:.1f}",
            *cells(row),
        ]
        for row in found["samplers"]
    ]
    rows.append(["held out", "", "", "", "", *cells(found["real"])])
    heads = ["network", "sampler, steps", "guidance", "network evaluations", "ms a picture"]
    heads += ["class accuracy", "Fréchet distance", "precision", "recall", "nearest"]
    return page(heading(found, f"{found['samples']} samples each"), markdown_table(heads, rows))


def identity(name: str) -> str:
    """Return a hash of a shipped network's files."""
    files = [CHECKPOINTS / name / file for file in (CONFIG, WEIGHTS)]
    return model_id(*(file.read_bytes() for file in files if file.is_file())).hex()


def measure_all(options: argparse.Namespace) -> dict:
    """Return all figures, and what they depend on."""
    fashion = load_fashion()
    settings = tuple(setting for setting in SETTINGS if setting.network in options.networks)
    networks = [name for name in FASHION if name in options.networks]
    mixed = torch.arange(len(fashion.test)).view(CLASSES, -1).T.flatten()[: options.samples]
    features = features_of(fashion.train)
    real = quality(fashion.test[mixed], fashion.test_labels[mixed], fashion, features, options.seed)
    return {
        "command": command_line(__file__, options, ["samples", "seed"]),
        "environment": environment(torch.device("cpu")),
        "models": {name: identity(name) for name in ("fashion-classifier", *networks)},
        "samples": options.samples,
        "real": real,
        "samplers": list(measured(settings, fashion, options.samples, options.seed)),
    }


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    names = tuple(dict.fromkeys(setting.network for setting in SETTINGS))
    parser = new_parser(__doc__, "fashion_samplers")
    parser.add_argument("--samples", type=int, default=2000, help="pictures for each figure, 2000 at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--networks", type=listed(one_of(names)), default=names, help="some of them, by comma"
    )
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
