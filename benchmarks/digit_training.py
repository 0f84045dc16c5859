"""How does a denoiser of digits become good? Loss, samples and distances at moments of its training.

    python benchmarks/digit_training.py [--moments 100,1000] [--seed 0] [--draws 5]

Trains the denoiser "digits" once more, as `dhp train-lessons` does for 6000 steps, and draws digits from the
EMA of its weights at some moments, by DDIM in 50 steps; it stops after the last of them. The shipped weights
are the end of that run. Beside them stand the ideal denoiser of the training digits and real digits. What has
been found is written after each of them.

    Fréchet distance   of 360 samples to the training digits, in our classifier's features; mean and standard
                       deviation over the draws, each from other noise
    nearest            root mean square distance to the nearest training digit, 0 for a copy; first draw alone

The draws of real digits are random splits of all 1797 into 360 and 1437; the distance to the nearest is that
of the test digits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from statistics import mean, stdev

import torch
from common import (
    add_machine_options,
    command_line,
    heading,
    listed,
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
from dhp_lab.data.digits import SIDE, TEST_PICTURES, load_digits, round_to_levels
from dhp_lab.diffusion.ideal import IdealDenoiser
from dhp_lab.diffusion.networks import UNet
from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.samplers import ddim, last, start
from dhp_lab.metrics.digit_classifier import digit_classifier
from dhp_lab.metrics.feature_distances import frechet_distance
from dhp_lab.training.digit_denoiser import lesson_config, load_denoiser, train_denoiser

MOMENTS = (100, 1000)  # of 6000 training steps
STEPS = 50  # of the sampler
SHOWN = 14  # digits that are kept of each row
EVERY = 20  # training steps whose losses are averaged
SCHEDULE = lesson_config("digits").noise_schedule()


class _EnoughError(Exception):
    """Ends the training after the last moment."""


def nearest(x: Tensor) -> float:
    """The mean over x (B, 1, 8, 8) of the root mean square distance to the nearest training digit."""
    distances = torch.cdist(x.flatten(1), load_digits().train.flatten(1)) / SIDE
    return distances.min(1).values.mean().item()


def distance(x: Tensor) -> float:
    """The Fréchet distance of pictures x (B, 1, 8, 8) to the training digits."""
    classifier = digit_classifier()
    return frechet_distance(classifier.features(load_digits().train), classifier.features(x))


def draw(denoiser: Denoiser, samples: int, seed: int) -> Tensor:
    """Samples (B, 1, 8, 8) at the data's grey levels."""
    x_T = start(SCHEDULE, (samples, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))
    return round_to_levels(last(ddim(denoiser, SCHEDULE, x_T, count=STEPS)).x)


def row(name: str, denoiser: Denoiser, options: argparse.Namespace) -> dict:
    """The distances of a denoiser's samples, and the first of them as grey levels 0 .. 16."""
    draws = [draw(denoiser, options.samples, options.seed + i) for i in range(options.draws)]
    levels = (8 * (draws[0][:SHOWN] + 1)).round().int().flatten(1).tolist()
    return {
        "name": name,
        "frechet_distances": [distance(x) for x in draws],
        "nearest": nearest(draws[0]),
        "digits": [" ".join(map(str, digit)) for digit in levels],
    }


def real(options: argparse.Namespace) -> dict:
    """The distances of real digits: random splits of all of them into test and training digits."""
    digits, classifier = load_digits(), digit_classifier()
    features = classifier.features(torch.cat([digits.train, digits.test]))
    found = []
    for i in range(options.draws):
        generator = torch.Generator().manual_seed(options.seed + i)
        test, train = features[torch.randperm(len(features), generator=generator)].split(
            [options.samples, len(features) - options.samples]
        )
        found.append(frechet_distance(train, test))
    return {"name": "real digits", "frechet_distances": found, "nearest": nearest(digits.test), "digits": []}


def table(found: dict) -> str:
    """Return everything as Markdown."""
    rows = [
        [
            one["name"],
            f"{mean(one['frechet_distances']):.2f} ± {stdev(one['frechet_distances']):.2f}",
            f"{one['nearest']:.3f}",
        ]
        for one in found["rows"]
    ]
    last_losses = found["loss"][-300 // EVERY :] or [float("nan")]
    facts = f"{found['samples']} digits in each of {found['draws']} draws"
    loss = f"mean loss of the last {EVERY * len(last_losses)} training steps {mean(last_losses):.4f}"
    heads = ["digits drawn by", "Fréchet distance", "to the nearest training digit"]
    return page(heading(found, facts, loss), markdown_table(heads, rows))


def measure(options: argparse.Namespace, report: Callable[[dict], None]) -> None:
    """Measure row after row, and report all that has been found after each."""
    identity = model_id(*((CHECKPOINTS / "digits" / file).read_bytes() for file in (CONFIG, WEIGHTS)))
    found = {
        "command": command_line(__file__, options, ["moments", "seed", "draws"]),
        "environment": environment(torch.device("cpu")),
        "models": {"digits": identity.hex()},
        "samples": options.samples,
        "draws": options.draws,
        "loss_every": EVERY,
        "loss": [],
        "rows": [real(options)],
    }

    def add(name: str, denoiser: Denoiser) -> None:
        found["rows"].append(row(name, denoiser, options))
        report(found)

    add("the ideal denoiser", IdealDenoiser(load_digits().train, SCHEDULE))
    add("the shipped network", load_denoiser("digits")[0])
    recent: list[float] = []

    def progress(step: int, loss: float) -> None:
        recent.append(loss)
        if len(recent) == EVERY:
            found["loss"].append(mean(recent))
            recent.clear()

    def watch(step: int, average: UNet) -> None:
        if step in options.moments:
            add(f"the network after {step} training steps", average)

        if step == options.moments[-1]:
            raise _EnoughError

    with suppress(_EnoughError):
        train_denoiser(lesson_config("digits"), load_digits().train, progress=progress, watch=watch)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "digit_training")
    parser.add_argument("--moments", type=listed(int), default=MOMENTS, help="training steps, rising")
    parser.add_argument("--samples", type=int, default=TEST_PICTURES, help="digits of each draw")
    parser.add_argument("--draws", type=int, default=5, help="of each row, 2 or more")
    parser.add_argument("--seed", type=int, default=0, help="of the first draw")
    add_machine_options(parser, device=False)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    set_threads(options)
    measure(options, lambda found: save(found, table(found), options.output))


if __name__ == "__main__":
    main()
