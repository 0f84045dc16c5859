"""Inpainting against diffusers' RePaint and correlated Gaussians; outpainting."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from diffusers import RePaintScheduler
from oracles import largest, seeded

from dhp_lab.diffusion import editing
from dhp_lab.diffusion.editing import inpaint, outpaint, place
from dhp_lab.diffusion.guidance import clipped
from dhp_lab.diffusion.samplers import ddpm, last, start
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to, cosine, geometric, linear

SCHEDULES = {"linear": linear(50), "cosine": cosine(50), "geometric": geometric(50)}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def zeros(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x)


def wavy(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A denoiser that is none, whose x0 leaves every range."""
    return torch.sin(2 * x.roll(1, -1) + broadcast_to(t / 7, x))


# inpainting


def halves(
    count: int = 2, size: int = 4, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of which the left half is known; NaN in the right one."""
    known = torch.randn(count, 1, size, size, generator=seeded(5), dtype=dtype)
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[:, : size // 2] = True
    return known.masked_fill(~mask, math.nan), mask


@pytest.mark.parametrize(
    "count, jump, rounds",
    [
        (1, 1, 1),
        (4, 1, 1),
        (4, 1, 3),
        (6, 2, 2),
        (7, 2, 3),
        (5, 4, 2),
        (50, 10, 10),
        (250, 10, 10),
    ],
)
def test_the_path_is_that_of_diffusers(count, jump, rounds):
    scheduler = RePaintScheduler(num_train_timesteps=count)
    scheduler.set_timesteps(count, jump_length=jump, jump_n_sample=rounds)
    assert editing._path(count, jump, rounds) == [count, *scheduler.timesteps.tolist()]


def test_the_path_goes_up_and_down():
    assert editing._path(5, 2, 2) == [5, 4, 3, 2, 3, 4, 3, 2, 1, 0, 1, 2, 1, 0]


@each_schedule
@pytest.mark.parametrize("jump, rounds", [(1, 1), (1, 3), (5, 4)])
def test_known_pixels_are_kept_bit_for_bit(schedule, jump, rounds):
    known, mask = halves()
    known[0, 0, 0, 0], known[0, 0, 1, 1] = -0.0, 1e-30
    x_T = start(schedule, known.shape, generator=seeded())
    states = list(
        inpaint(wavy, schedule, x_T, known, mask, count=20, jump=jump, rounds=rounds, generator=seeded(1))
    )
    x = states[-1].x
    assert torch.equal(x[..., mask].view(torch.int32), known[..., mask].view(torch.int32))
    assert all(bool(state.x.isfinite().all()) for state in states), "what is not known has no effect"
    times = schedule.times(20).flip(0).tolist()
    assert [state.t for state in states] == [times[level] for level in editing._path(20, jump, rounds)[1:]]


@pytest.mark.parametrize("schedule", [linear(30), cosine(30)], ids=["linear", "cosine"])
@pytest.mark.parametrize("jump, rounds", [(1, 3), (5, 2)])
def test_inpainting_walks_as_repaint_of_diffusers(schedule, jump, rounds):
    """With eta = 1, as in the paper."""
    scheduler = RePaintScheduler(
        num_train_timesteps=30, eta=1.0, trained_betas=schedule.betas.numpy(), clip_sample=False
    )
    scheduler.set_timesteps(30, jump_length=jump, jump_n_sample=rounds)
    known, mask = halves()
    x_T = theirs = start(schedule, known.shape, generator=seeded())
    denoiser, draw = clipped(wavy, schedule), seeded(1)
    states = inpaint(denoiser, schedule, x_T, known, mask, jump=jump, rounds=rounds, generator=seeded(1))
    path = [30, *scheduler.timesteps.tolist()]
    for (here, there), state in zip(itertools.pairwise(path), states, strict=True):
        if there > here:
            theirs = scheduler.undo_step(theirs, here, generator=draw)
        else:
            eps = denoiser(theirs, torch.full((len(theirs),), float(here)))
            theirs = scheduler.step(
                eps, here - 1, theirs, known.nan_to_num(), mask.float(), generator=draw
            ).prev_sample
        assert largest(state.x - theirs) <= 1e-5 * max(1, largest(theirs))


def test_with_nothing_known_it_is_ddpm():
    schedule = cosine(50)
    known, mask = torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, dtype=torch.bool)
    x_T = start(schedule, known.shape, generator=seeded())
    pairs = zip(
        inpaint(wavy, schedule, x_T, known, mask, rounds=1, generator=seeded(1)),
        ddpm(wavy, schedule, x_T, generator=seeded(1)),
        strict=True,
    )
    assert all(torch.equal(a.x, b.x) and torch.equal(a.x0, b.x0) and a.t == b.t for a, b in pairs)


def correlated(schedule: NoiseSchedule, covariance: torch.Tensor) -> Callable:
    """The exact noise estimate for N(0, covariance): sigma (covariance + sigma^2)^-1 x_t / s."""

    @functools.cache
    def matrix(t: float) -> torch.Tensor:
        sigma = schedule.sigma(t)
        return (
            sigma / schedule.scale(t) * torch.linalg.inv(covariance + sigma**2 * torch.eye(len(covariance)))
        ).float()

    return lambda x, t: x @ matrix(t[0].item())


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [linear(50), geometric(50)], ids=["linear", "geometric"])
def test_resampling_makes_the_rest_agree_with_what_is_known(schedule):
    """Data of correlation 0.9, the first value known to be 1: the second has mean 0.9 and variance 0.19.

    1000 samples know the mean to 0.014 and the variance to 0.009. The method is approximate, and better with
    more rounds.
    """
    denoiser = correlated(schedule, torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64))
    known, mask = torch.tensor([[1.0, math.nan]]).repeat(1000, 1), torch.tensor([True, False])
    x_T = start(schedule, known.shape, generator=seeded())
    off = []
    for rounds in (1, 3, 10):
        x = last(inpaint(denoiser, schedule, x_T, known, mask, jump=5, rounds=rounds, generator=seeded(1))).x[
            :, 1
        ]
        off.append(abs(x.mean().item() - 0.9))
    assert off[0] > 0.2 > off[1] > off[2] and off[2] < 0.06
    assert abs(x.var().item() - 0.19) < 0.07


@pytest.mark.parametrize(
    "known, mask, message",
    [
        (
            torch.zeros(2, 1, 4, 5),
            torch.ones(4, 4, dtype=torch.bool),
            r"known must be .*\(2, 1, 4, 4\), got .* \(2, 1, 4, 5\)",
        ),
        (
            torch.zeros(2, 1, 4, 4).double(),
            torch.ones(4, 4, dtype=torch.bool),
            "known must be torch.float32 .* got torch.float64",
        ),
        (
            torch.zeros(2, 1, 4, 4),
            torch.ones(4, 5, dtype=torch.bool),
            r"mask must be boolean and fit .*, got torch.bool of \(4, 5\)",
        ),
        (
            torch.zeros(2, 1, 4, 4),
            torch.ones(3, 1, 4, 4, dtype=torch.bool),
            r"got torch.bool of \(3, 1, 4, 4\)",
        ),
        (
            torch.zeros(2, 1, 4, 4),
            torch.ones(1, 2, 1, 4, 4, dtype=torch.bool),
            r"got torch.bool of \(1, 2, 1, 4, 4\)",
        ),
        (torch.zeros(2, 1, 4, 4), torch.ones(4, 4), "mask must be boolean .*, got torch.float32"),
    ],
)
def test_pictures_and_masks_of_the_wrong_size_are_refused(known, mask, message):
    with pytest.raises(ValueError, match=message):
        last(inpaint(zeros, linear(20), torch.zeros(2, 1, 4, 4), known, mask))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"rounds": 0}, "rounds must be at least 1, and jump lie in 1 .. 19 for 20 steps; got 0 and 10"),
        ({"jump": 0}, "got 10 and 0"),
        ({"jump": 20}, "got 10 and 20"),
        ({"count": 10}, "1 .. 9 for 10 steps; got 10 and 10"),
        ({"count": 21}, r"count must lie in 1 \.\. 20"),
        ({"count": 0}, r"count must lie in 1 \.\. 20"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    picture, mask = halves()
    with pytest.raises(ValueError, match=message):
        last(inpaint(zeros, linear(20), torch.zeros(2, 1, 4, 4), picture, mask, **settings))


# outpainting


@each_schedule
@pytest.mark.parametrize("top, left", [(0, 0), (2, 1), (4, 2)])
def test_outpainting_keeps_the_picture_in_its_place(schedule, top, left):
    picture = torch.randn(2, 1, 4, 6, generator=seeded(3))
    x_T = start(schedule, (2, 1, 8, 8), generator=seeded())
    settings = {"count": 20, "jump": 5, "rounds": 2}
    x = last(outpaint(wavy, schedule, x_T, picture, top=top, left=left, generator=seeded(1), **settings)).x
    assert torch.equal(x[:, :, top : top + 4, left : left + 6], picture)
    known, mask = place(picture, (8, 8), top=top, left=left)
    assert (
        mask.sum() == 24 and torch.equal(known[..., mask], picture.flatten(2)) and not known[..., ~mask].any()
    )
    assert torch.equal(x, last(inpaint(wavy, schedule, x_T, known, mask, generator=seeded(1), **settings)).x)


@pytest.mark.parametrize("top, left", [(-1, 0), (0, -1), (5, 0), (0, 3)])
def test_a_picture_that_does_not_fit_is_refused(top, left):
    with pytest.raises(
        ValueError, match=f"4 x 6 pixels at top = {top}, left = {left} do not fit on a canvas of 8 x 8"
    ):
        outpaint(zeros, linear(20), torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 6), top=top, left=left)


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(ValueError, match="known must be"):
        last(outpaint(zeros, linear(20), torch.zeros(1, 1, 8, 8), torch.zeros(2, 1, 4, 6), top=0, left=0))
