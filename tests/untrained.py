"""Small untrained networks of latent diffusion that several tests share; each is always the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, VQModel
from oracles import seeded
from torch import Tensor, nn

from dhp_lab.latent.autoencoders import kl_autoencoder, vq_autoencoder
from dhp_lab.latent.pipeline import V_PREDICTION, LatentDiffusion
from dhp_lab.training.latent_diffusion import LatentConfig, new_latent_diffusion

CODES = 7


def fixed(make: Callable, *args, **settings) -> nn.Module:
    """What ``make`` creates, from one seed and in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*args, **settings).eval()


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks agree in every name and every bit."""
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(x == y and torch.equal(v, w) for (x, v), (y, w) in pairs)


def small_kl() -> AutoencoderKL:
    """A KL autoencoder with f = 4."""
    return fixed(kl_autoencoder, 4, widths=(8, 8, 16))


def small_vq() -> VQModel:
    """A VQ autoencoder whose codes are as far apart as the latents are, so that several are used."""
    model = fixed(vq_autoencoder, 4, codes=CODES, widths=(8, 8, 16))
    model.quantize.embedding.weight.data = torch.randn(CODES, 4, generator=seeded(1)) * 0.2
    return model


def small_unet(seed: int = 0, **changes) -> UNet2DConditionModel:
    """A narrow U-Net with Stable Diffusion's layout and random weights."""
    shape = {
        "sample_size": 16,
        "block_out_channels": (8, 8, 16, 16),
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DConditionModel(**shape | changes).eval()


def unet_inputs(unet: UNet2DConditionModel, count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, times and contexts for a U-Net."""
    side, width = unet.config.sample_size, unet.config.cross_attention_dim
    z_t = torch.randn(count, 4, side, side, generator=seeded(1))
    context = torch.randn(count, 5, width, generator=seeded(2))
    return z_t, torch.linspace(3.0, 900.0, count), context


def _pipeline(seed: int, config: LatentConfig) -> LatentDiffusion:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = kl_autoencoder(8, widths=(8, 8, 8, 8)).eval()
        vae.register_to_config(scaling_factor=1.7)
        return new_latent_diffusion(config, vae)


def small_pipeline(seed: int = 0) -> LatentDiffusion:
    """A pipeline of the shipped kind, with f = 8."""
    return _pipeline(seed, LatentConfig(widths=(16,), attention=(True,), text_width=8, text_layers=1))


def two_stage_pipeline(prediction: str = V_PREDICTION) -> LatentDiffusion:
    """One whose U-Net has an inner stage, which looks at captions; in eval mode, the autoencoder frozen."""
    config = LatentConfig(widths=(16, 16), attention=(True, True), text_width=8, text_layers=1)
    model = replace(_pipeline(0, config), prediction=prediction)
    model.vae.requires_grad_(False)
    for part in (model.unet, model.text_encoder):
        part.eval()
    return model
