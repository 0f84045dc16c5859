"""The latent denoiser as a diffusers model, so that a scheduler of diffusers can drive it.

Our states are unscaled, in quantiser steps; a diffusers scheduler scales them by sqrt(alpha_bar) and counts
timesteps from 0, where ours counts times from 1. Timesteps may be fractions:

    sample = sqrt(alpha_bar_t) * u * Delta / latent_scale,        timestep = t - 1

    betas = model.noise_schedule.betas.numpy()
    scheduler = DDIMScheduler(len(betas), trained_betas=betas, prediction_type="sample", clip_sample=False)
    view = DenoiserView(model, decode_latents(model, strings, shape))
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, timestep)
        sample = scheduler.step(view(scaled, timestep).sample, timestep, sample).prev_sample
    y_hat = view.latents(sample)

Which schedulers of diffusers 0.42.1 work (each is tried in tests/codec/test_schedulers_of_diffusers.py):

| schedulers                                                           | sample | epsilon |
|----------------------------------------------------------------------|--------|---------|
| CogVideoXDDIM, DDIM, DDIMParallel, DDPM, DDPMParallel, DEISMultistep | yes    | yes     |
| DPMSolverMultistep, DPMSolverSinglestep, EulerDiscrete, HeunDiscrete | yes    | yes     |
| LCM, LMSDiscrete, SASolver, TCD, UniPCMultistep                      | yes    | yes     |
| EulerAncestralDiscrete, KDPM2AncestralDiscrete, KDPM2Discrete, PNDM  | no     | yes     |

The inverse ones run from a picture to noise, CogVideoXDPM's step takes more arguments, and the others take no
chain of betas, or predict velocities.
"""

from __future__ import annotations

import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from dhp_lab.codec.denoising.decoder_state import SIGMA_Q, DecoderState
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.precision import float32_by_default

PREDICTIONS = ("sample", "epsilon")


class DenoiserView(nn.Module):
    """D for one decode: the decoder's state is fixed, the noisy sample and the timestep are the scheduler's.

    Args:
        model: the codec. decoder_state: from ``decode_latents`` or ``model.decoder_state``.
        prediction_type: the scheduler's: "sample" (x0) or "epsilon" (the noise).

    Raises:
        ValueError: another prediction.
    """

    def __init__(
        self, model: DiffusionHyperprior, decoder_state: DecoderState, prediction_type: str = "sample"
    ) -> None:
        super().__init__()
        if prediction_type not in PREDICTIONS:
            raise ValueError(
                f"prediction_type must be one of {', '.join(PREDICTIONS)}, got {prediction_type!r}"
            )
        self.model, self.decoder_state, self.prediction_type = model, decoder_state, prediction_type
        self.unit = decoder_state.delta / model.latent_scale  # a quantiser step in the scheduler's unit

    @float32_by_default()
    def forward(self, sample: Tensor, timestep: float | Tensor) -> UNet2DOutput:
        """Predict the clean sample, or the noise.

        Args:
            sample: (B, M, h, w), scaled by sqrt(alpha_bar). timestep: in (-1, T - 1], a fraction between two
                of the chain's.

        Raises:
            ValueError: a timestep out of range.
        """
        t, schedule, state = float(timestep) + 1, self.model.noise_schedule, self.decoder_state
        root = schedule.alpha_bar(t).sqrt().item()
        level = (schedule.sigma(t).item() / self.unit).expand_as(state.decoded)
        sigma = torch.where(state.decoded > 0, level.clamp(max=SIGMA_Q), level)
        u = sample.to(self.unit.dtype) / root / self.unit
        clean, _ = self.model.denoiser(u, sigma, state)
        if self.prediction_type == "epsilon":
            return UNet2DOutput(sample=(u - clean) / level)
        return UNet2DOutput(sample=clean * self.unit)

    def latents(self, sample: Tensor) -> Tensor:
        """A clean sample as latents for g_s, (B, M, h, w)."""
        return (sample / self.unit + self.decoder_state.mean) * self.decoder_state.delta
