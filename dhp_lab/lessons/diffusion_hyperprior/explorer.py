"""The explorer of the lesson on the diffusion hyperprior."""

from __future__ import annotations

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.photos import PHOTOS
from dhp_lab.lessons.diffusion_hyperprior import figures
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider, lambda_slider


def explore(model: DiffusionHyperprior) -> Explorer:
    """Lambda sets the start time on a schedule, K and gamma what the decoder does from there."""
    evaluations = "network evaluations; 0: none, 1: the posterior mean"
    return Explorer(
        figures.DiffusionTimes(model).render,
        [
            Dropdown("photo", "photo", PHOTOS, "chelsea"),
            Dropdown("schedule", "schedule", ["linear", "cosine"]),
            lambda_slider(3e-3),
            Slider("steps", "steps K", 0, 16, 1, 4, unit=evaluations),
            Slider("gamma", "γ", 0.0, 1.0, 0.1, 0.0, unit="0: the sample, 1: the posterior mean"),
        ],
        size=figures.SIZE,
    )
