r"""Guidance: conditions on a sample beyond the data's distribution, without training a network for them.

A guide makes one denoiser out of another, and any sampler takes it:

| guide                       | eps becomes                                      | needs                     |
|-----------------------------|--------------------------------------------------|---------------------------|
| ``guided``                  | eps(null) + scale (eps(label) - eps(null))       | ``drop_labels``           |
| ``classifier_guided``       | eps - scale s sigma d log p(label given x_t)/dx  | a classifier on noisy x_t |
| ``clipped``                 | (x_t / s - clamp(x0)) / sigma                    | data in a known range     |
| ``dynamically_thresholded`` | the same, x0 cut at a quantile and rescaled      | data in a known range     |

Known pixels and given pictures change the chain and not the denoiser: see ``editing``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dhp_lab.diffusion.process import Denoiser, eps_from_x0, x0_from_eps
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


def guided(
    denoiser: LabelDenoiser,
    label: int | Tensor,
    *,
    scale: float,
    null: int,
    interval: tuple[float, float] = (0.0, math.inf),
) -> Denoiser:
    """Classifier-free guidance, eps(null) + scale (eps(label) - eps(null)): Ho & Salimans 2022, eq. 6.

    The scale is that of most programs, 1 + w in the paper: at 0 the label has no effect, at 1 the denoiser
    is used as it was trained, and above 1 the samples show their class more clearly and differ less from each
    other. Both estimates are evaluated in one batch of 2B.

    Args:
        denoiser: trained with ``drop_labels``.
        label: one whole number for all samples, or (B,).
        scale: at least 0; 1 to 15 are in use.
        null: the label that replaced dropped ones in training.
        interval: (low, high): the scale acts at times low < t <= high, and is 1 elsewhere (Kynkäänniemi et
            al. 2024, eq. 6, where the ends are noise levels: ``schedule.time_of`` converts them). A batch
            that lies outside costs one evaluation of B states instead of 2B.

    Raises:
        ValueError: a scale below 0, or an interval whose ends do not rise from 0; later, a batch that the
            labels do not fit.
    """
    if not 0 <= scale < math.inf:
        raise ValueError(f"scale must be finite and at least 0, got {scale:g}")
    low, high = interval
    if not 0 <= low < high:
        raise ValueError(f"interval must be (low, high) with 0 <= low < high, got ({low:g}, {high:g})")
    given = torch.as_tensor(label)
    if given.is_floating_point() or given.ndim > 1:
        got = f"{given.dtype} of shape {tuple(given.shape)}"
        raise ValueError(f"label must be a whole number or a vector of them, got {got}")

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        if given.numel() not in (1, len(x_t)):
            raise ValueError(f"a batch of {len(x_t)} needs 1 or {len(x_t)} labels, got {given.numel()}")
        labels = given.to(x_t.device).expand(len(x_t))  # (B,)
        inside = (low < t) & (t <= high)  # (B,)
        if not bool(inside.any()):
            return denoiser(x_t, t, labels)
        both = torch.cat([labels, torch.full_like(labels, null)])  # (2B,)
        doubled = x_t.repeat(2, *[1] * (x_t.ndim - 1))  # (2B, ...)
        eps, eps_null = denoiser(doubled, t.repeat(2), both).chunk(2)  # (B, ...) each
        if bool(inside.all()):
            return torch.lerp(eps_null, eps, scale)
        return torch.lerp(eps_null, eps, broadcast_to(torch.where(inside, scale, 1.0), x_t))

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


def dynamically_thresholded(
    denoiser: Denoiser, schedule: NoiseSchedule, *, quantile: float = 0.995
) -> Denoiser:
    """Dynamic thresholding, Saharia et al. 2022, section 2.3: clamp x0 at a quantile of |x0|, then rescale.

    In each picture, limit = max(1, the quantile of its |x0|), and x0 becomes clamp(x0, -limit, limit) /
    limit: values in [-1, 1], of which fewer lie at the ends than under ``clipped``.

    Args:
        quantile: in [0, 1]; 1 rescales without clamping.

    Raises:
        ValueError: a quantile outside its range.
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile must lie in [0, 1], got {quantile:g}")

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        x0 = x0_from_eps(schedule, x_t, t, denoiser(x_t, t))
        limit = x0.flatten(1).abs().quantile(quantile, dim=1).clamp(min=1)  # (B,)
        limit = broadcast_to(limit, x_t)  # (B, 1, ...)
        return eps_from_x0(schedule, x_t, t, x0.clamp(-limit, limit) / limit)

    return denoise
