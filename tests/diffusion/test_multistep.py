"""DPM-Solver++(2M) against diffusers' schedulers over whole paths, and a closed form for its order."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EDMDPMSolverMultistepScheduler
from oracles import MEAN, STD, bent, gaussian, largest, normal, seeded
from test_edm import Wave

from dhp_lab.diffusion.edm import EDMDenoiser, denoiser_from_edm, karras
from dhp_lab.diffusion.multistep import dpm_solver_2m
from dhp_lab.diffusion.samplers import ddim, last, start
from dhp_lab.diffusion.schedules import cosine, geometric, linear


@pytest.mark.parametrize("schedule", [linear(1000), cosine(1000)], ids=lambda s: s.name)
@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_2m_steps_as_that_of_diffusers(schedule, count):
    """Its timestep i is our time i + 1, its table of alpha_bar is replaced by ours, in float64."""
    scheduler = DPMSolverMultistepScheduler(
        trained_betas=schedule.betas.numpy(), timestep_spacing="trailing", final_sigmas_type="zero"
    )
    scheduler.alphas_cumprod = schedule.alpha_bar(torch.arange(1, 1001))
    scheduler.set_timesteps(count)
    scheduler.sigmas = schedule.sigma(schedule.times(count))
    denoiser = bent(schedule)
    x = x_T = start(schedule, (2, 1, 4, 4), generator=seeded(), dtype=torch.float64)
    path = [state.x for state in dpm_solver_2m(denoiser, schedule, x_T, count=count)]
    assert len(path) == count
    for time, ours in zip(scheduler.timesteps, path, strict=True):
        x = scheduler.step(denoiser(x, torch.full((2,), time + 1.0)), time, x).prev_sample
        assert largest(ours - x) < 1e-5 * max(1.0, largest(x))


def test_2m_on_karras_levels_is_that_of_diffusers():
    scheduler = EDMDPMSolverMultistepScheduler(
        sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, final_sigmas_type="zero"
    )
    scheduler.set_timesteps(10)
    schedule, network = karras(10), Wave()
    x = x_T = 80.0 * normal(4, 2).float()
    for time in scheduler.timesteps:
        out = network(scheduler.scale_model_input(x, time), time.expand(4))
        x = scheduler.step(out, time, x).prev_sample
    denoiser = denoiser_from_edm(EDMDenoiser(network, 0.5), schedule)
    assert largest(last(dpm_solver_2m(denoiser, schedule, x_T)).x - x) < 1e-4


@pytest.mark.parametrize("schedule", [linear(1000), geometric(1000)], ids=lambda s: s.name)
def test_one_step_is_ddim(schedule):
    x_T = start(schedule, (4, 2), generator=seeded(), dtype=torch.float64)
    one, other = (last(s(bent(schedule), schedule, x_T, count=1)).x for s in (dpm_solver_2m, ddim))
    assert largest(one - other) < 1e-9


def test_2m_is_of_second_order_where_ddim_is_of_first():
    """Down to a level above 0, where no last step of first order hides it: from sigma 20 to 0.2."""
    order = {}
    for sampler in (dpm_solver_2m, ddim):
        errors = []
        for steps in (40, 80, 160):
            schedule = geometric(steps, first=0.2 * (20 / 0.2) ** (1 / steps), last=20.0)
            x_T = 20.0 * normal(64, 2)
            state = list(sampler(gaussian(schedule), schedule, x_T))[-2]
            spread = (STD.double() ** 2 + schedule.sigma(state.t) ** 2).sqrt()
            goal = MEAN + spread / (STD.double() ** 2 + 400).sqrt() * (x_T - MEAN)
            errors.append(largest(state.x - goal))
        order[sampler] = math.log2(errors[1] / errors[2])
    assert order[dpm_solver_2m] == pytest.approx(2, abs=0.3)
    assert order[ddim] == pytest.approx(1, abs=0.2)


def test_it_evaluates_the_denoiser_once_a_step():
    schedule, calls = linear(1000), []

    def denoiser(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(t)
        return gaussian(schedule)(x, t)

    times = [state.t for state in dpm_solver_2m(denoiser, schedule, normal(2, 2), count=4)]
    assert times == [750, 500, 250, 0]
    assert len(calls) == 4
    with pytest.raises(ValueError, match="got 0"):
        next(dpm_solver_2m(denoiser, schedule, normal(2, 2), count=0))
