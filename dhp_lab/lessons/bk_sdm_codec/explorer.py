"""The explorer of the lesson on the BK-SDM codec."""

from __future__ import annotations

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.lessons.bk_sdm_codec import coded_scenes
from dhp_lab.notebook.sliders import Explorer, Slider


def explore(model: DiffusionHyperprior) -> Explorer:
    """A scene coded with the parts of a Stable Diffusion folder; the model has its VAE and its U-Net."""
    return Explorer(
        coded_scenes.CodedScenes(model).render,
        [
            Slider(
                "lambda_rate",
                "λ",
                1e-4,
                1e-1,
                0.1,
                1e-2,
                unit="error for a bit per pixel; larger: smaller file",
                log=True,
            ),
            Slider("steps", "steps K", 0, 8, 1, 1, unit="questions to the U-Net; 0: none, 1: the average"),
            Slider("scene", "scene", 0, 99, 1, 1, unit="each number is another picture"),
        ],
        size=coded_scenes.SIZE,
    )
