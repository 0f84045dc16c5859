"""The explorer of the lesson on the diffusion hyperprior."""

from __future__ import annotations

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.photos import PHOTOS
from dhp_lab.lessons.diffusion_hyperprior import figures
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider


def explore(model: DiffusionHyperprior) -> Explorer:
    """Lambda sets the start time on a schedule, K and gamma what the decoder does from there."""
    return Explorer(
        figures.DiffusionTimes(model).render,
        [
            Dropdown("photo", "photo", PHOTOS, "chelsea"),
            Dropdown("schedule", "schedule", ["linear", "cosine"]),
            Slider(
                "lambda_rate",
                "λ",
                1e-5,
                3e-2,
                0.1,
                3e-3,
                unit="error for a bit per pixel; larger: smaller file",
                log=True,
            ),
            Slider(
                "steps", "steps K", 0, 16, 1, 4, unit="questions to the denoiser; 0: none, 1: the average"
            ),
            Slider("gamma", "γ", 0.0, 1.0, 0.1, 0.0, unit="0: the sample, 1: the average"),
        ],
        size=figures.SIZE,
    )
