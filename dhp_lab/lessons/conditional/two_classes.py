r"""Two classes of points in the plane, whose noise estimates are known in closed form.

A class is an even mixture of round normal distributions, and both classes are equally frequent. With noise of
standard deviation sigma beside the data,

    p_sigma(u given class) = mean_k N(u; m_k, STD^2 + sigma^2),      eps(u) = -sigma grad log p_sigma(u)

One of the two modes of the class ASKED lies near the other class, one far from it: so the figure shows which
of them guidance prefers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to

STD = 0.25
MEANS = torch.tensor([[-1.0, 0.1], [-0.9, -0.5], [0.0, -0.7], [0.9, 0.8]])
CLASS_OF = torch.tensor([0, 0, 1, 1])
OTHER, ASKED, ANY = 0, 1, 2
NEAR, FAR = 2, 3  # the components of ASKED


class TwoClasses:
    """eps = denoiser(x_t, t, label) for points (B, 2); label OTHER, ASKED or ANY, the null label.

    Args:
        schedule: of the states and times.
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The exact noise estimate (B, 2)."""
        sigma = broadcast_to(self.schedule.sigma(t), x_t)
        u = x_t / broadcast_to(self.schedule.scale(t), x_t)
        return -sigma * self.score(u, sigma, label)

    def score(self, u: Tensor, sigma: float | Tensor, label: Tensor) -> Tensor:
        """(B, 2) the gradient of log p_sigma(u given label); sigma is one number or (B, 1)."""
        variance = STD**2 + sigma**2
        weights = self._log_joint(u, variance, label).softmax(1)  # (B, 4)
        return (weights @ MEANS.to(u) - u) / variance

    def log_density(self, u: Tensor, sigma: float, label: int) -> Tensor:
        """(B,) log p_sigma(u given label), up to a constant."""
        return self._log_joint(u, STD**2 + sigma**2, torch.full((len(u),), label)).logsumexp(1)

    def _log_joint(self, u: Tensor, variance: float | Tensor, label: Tensor) -> Tensor:
        """(B, 4) of each component, -inf where it is not of the label."""
        distance = (u[:, None] - MEANS.to(u)).square().sum(2)
        belongs = (label[:, None] == CLASS_OF) | (label[:, None] == ANY)
        return (-distance / (2 * variance)).masked_fill(~belongs, -torch.inf)


def far_share(x: Tensor) -> float:
    """The share of points (B, 2) that are nearer to the far mode of ASKED than to its near one."""
    return (torch.cdist(x, MEANS[[NEAR, FAR]].to(x)).argmin(1) == 1).double().mean().item()
