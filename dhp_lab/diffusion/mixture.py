r"""Mixtures of round Gaussians, a toy whose scores are known in closed form; three islands in the plane.

With noise the data are a mixture of round normal distributions still, only broader:

    p_sigma(u) = sum_k w_k N(u; m_k, std^2 + sigma^2)
    score(u)   = sum_k r_k (m_k - u) / (std^2 + sigma^2),      r_k the posterior probability of component k

So samplers can be judged by themselves: whatever is wrong with their samples is not the denoiser's fault. A
point has D coordinates, two in ``ISLANDS``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to


@dataclass(frozen=True)
class Mixture:
    """Round Gaussians.

    Attributes:
        weights: the probability of each component; they sum to 1.
        means: of each, D coordinates.
        std: standard deviation of all of them along one axis.
    """

    weights: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    std: float

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, D) float32 points drawn from the mixture; generator: None is torch's global one."""
        component = torch.multinomial(
            torch.tensor(self.weights), count, replacement=True, generator=generator
        )
        means = torch.tensor(self.means)[component]
        return means + self.std * torch.randn(means.shape, generator=generator)

    def log_density(self, u: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """(B,) log p_sigma(u) in nats.

        Args:
            u: (B, D) points; gradients pass.
            sigma: the noise's standard deviation beside the data, one for all or (B,), 0 or more.
        """
        variance = self._variance(u, sigma)
        return torch.logsumexp(self._log_joint(u, variance), 1)

    def score(self, u: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """(B, D) the gradient of ``log_density`` at u; arguments as there."""
        variance = self._variance(u, sigma)
        return (self._log_joint(u, variance).softmax(1) @ u.new_tensor(self.means) - u) / variance

    def denoiser(self, schedule: NoiseSchedule) -> Denoiser:
        """The exact denoiser, eps = -sigma score, for states of this schedule."""

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            sigma = schedule.sigma(t)
            return -broadcast_to(sigma, x_t) * self.score(x_t / broadcast_to(schedule.scale(t), x_t), sigma)

        return denoise

    def first_coordinate_density(self, values: Tensor, schedule: NoiseSchedule, t: float) -> Tensor:
        """The marginal density of the state's first coordinate at time t, at each of the values (n,)."""
        scale, sigma = schedule.scale(t).item(), schedule.sigma(t).item()
        means = scale * torch.tensor(self.means)[:, 0]
        bells = torch.distributions.Normal(means, scale * math.hypot(self.std, sigma))
        return bells.log_prob(values[:, None]).exp() @ torch.tensor(self.weights)  # (n, K) -> (n,)

    def nearest(self, x: Tensor) -> Tensor:
        """(B,) the number of the component whose mean is nearest to each point (B, D)."""
        return torch.cdist(x, x.new_tensor(self.means)).argmin(1)

    def shares(self, x: Tensor) -> list[float]:
        """The share of points (B, D) nearest to each mean, to be compared with ``weights``."""
        return (torch.bincount(self.nearest(x), minlength=len(self.weights)) / len(x)).tolist()

    def width(self, x: Tensor) -> float:
        """Root mean square distance of points (B, D) from their mean along one axis, over ``std``; 1 is
        right.
        """
        means = x.new_tensor(self.means)[self.nearest(x)]
        return (x - means).square().mean().sqrt().item() / self.std

    def _variance(self, u: Tensor, sigma: float | Tensor) -> Tensor:
        """(1 or B, 1) of each component with noise, ready to be multiplied with u."""
        return self.std**2 + broadcast_to(torch.as_tensor(sigma, dtype=torch.float64), u).square()

    def _log_joint(self, u: Tensor, variance: Tensor) -> Tensor:
        """(B, K) log of w_k N(u; m_k, variance)."""
        distance = (u[:, None] - u.new_tensor(self.means)).square().sum(2)  # (B, K)
        volume = u.shape[1] / 2 * (2 * math.pi * variance).log()
        return u.new_tensor(self.weights).log() - distance / (2 * variance) - volume


ISLANDS = Mixture(weights=(0.6, 0.3, 0.1), means=((-0.7, -0.5), (0.75, -0.35), (0.0, 0.8)), std=0.12)
