r"""The code length of a picture under a diffusion model: by the variational bound and by the flow ODE.

The unscaled state u = x_t / s is a function of the noise level instead of the time (Karras et al. 2022, eq.
1), and its density changes as in any flow (Song et al. 2021, section 4.3 and appendix D.2):

    du / dsigma = eps(s u, t),                    t the time of sigma
    d log p(u) / dsigma = -div_u eps(s u, t)

    log p(x0) = log N(u_T; 0, 1 + sigma_T^2) + integral of div_u eps from sigma_1 to sigma_T

A log density is not a code length. Data of L grey levels, evenly spaced from -1 to 1, get one in two ways.

    the chain's last step   E[-log2 p(x_1) + log2 q(x_1 | x0) - log2 P(x0 | x_1)]             ``levels=L``
    dequantisation          E[-log2 p(x0 + u)] + log2((L - 1) / 2), u uniform over a level    ``dequantise``

Both are at least the bits of the grey level. The first is the variational bound with the flow in place of all
steps but one (``bound.elbo``), for a denoiser that was trained on the levels themselves. The second is for
one that was trained on dequantised data (Theis et al. 2016, section 3.1): its second part, ``level_bits``, is
the change of scale. Under a denoiser that was trained on the levels, values between them have almost no
density.

Both functions return bits per dimension: estimates of a code length, no file is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dhp_lab.diffusion.bound import check_levels, elbo, level_nats
from dhp_lab.diffusion.process import Denoiser, noise_like, predict_eps, q_sample
from dhp_lab.diffusion.schedules import NoiseSchedule


def level_bits(levels: int) -> float:
    """log2((levels - 1) / 2): bits per dimension from a density on [-1, 1] to ``levels`` >= 2 grey levels."""
    if levels < 2:
        raise ValueError(f"levels must be 2 or more, got {levels}")
    return math.log2((levels - 1) / 2)


def dequantise(x: Tensor, levels: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Add uniform noise of one level's width, 2 / (levels - 1): Theis et al. 2016, section 3.1.

    Args:
        x: (B, ...) of ``levels`` >= 2 numbers, evenly spaced from -1 to 1.

    Raises:
        ValueError: levels below 2, or values between them.
    """
    check_levels(x, levels)
    device = "cpu" if generator is None else generator.device
    u = torch.rand(x.shape, generator=generator, device=device).to(x.dtype).to(x.device)
    return x + (2 * u - 1) / (levels - 1)


def bits_per_dim_elbo(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x0: Tensor,
    *,
    levels: int | None = None,
    expected_error: float | Tensor = 0.0,
    count: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(B,) float64: the total of ``bound.elbo``, in expectation an upper bound; arguments as there."""
    terms = elbo(
        denoiser, schedule, x0, levels=levels, expected_error=expected_error, count=count, generator=generator
    )
    return terms.total


@torch.no_grad()
def bits_per_dim_ode(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x0: Tensor,
    *,
    count: int = 50,
    probes: int | None = None,
    levels: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(B,) float64: -log2 p(x0) per dimension by the probability-flow ODE: Song et al. 2021, eq. 39.

    The flow starts at t = 1, the first time that a denoiser is trained for: the density is that of data with
    noise of sigma(1). Kutta's method of fourth order takes ``count`` steps, evenly spaced in log(sigma).

    Args:
        x0: (B, ...) the data, about [-1, 1]. No item's noise estimate may depend on another item.
        count: the number of steps, >= 1; four evaluations of the denoiser each.
        probes: None: the exact divergence, by as many backward passes as x0 has dimensions. Else so many
            random signs estimate it without bias (Hutchinson 1990; Song et al. 2021, eq. 40), >= 1.
        levels: None: the data have a density. Else they are that many grey levels, evenly spaced from -1 to
            1, and the result is an upper bound in expectation: the flow starts at a random x_1.
        generator: draws the probes and x_1.

    Raises:
        ValueError: a schedule of one step, a count or number of probes below 1, levels below 2, or data that
            are not on them.
    """
    _check_ode(schedule, count, probes)
    directions = _directions(x0, probes, generator)
    u, nats = (x0, 0.0) if levels is None else _last_step(denoiser, schedule, x0, levels, generator)
    first, last = (schedule.sigma(t).log().item() for t in (1, schedule.steps))
    step = (last - first) / count

    def flow(u: Tensor, log_sigma: float) -> tuple[Tensor, Tensor]:
        return _flow(denoiser, schedule, u, log_sigma, directions)

    for i in range(count):
        u, gained = _kutta(flow, u, first + i * step, step)
        nats = nats - gained
    variance = 1 + schedule.sigma(schedule.steps).item() ** 2
    nats = nats + (u.flatten(1).double().square() / variance + math.log(2 * math.pi * variance)).sum(1) / 2
    return nats / (x0[0].numel() * math.log(2))


def _check_ode(schedule: NoiseSchedule, count: int, probes: int | None) -> None:
    if schedule.steps < 2:
        raise ValueError("a flow from t = 1 to T needs a schedule of 2 steps or more, got 1")
    if count < 1:
        raise ValueError(f"count must be 1 or more steps, got {count}")
    if probes is not None and probes < 1:
        raise ValueError(f"probes must be 1 or more, or None for the exact divergence; got {probes}")


def _last_step(
    denoiser: Denoiser, schedule: NoiseSchedule, x0: Tensor, levels: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """A random u_1 (B, ...), and log q(u_1 given x0) - log P(x0 given u_1) (B,) in nats."""
    sigma = schedule.sigma(1).item()
    eps = noise_like(x0, generator)
    error = eps - predict_eps(denoiser, q_sample(schedule, x0, 1, eps), 1)
    log_q = -(eps.flatten(1).double().square() + math.log(2 * math.pi * sigma**2)).sum(1) / 2
    return x0 + sigma * eps, log_q + level_nats(error.flatten(1), sigma, x0.flatten(1), levels)


def _directions(x: Tensor, probes: int | None, generator: torch.Generator | None) -> Tensor:
    """(n, 1 or B, ...) vectors v with the trace of J as their sum of v.J v.

    Exactly for the D unit vectors, where ``probes`` is None; else in expectation.
    """
    if probes is None:
        return torch.eye(x[0].numel(), dtype=x.dtype, device=x.device).reshape(-1, 1, *x.shape[1:])
    device = "cpu" if generator is None else generator.device
    signs = 2 * torch.randint(2, (probes, *x.shape), generator=generator, device=device) - 1
    return signs.to(x.dtype).to(x.device) / math.sqrt(probes)


def _flow(
    denoiser: Denoiser, schedule: NoiseSchedule, u: Tensor, log_sigma: float, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """du / dlog(sigma) = sigma eps (B, ...), and its divergence (B,) float64."""
    sigma = math.exp(log_sigma)
    t = schedule.time_of(sigma)
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        eps = predict_eps(denoiser, schedule.scale(t).item() * u, t)
        divergence = 0.0
        for v in directions:
            (product,) = torch.autograd.grad((eps * v).sum(), u, retain_graph=True)  # v^T J
            divergence = divergence + (product * v).flatten(1).double().sum(1)  # (B,)
    return sigma * eps.detach(), sigma * divergence


def _kutta(
    flow: Callable[[Tensor, float], tuple[Tensor, Tensor]], u: Tensor, start: float, step: float
) -> tuple[Tensor, Tensor]:
    """One step of the classical Runge-Kutta method: the new u, and the divergence's integral (B,)."""
    du1, div1 = flow(u, start)
    du2, div2 = flow(u + step / 2 * du1, start + step / 2)
    du3, div3 = flow(u + step / 2 * du2, start + step / 2)
    du4, div4 = flow(u + step * du3, start + step)
    return u + step / 6 * (du1 + 2 * du2 + 2 * du3 + du4), step / 6 * (div1 + 2 * div2 + 2 * div3 + div4)
