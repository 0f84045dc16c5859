"""What the tests of the mathematics share: seeded noise, the largest difference, and the ideal denoiser of
normal data.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to


def largest(difference: Tensor) -> float:
    """The largest absolute value."""
    return difference.detach().abs().max().item()


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def ideal(schedule: NoiseSchedule, data: MultivariateNormal) -> Denoiser:
    """The noise's mean given the state, for normal data: sigma (C + sigma^2)^-1 (u - mean)."""
    values, vectors = torch.linalg.eigh(data.covariance_matrix)

    def denoiser(x: Tensor, t: Tensor) -> Tensor:
        sigma = broadcast_to(schedule.sigma(t), x)
        return (
            (x / broadcast_to(schedule.scale(t), x) - data.mean)
            @ vectors
            * (sigma / (values + sigma**2))
            @ vectors.T
        )

    return denoiser
