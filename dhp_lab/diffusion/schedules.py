r"""Noise schedules: one number, sigma, is the noise level of a state; a schedule is sigma as a function of t.

A variance-preserving chain with betas beta_1 .. beta_T scales the signal and adds noise (Ho et al. 2020, eq.
4):

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,      alpha_bar_t = prod_s (1 - beta_s)

Dividing by sqrt(alpha_bar_t) leaves the signal alone, and one number describes the state (Karras et al.
2022):

    x_t / sqrt(alpha_bar_t) = x_0 + sigma_t eps,                  sigma_t^2 = (1 - alpha_bar_t) / alpha_bar_t

A variance-exploding chain (Song et al. 2021, section 3.4) is that unscaled state itself. One formula holds
for both,

    x_t = s_t (x_0 + sigma_t eps),      s_t = sqrt(alpha_bar_t) (preserving)  or  1 (exploding)

and whatever is written with s and sigma works for either.

| paper       | here             | range                                   |
|-------------|------------------|-----------------------------------------|
| T           | ``steps``        | 1 ..                                    |
| t           | ``t``            | 0 .. T, real; 0 is the clean signal     |
| beta_t      | ``betas[t - 1]`` | (0, 1)                                  |
| alpha_bar_t | ``alpha_bar(t)`` | (0, 1], 1 at t = 0                      |
| sigma_t     | ``sigma(t)``     | 0 at t = 0, rising                      |
| SNR(t)      | ``snr(t)``       | alpha_bar / (1 - alpha_bar) = 1/sigma^2 |
| s_t         | ``scale(t)``     | (0, 1], 1 at t = 0                      |

Between two whole times log(alpha_bar) is linear in t, so that every sigma up to ``sigma(T)`` has exactly one
time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoiseSchedule:
    """A chain of T noise steps, given by its betas.

    Attributes:
        name: the schedule's name, as written in a model's configuration.
        betas: (T,) float64 on the CPU, each in (0, 1).
        preserving: whether the state is scaled by sqrt(alpha_bar), so that data of unit variance keep it;
            else s(t) = 1.

    Raises:
        ValueError: no betas, or one outside (0, 1).
    """

    name: str
    betas: Tensor
    preserving: bool = True

    def __post_init__(self) -> None:
        if self.betas.ndim != 1 or len(self.betas) == 0:
            raise ValueError(
                f"betas must be a vector of at least one value, got shape {tuple(self.betas.shape)}"
            )
        if not bool(((self.betas > 0) & (self.betas < 1)).all()):
            raise ValueError(
                f"every beta must lie in (0, 1), got {self.betas.min().item()} .. {self.betas.max().item()}"
            )

    @property
    def steps(self) -> int:
        """T, the number of noise steps."""
        return len(self.betas)

    @property
    def log_alpha_bars(self) -> Tensor:
        """(T + 1,) float64: log(alpha_bar_t) at t = 0 .. T; the first is 0."""
        return torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-self.betas.double()).cumsum(0)])

    def log_alpha_bar(self, t: float | Tensor) -> Tensor:
        """log(alpha_bar) at a real time t in [0, T], linear between whole times; float64, the shape of t.

        Raises:
            ValueError: a time outside [0, T].
        """
        t = torch.as_tensor(t, dtype=torch.float64).cpu()
        if bool(((t < 0) | (t > self.steps)).any()) or bool(t.isnan().any()):
            raise ValueError(f"t must lie in [0, {self.steps}], got {t.min().item():g} .. {t.max().item():g}")
        table = self.log_alpha_bars
        low = t.floor().long().clamp(max=self.steps - 1)
        return torch.lerp(table[low], table[low + 1], t - low)

    def alpha_bar(self, t: float | Tensor) -> Tensor:
        """The share of the signal's power at time t in [0, T] (Ho et al. 2020, eq. 4); float64, as t."""
        return self.log_alpha_bar(t).exp()

    def sigma(self, t: float | Tensor) -> Tensor:
        """The noise's standard deviation for an unscaled signal, sqrt(1/alpha_bar - 1); float64, as t."""
        return torch.expm1(-self.log_alpha_bar(t)).sqrt()

    def scale(self, t: float | Tensor) -> Tensor:
        """s(t), the factor of the signal at time t in [0, T]: sqrt(alpha_bar), or 1 if exploding.

        Returns:
            float64, the shape of t.
        """
        log_alpha_bar = self.log_alpha_bar(t)
        return (log_alpha_bar / 2).exp() if self.preserving else torch.ones_like(log_alpha_bar)

    def snr(self, t: float | Tensor) -> Tensor:
        """The signal-to-noise ratio alpha_bar / (1 - alpha_bar) = 1/sigma^2 (Kingma et al. 2021).

        Returns:
            float64, the shape of t; infinite at t = 0.
        """
        return 1.0 / self.sigma(t).square()

    def times(self, count: int) -> Tensor:
        """(count + 1,) float64: the times of a sampler with ``count`` steps, evenly spaced from T down to 0.

        Args:
            count: 1 .. T. Where it divides T all times are whole: diffusers' timesteps with "trailing"
                spacing, plus 1, then 0.

        Raises:
            ValueError: a count outside 1 .. T.
        """
        if not 1 <= count <= self.steps:
            raise ValueError(
                f"count must lie in 1 .. {self.steps}, the steps of the schedule '{self.name}'; got {count}"
            )
        return torch.arange(count, -1, -1, dtype=torch.float64) * self.steps / count

    def time_of(self, sigma: float | Tensor) -> Tensor:
        """The real time t in [0, T] of this noise level: the inverse of ``sigma(t)``; float64, as sigma.

        Raises:
            ValueError: a sigma below 0 or beyond ``sigma(T)``.
        """
        sigma = torch.as_tensor(sigma, dtype=torch.float64).cpu()
        top = self.sigma(self.steps).item()
        if bool(((sigma < 0) | (sigma > top * (1 + 1e-12))).any()) or bool(sigma.isnan().any()):
            raise ValueError(
                f"sigma must lie in [0, {top:g}], what the schedule '{self.name}' with {self.steps} steps "
                f"reaches; got {sigma.min().item():g} .. {sigma.max().item():g}"
            )
        falling = -self.log_alpha_bars  # (T + 1,), rising from 0
        target = torch.log1p(sigma**2).clamp(max=falling[-1])
        high = torch.searchsorted(falling, target.contiguous()).clamp(1, self.steps)
        left, right = falling[high - 1], falling[high]
        return (high - 1) + (target - left) / (right - left)


def linear(steps: int, *, first: float = 1e-4, last: float = 0.02) -> NoiseSchedule:
    """Betas rising linearly (Ho et al. 2020, section 4), scaled by 1000/T so that any T ends near pure noise.

    Args:
        steps: T >= 1.
        first, last: the betas of a chain of 1000 steps, in (0, 1).

    Raises:
        ValueError: steps below 1.
    """
    _check_steps(steps)
    if steps > 1:
        betas = torch.linspace(first, last, steps, dtype=torch.float64)
    else:
        betas = torch.tensor([(first + last) / 2]).double()
    return NoiseSchedule("linear", (betas * (1000 / steps)).clamp(max=0.999))


def cosine(steps: int, *, offset: float = 0.008) -> NoiseSchedule:
    """alpha_bar falling as a squared cosine (Nichol & Dhariwal 2021, eq. 17), betas kept below 0.999.

    Args:
        steps: T >= 1.
        offset: keeps the first steps from being too small.

    Raises:
        ValueError: steps below 1.
    """
    _check_steps(steps)
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    f = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    return NoiseSchedule("cosine", (1 - f[1:] / f[:-1]).clamp(max=0.999))


def geometric(steps: int, *, first: float = 0.01, last: float = 50.0) -> NoiseSchedule:
    """sigma rising geometrically, variance exploding (Song et al. 2021, section 3.4 and appendix C).

    Args:
        steps: T >= 1.
        first, last: sigma_1 and sigma_T, 0 < first < last; sigma_0 is 0. A chain of one step has ``last``
            alone.

    Raises:
        ValueError: steps below 1, or sigmas that are not positive and rising.
    """
    _check_steps(steps)
    if not 0 < first < last < math.inf:
        raise ValueError(
            f"sigma must rise from a positive first to a finite last, got first = {first:g}, last = {last:g}"
        )
    span = torch.linspace(math.log(first), math.log(last), steps, dtype=torch.float64)
    return from_sigmas("geometric", span.exp() if steps > 1 else torch.tensor([last], dtype=torch.float64))


def from_sigmas(name: str, sigmas: Tensor) -> NoiseSchedule:
    """The variance-exploding schedule with these noise levels: sigma(t) = sigmas[t - 1].

    Args:
        name: of the schedule.
        sigmas: (T,) positive and rising; they are taken in float64.

    Raises:
        ValueError: sigmas that are not positive and rising.
    """
    rising = torch.cat([torch.zeros(1, dtype=torch.float64), sigmas.double().cpu().reshape(-1)])  # (T + 1,)
    if sigmas.ndim != 1 or not bool((rising.diff() > 0).all()):
        raise ValueError(f"sigmas must be a vector that rises from above 0, got {sigmas.tolist()}")
    falling = rising.square().log1p()  # -log(alpha_bar)
    return NoiseSchedule(name, -torch.expm1(-falling.diff()), preserving=False)


def broadcast_to(values: float | Tensor, x: Tensor) -> Tensor:
    """Shape numbers, one for all items or one for each, so that they broadcast over a batch.

    Args:
        values: a number, () or (1,): the same for every item; or (B,).
        x: (B, ...) the batch, of a floating type.

    Returns:
        (1 or B, 1, ..., 1) of x's type on x's device.

    Raises:
        ValueError: values of another shape, or a batch of whole numbers.
    """
    values = values if isinstance(values, Tensor) else torch.as_tensor(values, dtype=torch.float64)
    if not x.is_floating_point():
        raise ValueError(f"the batch must be of a floating type, got {x.dtype}")
    if values.ndim > 1 or values.numel() not in (1, len(x)):
        raise ValueError(
            f"one value for all {len(x)} items or one for each is needed, got shape {tuple(values.shape)}"
        )
    return values.to(x.dtype).to(x.device).reshape(-1, *[1] * (x.ndim - 1))


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a schedule needs at least 1 step, got {steps}")


SCHEDULES = {"linear": linear, "cosine": cosine}
"""By the name in a model's configuration."""
