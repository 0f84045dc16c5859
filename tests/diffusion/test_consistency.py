"""Consistency models against normal data, whose consistency function is known exactly."""

from __future__ import annotations

import pytest
import torch
from oracles import MEAN, STD, largest, normal, seeded
from torch import nn

from dhp_lab.diffusion.consistency import (
    SIGMA_MIN,
    ConsistencyModel,
    consistency_sample,
    consistency_scalings,
    distillation_loss,
    draw_neighbours,
    gaussian_consistency,
    ode_step,
)
from dhp_lab.diffusion.edm import karras, preconditioning
from dhp_lab.training.optimisation import EMA

MEAN64, STD64 = MEAN.double(), STD.double()


def teacher(u: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[x0 given u] for data ~ N(MEAN, STD^2)."""
    noise, std = sigma.view(-1, 1).to(u), STD.to(u)
    return MEAN.to(u) + std**2 / (std**2 + noise**2) * (u - MEAN.to(u))


def exact(u: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The consistency function of these data."""
    return gaussian_consistency(u, sigma, MEAN.to(u), STD.to(u))


class Wave(nn.Module):
    """Any network F(x, c_noise)."""

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
        return torch.sin(2 * x.roll(1, -1) + c_noise.view(-1, 1))


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_the_model_is_the_identity_at_the_smallest_level(sigma_data):
    u = normal(4, 2)
    model = ConsistencyModel(Wave(), sigma_data)
    at_the_end = model(u, torch.full((4,), SIGMA_MIN, dtype=torch.float64))
    assert largest(at_the_end - u) < 1e-12
    assert largest(model(u, torch.full((4,), 1.0, dtype=torch.float64)) - u) > 0.1


def test_scalings_are_edm_s_where_sigma_min_is_0():
    sigma = torch.tensor([0.1, 1.0, 20.0], dtype=torch.float64)
    ours, edm = consistency_scalings(sigma, 0.5, 1e-12), preconditioning(sigma, 0.5)
    for name in ("c_skip", "c_out", "c_in", "c_noise"):
        assert largest(getattr(ours, name) - getattr(edm, name)) < 1e-9


def test_all_points_of_a_path_have_one_end():
    """Fine steps of the flow do not change f; at sigma_min it is the state itself."""
    levels = karras(400, first=SIGMA_MIN, last=80.0).sigma(torch.arange(1, 401)).flip(0)
    u = 80.0 * normal(16, 2)
    end = exact(u, levels[:1])
    for sigma, sigma_prev in zip(levels[:-1], levels[1:], strict=True):
        u = ode_step(teacher, u, sigma.expand(16), sigma_prev.expand(16))
        assert largest(exact(u, sigma_prev) - end) < 1e-3
    assert largest(u - end) < 1e-3


def test_the_loss_is_0_for_the_exact_function_as_steps_shrink():
    x0, eps = MEAN64 + STD64 * normal(2000, 2), normal(2000, 2, seed=1)
    losses = []
    for ratio in (1.4, 1.2, 1.1):
        sigma = torch.full((2000,), 2.0, dtype=torch.float64)
        losses.append(distillation_loss(exact, exact, teacher, x0, eps, sigma, sigma / ratio).item())
    assert losses[0] < 1e-3 and losses[0] > 20 * losses[1] > 400 * losses[2]


def test_only_the_student_gets_a_gradient():
    student, target = (ConsistencyModel(nn.Bilinear(2, 1, 2).double()) for _ in range(2))
    for model in (student, target):
        bilinear = model.network
        model.network = Scaled(bilinear)
    x0, eps, sigma = normal(8, 2), normal(8, 2, seed=1), torch.full((8,), 2.0, dtype=torch.float64)
    distillation_loss(student, target, teacher, x0, eps, sigma, sigma / 2).backward()
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for p in target.parameters())


class Scaled(nn.Module):
    """A bilinear form as F(x, c_noise)."""

    def __init__(self, form: nn.Bilinear) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
        return self.form(x, c_noise.view(-1, 1))


@pytest.mark.parametrize("levels", [(80.0,), (80.0, 2.0), (80.0, 10.0, 2.0, 0.5)])
def test_samples_of_the_exact_function_are_the_data_in_any_number_of_steps(levels):
    u = 80.0 * torch.randn(100_000, 2, generator=seeded())
    x = consistency_sample(exact, u, levels, generator=seeded(1))
    assert largest(x.mean(0) - MEAN) < 0.02 and largest(x.std(0) / STD - 1) < 0.02


def test_neighbours_are_neighbours_and_all_of_them_are_drawn():
    sigmas = karras(6, first=SIGMA_MIN).sigma(torch.arange(1, 7))
    sigma, sigma_prev = draw_neighbours(sigmas, normal(2000, 2), seeded())
    places = torch.searchsorted(sigmas, sigma)
    assert torch.equal(sigmas[places - 1], sigma_prev)
    assert torch.bincount(places, minlength=6).tolist()[0] == 0
    assert torch.bincount(places, minlength=6)[1:].min() > 300


@pytest.mark.slow
def test_distillation_finds_the_exact_function():
    """A small network that is distilled from the exact denoiser comes near the exact function."""
    torch.manual_seed(0)
    generator, steps = seeded(), 1500
    network = Layers()
    student, sigmas = (
        ConsistencyModel(network),
        karras(18, first=SIGMA_MIN, last=20.0).sigma(torch.arange(1, 19)),
    )
    ema = EMA(student, 0.99)
    optimizer = torch.optim.Adam(student.parameters(), lr=2e-3)
    for _ in range(steps):
        x0 = MEAN + STD * torch.randn(256, 2, generator=generator)
        sigma, sigma_prev = draw_neighbours(sigmas, x0, generator)
        eps = torch.randn(x0.shape, generator=generator)
        loss = distillation_loss(student, ema.average, teacher, x0, eps, sigma, sigma_prev)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update(student)
    u, top = 20.0 * torch.randn(500, 2, generator=generator), torch.full((500,), 20.0)
    error = (ema.average(u, top) - exact(u, top)).square().mean().sqrt().item()
    assert error < 0.15, error  # the data's spread is 0.4 and 0.8


class Layers(nn.Module):
    """Two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([x, c_noise.view(-1, 1)], 1))


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="at least 0.002, got 0.001"):
        consistency_scalings(0.001)
    with pytest.raises(ValueError, match=r"must fall .* \[1.0, 2.0\]"):
        consistency_sample(exact, normal(2, 2), [1.0, 2.0])
