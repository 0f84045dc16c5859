"""Small networks of Fashion-MNIST, for lessons 01 to 05: each trains in an hour of one CPU core.

| checkpoint           | is                           | inputs                                         |
|----------------------|------------------------------|------------------------------------------------|
| `fashion-classifier` | ``FashionClassifier``        | pictures                                       |
| `fashion-diffusion`  | a U-Net that predicts v      | x_t, t, label                                  |
| `fashion-flow`       | one that predicts a velocity | x_t, t in 0 .. 1, label                        |
| `fashion-distilled`  | a consistency model          | u, sigma, label; distilled out of the first's  |

A run leaves in its folder the weights, their configuration, loss.json with the mean loss of each fifty steps,
and snapshots of its samples: ten columns, one for each class, drawn from the same noise after 100 steps,
1 000 and all. While it goes on, its exact state lies there too, from which it is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dhp_lab.core.files import check_writable, refuse_to_overwrite, write_atomic
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.core.seeding import temporary_seed
from dhp_lab.core.settings import PROFILES, choose_device
from dhp_lab.core.weights import WEIGHTS, weights_to_bytes
from dhp_lab.data.fashion import CLASSES, SIDE, Fashion, load_fashion
from dhp_lab.data.images import save_image
from dhp_lab.diffusion.consistency import consistency_sample
from dhp_lab.diffusion.networks import UNet, UNetConfig
from dhp_lab.diffusion.process import noise_like
from dhp_lab.diffusion.samplers import ddim, last, start
from dhp_lab.metrics.fashion_classifier import NAME as CLASSIFIER
from dhp_lab.training.consistency_run import ConsistencyRun, step_levels
from dhp_lab.training.denoiser_run import (
    STEPS,
    DenoiserRun,
    LessonConfig,
    read_denoiser,
    save_denoiser,
)
from dhp_lab.training.denoiser_state import STATE, resume, save_state
from dhp_lab.training.fashion_classifier import STEPS as CLASSIFIER_STEPS
from dhp_lab.training.fashion_classifier import train_classifier

TEACHER = "fashion-diffusion"
SHAPE = UNetConfig(channels=(48, 88), classes=CLASSES, patch=2)  # one million parameters
BASE = LessonConfig(SHAPE, schedule="cosine", batch_size=32, lr=1.5e-3, prediction="v", training_steps=STEPS)
FASHION = {
    TEACHER: BASE,
    "fashion-flow": replace(BASE, prediction="flow"),
    "fashion-distilled": replace(BASE, prediction="consistency", lr=3e-4, training_steps=STEPS // 3),
}
NAMES = (CLASSIFIER, *FASHION)
SHARE = dict(zip(PROFILES, (0.004, 0.05, 1.0), strict=True))  # of the steps of what is shipped
SNAPSHOTS = (100, 1000)  # steps after which samples are drawn, and after the last
SNAPSHOT_ROWS, SNAPSHOT_STEPS = 4, 20  # pictures of each class; of DDIM
LOSS, LOSS_EVERY, SAVE_EVERY = "loss.json", 50, 250  # steps

Progress = Callable[[int, float], None]


def fashion_steps(name: str, profile: str = "gpu") -> int:
    """How many steps a network of Fashion-MNIST is trained; fewer in the profiles ci and laptop.

    Raises:
        ValueError: there is no such network or profile.
    """
    if name not in NAMES or profile not in PROFILES:
        choices = f"one of {', '.join(NAMES)} and one of {', '.join(PROFILES)}"
        raise ValueError(f"choose {choices}; got {name!r} and {profile!r}")
    steps = FASHION[name].training_steps if name in FASHION else CLASSIFIER_STEPS
    return round(SHARE[profile] * steps)


def fashion_config(name: str, profile: str = "gpu") -> LessonConfig:
    """How a U-Net of Fashion-MNIST is trained, a key of ``FASHION``; errors as for ``fashion_steps``."""
    steps = fashion_steps(name, profile)
    return replace(FASHION[name], training_steps=steps)


def train_fashion(
    folder: str | Path = CHECKPOINTS,
    *,
    names: Sequence[str] = NAMES,
    profile: str = "gpu",
    device: str | None = None,
    progress: Callable[[str, int, float], None] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Train networks of Fashion-MNIST and save each in its own folder.

    Where a run was broken off and its state is there, it goes on, and networks that are done are left alone.
    The distilled one needs its teacher: the one in ``folder`` if it is there, else the shipped one.

    Args:
        folder: receives a folder for each.
        names: of the networks, out of ``NAMES``.
        profile: "gpu" makes what is shipped; "laptop" and "ci" train for less.
        device: as for ``settings.choose_device``.
        progress: ``progress(name, step, loss)``, called after each step.
        overwrite: replace networks that are there, and begin anew where a run was broken off.

    Returns:
        The folders written.

    Raises:
        ValueError: there is no such network or profile.
        OverwriteError: a network is there, and ``overwrite`` is not set.
        CheckpointError: what lies there belongs to another run. OSError: a file cannot be written.
    """
    for name in names:
        fashion_steps(name, profile)
    names, places = _left(Path(folder), names, overwrite)
    where = choose_device(device)
    for place in places:
        check_writable(place)
    fashion = load_fashion()
    for name, place in zip(names, places, strict=True):
        report = None if progress is None else partial(progress, name)
        if name == CLASSIFIER:
            _train_classifier(fashion, place, fashion_steps(name, profile), where, report)
            continue
        config = fashion_config(name, profile)
        with temporary_seed(config.seed):
            _train(_new_run(config, fashion, Path(folder), where), place.parent, report)
    return [place.parent for place in places]


def _left(folder: Path, names: Sequence[str], overwrite: bool) -> tuple[list[str], list[Path]]:
    """The networks that are to be trained, and where their weights will lie.

    Raises:
        OverwriteError: one is there, no run was broken off, and ``overwrite`` is not set.
    """
    states = {name: folder / name / STATE for name in names}
    broken_off = [name for name, state in states.items() if state.is_file()]
    places = {name: folder / name / WEIGHTS for name in names}
    if overwrite:
        for name in broken_off:
            states[name].unlink()
    elif broken_off:
        places = {name: path for name, path in places.items() if name in broken_off or not path.exists()}
    else:
        refuse_to_overwrite(
            places.values(),
            "train those that are missing (--only), take another --output_dir, or replace them (--overwrite)",
        )
    return list(places), list(places.values())


def _train_classifier(
    fashion: Fashion, path: Path, steps: int, device: torch.device, progress: Progress | None
) -> None:
    classifier = train_classifier(
        fashion.train.to(device), fashion.train_labels, steps=steps, progress=progress
    )
    write_atomic(path, weights_to_bytes(classifier))


def _new_run(config: LessonConfig, fashion: Fashion, folder: Path, device: torch.device) -> DenoiserRun:
    place = {"device": device, "memory_format": torch.channels_last}
    if config.prediction != "consistency":
        return DenoiserRun(config, fashion.train, fashion.train_labels, **place)
    teacher = folder / TEACHER
    teacher = teacher if (teacher / WEIGHTS).is_file() else CHECKPOINTS / TEACHER
    network, taught = read_denoiser(teacher, device=device)
    return ConsistencyRun(config, network, taught, fashion.train, fashion.train_labels, **place)


def _train(run: DenoiserRun, folder: Path, progress: Progress | None) -> None:
    """The steps that are left, with what they leave in the folder."""
    config = run.config
    losses = resume(run, folder / STATE) if (folder / STATE).is_file() else []
    for step in range(run.done + 1, config.training_steps + 1):
        losses.append(run.step())
        if progress is not None:
            progress(step, losses[-1])
        if step in SNAPSHOTS or step == config.training_steps:
            save_image(sheet(snapshot(config, run.ema.average)), folder / f"step_{step:05d}.png")
        if step % SAVE_EVERY == 0:
            save_state(run, losses, folder / STATE)
    means = torch.tensor(losses, dtype=torch.float64).split(LOSS_EVERY)
    curve = {"every": LOSS_EVERY, "loss": [round(part.mean().item(), 5) for part in means]}
    write_atomic(folder / LOSS, (json.dumps(curve) + "\n").encode())
    save_denoiser(folder, run.ema.average, config)
    (folder / STATE).unlink(missing_ok=True)


def snapshot(config: LessonConfig, network: UNet) -> Tensor:
    """(4, 10, 1, 28, 28) samples in [-1, 1], one column for each class, always from the same noise.

    DDIM in 20 steps without guidance; of a consistency model two jumps.
    """
    labels = torch.arange(CLASSES).repeat(SNAPSHOT_ROWS)
    device, generator = next(network.parameters()).device, torch.Generator().manual_seed(0)
    labels, shape = labels.to(device), (len(labels), 1, SIDE, SIDE)
    if config.prediction == "consistency":
        levels = step_levels(2)
        u = levels[0] * noise_like(torch.empty(shape, device=device), generator)
        x = consistency_sample(config.consistency(network, labels), u, levels, generator=generator)
    else:
        schedule, denoiser = config.noise_schedule(), config.denoiser(network)
        x_T = start(schedule, shape, generator=generator, device=device)
        x = last(ddim(lambda x, t: denoiser(x, t, labels), schedule, x_T, count=SNAPSHOT_STEPS)).x
    return x.clamp(-1, 1).cpu().unflatten(0, (SNAPSHOT_ROWS, CLASSES))


def sheet(pictures: Tensor) -> Tensor:
    """(rows, columns, 1, H, W) pictures in [-1, 1] -> (1, 3, rows H, columns W) in [0, 1], one picture."""
    rows, columns, _, height, width = pictures.shape
    tiled = pictures[:, :, 0].swapaxes(1, 2).reshape(1, 1, rows * height, columns * width)
    return (tiled.clamp(-1, 1) + 1).expand(-1, 3, -1, -1) / 2
