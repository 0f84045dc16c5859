"""The explorer of the lesson on scores and SDEs."""

from __future__ import annotations

from dhp_lab.lessons.score_and_sde import figures
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider


def explore() -> Explorer:
    """Two samplers side by side on three Gaussians in the plane, with the exact denoiser."""
    return Explorer(
        figures.sampler_picture,
        [
            Dropdown("sampler", "left", list(figures.SAMPLERS), "DDIM"),
            Dropdown("beside", "right", list(figures.SAMPLERS), "Euler-Maruyama"),
            Dropdown("schedule", "schedule", list(figures.SCHEDULES), "VP, linear"),
            Slider("steps", "steps", 2, 100, 1, 20),
        ],
        size=figures.SIZE,
    )
