"""The lessons' own denoisers: a small U-Net trained on digits, saved beside its noise schedule.

| checkpoint            | inputs           | made by                                                |
|-----------------------|------------------|--------------------------------------------------------|
| `digits`              | x_t, t           | ``train_lessons``, ``dhp train-lessons``               |
| `digits-conditional`  | x_t, t, label    | the same; a tenth of the labels is dropped in training |

``load_denoiser`` reads them, and those of ``dhp_lab.training.fashion_models``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from dhp_lab.core.files import check_writable, refuse_to_overwrite
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.core.settings import PROFILES, choose_device
from dhp_lab.core.weights import WEIGHTS
from dhp_lab.data.digits import CLASSES, load_digits
from dhp_lab.diffusion.networks import UNet, UNetConfig
from dhp_lab.training.denoiser_run import (
    STEPS,
    LessonConfig,
    read_denoiser,
    save_denoiser,
    train_denoiser,
)
from dhp_lab.training.fashion_models import FASHION

TRAINING_STEPS = dict(zip(PROFILES, (40, 600, STEPS), strict=True))

LESSONS = {
    "digits": LessonConfig(UNetConfig(dropout=0.1)),
    "digits-conditional": LessonConfig(UNetConfig(classes=CLASSES, dropout=0.1)),
}


def lesson_config(name: str, profile: str = "gpu") -> LessonConfig:
    """How a shipped denoiser is trained, "digits" or "digits-conditional"; with fewer steps in the profiles
    ci and laptop.

    Raises:
        ValueError: there is no such denoiser or profile.
    """
    if name not in LESSONS or profile not in PROFILES:
        choices = f"one of {', '.join(LESSONS)} and one of {', '.join(PROFILES)}"
        raise ValueError(f"choose {choices}; got {name!r} and {profile!r}")
    return replace(LESSONS[name], training_steps=TRAINING_STEPS[profile])


def load_denoiser(folder: str | Path, *, device: torch.device | str = "cpu") -> tuple[UNet, LessonConfig]:
    """Read a network that ``save_denoiser`` wrote, see ``denoiser_run.read_denoiser``.

    Args:
        folder: a path, or the name of a shipped denoiser: "digits", "digits-conditional", or one of FASHION.
        device: where the network lives.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind.
    """
    shipped = str(folder) in (*LESSONS, *FASHION)
    return read_denoiser(CHECKPOINTS / folder if shipped else folder, device=device)


def train_lessons(
    folder: str | Path = CHECKPOINTS,
    *,
    names: Sequence[str] = tuple(LESSONS),
    profile: str = "gpu",
    device: str | None = None,
    progress: Callable[[str, int, float], None] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Train every denoiser of the lessons on the training digits and save each in its own folder.

    Args:
        folder: receives digits/ and digits-conditional/.
        names: of the denoisers, keys of ``LESSONS``.
        profile: "gpu" makes what is shipped; "laptop" and "ci" train for less.
        device: as for ``settings.choose_device``.
        progress: ``progress(name, step, loss)``, called after each step.
        overwrite: replace denoisers that are there.

    Returns:
        The folders written.

    Raises:
        ValueError: there is no such denoiser or profile.
        OverwriteError: a denoiser is there, and ``overwrite`` is not set. OSError: one cannot be written.
    """
    configs = {name: lesson_config(name, profile) for name in names}
    places = [Path(folder) / name / WEIGHTS for name in names]
    if not overwrite:
        refuse_to_overwrite(places, "take another --output_dir, or replace them (--overwrite)")
    where = choose_device(device)
    for place in places:
        check_writable(place)
    digits = load_digits()
    written = []
    for name, config in configs.items():
        labels = digits.train_labels if config.network.classes else None
        report = None if progress is None else partial(progress, name)
        network = train_denoiser(config, digits.train, labels, device=where, progress=report)
        save_denoiser(Path(folder) / name, network, config)
        written.append(Path(folder) / name)
    return written
