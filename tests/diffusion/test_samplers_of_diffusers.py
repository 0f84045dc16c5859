"""Samplers against diffusers' schedulers over whole paths, and against each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler, ScoreSdeVeScheduler
from diffusers.schedulers import scheduling_ddpm
from oracles import bent, gaussian, largest, seeded

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
from dhp_lab.diffusion.schedules import NoiseSchedule, cosine, geometric, linear

SCHEDULES = {"linear": linear(1000), "cosine": cosine(1000), "geometric": geometric(1000)}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
each_preserving = pytest.mark.parametrize("schedule", [linear(1000), cosine(1000)], ids=["linear", "cosine"])


def draws(sampler: Callable, seed: int = 0) -> dict:
    """The generator, for the samplers that take one."""
    return {} if sampler is probability_flow else {"generator": seeded(seed)}


# the same paths as diffusers, given the same noise


def assert_same_path(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    """Within 1e-5 all along; relative to the state's size where that is above 1."""
    assert len(ours) == len(theirs)
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert largest(a - b) <= 1e-5 * max(1.0, largest(b)), f"after step {step}"


def path_of(scheduler, denoiser: Callable, x: torch.Tensor, **settings) -> list[torch.Tensor]:
    """The states of a scheduler of diffusers; its timestep i is our time i + 1."""
    path = []
    for i in scheduler.timesteps:
        own = {name: make() if callable(make) else make for name, make in settings.items()}
        x = scheduler.step(denoiser(x, torch.full((len(x),), i + 1.0)), i, x, **own).prev_sample
        path.append(x)
    return path


def trained(kind: type, schedule: NoiseSchedule, count: int):
    """A scheduler with our betas. Its table of alpha_bar is float32, wrong by 5e-5 at the end of a cosine:
    ours replaces it.
    """
    scheduler = kind(
        num_train_timesteps=schedule.steps,
        trained_betas=schedule.betas.numpy(),
        clip_sample=False,
        timestep_spacing="trailing",
    )
    ours = schedule.alpha_bar(torch.arange(1, schedule.steps + 1))
    assert largest(scheduler.alphas_cumprod / ours - 1) < 1e-4
    scheduler.alphas_cumprod = ours
    scheduler.set_timesteps(count)
    return scheduler


@pytest.mark.parametrize(
    "schedule, dtype",
    [
        pytest.param(linear(1000), torch.float32, id="linear"),
        pytest.param(cosine(1000), torch.float64, id="cosine"),
    ],
)
@pytest.mark.parametrize("count", [pytest.param(1000, marks=pytest.mark.slow), 50, 8])
def test_ddpm_walks_as_that_of_diffusers(schedule, dtype, count, monkeypatch):
    """The cosine in float64: its first step multiplies a rounding error of eps by 20000."""
    monkeypatch.setattr(
        scheduling_ddpm,
        "randn_tensor",
        lambda shape, generator, device, dtype: torch.randn(shape, generator=generator).to(dtype),
    )
    x_T, denoiser = start(schedule, (2, 1, 4, 4), generator=seeded(), dtype=dtype), bent(schedule)
    theirs = path_of(trained(DDPMScheduler, schedule, count), denoiser, x_T, generator=seeded(1))
    assert_same_path(
        [state.x for state in ddpm(denoiser, schedule, x_T, count=count, generator=seeded(1))], theirs
    )


@each_preserving
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("count", [250, 5, 1])
def test_ddim_walks_as_that_of_diffusers(schedule, eta, count):
    """In float64, for the same reason."""
    x_T, denoiser, draw = (
        start(schedule, (2, 1, 4, 4), generator=seeded(), dtype=torch.float64),
        bent(schedule),
        seeded(1),
    )
    theirs = path_of(
        trained(DDIMScheduler, schedule, count),
        denoiser,
        x_T,
        eta=eta,
        variance_noise=lambda: torch.randn(x_T.shape, generator=draw).double(),
    )
    ours = ddim(denoiser, schedule, x_T, count=count, eta=eta, generator=seeded(1))
    assert_same_path([state.x for state in ours], theirs)


@each_preserving
@pytest.mark.parametrize("count", [250, 20, 5])
def test_inversion_walks_as_that_of_diffusers(schedule, count):
    x0, denoiser = torch.randn(2, 1, 4, 4, generator=seeded()) / 2, bent(schedule)
    theirs = path_of(trained(DDIMInverseScheduler, schedule, count), denoiser, x0)
    ours = list(invert(denoiser, schedule, x0, count=count))
    assert [state.t for state in ours] == schedule.times(count).flip(0)[1:].tolist()
    assert_same_path([state.x for state in ours], theirs)


def path_of_sde(
    schedule: NoiseSchedule,
    denoiser: Callable,
    x: torch.Tensor,
    generator,
    *,
    corrector_steps: int,
    snr: float,
):
    """The states of ScoreSdeVeScheduler, in the order of diffusers' pipeline; the last one without noise, as
    there.
    """
    steps, path = schedule.steps, []
    scheduler = ScoreSdeVeScheduler(num_train_timesteps=steps, snr=snr, sigma_min=0.01, sigma_max=50.0)
    for i in reversed(range(steps)):

        def score(x, i=i):
            return -denoiser(x, torch.full((len(x),), i + 1.0)) / scheduler.discrete_sigmas[i]

        for _ in range(corrector_steps):
            x = scheduler.step_correct(score(x), x, generator=generator).prev_sample
        time = (i + 0.5) / (steps - 1)  # which they round down to i
        step = scheduler.step_pred(score(x), time, x, generator=generator)
        x = step.prev_sample if i > 0 else step.prev_sample_mean
        path.append(x)
    return path


@pytest.mark.parametrize("steps, corrector_steps, snr", [(100, 0, 0.16), (100, 1, 0.16), (20, 5, 0.05)])
def test_the_sde_samplers_walk_as_those_of_diffusers(steps, corrector_steps, snr):
    schedule = geometric(steps)
    x_T, denoiser = start(schedule, (3, 1, 4, 4), generator=seeded()), bent(schedule)
    theirs = path_of_sde(schedule, denoiser, x_T, seeded(1), corrector_steps=corrector_steps, snr=snr)
    ours = predictor_corrector(
        denoiser, schedule, x_T, corrector_steps=corrector_steps, snr=snr, generator=seeded(1)
    )
    assert_same_path([state.x for state in ours], theirs)
    if corrector_steps == 0:
        assert_same_path(
            [state.x for state in euler_maruyama(denoiser, schedule, x_T, generator=seeded(1))], theirs
        )


# the samplers among each other


@each_schedule
@pytest.mark.parametrize("count", [100, 7])
def test_ddim_with_eta_1_is_ddpm(schedule, count):
    x_T, denoiser = start(schedule, (3, 2), generator=seeded(), dtype=torch.float64), gaussian(schedule)
    pairs = zip(
        ddim(denoiser, schedule, x_T, count=count, eta=1.0, generator=seeded(1)),
        ddpm(denoiser, schedule, x_T, count=count, generator=seeded(1)),
        strict=True,
    )
    assert max(largest(a.x - b.x) for a, b in pairs) < 1e-9


@each_preserving
def test_without_corrector_steps_it_is_euler_maruyama(schedule):
    x_T, denoiser = start(schedule, (3, 2), generator=seeded()), gaussian(schedule)
    pairs = zip(
        predictor_corrector(denoiser, schedule, x_T, count=100, corrector_steps=0, generator=seeded(1)),
        euler_maruyama(denoiser, schedule, x_T, count=100, generator=seeded(1)),
        strict=True,
    )
    assert all(torch.equal(a.x, b.x) for a, b in pairs)


def test_one_step_of_euler_maruyama_is_the_textbook_s():
    """x + (beta/2 x + beta score) dt + sqrt(beta dt) noise, beta = -d(log alpha_bar)/dt: Song et al. 2021,
    eq. 6 and 11.
    """
    schedule = linear(1000)
    x, denoiser = torch.randn(3, 2, generator=seeded(), dtype=torch.float64), gaussian(schedule)
    state = next(euler_maruyama(denoiser, schedule, x, count=500, generator=seeded(1)))
    noise = torch.randn(3, 2, generator=seeded(1)).double()
    beta = -torch.log1p(-schedule.betas[-1])  # 998 .. 1000: the last two betas
    beta = beta - torch.log1p(-schedule.betas[-2])
    eps = denoiser(x, torch.full((3,), 1000.0))
    score = -eps / (1 - schedule.alpha_bar(1000)).sqrt()
    assert (
        state.t == 998 and largest(state.x - (x + beta / 2 * x + beta * score + beta.sqrt() * noise)) < 1e-12
    )


@each_schedule
def test_the_chain_and_its_exploding_twin_are_one(schedule):
    """The same betas, the state scaled or not: u = x / s takes the same path. Euler-Maruyama alone is not
    free of it.
    """
    twin = NoiseSchedule("twin", schedule.betas, preserving=not schedule.preserving)
    x_T = start(schedule, (3, 2), generator=seeded(), dtype=torch.float64)
    other = x_T * twin.scale(1000) / schedule.scale(1000)
    for sampler in (ddpm, ddim, probability_flow):
        a = last(sampler(gaussian(schedule), schedule, x_T, count=25, **draws(sampler))).x
        b = last(sampler(gaussian(twin), twin, other, count=25, **draws(sampler))).x
        assert largest(a - b) < 1e-9
