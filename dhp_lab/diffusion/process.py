r"""The forward process, its posterior, and the quantities that a network may predict.

    x0 --q_step--> x_1 --> ... --> x_{t-1} <==q_posterior==> x_t --> ... --> x_T      one step; back, given x0
    x0 ------------------------q_sample--------------------> x_t = s (x0 + sigma eps)      t steps at once

A denoiser estimates the noise eps from x_t and t. Estimates of the noise, of the signal and of "v" are
equivalent: with phi = atan(sigma), so that cos(phi) = sqrt(alpha_bar), and the state z = cos(phi) x_t / s of
the variance-preserving chain,

    z = cos(phi) x0 + sin(phi) eps,     v = cos(phi) eps - sin(phi) x0

is a rotation by phi (Salimans & Ho 2022, section 4), and a squared error of one is a weighted squared error
of another:

| the loss is the mean of         | weight of (eps - eps_hat)^2 | here                                     |
|---------------------------------|-----------------------------|------------------------------------------|
| (eps - eps_hat)^2               | 1                           | ``simple_loss``, Ho et al. 2020, eq. 14  |
| (x0 - x0_hat)^2                 | sigma^2 = 1/SNR             |                                          |
| (v - v_hat)^2                   | 1 + sigma^2                 | ``v_weight``, Salimans & Ho 2022, sec. 4 |
| min(SNR, gamma) (x0 - x0_hat)^2 | min(SNR, gamma) / SNR       | ``min_snr_weight``, Hang et al. 2023     |
| the bound's KL at t, in nats    | (SNR(t-1) / SNR(t) - 1) / 2 | ``bound_weight``, Kingma et al. 2021     |

A network that predicts v becomes a denoiser: ``lambda x, t: eps_from_v(schedule, x, t, network(x, t))``.
Every time t is real, one for the batch or (B,); a time outside its range, or shapes that differ, raise
ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``eps = denoiser(x_t, t)``: states (B, ...) and times (B,) on their device to noise estimates (B, ...)."""

Weight = Callable[[NoiseSchedule, "float | Tensor"], Tensor]
"""``weight(schedule, t)``: the weight of a squared error of the noise at time t; shaped like t."""


@dataclass(frozen=True)
class Gaussian:
    """Independent normal values.

    Attributes:
        mean: (B, ...).
        variance: of a shape that broadcasts over the mean, >= 0.
    """

    mean: Tensor
    variance: Tensor

    def sample(self, eps: Tensor) -> Tensor:
        """mean + sqrt(variance) eps, for standard normal eps (B, ...)."""
        _check_same_shape("eps", eps, self.mean)
        return self.mean + self.variance.sqrt() * eps


def noise_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise shaped like x, with x's dtype and device.

    It is drawn on the generator's device (the CPU if None): a seed gives the same noise on every device of x.
    """
    device = "cpu" if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, device=device).to(x.dtype).to(x.device)


def predict_eps(denoiser: Denoiser, x_t: Tensor, t: float | Tensor) -> Tensor:
    """The denoiser's noise estimate (B, ...) at time t: one for the batch, or (B,).

    Raises:
        ValueError: the denoiser's result has another shape than x_t.
    """
    dtype = torch.promote_types(x_t.dtype, torch.float32)  # half precision cannot count to T
    times = torch.as_tensor(t).to(dtype).to(x_t.device).expand(len(x_t))  # (B,)
    eps = denoiser(x_t, times)
    _check_same_shape("the denoiser's result", eps, x_t)
    return eps


def q_sample(schedule: NoiseSchedule, x0: Tensor, t: float | Tensor, eps: Tensor) -> Tensor:
    """The state after t steps at once, x_t = s (x0 + sigma eps): Ho et al. 2020, eq. 4.

    Args:
        x0: (B, ...) the clean signal.
        t: real, in [0, T]: one for the batch, or (B,).
        eps: standard normal noise, shaped like x0.
    """
    _check_same_shape("eps", eps, x0)
    return broadcast_to(schedule.scale(t), x0) * (x0 + broadcast_to(schedule.sigma(t), x0) * eps)


def q_step(
    schedule: NoiseSchedule,
    x: Tensor,
    t: float | Tensor,
    eps: Tensor,
    *,
    t_prev: float | Tensor | None = None,
) -> Tensor:
    """One step of noise, from x_{t-1} to x_t: Ho et al. 2020, eq. 2.

    Args:
        x: (B, ...) the state at t_prev.
        t: in (0, T], one for the batch or (B,): the time of the result.
        eps: standard normal noise, shaped like x.
        t_prev: the time of x, in [0, t); t - 1 by default.
    """
    _check_same_shape("eps", eps, x)
    t, t_prev = _two_times(schedule, t, t_prev)
    kept = schedule.scale(t) / schedule.scale(t_prev)
    beta = -torch.expm1(
        schedule.log_alpha_bar(t) - schedule.log_alpha_bar(t_prev)
    )  # beta_t if t_prev = t - 1
    variance = schedule.scale(t).square() / schedule.alpha_bar(t) * beta
    return broadcast_to(kept, x) * x + broadcast_to(variance.sqrt(), x) * eps


def q_posterior(
    schedule: NoiseSchedule,
    x0: Tensor,
    x_t: Tensor,
    t: float | Tensor,
    *,
    t_prev: float | Tensor | None = None,
) -> Gaussian:
    """q(x at t_prev given x0 and x_t), the posterior of the forward process: Ho et al. 2020, eq. 6 and 7.

    Args:
        x0, x_t: (B, ...) the clean signal and the state at time t.
        t: in (0, T], one for the batch or (B,).
        t_prev: in [0, t); t - 1 by default. At 0 the variance is 0 and the mean x0.
    """
    _check_same_shape("x_t", x_t, x0)
    t, t_prev = _two_times(schedule, t, t_prev)
    scale, sigma2 = schedule.scale(t_prev), schedule.sigma(t_prev).square()
    kept = sigma2 / schedule.sigma(t).square()  # the share of the noise that is there at t_prev
    noise = x_t / broadcast_to(schedule.scale(t), x0) - x0  # (B, ...) sigma_t eps
    return Gaussian(
        broadcast_to(scale, x0) * (x0 + broadcast_to(kept, x0) * noise),
        broadcast_to(scale.square() * sigma2 * (1 - kept), x0),
    )


def x0_from_eps(schedule: NoiseSchedule, x_t: Tensor, t: float | Tensor, eps: Tensor) -> Tensor:
    """x0 = x_t / s - sigma eps (Ho et al. 2020, eq. 15), for t in [0, T]; all (B, ...)."""
    _check_same_shape("eps", eps, x_t)
    scale = schedule.scale(t)
    noise = broadcast_to(scale * schedule.sigma(t), x_t) * eps
    return (x_t - noise) / broadcast_to(scale, x_t)  # one division: two large terms would round coarsely


def eps_from_x0(schedule: NoiseSchedule, x_t: Tensor, t: float | Tensor, x0: Tensor) -> Tensor:
    """eps = (x_t / s - x0) / sigma, for t in (0, T]; all (B, ...)."""
    _check_same_shape("x0", x0, x_t)
    return (x_t / broadcast_to(schedule.scale(t), x_t) - x0) / broadcast_to(_positive_sigma(schedule, t), x_t)


def v_from_eps(schedule: NoiseSchedule, x0: Tensor, t: float | Tensor, eps: Tensor) -> Tensor:
    """v = cos(phi) eps - sin(phi) x0 (Salimans & Ho 2022, section 4), for t in [0, T]; all (B, ...)."""
    _check_same_shape("eps", eps, x0)
    cos, sin = _cos_sin(schedule, t, x0)
    return cos * eps - sin * x0


def x0_from_v(schedule: NoiseSchedule, x_t: Tensor, t: float | Tensor, v: Tensor) -> Tensor:
    """x0 = cos(phi) z - sin(phi) v (Salimans & Ho 2022, appendix D), for t in [0, T]; all (B, ...)."""
    _check_same_shape("v", v, x_t)
    cos, sin = _cos_sin(schedule, t, x_t)
    return cos * cos / broadcast_to(schedule.scale(t), x_t) * x_t - sin * v


def eps_from_v(schedule: NoiseSchedule, x_t: Tensor, t: float | Tensor, v: Tensor) -> Tensor:
    """eps = sin(phi) z + cos(phi) v (Salimans & Ho 2022, appendix D), for t in [0, T]; all (B, ...)."""
    _check_same_shape("v", v, x_t)
    cos, sin = _cos_sin(schedule, t, x_t)
    return sin * cos / broadcast_to(schedule.scale(t), x_t) * x_t + cos * v


def score_from_eps(schedule: NoiseSchedule, x_t: Tensor, t: float | Tensor, eps: Tensor) -> Tensor:
    """The score, the gradient of log p_t(x_t): -eps / (s sigma), t in (0, T] (Song & Ermon 2019, eq. 5)."""
    _check_same_shape("eps", eps, x_t)
    return -eps / broadcast_to(schedule.scale(t) * _positive_sigma(schedule, t), x_t)


def draw_times(schedule: NoiseSchedule, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """(B,) whole times for the batch x, uniform in 1 .. T; float32 on x's device."""
    device = "cpu" if generator is None else generator.device
    t = torch.randint(1, schedule.steps + 1, (len(x),), generator=generator, device=device)
    return t.float().to(x.device)


def simple_loss(
    denoiser: Denoiser, schedule: NoiseSchedule, x0: Tensor, t: float | Tensor, eps: Tensor
) -> Tensor:
    """() the mean squared error of the noise estimate, L_simple: Ho et al. 2020, eq. 14.

    Args:
        x0: (B, ...) clean signals.
        t: in (0, T]; training draws it by ``draw_times``.
        eps: (B, ...) standard normal noise, by ``noise_like``.
    """
    return (eps - predict_eps(denoiser, q_sample(schedule, x0, t, eps), t)).square().mean()


def weighted_loss(
    denoiser: Denoiser, schedule: NoiseSchedule, x0: Tensor, t: float | Tensor, eps: Tensor, *, weight: Weight
) -> Tensor:
    """() the weighted mean squared error of the noise estimate; the arguments are those of ``simple_loss``.

    Args:
        weight: ``weight(schedule, t)``, shaped like t: ``v_weight``, ``min_snr_weight``, ``bound_weight``, or
            one's own.
    """
    error = (eps - predict_eps(denoiser, q_sample(schedule, x0, t, eps), t)).square()
    return (broadcast_to(weight(schedule, t), x0) * error).mean()


def v_weight(schedule: NoiseSchedule, t: float | Tensor) -> Tensor:
    """1 + sigma^2 = 1 + 1/SNR, the weight of an error of v, for t in [0, T]; float64, the shape of t."""
    return 1 + schedule.sigma(t).square()


def min_snr_weight(schedule: NoiseSchedule, t: float | Tensor, *, gamma: float = 5.0) -> Tensor:
    """min(SNR, gamma) / SNR: the weight of x0's error is at most gamma; float64, the shape of t.

    Args:
        t: in (0, T].
        gamma: > 0; 5 is the choice of Hang et al. 2023.
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be above 0, got {gamma:g}")
    return (gamma * _positive_sigma(schedule, t).square()).clamp(max=1)


def bound_weight(schedule: NoiseSchedule, t: float | Tensor) -> Tensor:
    """(SNR(t-1) / SNR(t) - 1) / 2, by which an error becomes the KL of the step to t - 1 in nats; float64.

    Args:
        t: in [2, T]; the step from 1 to 0 has no KL, see ``bound.elbo``.
    """
    t = torch.as_tensor(t, dtype=torch.float64)
    if not bool((t >= 2).all()):
        raise ValueError(f"t must lie in [2, {schedule.steps}] for a KL of the bound, got {t.min().item():g}")
    return (schedule.snr(t - 1) / schedule.snr(t) - 1) / 2


def _check_same_shape(name: str, values: Tensor, x: Tensor) -> None:
    if values.shape != x.shape:
        raise ValueError(f"{name} must have the shape {tuple(x.shape)}, got {tuple(values.shape)}")


def _two_times(
    schedule: NoiseSchedule, t: float | Tensor, t_prev: float | Tensor | None
) -> tuple[Tensor, Tensor]:
    """Both times as float64 on the CPU, in order."""
    t = torch.as_tensor(t, dtype=torch.float64).cpu()
    t_prev = t - 1 if t_prev is None else torch.as_tensor(t_prev, dtype=torch.float64).cpu()
    if not bool((t_prev < t).all()):
        raise ValueError(f"t_prev must lie in [0, t), got {t_prev.tolist()} for t = {t.tolist()}")
    return t, t_prev


def _positive_sigma(schedule: NoiseSchedule, t: float | Tensor) -> Tensor:
    sigma = schedule.sigma(t)
    if not bool((sigma > 0).all()):
        raise ValueError(
            f"t must lie in (0, {schedule.steps}], got 0: a clean signal has no noise to estimate"
        )
    return sigma


def _cos_sin(schedule: NoiseSchedule, t: float | Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """cos(phi) and sin(phi) for tan(phi) = sigma, broadcast to x."""
    cos = (schedule.log_alpha_bar(t) / 2).exp()
    return broadcast_to(cos, x), broadcast_to(cos * schedule.sigma(t), x)
