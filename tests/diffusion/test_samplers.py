"""Samplers against diffusers' schedulers over whole paths, closed forms for Gaussian data, and scipy's ODE
solver.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from oracles import MEAN, STD, bent, gaussian, largest, seeded
from scipy.integrate import solve_ivp

from dhp_lab.diffusion import samplers
from dhp_lab.diffusion.ideal import IdealDenoiser
from dhp_lab.diffusion.samplers import (
    ddim,
    ddpm,
    euler_maruyama,
    invert,
    last,
    predictor_corrector,
    probability_flow,
    start,
)
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to, cosine, geometric, linear

SCHEDULES = {"linear": linear(1000), "cosine": cosine(1000), "geometric": geometric(1000)}
SAMPLERS = (ddpm, ddim, euler_maruyama, predictor_corrector, probability_flow)
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
linear_and_exploding = pytest.mark.parametrize("schedule", [SCHEDULES["linear"], SCHEDULES["geometric"]])
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def draws(sampler: Callable, seed: int = 0) -> dict:
    """The generator, for the samplers that take one."""
    return {} if sampler is probability_flow else {"generator": seeded(seed)}


# the ODE


def ode_solution(schedule: NoiseSchedule, x_T: torch.Tensor) -> torch.Tensor:
    """Where the probability flow takes x_T for Gaussian data: the distance from the mean shrinks as the
    spread does.
    """
    u, sigma = x_T / schedule.scale(schedule.steps), schedule.sigma(schedule.steps)
    return MEAN + STD / (STD.double() ** 2 + sigma**2).sqrt() * (u - MEAN)


@each_schedule
@pytest.mark.parametrize("sampler, order, at_50", [(ddim, 1, 0.2), (probability_flow, 2, 0.007)])
def test_flow_reaches_the_closed_form_in_its_order(schedule, sampler, order, at_50):
    """at_50: the largest error with 50 steps, for x_T of up to 2.5, as a share of the spread; twice the
    steps: 1 / 2^order.
    """
    x_T = start(schedule, (64, 2), generator=seeded(), dtype=torch.float64)
    sample = {
        count: last(sampler(gaussian(schedule), schedule, x_T, count=count)).x for count in (50, 100, 200)
    }
    error = {count: largest((x - ode_solution(schedule, x_T)) / STD) for count, x in sample.items()}
    assert error[50] < at_50
    assert math.log2(error[100] / error[200]) == pytest.approx(order, abs=0.2)


def mixture(points: torch.Tensor, schedule: NoiseSchedule, width: float = 0.3) -> Callable:
    """The exact noise estimate for an even mixture of N(point, width^2)."""

    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        sigma, u = broadcast_to(schedule.sigma(t), x), x / broadcast_to(schedule.scale(t), x)
        spread = sigma**2 + width**2
        weights = (-(u[:, None] - points).square().sum(2) / (2 * spread)).softmax(1)
        return sigma / spread * (u - weights @ points)

    return denoise


@each_schedule
def test_heun_ends_where_scipy_s_rk45_does(schedule):
    """Three points as data, so that the flow bends; RK45 follows du = eps d(sigma) on its own, to a tolerance
    of 1e-6.
    """
    points = torch.tensor([[-1.0, 0.2], [0.6, 0.9], [0.1, -0.8]], dtype=torch.float64)
    x_T = start(schedule, (4, 2), generator=seeded(), dtype=torch.float64)

    def slope(log_sigma: float, u) -> torch.Tensor:
        t = schedule.time_of(math.exp(log_sigma))
        x = torch.from_numpy(u).view(4, 2) * schedule.scale(t)
        return (math.exp(log_sigma) * mixture(points, schedule)(x, t.expand(4))).flatten().numpy()

    top, low = schedule.sigma(1000).log().item(), math.log(1e-4)
    solved = solve_ivp(
        slope, (top, low), (x_T / schedule.scale(1000)).flatten().numpy(), rtol=1e-6, atol=1e-6
    )
    theirs = torch.from_numpy(solved.y[:, -1]).view(4, 2)
    ours = last(probability_flow(mixture(points, schedule), schedule, x_T, count=200)).x
    assert solved.success and largest(ours - theirs) < 1e-3


@each_schedule
def test_refined_inversion_comes_back_to_the_picture(schedule):
    x0, denoiser = torch.randn(8, 2, generator=seeded(), dtype=torch.float64), gaussian(schedule)
    errors = []
    for refinements in (0, 1, 30):
        noise = last(invert(denoiser, schedule, x0, count=20, refinements=refinements)).x
        errors.append(largest(last(ddim(denoiser, schedule, noise, count=20)).x - x0))
    assert errors[0] > errors[1] > errors[2], errors
    assert errors[2] < 1e-3, "the fixed point undoes ddim's steps"


@each_schedule
def test_inversion_finds_the_noise_of_the_closed_form(schedule):
    x_T = start(schedule, (8, 2), generator=seeded(), dtype=torch.float64)
    found = last(invert(gaussian(schedule), schedule, ode_solution(schedule, x_T), count=1000)).x
    assert largest(found - x_T) < 0.05 * largest(x_T)


# the spread of the samples


@pytest.mark.slow
@linear_and_exploding
@pytest.mark.parametrize(
    "sampler, settings, bias",
    [
        (ddpm, {}, 0.02),
        (ddim, {"count": 250}, 0.04),
        (ddim, {"count": 1000, "eta": 0.5}, 0.02),
        (euler_maruyama, {}, 0.02),
        (predictor_corrector, {"count": 250, "corrector_steps": 1, "snr": 0.08}, 0.03),
        (probability_flow, {"count": 25}, 0.02),
    ],
)
def test_samples_have_the_moments_of_the_data(schedule, sampler, settings, bias):
    """Within 4 standard errors of 4000 samples; bias is what the finite steps may add to the variance, as a
    share of it.
    """
    many = 4000
    x_T = start(schedule, (many, 2), generator=seeded())
    x = last(sampler(gaussian(schedule), schedule, x_T, **settings, **draws(sampler, 1))).x
    assert largest((x.mean(0) - MEAN) / STD) < 4 / math.sqrt(many)
    assert largest(x.var(0) / STD**2 - 1) < 4 * math.sqrt(2 / many) + bias
    assert abs(torch.corrcoef(x.T)[0, 1]) < 4 / math.sqrt(many)


@each_sampler
@linear_and_exploding
def test_samples_of_the_ideal_denoiser_are_the_data(schedule, sampler):
    data = torch.tensor([[-1.0, 0.5], [0.5, 1.0], [0.8, -0.9]])
    x_T = start(schedule, (30, 2), generator=seeded())
    x = last(sampler(IdealDenoiser(data, schedule), schedule, x_T, count=100, **draws(sampler))).x
    distance, nearest = torch.cdist(x, data).min(1)
    assert distance.max() < 0.15 and set(nearest.tolist()) == {0, 1, 2}


# what is promised of all of them


@each_sampler
@each_schedule
def test_the_states_carry_their_times(schedule, sampler):
    x_T, denoiser = start(schedule, (2, 1, 4, 4), generator=seeded()), bent(schedule)
    states = list(sampler(denoiser, schedule, x_T, count=30, **draws(sampler)))
    assert [state.t for state in states] == schedule.times(30)[1:].tolist()
    assert all(
        state.x.shape == state.x0.shape == x_T.shape and bool(state.x.isfinite().all()) for state in states
    )
    assert sampler is predictor_corrector or largest(states[-1].x - states[-1].x0) < 0.05, (
        "without noise they are one"
    )


@each_sampler
def test_a_seed_decides_the_samples_and_nothing_else_does(sampler):
    schedule = cosine(50)
    x_T, denoiser = start(schedule, (2, 1, 4, 4), generator=seeded()), bent(schedule)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = (
        last(sampler(denoiser, schedule, x_T, **draws(sampler, seed))).x for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, other) == (sampler in (ddim, probability_flow))


@each_sampler
def test_the_order_of_the_batch_does_not_matter(sampler, monkeypatch):
    """Each picture with its own noise, in another order: the same pictures in that order."""
    schedule, order = cosine(50), torch.tensor([2, 0, 3, 1])
    x_T, denoiser = start(schedule, (4, 1, 4, 4), generator=seeded(), dtype=torch.float64), bent(schedule)
    straight = last(sampler(denoiser, schedule, x_T, **draws(sampler))).x
    drawn = samplers.noise_like
    monkeypatch.setattr(samplers, "noise_like", lambda x, generator: drawn(x, generator)[order])
    assert largest(last(sampler(denoiser, schedule, x_T[order], **draws(sampler))).x - straight[order]) < 1e-9


@each_sampler
def test_device_and_type_follow_the_start_and_no_graph_is_kept(sampler):
    schedule, weight = linear(20), torch.ones(1, requires_grad=True)
    x_T = start(schedule, (2, 3), generator=seeded(), dtype=torch.float64)
    seen = []

    def denoise(x, t):
        seen.append((x.dtype, t.dtype, tuple(t.shape)))
        return weight.double() * x

    states = list(sampler(denoise, schedule, x_T, **draws(sampler)))
    assert set(seen) == {(torch.float64, torch.float64, (2,))}
    assert {state.x.dtype for state in states} == {torch.float64} and not any(
        state.x.requires_grad for state in states
    )


@each_schedule
def test_the_start_has_the_spread_of_the_chain_s_end(schedule):
    x_T = start(schedule, (20000, 1), generator=seeded())
    expected = 50.0 if schedule.name == "geometric" else (1 - schedule.alpha_bar(1000)).sqrt().item()
    assert x_T.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * 20000))
    assert start(schedule, (3, 2), generator=seeded(), dtype=torch.float64).dtype == torch.float64


def test_last_is_the_end():
    schedule = linear(10)
    states = list(ddim(gaussian(schedule), schedule, torch.zeros(2, 2)))
    assert torch.equal(last(iter(states)).x, states[-1].x) and last(states).t == 0


@each_sampler
@pytest.mark.parametrize("count", [0, -1, 31])
def test_a_count_outside_the_chain_is_refused(sampler, count):
    with pytest.raises(ValueError, match=rf"count must lie in 1 \.\. 30, .*; got {count}"):
        last(sampler(gaussian(linear(30)), linear(30), torch.zeros(1, 2), count=count))
    with pytest.raises(ValueError, match=rf"count must lie in 1 \.\. 30, .*; got {count}"):
        last(invert(gaussian(linear(30)), linear(30), torch.zeros(1, 2), count=count))


@pytest.mark.parametrize(
    "sampler, settings, message",
    [
        (ddim, {"eta": -0.1}, r"eta must lie in \[0, 1\], got -0.1"),
        (ddim, {"eta": 1.5}, r"eta must lie in \[0, 1\], got 1.5"),
        (
            predictor_corrector,
            {"corrector_steps": -1},
            "corrector_steps must be at least 0 and snr above 0, got -1 and 0.16",
        ),
        (predictor_corrector, {"snr": 0.0}, "snr above 0, got 1 and 0"),
        (predictor_corrector, {"snr": math.nan}, "snr above 0, got 1 and nan"),
        (invert, {"refinements": -2}, "refinements must be at least 0, got -2"),
    ],
)
def test_settings_outside_their_range_are_refused(sampler, settings, message):
    with pytest.raises(ValueError, match=message):
        last(sampler(gaussian(linear(30)), linear(30), torch.zeros(1, 2), **settings))


@each_sampler
def test_a_denoiser_of_another_shape_is_refused(sampler):
    with pytest.raises(ValueError, match=r"denoiser's result must have the shape \(2, 3\), got \(2, 2\)"):
        last(sampler(lambda x, t: x[:, :2], linear(30), torch.zeros(2, 3)))


@each_sampler
def test_a_start_of_whole_numbers_is_refused(sampler):
    with pytest.raises(ValueError, match="floating type, got torch.int64"):
        last(sampler(lambda x, t: x, linear(30), torch.zeros(2, 3, dtype=torch.int64)))
