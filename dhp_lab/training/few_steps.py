r"""Training for few steps: one loop, and the objectives of EDM, flow matching, reflow and distillation.

    repeat:  loss(network, average, generator);  a gradient step;  EMA of the weights

| objective                | what the network learns                        | source                        |
|--------------------------|------------------------------------------------|-------------------------------|
| ``edm_objective``        | x0, at noise levels drawn log-normally         | Karras et al. 2022, eq. 8     |
| ``flow_objective``       | the velocity of lines between given pairs      | Liu et al. 2023, algorithm 1  |
| ``distillation_objective`` | the end of a teacher's path                  | Song et al. 2023, algorithm 2 |

A run is a function of its configuration and its network's first weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dhp_lab.diffusion.consistency import distillation_loss, draw_neighbours
from dhp_lab.diffusion.edm import CleanEstimate, draw_sigmas, edm_loss
from dhp_lab.diffusion.flow import draw_flow_times, flow_loss
from dhp_lab.diffusion.process import noise_like
from dhp_lab.training.optimisation import EMA, optimizer_step

Objective = Callable[[nn.Module, nn.Module, torch.Generator], Tensor]
"""``loss = objective(network, average, generator)``: () of one batch that it draws itself."""

Pairs = Callable[[torch.Generator], tuple[Tensor, Tensor]]
"""``x0, eps = pairs(generator)``: a batch of clean signals, and the noise that each is joined with."""


@dataclass(frozen=True)
class FitConfig:
    """How long and how fast a network is trained.

    Attributes:
        steps: at least 1.
        lr: AdamW's peak learning rate, in (0, 1); see ``optimisation.lr_factor``.
        average: the EMA's decay, in [0, 1).
        seed: of batches, times and noise.

    Raises:
        ValueError: a value outside its range.
    """

    steps: int
    lr: float = 2e-3
    average: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.lr < 1 or not 0 <= self.average < 1:
            raise ValueError(
                "steps must be at least 1, lr in (0, 1) and average in [0, 1); "
                f"got {self.steps}, {self.lr:g} and {self.average:g}"
            )


def fit(
    network: nn.Module,
    objective: Objective,
    config: FitConfig,
    *,
    progress: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Train a network in place, and return the EMA of its weights, in eval mode.

    Args:
        progress: called after each step with its number and loss.

    Raises:
        ValueError: a loss that is not finite.
    """
    ema = EMA(network, config.average)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(config.seed)
    for step in range(1, config.steps + 1):
        loss = objective(network, ema.average, generator)
        optimizer_step(loss, network, optimizer, lr=config.lr, step=step, steps=config.steps)
        ema.update(network)
        if progress is not None:
            progress(step, loss.item())
    return ema.average


def shuffled_pairs(data: Tensor, batch_size: int) -> Pairs:
    """Independent pairs: items of the data (N, ...) and fresh noise; those of a first flow."""

    def pairs(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x0 = data[torch.randint(len(data), (batch_size,), generator=generator)]
        return x0, noise_like(x0, generator)

    return pairs


def kept_pairs(x0: Tensor, eps: Tensor, batch_size: int) -> Pairs:
    """Batches of pairs that belong together, (N, ...) each: those of ``flow.reflow_pairs``."""

    def pairs(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(x0), (batch_size,), generator=generator)
        return x0[chosen], eps[chosen]

    return pairs


def edm_objective(pairs: Pairs, *, sigma_data: float, mean: float = -1.2, std: float = 1.2) -> Objective:
    """The EDM loss of D(u, sigma); mean and std are those of ln(sigma)."""

    def objective(network: nn.Module, average: nn.Module, generator: torch.Generator) -> Tensor:
        x0, eps = pairs(generator)
        sigma = draw_sigmas(x0, mean=mean, std=std, generator=generator)
        return edm_loss(network, x0, sigma, eps, sigma_data=sigma_data)

    return objective


def flow_objective(pairs: Pairs) -> Objective:
    """The flow matching loss of v(x, t) at uniform times."""

    def objective(network: nn.Module, average: nn.Module, generator: torch.Generator) -> Tensor:
        x0, eps = pairs(generator)
        return flow_loss(network, x0, eps, draw_flow_times(x0, generator))

    return objective


def distillation_objective(pairs: Pairs, teacher: CleanEstimate, sigmas: Tensor) -> Objective:
    """Consistency distillation of f(u, sigma) between neighbours of ``sigmas``; the EMA is the target."""

    def objective(network: nn.Module, average: nn.Module, generator: torch.Generator) -> Tensor:
        x0, eps = pairs(generator)
        sigma, sigma_prev = draw_neighbours(sigmas, x0, generator)
        return distillation_loss(network, average, teacher, x0, eps, sigma, sigma_prev)

    return objective
