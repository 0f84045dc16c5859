"""The step of DDIM that a denoiser is trained through."""

from __future__ import annotations

from itertools import pairwise

import torch

from dhp_lab.diffusion.samplers import ddim, ddim_step, last
from dhp_lab.diffusion.schedules import geometric

SCHEDULE = geometric(100, first=0.1, last=3.0)


def gaussian(scale: torch.Tensor):
    """eps of data from N(0, scale^2)."""

    def denoiser(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        sigma = SCHEDULE.sigma(t).to(x).view(-1, 1)
        return sigma * x / (sigma.square() + scale.square())

    return denoiser


def unrolled(denoiser, x: torch.Tensor, count: int) -> torch.Tensor:
    """All steps, one after the other."""
    for t, t_prev in pairwise(SCHEDULE.times(count).tolist()):
        x = ddim_step(denoiser, SCHEDULE, x, t, t_prev).x
    return x


def test_its_steps_draw_the_samples_of_ddim():
    x_T = 3 * torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoiser = gaussian(torch.tensor(1.5, dtype=torch.float64))
    assert torch.equal(unrolled(denoiser, x_T, 5), last(ddim(denoiser, SCHEDULE, x_T, count=5)).x)


def test_its_gradient_is_that_of_finite_differences():
    """Through all steps, with respect to the denoiser's parameter and to the noise; ddim itself has none."""
    x_T = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def sample(scale: torch.Tensor, x_T: torch.Tensor) -> torch.Tensor:
        return unrolled(gaussian(scale), x_T, 3)

    assert torch.autograd.gradcheck(sample, (scale, x_T))
    assert not last(ddim(gaussian(scale), SCHEDULE, x_T, count=3)).x.requires_grad
