r"""EDM: sigma as the one noise variable, and the scalings that make a network's task the same at every sigma.

A state u = x0 + sigma eps has variance sigma_data^2 + sigma^2, from 1/4 to thousands. The denoiser gives the
network F inputs and targets of variance 1 at every sigma (Karras et al. 2022, eq. 7 and table 1):

    D(u, sigma) = c_skip u + c_out F(c_in u, c_noise),       D estimates x0

    c_in^2   = 1 / (sigma^2 + sigma_data^2)              the input has variance 1      (eq. 117)
    c_skip   = sigma_data^2 / (sigma^2 + sigma_data^2)   least c_out: errors of F weigh least     (eq. 131)
    c_out    = sigma sigma_data c_in                     the target of F has variance 1      (eq. 138)
    weight   = 1 / c_out^2                               the loss of F has weight 1      (eq. 144)

| paper         | here                                 | shape, range                         |
|---------------|--------------------------------------|--------------------------------------|
| sigma         | ``sigma``                            | (B,), above 0                        |
| sigma_data    | ``sigma_data``                       | above 0; the paper's pictures: 0.5   |
| F_theta       | ``network(x, c_noise)``              | (B, ...), (B,) -> (B, ...)           |
| D_theta       | ``EDMDenoiser``                      | (B, ...), (B,) -> (B, ...)           |
| P_mean, P_std | ``mean``, ``std`` of ``draw_sigmas`` | of ln(sigma)                         |
| rho           | ``rho`` of ``karras``                | above 0; the paper's: 7              |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dhp_lab.diffusion.process import Denoiser, noise_like, predict_eps
from dhp_lab.diffusion.samplers import State, time_pairs
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to, from_sigmas

CleanEstimate = Callable[[Tensor, Tensor], Tensor]
"""``x0 = D(u, sigma)``: states u = x0 + sigma eps (B, ...) and sigma (B,) to estimates of x0 (B, ...)."""


@dataclass(frozen=True)
class Preconditioning:
    """The scalings of one noise level or of each of a batch; all are shaped like sigma.

    Attributes:
        c_skip: of the state, added to the network's output.
        c_out: of the network's output.
        c_in: of the network's input.
        c_noise: what the network is given for sigma.
    """

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def preconditioning(sigma: float | Tensor, sigma_data: float = 1.0) -> Preconditioning:
    """c_skip, c_out, c_in and c_noise = ln(sigma) / 4: Karras et al. 2022, table 1, last column.

    Args:
        sigma: above 0, of any shape.
        sigma_data: the data's standard deviation, above 0.

    Raises:
        ValueError: a sigma or sigma_data that is not above 0.
    """
    sigma = sigma if isinstance(sigma, Tensor) else torch.as_tensor(sigma, dtype=torch.float64)
    _check_positive(sigma, sigma_data)
    variance = sigma.square() + sigma_data**2
    spread = variance.sqrt()
    return Preconditioning(sigma_data**2 / variance, sigma * sigma_data / spread, 1 / spread, sigma.log() / 4)


class EDMDenoiser(nn.Module):
    """D(u, sigma) = c_skip u + c_out F(c_in u, c_noise): Karras et al. 2022, eq. 7.

    Args:
        network: F, called as ``network(x, c_noise)`` with (B, ...) and (B,).
        sigma_data: the data's standard deviation.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data

    def forward(self, u: Tensor, sigma: Tensor) -> Tensor:
        """The estimate of x0, (B, ...), at u = x0 + sigma eps; sigma is (B,)."""
        c = preconditioning(sigma, self.sigma_data)
        out = self.network(broadcast_to(c.c_in, u) * u, c.c_noise.to(u))
        return broadcast_to(c.c_skip, u) * u + broadcast_to(c.c_out, u) * out


def edm_weight(sigma: float | Tensor, sigma_data: float = 1.0) -> Tensor:
    """1 / c_out^2, the weight of D's squared error that makes F's weight 1: Karras et al. 2022, eq. 144."""
    return preconditioning(sigma, sigma_data).c_out.square().reciprocal()


def edm_loss(
    denoiser: CleanEstimate, x0: Tensor, sigma: Tensor, eps: Tensor, *, sigma_data: float = 1.0
) -> Tensor:
    """() the mean of weight |D(x0 + sigma eps, sigma) - x0|^2: Karras et al. 2022, eq. 8 and table 1.

    Args:
        x0, eps: (B, ...) clean signals and standard normal noise.
        sigma: (B,) noise levels, by ``draw_sigmas``.
    """
    error = denoiser(x0 + broadcast_to(sigma, x0) * eps, sigma) - x0
    return (broadcast_to(edm_weight(sigma, sigma_data), x0) * error.square()).mean()


def draw_sigmas(
    x: Tensor, *, mean: float = -1.2, std: float = 1.2, generator: torch.Generator | None = None
) -> Tensor:
    """(B,) noise levels for the batch x, ln(sigma) ~ N(mean, std^2): Karras et al. 2022, table 1.

    Args:
        mean, std: P_mean and P_std; the default is the paper's for pictures with sigma_data = 0.5.
    """
    return (mean + std * noise_like(torch.empty(len(x)), generator)).exp().to(x)


def karras(steps: int, *, first: float = 0.002, last: float = 80.0, rho: float = 7.0) -> NoiseSchedule:
    """The noise levels of a sampler with this many steps: Karras et al. 2022, eq. 5.

        sigma_i = (last^(1/rho) + i / (N - 1) (first^(1/rho) - last^(1/rho)))^rho,   i = 0 .. N - 1, then 0

    It is a variance-exploding schedule of N = steps times, sigma(N) = last: a sampler with count = N makes
    these steps, and ``ideal.rescaled`` fits a denoiser of any other schedule to it.

    Args:
        steps: N >= 1; a schedule of one step has ``last`` alone.
        first, last: the smallest and the greatest sigma, 0 < first < last.
        rho: above 0; 1 spaces sigmas evenly, a great one their logarithms.

    Raises:
        ValueError: an argument outside its range.
    """
    if steps < 1 or not 0 < first < last < math.inf or not rho > 0:
        raise ValueError(
            "karras needs steps >= 1, 0 < first < last and rho > 0; "
            f"got steps = {steps}, first = {first:g}, last = {last:g}, rho = {rho:g}"
        )
    ends = [first ** (1 / rho), last ** (1 / rho)] if steps > 1 else [last ** (1 / rho)] * 2
    return from_sigmas("karras", torch.linspace(*ends, steps, dtype=torch.float64) ** rho)


def denoiser_from_edm(estimate: CleanEstimate, schedule: NoiseSchedule) -> Denoiser:
    """The noise estimate (u - D(u, sigma)) / sigma for states of a schedule: every sampler takes it."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        sigma = schedule.sigma(t)
        u = x / broadcast_to(schedule.scale(t), x)
        return (u - estimate(u, sigma.to(x))) / broadcast_to(sigma, x)

    return denoise


@torch.no_grad()
def edm_heun(
    denoiser: Denoiser, schedule: NoiseSchedule, x_T: Tensor, *, count: int | None = None
) -> Iterator[State]:
    """Karras et al. 2022, algorithm 1: Heun's method for du = eps d(sigma), the last step Euler's.

    2 count - 1 evaluations. Without Heun's second one it is ``samplers.ddim``; ``probability_flow`` is the
    same method in an angle instead of sigma.

    Args:
        x_T, count: as for the samplers of ``samplers``; with ``karras(N)`` as the schedule, count is N.
    """
    u = x_T / broadcast_to(schedule.scale(schedule.steps), x_T)
    for t, t_prev in time_pairs(schedule, count):
        sigma, sigma_prev = schedule.sigma(t).item(), schedule.sigma(t_prev).item()
        scale, scale_prev = schedule.scale(t).item(), schedule.scale(t_prev).item()
        slope = predict_eps(denoiser, scale * u, t)
        if t_prev > 0:
            ahead = u + (sigma_prev - sigma) * slope
            slope = (slope + predict_eps(denoiser, scale_prev * ahead, t_prev)) / 2
        x0, u = u - sigma * slope, u + (sigma_prev - sigma) * slope
        yield State(t_prev, scale_prev * u, x0)


def _check_positive(sigma: Tensor, sigma_data: float) -> None:
    if not bool((sigma > 0).all()) or not sigma_data > 0:
        raise ValueError(
            f"sigma and sigma_data must be above 0, got sigma = {sigma.min().item():g} and "
            f"sigma_data = {sigma_data:g}"
        )
