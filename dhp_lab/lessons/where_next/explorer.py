"""The explorer of the last lesson: a lambda for each block."""

from __future__ import annotations

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.photos import PHOTOS
from dhp_lab.lessons.where_next import figures
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider, lambda_slider


def explore(model: DiffusionHyperprior) -> Explorer:
    """A lambda for each block of a photo, beside one lambda for all of it in at most as many bytes."""
    more_bits = "octaves of λ; above 0: the area gets more bits"
    return Explorer(
        figures.LambdaMaps(model).render,
        [
            Dropdown("photo", "photo", PHOTOS, "coffee"),
            Dropdown("area", "area", list(figures.AREAS)),
            lambda_slider(3e-3, low=1e-4),
            Slider("strength", "strength", -figures.MOST, figures.MOST, 1, 2, unit=more_bits),
        ],
        size=figures.SIZE,
    )
