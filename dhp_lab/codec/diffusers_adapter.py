"""The latent denoiser as a diffusers model, so that any scheduler of diffusers can drive it.

Our states are unscaled, in quantiser steps; a diffusers scheduler scales them by sqrt(alpha_bar) and counts
whole timesteps from 0, where ours counts times from 1:

    sample = sqrt(alpha_bar_t) * u * Delta / latent_scale,        timestep = t - 1

    betas = model.noise_schedule.betas.numpy()
    scheduler = DDIMScheduler(len(betas), trained_betas=betas, prediction_type="sample", clip_sample=False)
    view = DenoiserView(model, decode_latents(model, strings, shape))
    for timestep in scheduler.timesteps:
        sample = scheduler.step(view(sample, timestep).sample, timestep, sample).prev_sample
    y_hat = view.latents(sample)
"""

from __future__ import annotations

import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from dhp_lab.codec.denoising.decoder_state import SIGMA_Q, DecoderState
from dhp_lab.codec.model import DiffusionHyperprior


class DenoiserView(nn.Module):
    """D for one decode: the decoder's state is fixed, the noisy sample and the timestep are the scheduler's.

    Args:
        model: the codec. decoder_state: from ``decode_latents`` or ``model.decoder_state``.
    """

    def __init__(self, model: DiffusionHyperprior, decoder_state: DecoderState) -> None:
        super().__init__()
        self.model, self.decoder_state = model, decoder_state
        self.unit = decoder_state.delta / model.latent_scale  # a quantiser step in the scheduler's unit

    def forward(self, sample: Tensor, timestep: int | Tensor) -> UNet2DOutput:
        """Predict the clean sample (prediction_type "sample").

        Args:
            sample: (B, M, h, w), scaled by sqrt(alpha_bar). timestep: whole number in 0 .. T - 1.

        Raises:
            ValueError: a timestep out of range.
        """
        t, schedule, state = int(timestep) + 1, self.model.noise_schedule, self.decoder_state
        root = schedule.alpha_bar(t).sqrt().item()
        sigma = (schedule.sigma(t).item() / self.unit).expand_as(state.decoded)
        sigma = torch.where(state.decoded > 0, sigma.clamp(max=SIGMA_Q), sigma)
        clean, _ = self.model.denoiser(sample / root / self.unit, sigma, state)
        return UNet2DOutput(sample=clean * self.unit)

    def latents(self, sample: Tensor) -> Tensor:
        """A clean sample as latents for g_s, (B, M, h, w)."""
        return (sample / self.unit + self.decoder_state.mean) * self.decoder_state.delta
