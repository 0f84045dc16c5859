"""The shipped models of captioned scenes: how each was trained, where it lies, and the one command that makes
them all.

| checkpoint                  | is                                                                    |
|-----------------------------|-----------------------------------------------------------------------|
| `scenes-f4`, `scenes-f8`    | latent diffusion on latents of 16 x 16 and of 8 x 8, with their first stages |
| `scenes-vq`                 | a VQ-reg first stage with f = 4, beside the KL-reg one in `scenes-f4` |

With f = 4 the second stage is trained in two rounds: the first learns where things lie, which is decided at
high noise, and little of what they are; in the second, high noise counts less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from diffusers import AutoencoderKL, VQModel

from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.core.settings import PROFILES, choose_device
from dhp_lab.data.scenes import batch, parse
from dhp_lab.latent.autoencoders import load_autoencoder, save_autoencoder
from dhp_lab.latent.pipeline import LatentDiffusion
from dhp_lab.training.autoencoder import AutoencoderConfig, train_autoencoder
from dhp_lab.training.latent_diffusion import LatentConfig, train_latent_diffusion

Progress = Callable[[str, int, float], None]
"""``progress(name, step, loss)``, called after each step, the first of them 1."""


@dataclass(frozen=True)
class SceneConfig:
    """How a shipped model is trained: its first stage, and the rounds of its second one, each going on from
    the one before.
    """

    first: AutoencoderConfig
    second: tuple[LatentConfig, ...] = ()

    @property
    def training_steps(self) -> int:
        """Of both stages together."""
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
"""What profiles other than "gpu" take in place of the above: steps of the first and of the second stage, and scenes."""


def scene_config(name: str, profile: str = "gpu") -> SceneConfig:
    """How a shipped model is trained; with fewer steps in the profiles ci and laptop.

    Raises:
        ValueError: there is no such model or profile.
    """
    if name not in SCENE_MODELS or profile not in PROFILES:
        known = f"{', '.join(SCENE_MODELS)} and one of {', '.join(PROFILES)}"
        raise ValueError(f"choose one of {known}; got {name!r} and {profile!r}")
    config = SCENE_MODELS[name]
    if profile not in SHORT:
        return config
    first, second, scenes = SHORT[profile]
    rounds = tuple(replace(one, training_steps=second, scenes=scenes) for one in config.second)
    return SceneConfig(replace(config.first, training_steps=first), rounds)


def load_scenes(f: int = 4) -> LatentDiffusion:
    """The shipped latent diffusion model with f = 4 or 8, in eval mode; it refuses captions outside the
    grammar.

    Raises:
        ValueError: there is no such f. CheckpointError: a part of the folder is missing or damaged.
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
) -> list[Path]:
    """Train shipped models on scenes, each saved in a folder of its name as soon as it stands.

    Args:
        folder: receives scenes-f4/, scenes-f8/ and scenes-vq/. names: some of these.
        profile: "gpu" makes what is shipped; "laptop" and "ci" train for less. device: as for
            ``settings.choose_device``.

    Returns:
        The folders written.

    Raises:
        ValueError: a name or profile that is not there.
    """
    configs, where, written = {name: scene_config(name, profile) for name in names}, choose_device(device), []
    tell = progress or (lambda name, step, loss: None)
    for name, config in configs.items():
        first = train_autoencoder(
            config.first,
            lambda count, seed: batch(count, seed)[0],
            device=where,
            progress=lambda step, losses, name=name: tell(name, step, losses["loss"]),
        )
        if not config.second:
            save_autoencoder(Path(folder) / name, first)
        else:
            _train_rounds(config, first, partial(tell, name)).save(
                Path(folder) / name, training=asdict(config)
            )
        written.append(Path(folder) / name)
    return written


def _train_rounds(
    config: SceneConfig, first: AutoencoderKL, tell: Callable[[int, float], None]
) -> LatentDiffusion:
    before, model = config.first.training_steps, None
    for one in config.second:
        model = train_latent_diffusion(
            one,
            first,
            start=model,
            progress=lambda step, loss, before=before: tell(before + step, loss),
        )
        before += one.training_steps
    return model
