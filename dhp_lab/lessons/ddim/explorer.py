"""The explorer of the lesson on DDIM."""

from __future__ import annotations

import torch

from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.lessons.ddim import figures
from dhp_lab.notebook.sliders import Explorer, Slider


def explore(denoiser: Denoiser, schedule: NoiseSchedule, *, device: torch.device | str = "cpu") -> Explorer:
    """Steps, eta and seed of DDIM on digits; each noise is drawn from twice.

    Args:
        denoiser: eps = denoiser(x_t, t) for digits, on the device.
        schedule: the one that it was trained on.
    """
    return Explorer(
        figures.DigitDraws(denoiser, schedule, device=device).render,
        [
            Slider("steps", "steps", 1, min(250, schedule.steps), 1, 20, unit="network evaluations (NFE)"),
            Slider("eta", "η", 0.0, 1.0, 0.1, 0.0, unit="0: deterministic, 1: as much noise as DDPM"),
            Slider("seed", "seed", 0, 99, 1, 0, unit="of all noise, at the start and on the way"),
        ],
        size=figures.SIZE,
    )
