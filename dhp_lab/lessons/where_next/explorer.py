"""The explorer of the last lesson: a lambda for each block."""

from __future__ import annotations

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.photos import PHOTOS
from dhp_lab.lessons.where_next import figures
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider


def explore(model: DiffusionHyperprior) -> Explorer:
    """A lambda for each block of a photo, beside one lambda for all of it at as many bytes."""
    return Explorer(
        figures.LambdaMaps(model).render,
        [
            Dropdown("photo", "photo", PHOTOS, "coffee"),
            Dropdown("area", "area", list(figures.AREAS)),
            Slider(
                "lambda_rate",
                "λ",
                1e-4,
                3e-2,
                0.1,
                3e-3,
                unit="error for a bit per pixel; larger: smaller file",
                log=True,
            ),
            Slider(
                "strength",
                "strength",
                -figures.MOST,
                figures.MOST,
                1,
                2,
                unit="octaves of λ; above 0: the area gets more bits",
            ),
        ],
        size=figures.SIZE,
    )
