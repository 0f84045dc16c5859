"""The explorer of the lesson on the diffusion hyperprior."""

from __future__ import annotations

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.photos import PHOTOS
from dhp_lab.lessons.diffusion_hyperprior import walk
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider, lambda_slider
from dhp_lab.training.realism_validation import validation_judges


def explore(model: DiffusionHyperprior) -> Explorer:
    """Lambda sets the noise, K and gamma what the decoder does from there; K > 1 has several decoders."""
    shown = walk.DecoderWalk(model, validation_judges(model.log2_spread.device))
    evaluations = "network evaluations; 0: none, 1: the fidelity decode"
    return Explorer(
        shown.render,
        [
            Dropdown("photo", "photo", PHOTOS, "chelsea"),
            Dropdown("decoder", "K > 1 draws", shown.decoders),
            lambda_slider(8e-3),
            Slider("steps", "steps K", 0, 8, 1, 2, unit=evaluations),
            Slider("gamma", "γ", 0.0, 1.0, 0.1, 0.0, unit="0: the sample, 1: K = 1"),
        ],
        size=walk.SIZE,
    )
