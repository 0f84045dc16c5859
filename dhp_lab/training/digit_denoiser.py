"""The lessons' own denoisers: a small U-Net trained on digits, saved beside its noise schedule.

The loop is the whole of algorithm 1 in Ho et al. 2020; for a network with classes, of algorithm 1 in Ho &
Salimans 2022:

    repeat:  a batch x0, times t, noise eps;
             a gradient step on |eps - eps_theta(x_t, t, label)|^2;  EMA of the weights

| checkpoint            | inputs           | made by                                                |
|-----------------------|------------------|--------------------------------------------------------|
| `digits`              | x_t, t           | ``train_lessons``, ``dhp train-lessons``               |
| `digits-conditional`  | x_t, t, label    | the same; a tenth of the labels is dropped in training |

A run is a function of its configuration: the same on the same machine, whatever the state of torch's global
generator.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dhp_lab.core.files import check_writable, refuse_to_overwrite, write_all_atomic
from dhp_lab.core.memory import raise_if_of_the_machine
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.core.seeding import temporary_seed
from dhp_lab.core.settings import PROFILES, choose_device
from dhp_lab.core.weights import (
    CONFIG,
    WEIGHTS,
    CheckpointError,
    weights_from_bytes,
    weights_to_bytes,
)
from dhp_lab.data.digits import CLASSES, load_digits
from dhp_lab.diffusion.guidance import drop_labels
from dhp_lab.diffusion.networks import UNet, UNetConfig
from dhp_lab.diffusion.process import draw_times, noise_like, simple_loss
from dhp_lab.diffusion.schedules import SCHEDULES, NoiseSchedule
from dhp_lab.training.optimisation import EMA, optimizer_step

Progress = Callable[[int, float], None]
"""``progress(step, loss)``, called after each step, the first of them 1."""

Watch = Callable[[int, UNet], None]
"""``watch(step, average)``, called after each step with the EMA of the weights so far, in eval mode."""

TRAINING_STEPS = dict(zip(PROFILES, (40, 600, 6000), strict=True))


@dataclass(frozen=True)
class LessonConfig:
    """Everything that a run depends on.

    Attributes:
        network: the U-Net's shape; with classes it is trained on labels too.
        schedule: "linear" or "cosine". diffusion_steps: T, at least 1.
        training_steps, batch_size: at least 1.
        lr: AdamW's peak learning rate, in (0, 1); see ``optimisation.lr_factor``.
        weight_decay: AdamW's, at least 0.
        null_probability: share of the labels dropped in training, in [0, 1].
        average: the EMA's decay, in [0, 1); less in the first steps, see ``optimisation.EMA``.
        seed: of the first weights, batches, times, noise and dropped labels.

    Raises:
        ValueError: a value outside its range.
    """

    network: UNetConfig = field(default_factory=UNetConfig)
    schedule: str = "linear"
    diffusion_steps: int = 1000
    training_steps: int = TRAINING_STEPS["gpu"]
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 1e-4
    null_probability: float = 0.1
    average: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        for name in ("diffusion_steps", "training_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.lr < 1 or not self.weight_decay >= 0:
            raise ValueError(
                "lr must lie in (0, 1) and weight_decay be at least 0, "
                f"got {self.lr:g} and {self.weight_decay:g}"
            )
        if not 0 <= self.null_probability <= 1 or not 0 <= self.average < 1:
            raise ValueError(
                "null_probability must lie in [0, 1] and average in [0, 1), "
                f"got {self.null_probability:g} and {self.average:g}"
            )

    def noise_schedule(self) -> NoiseSchedule:
        """The noise schedule of the chain that the network learns to reverse."""
        return SCHEDULES[self.schedule](self.diffusion_steps)


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


def train_denoiser(
    config: LessonConfig,
    x0: Tensor,
    labels: Tensor | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> UNet:
    """Train a U-Net to estimate the noise in x_t, and return the EMA of its weights, in eval mode.

    Args:
        config: everything that the run depends on, except the data.
        x0: (N, in_channels, H, W) the data, about [-1, 1].
        labels: (N,) whole numbers 0 .. classes - 1; needed exactly if the network has classes.
        device: where to train, and where the result lives.
        progress: called after each step with its number and loss.
        watch: called after each step with its number and the EMA, which it must leave as it is.

    Raises:
        ValueError: data or labels that do not fit, or a loss that is not finite.
    """
    _check_data(config, x0, labels)
    with temporary_seed(config.seed):  # first weights, dropout
        network = UNet(config.network).to(device).train()
        return _train(config, network, x0.to(device), labels, progress, watch)


def _train(
    config: LessonConfig,
    network: UNet,
    x0: Tensor,
    labels: Tensor | None,
    progress: Progress | None,
    watch: Watch | None,
) -> UNet:
    schedule = config.noise_schedule()
    ema = EMA(network, config.average)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(config.seed)
    for step in range(1, config.training_steps + 1):
        loss = _loss(config, network, schedule, x0, labels, generator)
        optimizer_step(loss, network, optimizer, lr=config.lr, step=step, steps=config.training_steps)
        ema.update(network)
        if progress is not None:
            progress(step, loss.item())
        if watch is not None:
            watch(step, ema.average)
    return ema.average


def _loss(
    config: LessonConfig,
    network: UNet,
    schedule: NoiseSchedule,
    x0: Tensor,
    labels: Tensor | None,
    generator: torch.Generator,
) -> Tensor:
    """L_simple of one batch: Ho et al. 2020, eq. 14, with some labels dropped (Ho & Salimans 2022)."""
    chosen = torch.randint(len(x0), (config.batch_size,), generator=generator)
    x = x0[chosen]  # (B, C, H, W)
    label = None
    if labels is not None:
        label = drop_labels(
            labels[chosen], network.null, probability=config.null_probability, generator=generator
        ).to(x.device)
    t = draw_times(schedule, x, generator)
    eps = noise_like(x, generator)
    return simple_loss(lambda x_t, t: network(x_t, t, label), schedule, x, t, eps)


def save_denoiser(folder: str | Path, network: UNet, config: LessonConfig) -> None:
    """Write config.json and model.safetensors to a folder, made if need be; large tensors are stored in
    float16.

    Raises:
        OSError: the disk's own trouble; an older checkpoint there is intact.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"model": "UNet", **asdict(config)}, indent=2) + "\n"
    write_all_atomic({folder / WEIGHTS: weights_to_bytes(network), folder / CONFIG: text.encode()})


def load_denoiser(folder: str | Path, *, device: torch.device | str = "cpu") -> tuple[UNet, LessonConfig]:
    """Read a network that ``save_denoiser`` wrote.

    Args:
        folder: a path, or the name of a shipped denoiser: "digits", "digits-conditional".
        device: where the network lives.

    Returns:
        The network in eval mode, and how it was trained; ``config.noise_schedule()`` is its noise schedule.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind.
    """
    folder = CHECKPOINTS / folder if str(folder) in LESSONS else Path(folder)
    try:
        settings = json.loads((folder / CONFIG).read_bytes())
        tensors = weights_from_bytes((folder / WEIGHTS).read_bytes())
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        raise CheckpointError(f"no checkpoint at {folder}: {reason}; make it by dhp train-lessons") from None
    except ValueError as error:
        raise CheckpointError(f"the checkpoint at {folder} is damaged: {error}; fetch it again") from None
    if not isinstance(settings, dict) or settings.pop("model", None) != "UNet":
        raise CheckpointError(f"{folder / CONFIG} does not describe a UNet")
    try:
        shape = settings.pop("network").items()
        shape = {name: tuple(value) if isinstance(value, list) else value for name, value in shape}
        config = LessonConfig(UNetConfig(**shape), **settings)
        network = UNet(config.network)
        network.load_state_dict(tensors)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise_if_of_the_machine(error)
        raise CheckpointError(
            f"the checkpoint at {folder} does not fit this version of dhp_lab: {error}"
        ) from None
    return network.to(device).eval(), config


def train_lessons(
    folder: str | Path = CHECKPOINTS,
    *,
    profile: str = "gpu",
    device: str | None = None,
    progress: Callable[[str, int, float], None] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Train every denoiser of the lessons on the training digits and save each in its own folder.

    Args:
        folder: receives digits/ and digits-conditional/.
        profile: "gpu" makes what is shipped; "laptop" and "ci" train for less.
        device: as for ``settings.choose_device``.
        progress: ``progress(name, step, loss)``, called after each step.
        overwrite: replace denoisers that are there.

    Returns:
        The folders written.

    Raises:
        OverwriteError: a denoiser is there, and ``overwrite`` is not set. OSError: one cannot be written.
    """
    places = [Path(folder) / name / WEIGHTS for name in LESSONS]
    if not overwrite:
        refuse_to_overwrite(places, "take another --output_dir, or replace them (--overwrite)")
    where = choose_device(device)
    for place in places:
        check_writable(place)
    digits = load_digits()
    written = []
    for name in LESSONS:
        config = lesson_config(name, profile)
        labels = digits.train_labels if config.network.classes else None
        report = None if progress is None else partial(progress, name)
        network = train_denoiser(config, digits.train, labels, device=where, progress=report)
        save_denoiser(Path(folder) / name, network, config)
        written.append(Path(folder) / name)
    return written


def _check_data(config: LessonConfig, x0: Tensor, labels: Tensor | None) -> None:
    classes = config.network.classes
    channels = config.network.in_channels
    if x0.ndim != 4 or x0.shape[1] != channels or len(x0) == 0 or not x0.is_floating_point():
        raise ValueError(
            f"x0 must be a float (N, {channels}, H, W), got {x0.dtype} of shape {tuple(x0.shape)}"
        )
    if (labels is not None) != (classes > 0):
        raise ValueError(f"labels are needed exactly if the network has classes; it has {classes}")
    if labels is not None and (
        labels.shape != x0.shape[:1] or int(labels.min()) < 0 or int(labels.max()) >= classes
    ):
        raise ValueError(
            f"labels must be {len(x0)} whole numbers in 0 .. {classes - 1}, got shape {tuple(labels.shape)} "
            f"with {labels.min().item()} .. {labels.max().item()}"
        )
