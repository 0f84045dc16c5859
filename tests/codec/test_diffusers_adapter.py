"""Schedulers of diffusers drive the latent denoiser."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from dhp_lab.codec.create import create_diffusion_hyperprior_model
from dhp_lab.codec.denoising.sampling import posterior_step
from dhp_lab.codec.diffusers_adapter import DenoiserView
from dhp_lab.codec.entropy_coding import decode_latents


@pytest.fixture(scope="module")
def decode():
    """A small model with a denoiser that does something, and the state of the decoder of a picture from z
    alone.
    """
    torch.manual_seed(0)
    model = create_diffusion_hyperprior_model(16, 24, 20).eval()
    torch.nn.init.normal_(model.denoiser.exit.weight, std=0.05)
    coded = model.compress(torch.rand(1, 3, 64, 96))
    return model, decode_latents(model, [[None], *coded["strings"][1:]], coded["shape"])


def scheduler(kind, model, inference_steps, **settings):
    steps = model.noise_schedule.steps
    made = kind(
        num_train_timesteps=steps,
        trained_betas=model.noise_schedule.betas.numpy(),
        prediction_type="sample",
        **settings,
    )
    made.set_timesteps(inference_steps)
    return made


@torch.no_grad()
def test_one_ddpm_step_of_diffusers_is_ours(decode):
    model, decoder_state = decode
    view, ddpm, schedule = (
        DenoiserView(model, decoder_state),
        scheduler(DDPMScheduler, model, 20, clip_sample=False),
        model.noise_schedule,
    )
    sample, generator = torch.randn(decoder_state.mean.shape), torch.Generator().manual_seed(1)
    for timestep in (19, 11, 3):
        theirs = ddpm.step(
            view(sample, timestep).sample, timestep, sample, generator=generator.manual_seed(1)
        ).prev_sample
        t, noise = timestep + 1, torch.randn(sample.shape, generator=generator.manual_seed(1))
        sigma, lower = (schedule.sigma(s).float() / view.unit for s in (t, t - 1))
        u = sample / schedule.alpha_bar(t).sqrt().float() / view.unit
        clean, _ = model.denoiser(u, sigma.expand_as(decoder_state.decoded), decoder_state)
        ours = (
            posterior_step(u, clean, torch.zeros_like(u), sigma, lower, noise)
            * view.unit
            * schedule.alpha_bar(t - 1).sqrt().float()
        )
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@torch.no_grad()
@pytest.mark.parametrize(
    "kind, settings",
    [
        (DDPMScheduler, {"clip_sample": False}),
        (DDIMScheduler, {"clip_sample": False}),
        (DPMSolverMultistepScheduler, {}),
    ],
)
def test_any_scheduler_reaches_a_clean_sample(decode, kind, settings):
    model, decoder_state = decode
    view, made = DenoiserView(model, decoder_state), scheduler(kind, model, 10, **settings)
    sample = torch.randn(decoder_state.mean.shape, generator=torch.Generator().manual_seed(0))
    for timestep in made.timesteps:
        sample = made.step(view(sample, timestep).sample, timestep, sample).prev_sample
    y_hat = view.latents(sample)
    spread = (decoder_state.scale * decoder_state.log2_delta.exp2()).square().mean().sqrt()
    distance = (y_hat - decoder_state.mean * decoder_state.log2_delta.exp2()).square().mean().sqrt()
    assert 0.2 * spread < distance < 2 * spread, "a sample of y should scatter about the mean as h_s says"
    assert model.synthesise(y_hat, decoder_state.log2_delta, (64, 96)).shape == (1, 3, 64, 96)


def test_a_timestep_beyond_the_schedule_is_refused(decode):
    with pytest.raises(ValueError, match="t must lie in"):
        DenoiserView(*decode)(torch.zeros_like(decode[1].mean), 20)
