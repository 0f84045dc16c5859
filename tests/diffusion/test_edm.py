"""EDM's scalings, spacing and Heun sampler against diffusers' EDM schedulers and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import EDMEulerScheduler, HeunDiscreteScheduler
from oracles import MEAN, STD, bent, gaussian, largest, normal, seeded
from torch import nn

from dhp_lab.diffusion.edm import (
    EDMDenoiser,
    denoiser_from_edm,
    draw_sigmas,
    edm_heun,
    edm_loss,
    edm_weight,
    karras,
    preconditioning,
)
from dhp_lab.diffusion.samplers import ddim, last
from dhp_lab.diffusion.schedules import cosine, geometric, linear


class Wave(nn.Module):
    """Any network F(x, c_noise)."""

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
        return torch.sin(2 * x.roll(1, -1) + c_noise.view(-1, 1))


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("sigma", [0.01, 0.7, 30.0])
def test_scalings_give_the_network_inputs_and_targets_of_variance_1(sigma, sigma_data):
    x0, eps = sigma_data * normal(400_000), normal(400_000, seed=1)
    c, u = preconditioning(sigma, sigma_data), x0 + sigma * eps
    target = (x0 - c.c_skip * u) / c.c_out
    assert (c.c_in * u).var().item() == pytest.approx(1, abs=0.01)
    assert target.var().item() == pytest.approx(1, abs=0.01)
    assert (edm_weight(sigma, sigma_data) * c.c_out**2).item() == pytest.approx(1)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
def test_c_skip_is_the_one_with_the_least_c_out(sigma):
    """c_out^2 as a function of c_skip: (1 - c_skip)^2 sigma_data^2 + c_skip^2 sigma^2 (eq. 124 f.)."""
    skips = np.linspace(0, 1, 100_001)
    squares = (1 - skips) ** 2 * 0.25 + skips**2 * sigma**2
    c = preconditioning(sigma, 0.5)
    assert c.c_skip.item() == pytest.approx(skips[squares.argmin()], abs=1e-4)
    assert c.c_out.item() ** 2 == pytest.approx(squares.min(), rel=1e-6)


def test_denoiser_and_its_scalings_are_those_of_diffusers():
    scheduler = EDMEulerScheduler(sigma_data=0.5)
    u, sigma = normal(4, 2), torch.tensor([0.01, 0.5, 3.0, 70.0], dtype=torch.float64)
    found = EDMDenoiser(Wave(), 0.5)(u, sigma)
    for i in range(4):
        x = scheduler.precondition_inputs(u[i : i + 1], sigma[i])
        out = Wave()(x, scheduler.precondition_noise(sigma[i]))
        assert largest(found[i] - scheduler.precondition_outputs(u[i : i + 1], out, sigma[i])) < 1e-9


def test_loss_is_the_plain_error_of_the_networks_target():
    x0, eps, network = normal(64, 2), normal(64, 2, seed=1), Wave()
    sigma = draw_sigmas(x0, generator=seeded())
    c, u = preconditioning(sigma.view(-1, 1), 0.5), x0 + sigma.view(-1, 1) * eps
    target = (x0 - c.c_skip * u) / c.c_out
    plain = (network(c.c_in * u, c.c_noise) - target).square().mean()
    loss = edm_loss(EDMDenoiser(network, 0.5), x0, sigma, eps, sigma_data=0.5)
    assert largest(loss - plain) < 1e-9


def test_drawn_sigmas_are_log_normal():
    logs = draw_sigmas(normal(100_000), mean=-1.2, std=1.2, generator=seeded()).log()
    assert logs.mean().item() == pytest.approx(-1.2, abs=0.02)
    assert logs.std().item() == pytest.approx(1.2, abs=0.02)


@pytest.mark.parametrize("steps", [1, 2, 18])
def test_spacing_is_that_of_diffusers(steps):
    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, rho=7.0)
    scheduler.set_timesteps(steps)
    schedule = karras(steps)
    ours = schedule.sigma(schedule.times(steps))
    assert largest(ours - scheduler.sigmas.double()) < 1e-4
    assert largest(ours[:-1] / scheduler.sigmas[:-1] - 1) < 1e-5


def test_spacing_with_rho_1_is_even():
    sigmas = karras(5, first=1.0, last=9.0, rho=1.0).sigma(torch.arange(1, 6))
    assert largest(sigmas - torch.tensor([1.0, 3, 5, 7, 9])) < 1e-9


def test_euler_on_karras_levels_is_that_of_diffusers():
    """DDIM is Euler in u and sigma: EDM's sampler without its second evaluation."""
    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)
    scheduler.set_timesteps(10)
    schedule, network = karras(10), Wave()
    x = start = 80.0 * normal(4, 2).float()
    for time in scheduler.timesteps:
        out = network(scheduler.scale_model_input(x, time), time.expand(4))
        x = scheduler.step(out, time, x).prev_sample
    denoiser = denoiser_from_edm(EDMDenoiser(network, 0.5), schedule)
    assert largest(last(ddim(denoiser, schedule, start)).x - x) < 1e-4


@pytest.mark.parametrize("schedule", [linear(1000), geometric(1000)], ids=lambda s: s.name)
def test_heun_steps_as_that_of_diffusers(schedule):
    """Its timesteps only name the levels; it is given the denoiser of ours at the same levels."""
    count = 8
    scheduler = HeunDiscreteScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(count)
    sigmas = schedule.sigma(schedule.times(count))
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    denoiser, x_T = bent(schedule), normal(2, 1, 4, 4) * schedule.scale(1000) * sigmas[0]
    u = x_T / schedule.scale(1000)
    for i, time in enumerate(scheduler.timesteps):
        t = schedule.time_of(scheduler.sigmas[i])
        eps = denoiser(u * schedule.scale(t), t.expand(2).float())
        u = scheduler.step(eps, time, u).prev_sample
    found = last(edm_heun(denoiser, schedule, x_T, count=count)).x
    assert largest(found - u) < 1e-5 * max(1.0, largest(u))


def solution(schedule, x_T):
    """Where the flow takes x_T for data ~ N(MEAN, STD^2)."""
    u, sigma = x_T / schedule.scale(schedule.steps), schedule.sigma(schedule.steps)
    return MEAN + STD / (STD.double() ** 2 + sigma**2).sqrt() * (u - MEAN)


def test_heun_reaches_the_closed_form_in_second_order():
    errors = []
    for steps in (20, 40, 80):
        schedule = karras(steps, first=0.002, last=80.0)
        x_T = 80.0 * normal(64, 2)
        errors.append(largest(last(edm_heun(gaussian(schedule), schedule, x_T)).x - solution(schedule, x_T)))
    assert errors[0] < 0.1 and math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.3)


def test_karras_levels_beat_even_ones_at_equal_steps():
    errors = {}
    for rho in (1.0, 7.0):
        schedule, x_T = karras(12, rho=rho), 80.0 * normal(64, 2)
        found = last(edm_heun(gaussian(schedule), schedule, x_T)).x
        errors[rho] = largest(found - solution(schedule, x_T))
    assert errors[7.0] < errors[1.0] / 10


@pytest.mark.parametrize("schedule", [linear(1000), cosine(1000), geometric(1000)], ids=lambda s: s.name)
def test_the_number_of_evaluations_is_2_count_minus_1(schedule):
    calls = []

    def denoiser(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(t)
        return gaussian(schedule)(x, t)

    states = list(edm_heun(denoiser, schedule, normal(2, 2), count=5))
    assert len(states) == 5 and states[-1].t == 0 and len(calls) == 9


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="above 0, got sigma = 0"):
        preconditioning(0.0)
    with pytest.raises(ValueError, match="sigma_data = -1"):
        preconditioning(1.0, -1.0)
    with pytest.raises(ValueError, match="steps = 0"):
        karras(0)
    with pytest.raises(ValueError, match="first = 3"):
        karras(4, first=3.0, last=2.0)
