r"""Guidance: conditions on a sample beyond the data's distribution, without training a network for them.

A guide makes one denoiser out of another, and any sampler takes it:

| guide                 | eps becomes                                          | needs                       |
|-----------------------|------------------------------------------------------|-----------------------------|
| ``guided``            | eps(null) + scale (eps(label) - eps(null))           | ``drop_labels`` in training |
| ``classifier_guided`` | eps - scale s sigma d log p(label given x_t) / d x_t | a classifier on noisy x_t   |
| ``clipped``           | (x_t / s - clamp(x0)) / sigma                        | data in a known range       |

Inpainting is given some of the pixels. It changes the chain and not the denoiser: at each noise level the
known pixels are replaced by those of the forward process, and the chain goes up and down again, so that the
unknown pixels can adapt to them:

    x_t   --ddpm's step--> unknown pixels \
                                           x_{t-1}  --and so on down, or jump times q_step--> back up
    known --q_sample-----> known pixels   /

Outpainting is inpainting on a larger canvas. A mask is boolean: True where a pixel is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from dhp_lab.diffusion.process import (
    Denoiser,
    eps_from_x0,
    noise_like,
    predict_eps,
    q_posterior,
    q_sample,
    q_step,
    x0_from_eps,
)
from dhp_lab.diffusion.samplers import State
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to

LabelDenoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``eps = denoiser(x_t, t, label)``: a denoiser conditioned on labels (B,); the null label is "any"."""


def drop_labels(
    labels: Tensor, null: int, *, probability: float = 0.1, generator: torch.Generator | None = None
) -> Tensor:
    """Replace some labels, drawn at random, by the null label: Ho & Salimans 2022, algorithm 1.

    Args:
        labels: (B,) whole numbers.
        null: the label that stands for "any", usually the number of classes.
        probability: of each label to be dropped, in [0, 1].

    Returns:
        (B,) the labels.

    Raises:
        ValueError: labels that are not whole numbers, or a probability outside [0, 1].
    """
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be whole numbers, got {labels.dtype}")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must lie in [0, 1], got {probability:g}")
    device = "cpu" if generator is None else generator.device
    dropped = torch.rand(labels.shape, generator=generator, device=device).to(labels.device) < probability
    return labels.masked_fill(dropped, null)


def guided(denoiser: LabelDenoiser, label: int | Tensor, *, scale: float, null: int) -> Denoiser:
    """Classifier-free guidance, eps(null) + scale (eps(label) - eps(null)): Ho & Salimans 2022, eq. 6.

    The scale is that of most programs, 1 + w in the paper: at 0 the label has no effect, at 1 the denoiser
    is used as it was trained, and above 1 the samples show their class more clearly and differ less from each
    other. Both estimates are evaluated in one batch of 2B.

    Args:
        denoiser: trained with ``drop_labels``.
        label: one whole number for all samples, or (B,).
        scale: at least 0; 1 to 15 are in use.
        null: the label that replaced dropped ones in training.

    Raises:
        ValueError: a scale below 0; later, a batch that the labels do not fit.
    """
    if not 0 <= scale < math.inf:
        raise ValueError(f"scale must be finite and at least 0, got {scale:g}")
    given = torch.as_tensor(label)
    if given.is_floating_point() or given.ndim > 1:
        got = f"{given.dtype} of shape {tuple(given.shape)}"
        raise ValueError(f"label must be a whole number or a vector of them, got {got}")

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        if given.numel() not in (1, len(x_t)):
            raise ValueError(f"a batch of {len(x_t)} needs 1 or {len(x_t)} labels, got {given.numel()}")
        labels = given.to(x_t.device).expand(len(x_t))  # (B,)
        both = torch.cat([labels, torch.full_like(labels, null)])  # (2B,)
        doubled = x_t.repeat(2, *[1] * (x_t.ndim - 1))  # (2B, ...)
        eps, eps_null = denoiser(doubled, t.repeat(2), both).chunk(2)  # (B, ...) each
        return torch.lerp(eps_null, eps, scale)

    return denoise


def classifier_guided(
    denoiser: Denoiser, schedule: NoiseSchedule, log_probability: Denoiser, *, scale: float = 1.0
) -> Denoiser:
    """Classifier guidance, eps - scale s sigma d log p(label | x_t)/d x_t: Dhariwal & Nichol 2021, eq. 14.

    By Bayes' rule, scale 1 samples the data of that label if denoiser and classifier are exact.

    Args:
        log_probability: ``log_probability(x_t, t)`` -> (B,) log p of the label, differentiable in x_t.
        scale: finite.

    Raises:
        ValueError: a scale that is not finite.
    """
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale:g}")

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(log_probability(x, t).sum(), x)
        return denoiser(x_t, t) - broadcast_to(scale * schedule.scale(t) * schedule.sigma(t), x_t) * gradient

    return denoise


def clipped(denoiser: Denoiser, schedule: NoiseSchedule, *, limit: float = 1.0) -> Denoiser:
    """Clamp the estimate of x0 to [-limit, limit]: static thresholding, Saharia et al. 2022, section 2.3.

    At high noise a small error of eps is a large one of x0; a guidance scale above 1 makes it larger.

    Args:
        limit: above 0.

    Raises:
        ValueError: a limit that is not positive.
    """
    if not limit > 0:
        raise ValueError(f"limit must be above 0, got {limit:g}")

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        x0 = x0_from_eps(schedule, x_t, t, denoiser(x_t, t))
        return eps_from_x0(schedule, x_t, t, x0.clamp(-limit, limit))

    return denoise


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
