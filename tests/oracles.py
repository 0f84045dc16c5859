"""What the tests of the mathematics share: seeded noise, the largest difference, and exact denoisers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to

MEAN, STD = torch.tensor([0.3, -0.5]), torch.tensor([0.4, 0.8])  # of normal data with two numbers


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
        distance = x / broadcast_to(schedule.scale(t), x) - data.mean
        return distance @ vectors * (sigma / (values + sigma**2)) @ vectors.T

    return denoiser


def gaussian(schedule: NoiseSchedule, mean: Tensor = MEAN, std: Tensor = STD) -> Denoiser:
    """The exact noise estimate for data ~ N(mean, std^2): sigma (x_t / s - mean) / (std^2 + sigma^2)."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        sigma = broadcast_to(schedule.sigma(t), x)
        return sigma * (x / broadcast_to(schedule.scale(t), x) - mean.to(x)) / (std.to(x) ** 2 + sigma**2)

    return denoise


def bent(schedule: NoiseSchedule) -> Denoiser:
    """A denoiser that is not linear, depends on the time and mixes the pixels, as a network does; its x0
    stays in range.
    """
    exact = gaussian(schedule, torch.tensor(0.2), torch.tensor(0.5))

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        wave = torch.sin(3 * x.roll(1, -1) + broadcast_to(t / 100, x))
        return exact(x, t) + 0.3 * wave / (1 + broadcast_to(schedule.sigma(t), x))

    return denoise
