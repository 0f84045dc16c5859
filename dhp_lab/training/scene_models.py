"""The shipped models of captioned scenes: how each was trained, where it lies, and one command for all.

| checkpoint                  | is                                                                           |
|-----------------------------|------------------------------------------------------------------------------|
| `scenes-f4`, `scenes-f8`    | latent diffusion on latents of 16 x 16 and of 8 x 8, with their first stages |
| `scenes-vq`                 | a VQ-reg first stage with f = 4, beside the KL-reg one in `scenes-f4`        |

With f = 4 the second stage is trained in two rounds: the first learns where shapes lie, which is decided at
high noise, and little of what they are; in the second, high noise counts less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, VQModel
from torch import Tensor

from dhp_lab.core.files import check_writable, refuse_to_overwrite
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.core.settings import PROFILES, choose_device
from dhp_lab.core.weights import CONFIG
from dhp_lab.data.scenes import batch, parse
from dhp_lab.latent.autoencoders import Autoencoder, load_autoencoder, save_autoencoder
from dhp_lab.latent.folder import INDEX
from dhp_lab.latent.pipeline import LatentDiffusion
from dhp_lab.training.autoencoder import AutoencoderConfig, train_autoencoder
from dhp_lab.training.latent_diffusion import LatentConfig, train_latent_diffusion

Progress = Callable[[str, int, float], None]
"""``progress(name, step, loss)``, called after each step, the first of them 1."""

Report = Callable[[int, float], None]
"""The same of one model: ``report(step, loss)``."""


@dataclass(frozen=True)
class SceneConfig:
    """How a shipped model is trained.

    Attributes:
        first: its first stage.
        second: the rounds of its second stage, each starting from the one before; () for a first stage alone.
    """

    first: AutoencoderConfig
    second: tuple[LatentConfig, ...] = ()

    @property
    def training_steps(self) -> int:
        """The gradient steps of both stages together."""
        return self.first.training_steps + sum(one.training_steps for one in self.second)


F4 = LatentConfig(widths=(64, 96, 96), attention=(False, True, True), training_steps=6500)
F8 = LatentConfig(widths=(64, 96), attention=(True, True), training_steps=13000)

SCENE_MODELS = {
    "scenes-f4": SceneConfig(
        AutoencoderConfig(f=4, training_steps=4000, batch_size=16),
        (F4, replace(F4, training_steps=2600, lr=8e-4, heaviest=10, seed=1)),
    ),
    "scenes-f8": SceneConfig(AutoencoderConfig(f=8, training_steps=4000, batch_size=16), (F8,)),
    "scenes-vq": SceneConfig(AutoencoderConfig(f=4, codes=512, training_steps=4000, batch_size=16)),
}

SHORT = {"ci": (10, 8, 128), "laptop": (120, 100, 1024)}
"""Steps of the first stage, steps of the second, and scenes, in the profiles other than "gpu"."""


def scene_config(name: str, profile: str = "gpu") -> SceneConfig:
    """How a shipped model is trained; with fewer steps in the profiles ci and laptop.

    Raises:
        ValueError: there is no such model or profile.
    """
    if name not in SCENE_MODELS or profile not in PROFILES:
        choices = f"one of {', '.join(SCENE_MODELS)} and one of {', '.join(PROFILES)}"
        raise ValueError(f"choose {choices}; got {name!r} and {profile!r}")
    config = SCENE_MODELS[name]
    if profile not in SHORT:
        return config
    first, second, scenes = SHORT[profile]
    rounds = tuple(replace(one, training_steps=second, scenes=scenes) for one in config.second)
    return SceneConfig(replace(config.first, training_steps=first), rounds)


def load_scenes(f: int = 4) -> LatentDiffusion:
    """The shipped latent diffusion model, in eval mode; it refuses captions outside the grammar.

    Args:
        f: 4 or 8, how many pixels a latent spans in each direction.

    Raises:
        ValueError: there is no such f.
        CheckpointError: a part of the folder is missing or damaged.
    """
    if (name := f"scenes-f{f}") not in SCENE_MODELS:
        raise ValueError(f"f must be 4 or 8, got {f!r}")
    return LatentDiffusion.load(CHECKPOINTS / name, check=parse)


def load_vq() -> VQModel:
    """The shipped VQ-reg first stage, f = 4, in eval mode.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    return load_autoencoder(CHECKPOINTS / "scenes-vq")


def train_scenes(
    folder: str | Path = CHECKPOINTS,
    *,
    names: Iterable[str] = tuple(SCENE_MODELS),
    profile: str = "gpu",
    device: str | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Train shipped models on scenes, each saved in a folder of its name as soon as it stands.

    Args:
        folder: receives scenes-f4/, scenes-f8/ and scenes-vq/.
        names: some of these.
        profile: "gpu" makes what is shipped; "laptop" and "ci" train for less.
        device: as for ``settings.choose_device``.
        progress: called after each step with the model's name, the step and its loss.
        overwrite: replace models that are there.

    Returns:
        The folders written.

    Raises:
        ValueError: a name or profile that is not there.
        OverwriteError: a model is there, and ``overwrite`` is not set. OSError: one cannot be written.
    """
    configs = {name: scene_config(name, profile) for name in names}
    where = choose_device(device)
    places = [Path(folder) / name / (INDEX if config.second else CONFIG) for name, config in configs.items()]
    if not overwrite:
        refuse_to_overwrite(places, "take another --output_dir, or replace it (--overwrite)")
    for place in places:
        check_writable(place)
    written = []
    for name, config in configs.items():
        report = partial(progress or _no_progress, name)
        first = _train_first_stage(config.first, where, report)
        if config.second:
            model = _train_rounds(config, first, report)
            model.save(Path(folder) / name, training=asdict(config))
        else:
            save_autoencoder(Path(folder) / name, first)
        written.append(Path(folder) / name)
    return written


def _no_progress(name: str, step: int, loss: float) -> None:
    pass


def _train_first_stage(config: AutoencoderConfig, device: torch.device, report: Report) -> Autoencoder:
    def pictures(count: int, seed: int) -> Tensor:
        return batch(count, seed)[0]

    def report_loss(step: int, losses: dict[str, float]) -> None:
        report(step, losses["loss"])

    return train_autoencoder(config, pictures, device=device, progress=report_loss)


def _train_rounds(config: SceneConfig, first: AutoencoderKL, report: Report) -> LatentDiffusion:
    steps_before = config.first.training_steps
    model = None
    for one in config.second:

        def report_step(step: int, loss: float, before: int = steps_before) -> None:
            report(before + step, loss)

        model = train_latent_diffusion(one, first, start=model, progress=report_step)
        steps_before += one.training_steps
    return model
