"""The explorer of the lesson on latent diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dhp_lab.lessons.latent_diffusion import figures
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider, TextBox

if TYPE_CHECKING:
    from dhp_lab.latent.pipeline import LatentDiffusion


def explore(models: Mapping[str, LatentDiffusion]) -> Explorer:
    """Pictures for a caption in the grammar's words, typed or chosen, by the model of one f."""
    return Explorer(
        figures.SceneDraws(models).render,
        [
            TextBox("caption", "caption", figures.CAPTIONS),
            Dropdown("f", "f", list(models)),
            Slider("steps", "steps", 1, 50, 1, 20, unit="two questions to the U-Net each"),
            Slider(
                "guidance",
                "guidance",
                0.0,
                12.0,
                0.5,
                4.0,
                unit="0: the caption counts nothing, 1: as trained",
            ),
            Slider("seed", "seed", 0, 99, 1, 0, unit="of all noise"),
        ],
        size=figures.SIZE,
    )
