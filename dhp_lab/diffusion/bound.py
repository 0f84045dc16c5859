r"""The variational bound, term by term, in bits: the code length of the chain x_T -> ... -> x_1 -> x_0.

    -log2 p(x0) <= prior + sum over t = 2 .. T of KL_t + reconstruction              (Ho et al. 2020, eq. 5)

    prior            KL( q(x_T | x0) || p(x_T) )                        the information on x0 in x_T
    KL_t             KL( q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t) )     the posterior of x0 against x0_hat's
    reconstruction   -log2 p(x0 | x_1)                                  the last step

If the model's step has the posterior's variance (``process.q_posterior``), a KL is a squared distance of
means: the weight w_t = ``process.bound_weight`` times the error of the noise estimate. Leave the weight out:
what is left is L_simple.

That variance is too small, because x0 is only estimated. With E the mean squared error of the noise
estimate, and 1 + 2 w_t = SNR(t-1) / SNR(t), the best one is the posterior's times m (Bao et al. 2022,
Analytic-DPM), and the KL becomes, in nats and for D dimensions,

    m = 1 + 2 w_t E,     KL_t = D (1/m - 1 + log m) / 2 + w_t / m |eps - eps_hat|^2

E = 0 is the posterior's variance, right where x0 is certain. E = 1 is beta_t / (1 - beta_t), right for broad
data seen through little noise. (Ho et al. 2020, section 3.2, take the first, or beta_t.) ``mean_errors``
measures E.

The bound does not depend on the state's scale. p(x_T) is normal with variance s_T^2 (1 + sigma_T^2), which
is 1 in a variance-preserving chain, and p(x0 given x_1) is normal about x0_hat(x_1) with variance sigma_1^2.
For data of grey levels it is that normal's mass in each level's bin (Ho et al. 2020, eq. 13), and the bound
is one of bits, not of a density.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dhp_lab.diffusion.process import (
    Denoiser,
    bound_weight,
    noise_like,
    predict_eps,
    q_sample,
)
from dhp_lab.diffusion.schedules import NoiseSchedule


@dataclass(frozen=True)
class ElboTerms:
    """The bound's terms of each picture, in bits per dimension.

    Attributes:
        prior: (B,).
        kls: (B, n) the KL at each of ``times``.
        times: (n,) whole times of 2 .. T, falling; all of them, or a random choice.
        reconstruction: (B,). Of a density, so it may be negative, unless the data are grey levels.
        steps: T.
    """

    prior: Tensor
    kls: Tensor
    times: Tensor
    reconstruction: Tensor
    steps: int

    @property
    def total(self) -> Tensor:
        """(B,) the bound: prior + all KLs (their mean, times T - 1) + reconstruction."""
        middle = self.kls.mean(1) * (self.steps - 1) if self.steps > 1 else torch.zeros_like(self.prior)
        return self.prior + middle + self.reconstruction


@torch.no_grad()
def mean_errors(
    denoiser: Denoiser, schedule: NoiseSchedule, x0: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """E at t = 1 .. T: the mean of (eps - eps_hat)^2 over x0 (B, ...), with one draw of noise each.

    Returns:
        (T,) float64 on the CPU.
    """
    errors = [_errors(denoiser, schedule, x0, t, generator) for t in range(1, schedule.steps + 1)]
    return torch.stack([error.square().mean() for error in errors]).cpu()


@torch.no_grad()
def elbo(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x0: Tensor,
    *,
    levels: int | None = None,
    expected_error: float | Tensor = 0.0,
    count: int | None = None,
    generator: torch.Generator | None = None,
) -> ElboTerms:
    """The variational bound's terms: Ho et al. 2020, eq. 5, with the variance of Bao et al. 2022.

    Each time takes one evaluation of the denoiser and one draw of noise: the total is an unbiased estimate.

    Args:
        x0: (B, ...) the data, about [-1, 1].
        levels: None: the data have a density. Else they are that many grey levels, evenly spaced from -1 to
            1.
        expected_error: E >= 0, one for all times, or (T,) for t = 1 .. T by ``mean_errors`` on other data
            than x0.
        count: None: every time of 2 .. T. Else that many of them, in 1 .. T - 1: one drawn from each of as
            many equal parts.
        generator: draws the times and the noise.

    Raises:
        ValueError: a count outside 1 .. T - 1, levels below 2, data that are not on them, or an E below 0.
    """
    if levels is not None:
        check_levels(x0, levels)
    expected = _expected_table(schedule, expected_error)
    times = _choose_times(schedule.steps, count, generator)
    kls = []
    for t in times.tolist():
        error = _errors(denoiser, schedule, x0, t, generator)
        kls.append(_kl_nats(schedule, t, error, expected[int(t) - 1]))
    error = _errors(denoiser, schedule, x0, 1.0, generator)  # (B, D)
    sigma = schedule.sigma(1).item()
    last = _density_nats(error, sigma) if levels is None else level_nats(error, sigma, x0.flatten(1), levels)
    none = x0.new_zeros(len(x0), 0, dtype=torch.float64)
    nats = x0[0].numel() * math.log(2)  # in a bit per dimension
    return ElboTerms(
        prior=_prior_nats(schedule, x0) / nats,
        kls=torch.stack(kls, 1) / nats if kls else none,  # (B, n)
        times=times,
        reconstruction=last / nats,
        steps=schedule.steps,
    )


def level_nats(error: Tensor, sigma: float, x0: Tensor, levels: int) -> Tensor:
    """-log P(x0 given x_1) for data of grey levels, the last step of the chain: Ho et al. 2020, eq. 13.

    A level's probability is the mass of N(x0_hat, sigma^2) within half a level of it, x0_hat = x0 + sigma
    error; the bins of the darkest and the brightest level have no outer edge.

    Args:
        error: (B, D) eps - eps_hat at t = 1.
        sigma: sigma(1).
        x0: (B, D) of ``levels`` >= 2 numbers, evenly spaced from -1 to 1.

    Returns:
        (B,) float64, in nats.
    """
    check_levels(x0, levels)
    half = 1 / (levels - 1)
    error = error.double()
    low = torch.where(x0 < -1 + half, -math.inf, -half / sigma - error)  # (B, D) standardised
    high = torch.where(x0 > 1 - half, math.inf, half / sigma - error)
    upper = low > 0  # mirrored: the lower tail is the precise one
    low, high = torch.where(upper, -high, low), torch.where(upper, -low, high)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return -(log_high + torch.log1p(-(log_low - log_high).exp())).sum(1)


def check_levels(x: Tensor, levels: int) -> None:
    """Check that every value of x is one of ``levels`` >= 2 numbers, evenly spaced from -1 to 1.

    Raises:
        ValueError: fewer than 2 levels, or a value that is none of them.
    """
    if levels < 2:
        raise ValueError(f"levels must be 2 or more, got {levels}")
    index = (x.double() + 1) * (levels - 1) / 2
    beside = (index - index.round()).abs().max().item()
    if not (beside < 1e-3 and index.min().item() > -0.5 and index.max().item() < levels - 0.5):
        raise ValueError(
            f"x must hold only {levels} levels, evenly spaced from -1 to 1; got values from "
            f"{x.min().item():g} to {x.max().item():g}, up to {beside:.2g} of a level beside them"
        )


def _choose_times(steps: int, count: int | None, generator: torch.Generator | None) -> Tensor:
    """(n,) float64 of 2 .. T, falling: all, or one from each of n equal parts of [2, T + 1)."""
    if count is None:
        return torch.arange(steps, 1, -1, dtype=torch.float64)
    if not 1 <= count < steps:
        raise ValueError(f"count must lie in 1 .. {steps - 1}, the number of the bound's KLs; got {count}")
    device = "cpu" if generator is None else generator.device
    u = torch.rand(count, generator=generator, device=device, dtype=torch.float64).cpu()
    part = (torch.arange(count) + u) * (steps - 1) / count  # (n,) in [0, T - 1)
    return (2 + part.floor().clamp(max=steps - 2)).flip(0)


def _expected_table(schedule: NoiseSchedule, expected_error: float | Tensor) -> list[float]:
    """E at t = 1 .. T."""
    table = torch.as_tensor(expected_error, dtype=torch.float64)
    if table.shape not in ((), (schedule.steps,)):
        raise ValueError(
            f"expected_error must be one number or ({schedule.steps},), got shape {tuple(table.shape)}"
        )
    if not bool((table >= 0).all()):
        raise ValueError(f"expected_error must be 0 or more, got {table.min().item():g}")
    return table.expand(schedule.steps).tolist()


def _errors(
    denoiser: Denoiser, schedule: NoiseSchedule, x0: Tensor, t: float, generator: torch.Generator | None
) -> Tensor:
    """(B, D) float64: eps - eps_hat at time t, for fresh noise."""
    eps = noise_like(x0, generator)
    return (eps - predict_eps(denoiser, q_sample(schedule, x0, t, eps), t)).flatten(1).double()


def _kl_nats(schedule: NoiseSchedule, t: float, error: Tensor, expected: float) -> Tensor:
    """(B,) KL of the posterior from the model's step, which has m times its variance."""
    weight = bound_weight(schedule, t).item()
    m = 1 + 2 * weight * expected
    return error.shape[1] * (1 / m - 1 + math.log(m)) / 2 + weight / m * error.square().sum(1)


def _prior_nats(schedule: NoiseSchedule, x0: Tensor) -> Tensor:
    """(B,) KL of N(x0, sigma_T^2) from N(0, 1 + sigma_T^2); scaling both by s_T changes nothing."""
    alpha_bar = schedule.alpha_bar(schedule.steps).item()
    return ((x0.flatten(1).double().square() - 1) * alpha_bar - math.log1p(-alpha_bar)).sum(1) / 2


def _density_nats(error: Tensor, sigma: float) -> Tensor:
    """(B,) -log N(x0; x0_hat, sigma^2), where x0_hat - x0 = sigma (eps - eps_hat)."""
    return (error.square() / 2 + math.log(sigma) + math.log(2 * math.pi) / 2).sum(1)
