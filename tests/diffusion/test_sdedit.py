"""SDEdit against the closed forms for normal data, and its ends."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import MEAN, STD, gaussian, largest, normal, seeded

from dhp_lab.diffusion.editing import sdedit
from dhp_lab.diffusion.samplers import ddpm, last
from dhp_lab.diffusion.schedules import cosine, geometric, linear

SCHEDULES = {"linear": linear(200), "cosine": cosine(200), "geometric": geometric(200, last=20.0)}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
PICTURE = torch.tensor([[1.0, 0.2]], dtype=torch.float64)


@each_schedule
@pytest.mark.parametrize("t_start", [40, 120, 200])
def test_the_ode_from_a_normal_state_is_a_scaling(schedule, t_start):
    """u - mean shrinks by std / sqrt(std^2 + sigma^2), whatever the path: exact for many short steps."""
    x = last(sdedit(gaussian(schedule), schedule, PICTURE, t_start=t_start, eta=0.0, generator=seeded())).x
    sigma = schedule.sigma(t_start)
    u = PICTURE + sigma * torch.randn(1, 2, generator=seeded()).double()
    exact = MEAN + (u - MEAN) * STD / (STD.double() ** 2 + sigma**2).sqrt()
    assert largest(x - exact) < 0.03


@each_schedule
@pytest.mark.parametrize("t_start", [40, 120])
def test_the_sde_draws_from_the_posterior_of_the_noisy_picture(schedule, t_start):
    """Mean m + k (picture - m), k = std^2 / (std^2 + sigma^2); variance k sigma^2 + k^2 sigma^2."""
    many = PICTURE.expand(4000, 2)
    x = last(sdedit(gaussian(schedule), schedule, many, t_start=t_start, generator=seeded())).x
    sigma2 = schedule.sigma(t_start) ** 2
    kept = STD.double() ** 2 / (STD.double() ** 2 + sigma2)
    variance = kept * sigma2 * (1 + kept)
    assert largest((x.mean(0) - MEAN - kept * (PICTURE - MEAN)) / variance.sqrt()) < 0.08
    assert largest(x.var(0) / variance - 1) < 0.12


def test_it_is_the_tail_of_ancestral_sampling():
    schedule, picture = linear(50), normal(3, 1, 4, 4)
    states = list(sdedit(gaussian(schedule, MEAN[0], STD[0]), schedule, picture, t_start=20, count=10))
    assert [state.t for state in states] == [float(t) for t in range(18, -1, -2)]
    generator = seeded(2)
    ours = last(
        sdedit(gaussian(schedule, MEAN[0], STD[0]), schedule, picture, t_start=50, generator=generator)
    )
    generator = seeded(2)
    eps = torch.randn(picture.shape, generator=generator).double()
    x_T = schedule.scale(50) * (picture + schedule.sigma(50) * eps)
    theirs = last(ddpm(gaussian(schedule, MEAN[0], STD[0]), schedule, x_T, generator=generator))
    assert largest(ours.x - theirs.x) < 1e-9


def test_one_step_is_the_posterior_mean_of_the_noisy_picture():
    schedule = geometric(50)
    x = last(sdedit(gaussian(schedule), schedule, PICTURE, t_start=30, count=1, generator=seeded())).x
    sigma2 = schedule.sigma(30) ** 2
    u = PICTURE + sigma2.sqrt() * torch.randn(1, 2, generator=seeded()).double()
    assert largest(x - (MEAN + STD.double() ** 2 / (STD.double() ** 2 + sigma2) * (u - MEAN))) < 1e-6


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"t_start": 0}, r"t_start must lie in 1 \.\. 20, got 0"),
        ({"t_start": 21}, r"t_start must lie in 1 \.\. 20, got 21"),
        ({"t_start": 5, "count": 6}, r"count must lie in 1 \.\. 5"),
        ({"t_start": 5, "eta": math.nan}, "eta must lie in"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    schedule = linear(20)
    with pytest.raises(ValueError, match=message):
        last(sdedit(gaussian(schedule), schedule, PICTURE, **settings))
