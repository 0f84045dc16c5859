"""One gradient step, the learning-rate schedule and the moving average of weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def optimizer_step(
    loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer, *, lr: float, step: int, steps: int
) -> None:
    """The gradient step number 1 .. steps, of length lr times ``lr_factor``; a gradient longer than 1 is
    shortened to it.

    Raises:
        ValueError: a loss that is not finite; the network is as it was.
    """
    if not bool(loss.isfinite()):
        raise ValueError(f"the loss is {loss.item()} at step {step}; try a smaller lr than {lr:g}")
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.param_groups[0]["lr"] = lr * lr_factor(step, steps)
    optimizer.step()


def lr_factor(step: int, steps: int) -> float:
    """What part of the peak step size is used at step 1 .. steps: rising for the first 2 %, falling to 0 as a
    cosine.
    """
    return min(1.0, step / (0.02 * steps)) * (1 + math.cos(math.pi * (step - 1) / steps)) / 2


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, keep: float) -> None:
    """average = keep * average + (1 - keep) * network, for every parameter: Ho et al. 2020, appendix B."""
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - keep)
