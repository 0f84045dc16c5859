r"""Noise schedules: one number, sigma, says how noisy a state is; a schedule says which sigma belongs to a time t.

A variance-preserving chain with betas beta_1 .. beta_T scales the signal and adds noise (Ho et al. 2020, eq. 4):

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,      alpha_bar_t = prod_s (1 - beta_s)

Dividing by sqrt(alpha_bar_t) leaves the signal alone, and one number describes the state (Karras et al. 2022):

    x_t / sqrt(alpha_bar_t) = x_0 + sigma_t eps,                  sigma_t^2 = (1 - alpha_bar_t) / alpha_bar_t

| paper        | here               | range                                   |
|--------------|--------------------|-----------------------------------------|
| T            | ``steps``          | 1 ..                                    |
| t            | ``t``              | 0 .. T, real; 0 is the clean signal     |
| beta_t       | ``betas[t - 1]``   | (0, 1)                                  |
| alpha_bar_t  | ``alpha_bar(t)``   | (0, 1], 1 at t = 0                      |
| sigma_t      | ``sigma(t)``       | 0 at t = 0, rising                      |
| SNR(t)       | ``snr(t)``         | alpha_bar / (1 - alpha_bar) = 1/sigma^2 |

Between two whole times log(alpha_bar) is linear in t, so that every sigma up to ``sigma(T)`` has exactly one time.
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

    Raises:
        ValueError: no betas, or one outside (0, 1).
    """

    name: str
    betas: Tensor

    def __post_init__(self) -> None:
        if self.betas.ndim != 1 or len(self.betas) == 0:
            raise ValueError(f"betas must be a vector of at least one value, got shape {tuple(self.betas.shape)}")
        if not bool(((self.betas > 0) & (self.betas < 1)).all()):
            raise ValueError(f"every beta must lie in (0, 1), got {self.betas.min().item()} .. {self.betas.max().item()}")

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
        """The share of the signal's power left at time t in [0, T] (Ho et al. 2020, eq. 4); float64, the shape of t."""
        return self.log_alpha_bar(t).exp()

    def sigma(self, t: float | Tensor) -> Tensor:
        """The noise's standard deviation beside an unscaled signal, sqrt(1/alpha_bar - 1); float64, the shape of t."""
        return torch.expm1(-self.log_alpha_bar(t)).sqrt()

    def snr(self, t: float | Tensor) -> Tensor:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar) = 1/sigma^2; infinite at t = 0 (Kingma et al. 2021)."""
        return 1.0 / self.sigma(t).square()

    def time_of(self, sigma: float | Tensor) -> Tensor:
        """The real time t in [0, T] at which the chain's noise has this standard deviation: the inverse of ``sigma(t)``.

        Raises:
            ValueError: a sigma below 0 or beyond ``sigma(T)``.
        """
        sigma = torch.as_tensor(sigma, dtype=torch.float64).cpu()
        top = self.sigma(self.steps).item()
        if bool(((sigma < 0) | (sigma > top * (1 + 1e-12))).any()) or bool(sigma.isnan().any()):
            raise ValueError(
                f"sigma must lie in [0, {top:g}], what the schedule '{self.name}' with {self.steps} steps reaches; "
                f"got {sigma.min().item():g} .. {sigma.max().item():g}"
            )
        falling = -self.log_alpha_bars                                   # (T + 1,), rising from 0
        target = torch.log1p(sigma**2).clamp(max=falling[-1])
        high = torch.searchsorted(falling, target.contiguous()).clamp(1, self.steps)
        left, right = falling[high - 1], falling[high]
        return (high - 1) + (target - left) / (right - left)


def linear(steps: int, *, first: float = 1e-4, last: float = 0.02) -> NoiseSchedule:
    """Betas rising linearly (Ho et al. 2020, section 4), scaled by 1000/T so that any T ends near pure noise.

    Args:
        steps: T >= 1. ``first`` and ``last`` are the betas of a chain of 1000 steps, in (0, 1).

    Raises:
        ValueError: steps below 1.
    """
    _check_steps(steps)
    betas = torch.linspace(first, last, steps, dtype=torch.float64) if steps > 1 else torch.tensor([(first + last) / 2]).double()
    return NoiseSchedule("linear", (betas * (1000 / steps)).clamp(max=0.999))


def cosine(steps: int, *, offset: float = 0.008) -> NoiseSchedule:
    """alpha_bar falling as a squared cosine (Nichol & Dhariwal 2021, eq. 17), betas kept below 0.999.

    Args:
        steps: T >= 1. ``offset`` keeps the first steps from being too small.

    Raises:
        ValueError: steps below 1.
    """
    _check_steps(steps)
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    f = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    return NoiseSchedule("cosine", (1 - f[1:] / f[:-1]).clamp(max=0.999))


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a schedule needs at least 1 step, got {steps}")
