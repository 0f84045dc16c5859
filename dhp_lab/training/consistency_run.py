"""Consistency distillation of a network that predicts v: samples of its flow, in one to four evaluations.

    u = x0 + sigma eps --teacher, one step of its flow--> u' at sigma'
    |f(u, sigma) - f(u', sigma')|^2,  the second f without gradient                Song et al. 2023, eq. 7

The teacher is guided (Ho & Salimans 2022), so that the student needs no second evaluation for it. The student
starts from the teacher's weights. Its own present weights serve for the second f, and the EMA is what is
left: Song & Dhariwal 2024, section 3.2, found no use in an average there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dhp_lab.diffusion.consistency import (
    SIGMA_MIN,
    distillation_loss,
    draw_neighbours,
)
from dhp_lab.diffusion.edm import CleanEstimate, karras
from dhp_lab.diffusion.guidance import guided
from dhp_lab.diffusion.networks import UNet
from dhp_lab.diffusion.process import noise_like
from dhp_lab.diffusion.schedules import broadcast_to
from dhp_lab.training.denoiser_run import DenoiserRun, LessonConfig
from dhp_lab.training.optimisation import EMA

LEVELS = 18  # noise levels; the paper's for pictures of 32 x 32
SIGMA_MAX = 80.0
GUIDANCE = 2.0  # the teacher's scale


def consistency_levels() -> Tensor:
    """(18,) float64: the noise levels, rising from 0.002 to 80 as in Karras et al. 2022, eq. 5."""
    return karras(LEVELS, first=SIGMA_MIN, last=SIGMA_MAX).sigma(torch.arange(1, LEVELS + 1))


def step_levels(count: int) -> list[float]:
    """The noise levels of a sample in ``count`` jumps, falling from 80: evenly spaced among the levels.

    Args:
        count: 1 .. 17.

    Raises:
        ValueError: another count.
    """
    if not 1 <= count < LEVELS:
        raise ValueError(f"count must lie in 1 .. {LEVELS - 1}, got {count}")
    places = torch.arange(count) * (LEVELS - 1) // count
    return consistency_levels().flip(0)[places].tolist()


class ConsistencyRun(DenoiserRun):
    """A distillation that goes step by step.

    Args:
        config: of the student; its prediction is "consistency", its network and schedule are the teacher's.
        teacher: a network that predicts v, trained with ``drop_labels``.
        taught: how it was trained.
        x0, labels, device, memory_format: as for ``DenoiserRun``.

    Raises:
        ValueError: a teacher of another kind; data or labels that do not fit.
    """

    def __init__(
        self,
        config: LessonConfig,
        teacher: UNet,
        taught: LessonConfig,
        x0: Tensor,
        labels: Tensor,
        *,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        def kind(one: LessonConfig) -> tuple:
            return one.network, one.schedule, one.diffusion_steps

        if taught.prediction != "v" or kind(taught) != kind(config):
            raise ValueError(
                f"the teacher must predict v and be of the student's shape and schedule, {kind(config)}; "
                f"got one of {taught.prediction!r}, {kind(taught)}"
            )
        super().__init__(config, x0, labels, device=device, memory_format=memory_format)
        self.teacher = taught.denoiser(teacher.requires_grad_(False))
        self.network.load_state_dict(teacher.state_dict())
        self.ema = EMA(self.network, config.average)
        self.sigmas = consistency_levels()

    def _error(self, x: Tensor, label: Tensor) -> Tensor:
        """The distillation loss of a batch (B, C, H, W) and its labels (B,)."""
        eps = noise_like(x, self.generator)
        sigma, sigma_prev = draw_neighbours(self.sigmas, x, self.generator)
        student = self.config.consistency(self.network, label)
        return distillation_loss(student, student, self._clean(label), x, eps, sigma, sigma_prev)

    def _clean(self, label: Tensor) -> CleanEstimate:
        """The guided teacher's estimate of x0, D(u, sigma)."""
        denoiser = guided(self.teacher, label, scale=GUIDANCE, null=self.network.null)

        def estimate(u: Tensor, sigma: Tensor) -> Tensor:
            t = self.schedule.time_of(sigma.double())
            x_t = broadcast_to(self.schedule.scale(t), u) * u
            return u - broadcast_to(sigma, u) * denoiser(x_t, t.to(u))

        return estimate
