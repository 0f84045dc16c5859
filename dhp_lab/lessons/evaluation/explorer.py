"""The explorer of the lesson on evaluation."""

from __future__ import annotations

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.photos import PHOTOS
from dhp_lab.lessons.evaluation import measured_photo
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider


def explore(model: DiffusionHyperprior, *, side: int = 288) -> Explorer:
    """A photo's middle, side x side pixels, by ours and by JPEG at as many bytes, with errors and curves."""
    return Explorer(
        measured_photo.MeasuredPhoto(model, side).render,
        [
            Dropdown("photo", "photo", PHOTOS, "coffee"),
            Slider(
                "lambda_rate",
                "λ",
                1e-5,
                3e-2,
                0.1,
                5e-3,
                unit="error for a bit per pixel; larger: smaller file",
                log=True,
            ),
            Slider("steps", "steps K", 0, 16, 1, 4, unit="0: no diffusion, 1: best PSNR, more: texture"),
            Slider("gamma", "γ", 0.0, 1.0, 0.1, 0.0, unit="0: the sample, 1: the average"),
            Slider("seed", "seed", 0, 99, 1, 0, unit="of the noise"),
        ],
        size=measured_photo.picture_size(side),
    )
