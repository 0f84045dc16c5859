r"""One training of a small U-Net on pictures in memory: the loop, and how its result is saved and loaded.

The loop is the whole of algorithm 1 in Ho et al. 2020; for a network with classes, of algorithm 1 in Ho &
Salimans 2022:

    repeat:  a batch x0, times t, noise eps;
             a gradient step on |target - network(x_t, t, label)|^2;  EMA of the weights

| ``prediction`` | target                                | source                           |
|----------------|---------------------------------------|----------------------------------|
| "eps"          | eps                                   | Ho et al. 2020, eq. 14           |
| "v"            | v = cos(phi) eps - sin(phi) x0        | Salimans & Ho 2022, section 4    |
| "flow"         | the velocity eps - x0                 | Lipman et al. 2023, eq. 23       |
| "consistency"  | see ``consistency_run``               | Song et al. 2023, algorithm 2    |

A run is a function of its configuration: the same on the same machine, whatever the state of torch's global
generator, and whether it was broken off and resumed or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from dhp_lab.core.files import write_all_atomic
from dhp_lab.core.memory import raise_if_of_the_machine
from dhp_lab.core.seeding import temporary_seed
from dhp_lab.core.weights import (
    CONFIG,
    WEIGHTS,
    CheckpointError,
    weights_from_bytes,
    weights_to_bytes,
)
from dhp_lab.diffusion.consistency import ConsistencyModel
from dhp_lab.diffusion.flow import Velocity, denoiser_from_flow, draw_flow_times, flow_loss
from dhp_lab.diffusion.guidance import LabelDenoiser, drop_labels
from dhp_lab.diffusion.networks import UNet, UNetConfig
from dhp_lab.diffusion.process import (
    draw_times,
    eps_from_v,
    noise_like,
    q_sample,
    simple_loss,
    v_from_eps,
)
from dhp_lab.diffusion.schedules import SCHEDULES, NoiseSchedule
from dhp_lab.diffusion.v_prediction import LabelledV
from dhp_lab.training.optimisation import EMA, optimizer_step

Progress = Callable[[int, float], None]
"""``progress(step, loss)``, called after each step, the first of them 1."""

Watch = Callable[[int, UNet], None]
"""``watch(step, average)``, called after each step with the EMA of the weights so far, in eval mode."""

STEPS = 6000  # of a whole training
PREDICTIONS = ("eps", "v", "flow", "consistency")
FLOW_TIMES = 1000  # by which a flow's t in 0 .. 1 is multiplied for the network's sines


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
        prediction: what the network predicts, one of ``PREDICTIONS``. The schedule is that of the states it
            is given; for a flow, that of the states which ``denoiser`` is given.

    Raises:
        ValueError: a value outside its range.
    """

    network: UNetConfig = field(default_factory=UNetConfig)
    schedule: str = "linear"
    diffusion_steps: int = 1000
    training_steps: int = STEPS
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 1e-4
    null_probability: float = 0.1
    average: float = 0.999
    seed: int = 0
    prediction: str = "eps"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {', '.join(PREDICTIONS)}, got {self.prediction!r}")
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

    def denoiser(self, network: UNet) -> LabelDenoiser:
        """The network as a denoiser of ``noise_schedule``, whatever it predicts: eps(x_t, t, label=None).

        Raises:
            ValueError: it is a consistency model, which estimates no noise.
        """
        if self.prediction == "eps":
            return network
        if self.prediction == "consistency":
            raise ValueError("a consistency model is no denoiser; take config.consistency(network, label)")
        schedule = self.noise_schedule()

        def denoise(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
            if self.prediction == "flow":
                return denoiser_from_flow(self.velocity(network, label), schedule)(x_t, t)
            return eps_from_v(schedule, x_t, t, network(x_t, t, label))

        return denoise

    def velocity(self, network: UNet, label: Tensor | None = None) -> Velocity:
        """The velocity of a flow's network, v(x_t, t) for t in [0, 1], for labels (B,) or any class."""
        return lambda x_t, t: network(x_t, FLOW_TIMES * t, label)

    def consistency(self, network: UNet, label: Tensor | None = None) -> ConsistencyModel:
        """f(u, sigma) of a network that predicts v, for labels (B,) or any class.

        With sigma_data = 1 EDM's F(c_in u, c_noise) is -v, see ``LabelledV``.
        """
        return ConsistencyModel(LabelledV(network, self.noise_schedule(), label))


class DenoiserRun:
    """A training that goes step by step.

    Args:
        config: everything that the run depends on, except the data.
        x0: (N, in_channels, H, W) the data, about [-1, 1].
        labels: (N,) whole numbers 0 .. classes - 1; needed exactly if the network has classes.
        device: where to train, and where the result lives.
        memory_format: of the weights; ``torch.channels_last`` is a tenth faster on a CPU where pictures are
            larger than digits.

    Attributes:
        network, ema, optimizer, generator: what changes with each step.
        done: number of steps done.

    Raises:
        ValueError: data or labels that do not fit.
    """

    def __init__(
        self,
        config: LessonConfig,
        x0: Tensor,
        labels: Tensor | None = None,
        *,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        _check_data(config, x0, labels)
        self.config, self.x0, self.labels = config, x0.to(device), labels
        self.schedule = config.noise_schedule()
        self.network = UNet(config.network).to(device, memory_format=memory_format).train()
        self.ema = EMA(self.network, config.average)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.done = 0

    def step(self) -> float:
        """One gradient step and the EMA after it; the loss.

        Raises:
            ValueError: a loss that is not finite.
        """
        self.done += 1
        loss = self._loss()
        config = self.config
        optimizer_step(
            loss, self.network, self.optimizer, lr=config.lr, step=self.done, steps=config.training_steps
        )
        self.ema.update(self.network)
        return loss.item()

    def _loss(self) -> Tensor:
        """The squared error of one batch, with some labels dropped (Ho & Salimans 2022, algorithm 1)."""
        config, network, generator = self.config, self.network, self.generator
        chosen = torch.randint(len(self.x0), (config.batch_size,), generator=generator)
        x = self.x0[chosen]  # (B, C, H, W)
        label = None
        if self.labels is not None:
            label = drop_labels(
                self.labels[chosen], network.null, probability=config.null_probability, generator=generator
            ).to(x.device)
        return self._error(x, label)

    def _error(self, x: Tensor, label: Tensor | None) -> Tensor:
        """() the mean squared error of what the network predicts for a batch (B, C, H, W) and its labels."""
        config, network, generator = self.config, self.network, self.generator
        if config.prediction == "flow":
            t = draw_flow_times(x, generator)
            return flow_loss(config.velocity(network, label), x, noise_like(x, generator), t)
        t = draw_times(self.schedule, x, generator)
        eps = noise_like(x, generator)
        if config.prediction == "eps":
            return simple_loss(lambda x_t, t: network(x_t, t, label), self.schedule, x, t, eps)
        v = v_from_eps(self.schedule, x, t, eps)
        return (v - network(q_sample(self.schedule, x, t, eps), t, label)).square().mean()


def train_denoiser(
    config: LessonConfig,
    x0: Tensor,
    labels: Tensor | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> UNet:
    """Train a U-Net, by default to estimate the noise in x_t; the EMA of its weights, in eval mode.

    Args:
        config, x0, labels, device: as for ``DenoiserRun``.
        progress: called after each step with its number and loss.
        watch: called after each step with its number and the EMA, which it must leave as it is.

    Raises:
        ValueError: data or labels that do not fit, or a loss that is not finite.
    """
    with temporary_seed(config.seed):  # first weights, dropout
        run = DenoiserRun(config, x0, labels, device=device)
        for step in range(1, config.training_steps + 1):
            loss = run.step()
            if progress is not None:
                progress(step, loss)
            if watch is not None:
                watch(step, run.ema.average)
        return run.ema.average


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


def read_denoiser(folder: str | Path, *, device: torch.device | str = "cpu") -> tuple[UNet, LessonConfig]:
    """Read a network that ``save_denoiser`` wrote.

    Args:
        folder: its folder.
        device: where the network lives.

    Returns:
        The network in eval mode, and how it was trained; ``config.noise_schedule()`` is its noise schedule.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind.
    """
    folder = Path(folder)
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
