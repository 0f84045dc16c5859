"""The explorer of the lesson on conditional diffusion."""

from __future__ import annotations

import torch

from dhp_lab.data.digits import CLASSES
from dhp_lab.diffusion.guidance import LabelDenoiser
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.lessons.conditional import figures
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider


def explore(
    network: LabelDenoiser, schedule: NoiseSchedule, *, device: torch.device | str = "cpu"
) -> Explorer:
    """The class and the guidance scale, drawn freely or around known pixels of a test digit.

    Args:
        network: eps = network(x_t, t, label) for digits, on the device.
        schedule: the one that it was trained on.
    """
    numbers = [str(i) for i in range(CLASSES)]
    return Explorer(
        figures.GuidedDigits(network, schedule, device=device).render,
        [
            Dropdown("label", "class", [*numbers, figures.ANY], "3"),
            Dropdown("known", "known", [figures.NOTHING, *figures.masks()]),
            Dropdown("digit", "of a", numbers, "8"),
            Slider("scale", "scale", 0.0, 15.0, 0.5, 3.0, unit="0: unconditional, 1: conditional, unguided"),
            Slider("seed", "seed", 0, 99, 1, 0, unit="of all noise"),
        ],
        size=figures.SIZE,
    )
