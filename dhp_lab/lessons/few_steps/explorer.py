"""The explorer of the lesson on few steps."""

from __future__ import annotations

from dhp_lab.lessons.few_steps import figures
from dhp_lab.lessons.few_steps.methods import METHODS, SPACINGS
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider


def explore() -> Explorer:
    """One method on the islands: paths, samples and distances."""
    return Explorer(
        figures.few_steps_picture,
        [
            Dropdown("method", "method", list(METHODS), "DDIM"),
            Dropdown("spacing", "spacing", list(SPACINGS)),
            Slider("steps", "steps", 1, 32, 1, 4),
        ],
        size=figures.SIZE,
    )
