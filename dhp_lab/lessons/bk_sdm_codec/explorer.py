"""The explorer of the lesson on the BK-SDM codec."""

from __future__ import annotations

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.photos import PHOTOS
from dhp_lab.lessons.bk_sdm_codec import coded_scenes
from dhp_lab.notebook.sliders import Explorer, Slider, lambda_slider


def explore(model: DiffusionHyperprior) -> Explorer:
    """A picture coded with the parts of a Stable Diffusion folder; the model has its VAE and its U-Net.

    It shows scenes, or details of photos where the folder's VAE was trained on photos.
    """
    photos = coded_scenes.knows_photos(model)
    kind, last = ("photo", len(PHOTOS) - 1) if photos else ("scene", 99)
    evaluations = "U-Net evaluations; 0: none, 1: the posterior mean"
    return Explorer(
        coded_scenes.CodedScenes(model, photos=photos).render,
        [
            lambda_slider(1e-2, low=1e-4, high=1e-1),
            Slider("steps", "steps K", 0, 8, 1, 1, unit=evaluations),
            Slider("scene", kind, 0, last, 1, 1, unit="each number is another picture"),
        ],
        size=coded_scenes.SIZE,
    )
