"""Noise schedules against diffusers', against their own identities, and at the ends of their ranges."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, ScoreSdeVeScheduler
from oracles import largest

from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to, cosine, from_sigmas, geometric, linear

LENGTHS = (1, 2, 30, 50, 1000)
each_schedule = pytest.mark.parametrize("make", [linear, cosine, geometric])
each_length = pytest.mark.parametrize("steps", LENGTHS)


@pytest.mark.parametrize(
    "make, steps, theirs",
    [
        (linear, 1000, {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
        *((cosine, steps, {"beta_schedule": "squaredcos_cap_v2"}) for steps in LENGTHS),
    ],
)
def test_alpha_bar_is_that_of_diffusers(make, steps, theirs):
    reference = DDPMScheduler(num_train_timesteps=steps, **theirs)
    schedule = make(steps)
    times = torch.arange(1, steps + 1)
    assert largest(schedule.betas - reference.betas) < 1e-6
    assert largest(schedule.alpha_bar(times) - reference.alphas_cumprod) < 1e-6


@pytest.mark.parametrize("steps", [30, 50])
def test_linear_betas_are_scaled_so_that_a_short_chain_ends_as_near_to_noise(steps):
    """The first and last beta of 1000 steps, times 1000/T; the end is e^-10 within the chain's coarseness."""
    betas = linear(steps).betas
    assert betas[0].item() == pytest.approx(1e-4 * 1000 / steps, rel=1e-12)
    assert betas[-1].item() == pytest.approx(0.02 * 1000 / steps, rel=1e-12)
    assert linear(steps).alpha_bar(steps).item() < 1e-4
    unscaled = NoiseSchedule("unscaled", torch.linspace(1e-4, 0.02, steps, dtype=torch.float64))
    assert unscaled.alpha_bar(steps).item() > 0.5, "what the scaling is for"


@each_schedule
@each_length
def test_sigma_alpha_bar_and_snr_are_one_number(make, steps):
    schedule = make(steps)
    t = torch.linspace(0, steps, 777, dtype=torch.float64)[1:]
    alpha_bar, sigma, snr = schedule.alpha_bar(t), schedule.sigma(t), schedule.snr(t)
    assert largest(alpha_bar * (1 + sigma**2) - 1) < 1e-12
    assert largest(snr * sigma**2 - 1) < 1e-12
    assert largest(snr * (1 - alpha_bar) / alpha_bar - 1) < 1e-9, (
        "1 - alpha_bar cancels where the noise is small"
    )
    assert bool((sigma.diff() > 0).all())


@each_schedule
@each_length
def test_whole_times_are_the_products_of_the_betas(make, steps):
    schedule = make(steps)
    product = torch.cumprod(1 - schedule.betas, 0)
    assert largest(schedule.alpha_bar(torch.arange(1, steps + 1)) / product - 1) < 1e-12
    assert (
        schedule.alpha_bar(0).item() == 1
        and schedule.sigma(0).item() == 0
        and schedule.snr(0).item() == math.inf
    )
    assert schedule.steps == steps and len(schedule.log_alpha_bars) == steps + 1


@each_schedule
def test_log_alpha_bar_is_linear_between_whole_times(make):
    schedule = make(50)
    quarter = schedule.log_alpha_bar(7.25).item()
    assert quarter == pytest.approx(
        0.75 * schedule.log_alpha_bar(7).item() + 0.25 * schedule.log_alpha_bar(8).item(), rel=1e-12
    )


@each_schedule
@each_length
def test_time_of_sigma_is_the_inverse(make, steps):
    schedule = make(steps)
    t = torch.linspace(0, steps, 1009, dtype=torch.float64)
    assert largest(schedule.time_of(schedule.sigma(t)) - t) < 1e-6
    sigma = torch.linspace(0, schedule.sigma(steps).item(), 1009, dtype=torch.float64)
    assert (
        largest(schedule.sigma(schedule.time_of(sigma)) / sigma.clamp(min=1e-9) - (sigma > 0).double()) < 1e-9
    )


@each_schedule
def test_shapes_are_kept_and_floats_taken(make):
    schedule = make(30)
    t = torch.tensor([[0.0, 1.5], [29.0, 30.0]])
    assert schedule.sigma(t).shape == schedule.time_of(schedule.sigma(t)).shape == (2, 2)
    assert schedule.sigma(1.5).shape == () and schedule.sigma(1.5) == schedule.sigma(t)[0, 1]
    assert schedule.sigma(t).dtype == torch.float64


@pytest.mark.parametrize("t", [-0.01, 30.01, math.nan, torch.tensor([1.0, 31.0])])
def test_a_time_outside_the_chain_is_refused(t):
    named = "nan" if t is math.nan else f"{torch.as_tensor(t).max().item():g}"
    with pytest.raises(ValueError, match=rf"t must lie in \[0, 30\], got .*{named}"):
        linear(30).sigma(t)


@pytest.mark.parametrize("sigma, named", [(-0.5, "-0.5"), (1e9, r"1e\+09"), (math.nan, "nan")])
def test_a_sigma_that_the_chain_never_has_is_refused(sigma, named):
    with pytest.raises(
        ValueError, match=rf"sigma must lie in \[0, \S+\], .*'cosine' with 30 steps.*; got {named}"
    ):
        cosine(30).time_of(sigma)


@each_schedule
@pytest.mark.parametrize("steps", [0, -3])
def test_a_chain_without_steps_is_refused(make, steps):
    with pytest.raises(ValueError, match=f"at least 1 step, got {steps}"):
        make(steps)


@pytest.mark.parametrize(
    "betas, named",
    [([0.1, 1.0], "0.1.* .. 1.0"), ([0.0], "0.0 .. 0.0"), ([-0.2, 0.1], "-0.2"), ([math.nan], "nan")],
)
def test_betas_that_are_no_shares_are_refused(betas, named):
    with pytest.raises(ValueError, match=rf"every beta must lie in \(0, 1\), got {named}"):
        NoiseSchedule("own", torch.tensor(betas, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(0,), (2, 2)])
def test_betas_that_are_no_vector_are_refused(shape):
    with pytest.raises(ValueError, match="vector of at least one value"):
        NoiseSchedule("own", torch.full(shape, 0.1))


# the two scalings, a sampler's times, numbers beside a batch


@pytest.mark.parametrize("steps", [2, 30, 1000])
def test_geometric_sigmas_are_those_of_diffusers(steps):
    reference = ScoreSdeVeScheduler(num_train_timesteps=steps, sigma_min=0.01, sigma_max=50.0)
    ours = geometric(steps).sigma(torch.arange(1, steps + 1))
    assert largest(ours / reference.discrete_sigmas - 1) < 1e-5, "theirs are float32"
    assert ours[0].item() == pytest.approx(0.01, rel=1e-12) and ours[-1].item() == pytest.approx(
        50, rel=1e-12
    )


def test_a_schedule_from_sigmas_has_them():
    sigmas = torch.tensor([0.002, 0.5, 3.0, 80.0], dtype=torch.float64)
    schedule = from_sigmas("mine", sigmas)
    assert (schedule.sigma(torch.arange(1, 5)) / sigmas - 1).abs().max() < 1e-9
    assert schedule.name == "mine" and not schedule.preserving
    for wrong in ([1.0, 0.5], [0.0, 1.0], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="rises from above 0"):
            from_sigmas("mine", torch.tensor(wrong))


def test_geometric_sigmas_rise_by_one_factor():
    sigma = geometric(100, first=0.002, last=80.0).sigma(torch.arange(1, 101))
    assert largest(sigma[1:] / sigma[:-1] - (80 / 0.002) ** (1 / 99)) < 1e-10
    assert geometric(1).sigma(1).item() == pytest.approx(50, rel=1e-12)


@pytest.mark.parametrize("make", [linear, cosine])
def test_a_preserving_schedule_keeps_unit_variance_and_an_exploding_one_the_signal(make):
    schedule, t = make(50), torch.linspace(0, 50, 301, dtype=torch.float64)
    assert largest(schedule.scale(t).square() * (1 + schedule.sigma(t).square()) - 1) < 1e-12
    exploding = NoiseSchedule("same noise, other scale", schedule.betas, preserving=False)
    assert bool((exploding.scale(t) == 1).all()) and bool((exploding.sigma(t) == schedule.sigma(t)).all())
    assert schedule.scale(0) == exploding.scale(0) == 1 and exploding.scale(t).dtype == torch.float64
    assert not geometric(5).preserving and schedule.preserving


@each_schedule
def test_a_scale_outside_the_chain_is_refused(make):
    with pytest.raises(ValueError, match=r"t must lie in \[0, 30\], got 31"):
        make(30).scale(31)


@pytest.mark.parametrize("count", [1, 5, 20, 50, 250, 1000])
def test_times_are_the_trailing_timesteps_of_diffusers(count):
    """Their index i stands for the time i + 1; our last time, 0, is where their last step arrives."""
    reference = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="trailing")
    reference.set_timesteps(count)
    assert linear(1000).times(count).tolist() == [*(reference.timesteps + 1).double().tolist(), 0.0]


@pytest.mark.parametrize("count", [1, 7, 30])
def test_times_are_evenly_spaced_even_where_they_are_not_whole(count):
    times = cosine(30).times(count)
    assert times.dtype == torch.float64 and times.shape == (count + 1,) and times[0] == 30 and times[-1] == 0
    assert largest(times.diff() + 30 / count) < 1e-12


@pytest.mark.parametrize("count", [0, -1, 31])
def test_more_steps_than_the_chain_has_are_refused(count):
    with pytest.raises(ValueError, match=rf"count must lie in 1 \.\. 30, .*'linear'; got {count}"):
        linear(30).times(count)


@pytest.mark.parametrize(
    "first, last", [(0.0, 50.0), (-1.0, 50.0), (2.0, 2.0), (3.0, 2.0), (0.01, math.inf), (math.nan, 1.0)]
)
def test_sigmas_that_do_not_rise_are_refused(first, last):
    with pytest.raises(ValueError, match=f"got first = {first:g}, last = {last:g}"):
        geometric(10, first=first, last=last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_numbers_take_a_batchs_type_and_shape(dtype):
    x = torch.ones(3, 2, 4, 5, dtype=dtype)
    each = broadcast_to(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), x)
    assert each.shape == (3, 1, 1, 1) and each.dtype == dtype
    assert (each * x)[:, 1, 3, 4].tolist() == [1, 2, 3]
    for one in (0.5, torch.tensor(0.5), torch.tensor([0.5])):
        assert (
            broadcast_to(one, x).shape == (1, 1, 1, 1)
            and broadcast_to(one, x).dtype == dtype
            and broadcast_to(one, x).item() == 0.5
        )
    assert broadcast_to(7.0, torch.zeros(4)).shape == (1,)
    assert broadcast_to(0.1, torch.zeros(4, dtype=torch.float64)).item() == 0.1  # no detour by float32


@pytest.mark.parametrize("shape", [(2,), (3, 1), (4,), (0,)])
def test_numbers_that_do_not_fit_a_batch_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"one value for all 3 items or one for each is needed, got shape \(" + str(shape[0])
    ):
        broadcast_to(torch.zeros(shape), torch.zeros(3, 8))


def test_a_batch_of_whole_numbers_is_refused():
    with pytest.raises(ValueError, match="floating type, got torch.int64"):
        broadcast_to(0.5, torch.zeros(3, 8, dtype=torch.int64))
