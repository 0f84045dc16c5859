"""The explorer of the lesson on the BK-SDM codec."""

from __future__ import annotations

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.lessons.bk_sdm_codec import coded_scenes
from dhp_lab.notebook.sliders import Explorer, Slider, lambda_slider


def explore(model: DiffusionHyperprior) -> Explorer:
    """A scene coded with the parts of a Stable Diffusion folder; the model has its VAE and its U-Net."""
    evaluations = "U-Net evaluations; 0: none, 1: the posterior mean"
    return Explorer(
        coded_scenes.CodedScenes(model).render,
        [
            lambda_slider(1e-2, low=1e-4, high=1e-1),
            Slider("steps", "steps K", 0, 8, 1, 1, unit=evaluations),
            Slider("scene", "scene", 0, 99, 1, 1, unit="each number is another picture"),
        ],
        size=coded_scenes.SIZE,
    )
