"""Which sampler for which number of steps? Steps, time, quality, diversity and control, measured on digits.

    python benchmarks/digit_samplers.py [--samples 360] [--seed 0] [--output data/results/digit_samplers.json]

Each sampler draws from the shipped denoiser of digits, and from the conditional one at guidance 3 with every
class asked for equally often. A second table changes the guidance scale. Prints the tables, and writes them
as JSON and Markdown.

    Frechet distance, precision, recall   samples against the training digits, in our classifier's features
    diversity                             mean distance of two samples of one class, 1 = as in the training digits
    control                               share of conditional samples in which the classifier sees the class asked for

The line "real digits" is that of the 360 test digits: no sampler can be expected to do better with as many
samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from saving import save
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
from dhp_lab.metrics.digit_classifier import digit_classifier, diversity, class_accuracy
from dhp_lab.metrics.feature_distances import frechet_distance, precision_recall
from dhp_lab.training.digit_denoiser import LESSONS, load_denoiser

ROOT = Path(__file__).resolve().parents[1]
SCALE = 3.0  # of guidance in the first table
SCALES = (0.0, 1.0, 2.0, 3.0, 5.0, 7.5, 15.0)  # in the second


@dataclass(frozen=True)
class Setting:
    """A sampler with its number of steps; on the denoiser's own schedule, or on another by ``rescaled``."""

    name: str
    steps: int
    sampler: Callable[..., Iterator[State]]
    schedule: NoiseSchedule | None = None


SETTINGS = (
    Setting("DDPM", 1000, ddpm),
    Setting("DDPM", 50, ddpm),
    *(Setting("DDIM", steps, ddim) for steps in (50, 20, 5)),
    *(Setting("Euler-Maruyama", steps, euler_maruyama) for steps in (1000, 200)),
    Setting("Euler-Maruyama, exploding", 1000, euler_maruyama, geometric(1000)),
    Setting(
        "predictor-corrector, exploding", 100, partial(predictor_corrector, corrector_steps=5), geometric(100)
    ),
    *(Setting("probability flow (Heun)", steps, probability_flow) for steps in (25, 10)),
)


@dataclass(frozen=True)
class Quality:
    """What the judge says of a set of pictures; see the module's docstring."""

    frechet_distance: float
    precision: float
    recall: float
    diversity: float


@dataclass(frozen=True)
class Row:
    """One sampler: its cost for one picture, its unconditional samples' quality, and its control at guidance
    SCALE.
    """

    name: str
    steps: int
    evaluations: int
    milliseconds: float
    quality: Quality
    control: float


def judge(x: Tensor, labels: Tensor | None = None) -> Quality:
    """Compare pictures with the training digits; labels None takes those that the classifier sees."""
    digits, classifier = load_digits(), digit_classifier()
    real, found = classifier.features(digits.train), classifier.features(x)
    seen = classifier.predict(x) if labels is None else labels
    of_one = diversity(found, seen) / diversity(real, digits.train_labels)
    return Quality(frechet_distance(real, found), *precision_recall(real, found), of_one)


def draw(
    setting: Setting, denoiser: Denoiser, known: NoiseSchedule, samples: int, seed: int
) -> tuple[Tensor, int, float]:
    """The samples at the data's grey levels, how often the denoiser was asked, and the seconds."""
    generator, calls = torch.Generator().manual_seed(seed), []

    def counted(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x_t))
        return denoiser(x_t, t)

    schedule = setting.schedule or known
    asked = counted if setting.schedule is None else rescaled(counted, known, schedule)
    x_T = start(schedule, (samples, 1, SIDE, SIDE), generator=generator)
    options = {"count": setting.steps} | (
        {} if setting.sampler in (probability_flow, ddim) else {"generator": generator}
    )
    begin = perf_counter()
    x = last(setting.sampler(asked, schedule, x_T, **options)).x
    return round_to_levels(x), len(calls), perf_counter() - begin


def compare_samplers(samples: int, seed: int) -> Iterator[Row]:
    """Measure every setting, one after the other."""
    (free, free_config), (told, told_config) = (load_denoiser(name) for name in LESSONS)
    labels = torch.arange(samples) % CLASSES
    for setting in SETTINGS:
        x, evaluations, seconds = draw(setting, free, free_config.noise_schedule(), samples, seed)
        denoiser = guided(told, labels, scale=SCALE, null=told.null)
        obedient, _, _ = draw(setting, denoiser, told_config.noise_schedule(), samples, seed)
        control = class_accuracy(obedient, labels)
        yield Row(setting.name, setting.steps, evaluations, 1000 * seconds / samples, judge(x), control)


def compare_scales(samples: int, seed: int) -> Iterator[dict]:
    """Measure guidance scales with DDIM in 50 steps."""
    told, config = load_denoiser("digits-conditional")
    labels = torch.arange(samples) % CLASSES
    for scale in SCALES:
        denoiser = guided(told, labels, scale=scale, null=told.null)
        x, _, _ = draw(Setting("DDIM", 50, ddim), denoiser, config.noise_schedule(), samples, seed)
        yield {"scale": scale, "quality": judge(x, labels), "control": class_accuracy(x, labels)}


def cells(quality: Quality) -> str:
    """Return four cells of a Markdown table."""
    return f"{quality.frechet_distance:.2f} | {quality.precision:.2f} | {quality.recall:.2f} | {quality.diversity:.2f}"


def tables(found: dict) -> str:
    """Return everything as Markdown."""
    place, heads = found["environment"], "Fréchet distance | precision | recall | diversity"
    lines = [
        f"`{found['command']}` on {place['device']}, {place['threads']} threads, torch {place['versions']['torch']}, "
        f"{place['date']}; {found['samples']} samples each",
        "",
        f"| sampler | steps | network evaluations | ms a picture | {heads} | control, guidance {SCALE:g} |",
        "|" + 9 * "---|",
    ]
    for row in found["samplers"]:
        cost = f"{row.steps} | {row.evaluations} | {row.milliseconds:.1f}"
        lines.append(f"| {row.name} | {cost} | {cells(row.quality)} | {row.control:.1%} |")
    real = found["real"]
    lines += [f"| real digits | | | | {cells(real['quality'])} | {real['control']:.1%} |", ""]
    lines += [f"| guidance scale (DDIM, 50 steps) | {heads} | control |", "|" + 6 * "---|"]
    lines += [
        f"| {row['scale']:g} | {cells(row['quality'])} | {row['control']:.1%} |" for row in found["scales"]
    ]
    return "\n".join(lines)


def measure_all(options: argparse.Namespace) -> dict:
    """Return all figures, and what they depend on."""
    digits = load_digits()
    control = class_accuracy(digits.test, digits.test_labels)
    folders = {name: CHECKPOINTS / name for name in LESSONS}
    return {
        "command": f"python benchmarks/digit_samplers.py --samples {options.samples} --seed {options.seed}",
        "environment": environment(torch.device("cpu")),
        "models": {
            name: model_id(*((f / part).read_bytes() for part in (CONFIG, WEIGHTS))).hex()
            for name, f in folders.items()
        },
        "samples": options.samples,
        "guidance": SCALE,
        "real": {"quality": judge(digits.test, digits.test_labels), "control": control},
        "samplers": list(compare_samplers(options.samples, options.seed)),
        "scales": list(compare_scales(options.samples, options.seed)),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=360, help="pictures for each figure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "results" / "digit_samplers.json")
    options = parser.parse_args()
    found = measure_all(options)
    save(found, tables(found), options.output, default=asdict)


if __name__ == "__main__":
    main()
