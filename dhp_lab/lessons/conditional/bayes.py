r"""The Bayes classifier of noisy pictures: the exact p(class given x_t) of a finite data set.

If each of the data x_i is equally probable, then by Bayes' rule

    log p(c given x_t) = logsumexp over x_i of class c of -|x_t / s - x_i|^2 / (2 sigma^2) + const

No classifier of noisy training data is better; its gradient is what classifier guidance needs. By the ideal
denoiser, with and without a label, one gets the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to

Classifier = Callable[[Tensor, Tensor], Tensor]
"""``log_p(x_t, t)``: states (B, ...) and times (B,) to log-probabilities of the classes (B, K)."""


def bayes_classifier(data: Tensor, labels: Tensor, schedule: NoiseSchedule) -> Classifier:
    """The Bayes classifier of noisy data, differentiable in x_t.

    Args:
        data: (N, ...) the data.
        labels: (N,) whole numbers 0 .. K - 1, each at least once.
        schedule: of the states.
    """
    flat = data.flatten(1)  # (N, D)
    members = [torch.nonzero(labels == c)[:, 0] for c in range(int(labels.max()) + 1)]

    def log_p(x_t: Tensor, t: Tensor) -> Tensor:
        u = (x_t / broadcast_to(schedule.scale(t), x_t)).flatten(1)
        closeness = u @ flat.mT - flat.square().sum(1) / 2  # (B, N); |u|^2 cancels
        logits = closeness / broadcast_to(schedule.sigma(t).square(), closeness)
        return torch.stack([logits[:, part].logsumexp(1) for part in members], 1).log_softmax(1)

    return log_p


def class_gradient(log_p: Classifier, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """(B, D) the gradient of log p(label given x_t) over x_t, its dimensions in one row.

    Args:
        x_t, t: (B, ...) and (B,).
        labels: (B,) the classes.
    """
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(log_p(x, t).gather(1, labels[:, None]).sum(), x)
    return gradient.flatten(1)
