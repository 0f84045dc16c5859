"""The explorer of the lesson on the scale hyperprior."""

from __future__ import annotations

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.photos import PHOTOS
from dhp_lab.lessons.scale_hyperprior import figures
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider, lambda_slider


def explore(model: DiffusionHyperprior, *, side: int = 512) -> Explorer:
    """A photo's symbols and their scales, a channel at a time, and where its bits go.

    Args:
        side: of the photos in pixels, 256 or 512.
    """
    return Explorer(
        figures.HyperpriorMaps(model, side).render,
        [
            Dropdown("photo", "photo", PHOTOS),
            lambda_slider(1e-3),
            Slider("channel", "channel", 0, model.config.M - 1, 1, 1, unit="of y, from coarse to fine"),
        ],
        size=figures.SIZE,
    )
