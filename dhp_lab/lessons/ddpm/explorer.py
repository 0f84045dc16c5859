"""The explorer of the lesson on DDPM."""

from __future__ import annotations

from dhp_lab.data.digits import CLASSES
from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.lessons.ddpm import figures
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider


def explore(network: Denoiser, trained_on: NoiseSchedule) -> Explorer:
    """A digit at a time t of a schedule, and its clean version as the network predicts it.

    Args:
        network: on the CPU.
        trained_on: the schedule that the network was trained on.
    """
    steps = trained_on.steps
    return Explorer(
        figures.NoisyDigit(network, trained_on).render,
        [
            Dropdown("schedule", "schedule", ["linear", "cosine"]),
            Dropdown("digit", "digit", [str(i) for i in range(CLASSES)], "3"),
            Slider("t", "time t", 1, steps, 1, steps // 5, unit=f"of {steps}"),
            Slider("seed", "noise", 0, 20, 1, 0, unit="each number is other noise"),
        ],
        size=figures.SIZE,
    )
