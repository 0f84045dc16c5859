r"""The ideal denoiser: the posterior mean of a finite data set in closed form, without any training.

Among all functions of x_t the posterior mean of x0 has the least squared error. If the data are x_1 .. x_N,
each with probability 1/N, it is their mean with the weights of Bayes' rule (Karras et al. 2022, appendix
B.3):

    E[x0 given x_t] = sum_i w_i x_i,     w = softmax over i of -|x_t / s - x_i|^2 / (2 sigma^2)

Sampling with it gives back the data themselves: perfect memorisation. A trained network generalises because
it differs from it.

``rescaled`` makes a denoiser for one schedule out of one for another: a state's noise level is sigma alone,
time and scale are a choice of the schedule.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to


class IdealDenoiser:
    """eps = denoiser(x_t, t), exact for a finite data set; computed in float64.

    Args:
        data: (N, ...) the data, N >= 1.
        schedule: of the states that it is evaluated at.
        labels: (N,) whole numbers >= 0, the class of each; None for data without classes.

    Raises:
        ValueError: no data, or labels that do not fit them.
    """

    def __init__(self, data: Tensor, schedule: NoiseSchedule, labels: Tensor | None = None) -> None:
        if data.ndim < 2 or len(data) == 0:
            raise ValueError(f"data must be (N, ...) with at least one item, got shape {tuple(data.shape)}")
        if labels is not None and (
            labels.shape != data.shape[:1] or labels.is_floating_point() or bool((labels < 0).any())
        ):
            got = f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise ValueError(f"labels must be {len(data)} whole numbers >= 0, got {got}")
        self.data = data
        self.schedule = schedule
        self.labels = labels

    @property
    def null(self) -> int:
        """The null label, which stands for "any class"; 0 if there are no classes."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The noise estimate (x_t / s - E[x0 given x_t]) / sigma, (B, ...); arguments as for ``x0``."""
        u, sigma = self._unscaled(x_t, t)
        return ((u - self._mean(u, sigma, label)) / sigma).to(x_t.dtype)

    def x0(self, x_t: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        """E[x0 given x_t], (B, ...).

        Args:
            x_t: (B, ...) states, each shaped like an item of the data.
            t: in (0, T], one for the batch or (B,).
            label: (B,) whole numbers, 0 .. null, the last one for any class; None is any class for all.

        Raises:
            ValueError: t = 0 or outside the chain, states of another shape, or a label that does not fit.
        """
        return self._mean(*self._unscaled(x_t, t), label).to(x_t.dtype)

    def _unscaled(self, x_t: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """x_t / s (B, ...) and sigma (B or 1, 1, ...), float64."""
        if x_t.shape[1:] != self.data.shape[1:]:
            raise ValueError(
                f"x_t must be (B, {', '.join(map(str, self.data.shape[1:]))}), got {tuple(x_t.shape)}"
            )
        sigma = self.schedule.sigma(t)
        if not bool((sigma > 0).all()):
            raise ValueError(
                f"t must lie in (0, {self.schedule.steps}], got 0: a clean signal has no noise to estimate"
            )
        x = x_t.double()
        return x / broadcast_to(self.schedule.scale(t), x), broadcast_to(sigma, x)

    def _mean(self, u: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """The posterior mean (B, ...) float64."""
        data = self.data.to(u).flatten(1)  # (N, D)
        closeness = u.flatten(1) @ data.mT - data.square().sum(1) / 2  # (B, N), |u|^2 cancels
        logits = closeness / sigma.flatten(1).square()
        if label is not None:
            logits = logits.masked_fill(~self._belongs(label, len(u)), -torch.inf)
        return (logits.softmax(1) @ data).view_as(u)

    def _belongs(self, label: Tensor, count: int) -> Tensor:
        """(B, N) whether an item of the data is of a state's class."""
        if self.labels is None:
            raise ValueError("label is given, but these data have no classes")
        labels = self.labels.to(label.device)
        valid = torch.isin(label, labels) | (label == self.null)
        if label.shape != (count,) or not bool(valid.all()):
            raise ValueError(
                f"label must hold {count} classes of the data or {self.null} for any, got {label.tolist()}"
            )
        return (label[:, None] == labels) | (label == self.null)[:, None]


def rescaled(denoiser: Denoiser, trained_on: NoiseSchedule, schedule: NoiseSchedule) -> Denoiser:
    """A denoiser for one schedule out of one for another: Karras et al. 2022, section 2.

        eps(x_t, t) = denoiser(s' / s x_t, t'),      sigma'(t') = sigma(t)

    So a network that was trained on a variance-preserving chain serves a sampler of a variance-exploding one.

    Args:
        denoiser: its times t' and states, of scale s', are those of ``trained_on``.
        trained_on: a schedule whose greatest sigma is at least that of ``schedule``.
        schedule: of the result's times and states.

    Raises:
        ValueError: ``trained_on`` does not reach the greatest sigma of ``schedule``.
    """
    trained_on.time_of(schedule.sigma(schedule.steps))

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        t_trained = trained_on.time_of(schedule.sigma(t))  # (B,) t'
        scale = trained_on.scale(t_trained) / schedule.scale(t)
        return denoiser(broadcast_to(scale, x_t) * x_t, t_trained.to(t))

    return denoise
