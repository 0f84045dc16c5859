"""Models that several tests of lessons share."""

import pytest
import torch

from dhp_lab.latent.autoencoders import kl_autoencoder
from dhp_lab.latent.pipeline import LatentDiffusion
from dhp_lab.training.latent_diffusion import LatentConfig, new_latent_diffusion

SMALL = LatentConfig(
    widths=(16, 16), attention=(True, True), text_width=16, text_layers=1, diffusion_steps=20
)


@pytest.fixture(scope="session")
def small_latent_diffusion() -> LatentDiffusion:
    """An untrained latent diffusion model with f = 8; a test leaves it as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = new_latent_diffusion(SMALL, kl_autoencoder(8, widths=(8, 8, 8, 16)))
    for part in (model.vae, model.unet, model.text_encoder):
        part.eval().requires_grad_(False)
    return model
