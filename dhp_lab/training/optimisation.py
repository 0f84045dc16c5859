r"""One gradient step, the learning-rate schedule and the exponential moving average (EMA) of the weights.

    lr_k      = lr min(1, k / warmup) (floor + (1 - floor) (1 + cos(pi (k - 1) / K)) / 2)
    average_k = d_k average_{k-1} + (1 - d_k) weights_k,    d_k = min(decay, k / (k + 10)),    k = 1 .. K

Linear warm-up is Goyal et al. 2017, section 2.2; cosine decay is Loshchilov & Hutter 2017, eq. 5, without
restarts; the EMA is the one that diffusion models are sampled with since Ho et al. 2020, appendix B.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

WARMUP_SHARE = 0.02  # of the steps, where a trainer names no number of them
MAX_GRADIENT_NORM = 1.0
EMA_WARMUP = 10  # steps: after k of them the average is one over about k + 10


def optimizer_step(
    loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer, *, lr: float, step: int, steps: int
) -> None:
    """One gradient step with warm-up, cosine decay and gradient clipping to a norm of 1.

    Args:
        loss: () the objective, with a gradient to the network.
        network: the parameters whose common gradient norm is clipped.
        optimizer: of these parameters; all its groups get the same learning rate.
        lr: peak learning rate.
        step: number of this step, 1 .. steps.
        steps: of the whole run.

    Raises:
        ValueError: a loss that is not finite; the network is as it was.
    """
    if not bool(loss.isfinite()):
        raise ValueError(f"the loss is {loss.item()} at step {step}; try a smaller lr than {lr:g}")
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
    for group in optimizer.param_groups:
        group["lr"] = lr * lr_factor(step, steps)
    optimizer.step()


def lr_factor(step: int, steps: int, *, warmup: float | None = None, floor: float = 0.0) -> float:
    """The learning rate over its peak: linear warm-up times cosine decay (Loshchilov & Hutter 2017, eq. 5).

    Args:
        step: 1 .. steps.
        steps: of the whole run, at least 1.
        warmup: steps of the linear rise, above 0; None: 2 % of all steps.
        floor: what the cosine falls to, in [0, 1].

    Returns:
        In [0, 1].
    """
    rise = min(1.0, step / (WARMUP_SHARE * steps if warmup is None else warmup))
    cosine = (1 + math.cos(math.pi * (step - 1) / steps)) / 2
    return rise * (floor + (1 - floor) * cosine)


class EMA:
    """A network whose weights are the exponential moving average of another's; buffers stay as they are.

    The decay rises with the number of steps, so that the first weights do not stay in the average for long
    (as in TensorFlow's ExponentialMovingAverage, where it is (1 + k) / (10 + k)).

    Args:
        network: whose weights the average starts from; it is copied.
        decay: the largest decay, in [0, 1); 0 keeps the last weights alone.

    Attributes:
        average: the averaged network, in eval mode, without gradients.
        steps: how often it was updated.

    Raises:
        ValueError: a decay outside [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay:g}")
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0

    def update(self, network: nn.Module) -> None:
        """Take the network's weights after one more gradient step into the average."""
        self.steps += 1
        update_ema(self.average, network, min(self.decay, self.steps / (self.steps + EMA_WARMUP)))


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * network, for every parameter (Ho et al. 2020, appendix B)."""
    means, values = list(average.parameters()), list(network.parameters())
    torch._foreach_lerp_(means, values, 1 - decay)  # one call: a loop over small tensors takes longer
