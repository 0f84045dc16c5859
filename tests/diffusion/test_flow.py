"""Flow matching against diffusers' schedulers, closed forms for Gaussian data, and DDIM."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from oracles import MEAN, STD, bent, gaussian, largest, normal, seeded

from dhp_lab.diffusion.flow import (
    conditional_velocity,
    denoiser_from_flow,
    draw_flow_times,
    eps_from_velocity,
    flow_euler,
    flow_from_denoiser,
    flow_heun,
    flow_loss,
    flow_sigma,
    flow_time,
    flow_times,
    interpolate,
    predict_velocity,
    reflow_pairs,
    straightness,
    velocity_from_x0,
    x0_from_velocity,
)
from dhp_lab.diffusion.process import predict_eps, q_sample
from dhp_lab.diffusion.samplers import ddim, last
from dhp_lab.diffusion.schedules import cosine, geometric, linear

SCHEDULES = {"linear": linear(1000), "cosine": cosine(1000), "geometric": geometric(1000, last=200.0)}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def exact_velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """E[eps - x0 given x_t] for data ~ N(MEAN, STD^2): covariance over variance times the distance."""
    t = t.view(-1, 1).to(x)
    std = STD.to(x)
    variance = (1 - t) ** 2 * std**2 + t**2
    return -MEAN.to(x) + (t - (1 - t) * std**2) / variance * (x - (1 - t) * MEAN.to(x))


def curved(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Any velocity that bends and depends on the time."""
    return torch.sin(2 * x.roll(1, -1) + t.view(-1, 1).to(x)) - 0.3 * x


def test_paths_are_straight_lines_with_the_ends_that_were_given():
    x0, eps = normal(4, 3), normal(4, 3, seed=1)
    assert torch.equal(interpolate(x0, eps, 0.0), x0) and torch.equal(interpolate(x0, eps, 1.0), eps)
    t, step = torch.tensor([0.1, 0.3, 0.5, 0.9], dtype=torch.float64), 1e-6
    slope = (interpolate(x0, eps, t + step) - interpolate(x0, eps, t - step)) / (2 * step)
    assert largest(slope - conditional_velocity(x0, eps)) < 1e-8


@each_schedule
def test_a_state_of_the_flow_is_one_of_every_schedule_in_other_units(schedule):
    x0, eps, t = normal(3, 2), normal(3, 2, seed=1), torch.tensor([1.0, 300.0, 800.0])
    time = flow_time(schedule.sigma(t))
    theirs = q_sample(schedule, x0, t, eps) * ((1 - time) / schedule.scale(t)).view(-1, 1)
    assert largest(interpolate(x0, eps, time) - theirs) < 1e-12
    assert largest(flow_sigma(time) / schedule.sigma(t) - 1) < 1e-9


def test_velocity_signal_and_noise_are_linear_forms_of_one_another():
    x0, eps, t = normal(3, 2), normal(3, 2, seed=1), torch.tensor([0.2, 0.7, 1.0], dtype=torch.float64)
    x, v = interpolate(x0, eps, t), eps - x0
    assert largest(x0_from_velocity(x, t, v) - x0) < 1e-12
    assert largest(eps_from_velocity(x, t, v) - eps) < 1e-12
    assert largest(velocity_from_x0(x, t, x0) - v) < 1e-12


def test_the_loss_is_least_for_the_mean_velocity():
    """Its gradient with respect to a shift and a factor of the exact velocity is 0."""
    generator = seeded()
    x0 = MEAN + STD * torch.randn(200_000, 2, generator=generator)
    eps, t = torch.randn(x0.shape, generator=generator), draw_flow_times(x0, generator)
    change = torch.tensor([0.0, 1.0], requires_grad=True)
    loss = flow_loss(lambda x, t: change[0] + change[1] * exact_velocity(x, t), x0, eps, t)
    assert largest(torch.autograd.grad(loss, change)[0]) < 0.02
    assert flow_loss(lambda x, t: eps - x0, x0, eps, t) == 0


@each_schedule
def test_the_flow_of_a_denoiser_is_the_mean_velocity(schedule):
    x, t = normal(5, 2), torch.tensor([1e-3, 0.2, 0.5, 0.9, 0.99], dtype=torch.float64)
    velocity = flow_from_denoiser(gaussian(schedule), schedule)
    assert largest(predict_velocity(velocity, x, t) - exact_velocity(x, t)) < 1e-9


def test_the_flow_of_a_denoiser_starts_at_pure_noise():
    """linear(1000) ends at sigma = 157: t = 1 counts as that."""
    x, ones = normal(5, 2), torch.ones(5, dtype=torch.float64)
    found = flow_from_denoiser(gaussian(SCHEDULES["linear"]), SCHEDULES["linear"])(x, ones)
    assert largest(found - exact_velocity(x, ones)) < 0.02


@each_schedule
def test_the_denoiser_of_a_flow_is_the_exact_noise_estimate(schedule):
    x, t = normal(3, 2), torch.tensor([1.0, 300.0, 990.0])
    found = predict_eps(denoiser_from_flow(exact_velocity, schedule), x, t)
    assert largest(found - gaussian(schedule)(x, t)) < 1e-6


@each_schedule
def test_there_and_back_changes_no_denoiser(schedule):
    denoiser, x, t = bent(schedule), normal(3, 2), torch.tensor([20.0, 300.0, 900.0])
    there = denoiser_from_flow(flow_from_denoiser(denoiser, schedule), schedule)
    assert largest(predict_eps(there, x, t) - denoiser(x, t)) < 1e-6


def test_euler_steps_as_that_of_diffusers():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=flow_times(8)[:-1].tolist())
    x = ours = normal(4, 2).float()
    path = [state.x for state in flow_euler(curved, ours, flow_times(8))]
    for time, sigma, state in zip(scheduler.timesteps, scheduler.sigmas, path, strict=False):
        x = scheduler.step(curved(x, sigma.expand(4)), time, x).prev_sample
        assert largest(state - x) < 1e-5
    assert len(path) == 8


def test_heun_steps_as_that_of_diffusers():
    """Its sigmas are its own, evenly spaced from 1 down to 1/1000: we take them as times."""
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(6)
    times = torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1::2]])
    x = start = normal(4, 2).float()
    for i, time in enumerate(scheduler.timesteps):
        x = scheduler.step(curved(x, scheduler.sigmas[i].expand(4)), time, x).prev_sample
    assert largest(last(flow_heun(curved, start, times)).x - x) < 1e-5


@pytest.mark.parametrize("sampler, order", [(flow_euler, 1), (flow_heun, 2)])
def test_the_flow_reaches_the_closed_form_in_its_order(sampler, order):
    eps = normal(64, 2)
    goal = MEAN + STD * eps
    error = [largest(last(sampler(exact_velocity, eps, flow_times(n))).x - goal) for n in (50, 100, 200)]
    assert error[0] < 0.1 and math.log2(error[1] / error[2]) == pytest.approx(order, abs=0.2)


def test_euler_at_the_times_of_a_schedule_is_ddim():
    """(1 - t') x0 + t' eps over 1 - t' is x0 + sigma' eps: one step, in two scalings."""
    schedule, x_T = geometric(7, first=0.01, last=200.0), 200.0 * normal(16, 2)
    times = flow_time(schedule.sigma(schedule.times(7)))
    velocity = flow_from_denoiser(gaussian(schedule), schedule)
    flow = last(flow_euler(velocity, x_T * (1 - times[0]), times)).x
    assert largest(flow - last(ddim(gaussian(schedule), schedule, x_T)).x) < 1e-6


def test_pairs_of_the_flow_are_its_own_ends():
    x0, eps = reflow_pairs(exact_velocity, normal(64, 2), count=200)
    assert largest(x0 - (MEAN + STD * eps)) < 1e-3


def test_straight_paths_have_straightness_0_and_an_arc_its_own():
    """A velocity that depends on t alone, a cos(2 pi t): its mean square around the mean 0 is a^2 / 2."""

    def wave(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 3 * torch.cos(2 * math.pi * t).view(-1, 1) * torch.ones_like(x)

    assert straightness(lambda x, t: torch.ones_like(x), normal(8, 2)) < 1e-20
    assert straightness(wave, normal(8, 2), count=400).item() == pytest.approx(2 * 9 / 2, rel=1e-6)


def test_errors_name_the_value():
    x = normal(2, 2)
    with pytest.raises(ValueError, match=r"\[0, 1\], got 1.2"):
        interpolate(x, x, 1.2)
    with pytest.raises(ValueError, match="shape"):
        interpolate(x, x[:1], 0.5)
    with pytest.raises(ValueError, match="got 0"):
        velocity_from_x0(x, 0.0, x)
    with pytest.raises(ValueError, match="must fall"):
        next(flow_euler(curved, x, torch.tensor([0.2, 0.5])))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        flow_times(0)
    with pytest.raises(ValueError, match="at least 0"):
        flow_time(-1.0)
