"""The explorer of the lesson on evaluation."""

from __future__ import annotations

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.photos import PHOTOS
from dhp_lab.lessons.evaluation import measured_photo
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider, lambda_slider


def explore(model: DiffusionHyperprior, *, side: int = 288) -> Explorer:
    """A photo's middle by ours and by a JPEG of at most as many bytes, with errors and curves.

    Args:
        side: of the photos in pixels.
    """
    return Explorer(
        measured_photo.MeasuredPhoto(model, side).render,
        [
            Dropdown("photo", "photo", PHOTOS, "coffee"),
            lambda_slider(5e-3),
            Slider("effort", "effort", 0, 6, 1, 0, unit="of the encoder: seconds for bits"),
            Slider("steps", "steps K", 0, 16, 1, 4, unit="0: no diffusion, 1: best PSNR, more: texture"),
            Slider("gamma", "γ", 0.0, 1.0, 0.1, 0.0, unit="0: the sample, 1: the posterior mean"),
            Slider("seed", "seed", 0, 99, 1, 0, unit="of the noise"),
        ],
        size=measured_photo.picture_size(side),
    )
