"""The explorer of the lesson on latent diffusion."""

from __future__ import annotations

from collections.abc import Mapping

from dhp_lab.latent.pipeline import LatentDiffusion
from dhp_lab.lessons.latent_diffusion import figures
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider, TextBox


def explore(models: Mapping[str, LatentDiffusion]) -> Explorer:
    """Pictures for a caption in the grammar's words, typed or chosen.

    Args:
        models: by their f, such as "8".
    """
    unguided = "0: unconditional, 1: conditional, unguided"
    return Explorer(
        figures.SceneDraws(models).render,
        [
            TextBox("caption", "caption", figures.CAPTIONS),
            Dropdown("f", "f", list(models)),
            Slider("steps", "steps", 1, 50, 1, 20, unit="two network evaluations each"),
            Slider("guidance", "guidance", 0.0, 12.0, 0.5, 4.0, unit=unguided),
            Slider("seed", "seed", 0, 99, 1, 0, unit="of all noise"),
        ],
        size=figures.SIZE,
    )
