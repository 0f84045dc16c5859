r"""Editing: samples that agree with given pixels or resemble a given picture, without training for it.

An edit changes the chain and not the denoiser. ``inpaint`` replaces the known pixels at each noise level by
those of the forward process, and goes up and down again, so that the unknown pixels can adapt to them:

    x_t   --ddpm's step--> unknown pixels \
                                           x_{t-1}  --and so on down, or jump times q_step--> back up
    known --q_sample-----> known pixels   /

Outpainting is inpainting on a larger canvas. A mask is boolean: True where a pixel is known. ``sdedit``
starts in the middle of the chain, from a picture with noise:

    picture --q_sample--> x_t at t = t_start --ddim's steps--> x_0
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from dhp_lab.diffusion.process import (
    Denoiser,
    noise_like,
    predict_eps,
    q_posterior,
    q_sample,
    q_step,
    x0_from_eps,
)
from dhp_lab.diffusion.samplers import State, ddim
from dhp_lab.diffusion.schedules import NoiseSchedule


@torch.no_grad()
def inpaint(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    known: Tensor,
    mask: Tensor,
    *,
    count: int | None = None,
    jump: int = 10,
    rounds: int = 10,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """RePaint, Lugmayr et al. 2022, algorithm 1: ``ddpm`` with the known pixels replaced at every level.

    The defaults of jump and rounds are the paper's, for count = 250; they cost about ``rounds`` times what
    ``ddpm`` does. Take shorter jumps where there are fewer levels: a state that comes back from pure noise is
    no longer conditioned on the known pixels.

    Args:
        x_T: (B, ...) noise, by ``samplers.start``.
        known: (B, ...) clean pictures; their values where the mask is False have no effect.
        mask: boolean, True where a pixel is known; its shape broadcasts to x_T's, as (H, W) and (B, 1, H, W)
            do.
        count: the number of noise levels, 1 .. T; all T by default.
        jump: how many levels to go back up, 1 .. count - 1, at each multiple of it, 0 among them.
        rounds: how often each of these levels is sampled, at least 1; 1 never goes back up.

    Yields:
        States; the x of the last one holds the known pixels bit for bit.

    Raises:
        ValueError: known or mask of another shape or type; count, jump or rounds outside their ranges.
    """
    _check_known(x_T, known, mask)
    falling = schedule.times(schedule.steps if count is None else count)
    times = falling.flip(0).tolist()  # of the noise levels 0 .. count
    x = x_T
    x0 = torch.zeros_like(x_T)
    for level, next_level in pairwise(_path(len(times) - 1, jump, rounds)):
        t, goal = times[level], times[next_level]
        noise = noise_like(x, generator)
        if goal > t:
            x = q_step(schedule, x, goal, noise, t_prev=t)
        else:
            x0 = x0_from_eps(schedule, x, t, predict_eps(denoiser, x, t))
            unknown = q_posterior(schedule, x0, x, t, t_prev=goal).sample(noise)
            x = torch.where(mask, q_sample(schedule, known, goal, noise) if goal > 0 else known, unknown)
        yield State(goal, x, x0)


def outpaint(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    picture: Tensor,
    *,
    top: int,
    left: int,
    count: int | None = None,
    jump: int = 10,
    rounds: int = 10,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """``inpaint`` on a canvas larger than the picture, whose pixels are known.

    Args:
        x_T: (B, C, H, W) noise: the canvas.
        picture: (B, C, h, w), h <= H, w <= W.
        top, left: rows and columns of the canvas before the picture.

    Raises:
        ValueError: a picture that does not fit on the canvas at that place; and what ``inpaint`` raises.
    """
    known, mask = place(picture, x_T.shape[-2:], top=top, left=left)
    return inpaint(
        denoiser, schedule, x_T, known, mask, count=count, jump=jump, rounds=rounds, generator=generator
    )


def place(picture: Tensor, size: tuple[int, int], *, top: int, left: int) -> tuple[Tensor, Tensor]:
    """Put pictures on a larger canvas of zeros.

    Args:
        picture: (B, C, h, w).
        size: (H, W) of the canvas.
        top, left: row and column of the picture's first pixel, 0 .. H - h and 0 .. W - w.

    Returns:
        (B, C, H, W) the canvas, and (H, W) the mask that is True where the picture lies.

    Raises:
        ValueError: a picture that does not fit there.
    """
    height, width = size
    rows, columns = picture.shape[-2:]
    if not (0 <= top <= height - rows and 0 <= left <= width - columns):
        raise ValueError(
            f"{rows} x {columns} pixels at top = {top}, left = {left} "
            f"do not fit on a canvas of {height} x {width}"
        )
    canvas = picture.new_zeros(*picture.shape[:-2], height, width)
    mask = torch.zeros(height, width, dtype=torch.bool)
    canvas[..., top : top + rows, left : left + columns] = picture
    mask[top : top + rows, left : left + columns] = True
    return canvas, mask.to(picture.device)


def sdedit(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    picture: Tensor,
    *,
    t_start: int,
    count: int | None = None,
    eta: float = 1.0,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """SDEdit, Meng et al. 2022, algorithm 2: add noise to a picture up to t_start, and sample from there.

    What is coarser than the noise stays, what is finer is drawn anew. A picture whose error resembles the
    noise of t_start, such as one that was quantised, is restored.

    Args:
        picture: (B, ...) clean pictures, in the range of the data.
        t_start: 1 .. T: near 1 the result is the picture, at T it is forgotten.
        count: the number of steps from t_start down to 0, 1 .. t_start; t_start by default.
        eta: of ``ddim``'s steps, in [0, 1]: 1 solves the SDE, as in the paper; 0 the ODE.
        generator: draws the noise.

    Raises:
        ValueError: t_start or count outside their ranges, or eta.
    """
    if not 1 <= t_start <= schedule.steps:
        raise ValueError(f"t_start must lie in 1 .. {schedule.steps}, got {t_start}")
    head = NoiseSchedule(schedule.name, schedule.betas[:t_start], preserving=schedule.preserving)
    x = q_sample(schedule, picture, t_start, noise_like(picture, generator))
    return ddim(denoiser, head, x, count=count, eta=eta, generator=generator)


def _check_known(x: Tensor, known: Tensor, mask: Tensor) -> None:
    if (known.shape, known.dtype) != (x.shape, x.dtype):
        raise ValueError(
            f"known must be {x.dtype} of shape {tuple(x.shape)}, got {known.dtype} of {tuple(known.shape)}"
        )
    # The mask may have fewer dimensions, which broadcast: so the two lengths need not be equal.
    sides = zip(reversed(mask.shape), reversed(x.shape), strict=False)
    fits = mask.ndim <= x.ndim and all(m in (1, n) for m, n in sides)
    if mask.dtype != torch.bool or not fits:
        got = f"{mask.dtype} of {tuple(mask.shape)}"
        raise ValueError(f"mask must be boolean and fit the shape {tuple(x.shape)}, got {got}")


def _path(count: int, jump: int, rounds: int) -> list[int]:
    """The order of noise levels, count .. 0, with ``rounds - 1`` excursions upwards at multiples of jump."""
    if rounds < 1 or (rounds > 1 and not 1 <= jump < count):
        ranges = f"rounds must be at least 1, and jump lie in 1 .. {count - 1} for {count} steps"
        raise ValueError(f"{ranges}; got {rounds} and {jump}")
    path = [count]
    for level in reversed(range(count)):
        path.append(level)
        if rounds > 1 and level % jump == 0 and level + jump < count:
            path += [*range(level + 1, level + jump), *range(level + jump, level - 1, -1)] * (rounds - 1)
    return path
