"""Each scheduler of diffusers that takes a chain's betas, tried on the denoiser: the table in the adapter."""

from __future__ import annotations

import inspect

import diffusers
import pytest
import torch
from models import picture, untrained, woken

from dhp_lab.codec import diffusers_adapter
from dhp_lab.codec.diffusers_adapter import DenoiserView
from dhp_lab.codec.entropy_coding import decode_latents

STEPS = 20
BOTH = {"sample", "epsilon"}
# What of "sample" and "epsilon" each takes; tried with 10 of the chain's 20 steps.
TAKES = {
    "CogVideoXDDIMScheduler": BOTH,
    "CogVideoXDPMScheduler": set(),  # its step takes the last two estimates and times
    "DDIMInverseScheduler": set(),  # from a clean sample to noise
    "DDIMParallelScheduler": BOTH,
    "DDIMScheduler": BOTH,
    "DDPMParallelScheduler": BOTH,
    "DDPMScheduler": BOTH,
    "DEISMultistepScheduler": BOTH,
    "DPMSolverMultistepInverseScheduler": set(),  # from a clean sample to noise
    "DPMSolverMultistepScheduler": BOTH,
    "DPMSolverSinglestepScheduler": BOTH,
    "EulerAncestralDiscreteScheduler": {"epsilon"},
    "EulerDiscreteScheduler": BOTH,
    "HeunDiscreteScheduler": BOTH,
    "KDPM2AncestralDiscreteScheduler": {"epsilon"},
    "KDPM2DiscreteScheduler": {"epsilon"},
    "LCMScheduler": BOTH,
    "LMSDiscreteScheduler": BOTH,
    "PNDMScheduler": {"epsilon"},
    "SASolverScheduler": BOTH,
    "TCDScheduler": BOTH,
    "UniPCMultistepScheduler": BOTH,
}
REFUSED = [
    (name, kind) for name, kinds in TAKES.items() if kinds for kind in sorted(BOTH - kinds)
]  # the scheduler itself says so
WORKS = [(name, kind) for name, kinds in TAKES.items() for kind in sorted(kinds)]


@pytest.fixture(scope="module")
def decode():
    """A small model with a denoiser that does something, and the decoder's state from z alone."""
    model = untrained(diffusion_steps=STEPS)
    torch.nn.init.normal_(model.denoiser.exit.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    coded = model.compress(picture(64, 96))
    return model, decode_latents(model, [[None], *coded["strings"][1:]], coded["shape"])


@torch.no_grad()
def spread_of_sample(model, state, name: str, prediction_type: str, **settings) -> float:
    """Root mean square distance of a sample from the mean, over what h_s predicts."""
    kind = getattr(diffusers, name)
    parameters = inspect.signature(kind.__init__).parameters
    optional = {"clip_sample": False, "original_inference_steps": STEPS}
    optional = {name: value for name, value in optional.items() if name in parameters}
    betas = model.noise_schedule.betas.numpy()
    scheduler = kind(STEPS, trained_betas=betas, prediction_type=prediction_type, **optional, **settings)
    scheduler.set_timesteps(10)
    view = DenoiserView(model, state, prediction_type)
    noise = torch.randn(state.mean.shape, generator=torch.Generator().manual_seed(0))
    sample = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, timestep)
        sample = scheduler.step(view(scaled, timestep).sample, timestep, sample).prev_sample
    distance = (view.latents(sample) - state.mean * state.delta).square().mean().sqrt()
    return (distance / (state.scale * state.delta).square().mean().sqrt()).item()


def test_every_scheduler_that_takes_a_chain_is_in_the_table():
    found = set()
    for name in dir(diffusers):
        kind = getattr(diffusers, name) if name.endswith("Scheduler") else None
        if inspect.isclass(kind) and "dummy" not in kind.__module__:  # a dummy lacks a package
            needed = {"num_train_timesteps", "trained_betas", "prediction_type"}
            found |= {name} if needed <= inspect.signature(kind.__init__).parameters.keys() else set()
    assert found == TAKES.keys()


@pytest.mark.parametrize("name, prediction_type", WORKS)
def test_a_scheduler_reaches_a_clean_sample(decode, name, prediction_type):
    assert 0.5 < spread_of_sample(*decode, name, prediction_type) < 1.5


@pytest.mark.parametrize("name, prediction_type", REFUSED)
def test_a_scheduler_refuses_a_prediction(decode, name, prediction_type):
    with pytest.raises((NotImplementedError, ValueError), match="prediction_type"):
        spread_of_sample(*decode, name, prediction_type)


@pytest.mark.parametrize("settings", [{"use_karras_sigmas": True}, {"timestep_spacing": "trailing"}, {}])
def test_fractional_times_reach_a_clean_sample(decode, settings):
    assert 0.4 < spread_of_sample(*decode, "EulerDiscreteScheduler", "epsilon", **settings) < 1.5


def test_the_table_of_the_adapter_is_this_one():
    text = diffusers_adapter.__doc__
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    (_, *kinds), _, *rows = rows
    written = {
        f"{name}Scheduler": {kind for kind, works in zip(kinds, answers, strict=True) if works == "yes"}
        for names, *answers in rows
        for name in names.split(", ")
    }
    assert written == {name: kinds for name, kinds in TAKES.items() if kinds}
    assert f"diffusers {diffusers.__version__}" in text


@torch.no_grad()
@pytest.mark.parametrize("lambda_rate", [1e-2, 1e-3, 1e-4])
def test_one_evaluation_at_the_time_of_rounding_is_k_1(lambda_rate):
    """t* is a fraction, and the sampler's K = 1 is one evaluation there."""
    model = woken(diffusion_steps=STEPS)
    coded = model.compress(picture(48, 64), lambda_rate)
    state = decode_latents(model, coded["strings"], coded["shape"])
    t_star = model.start_time(state.delta.item())
    assert t_star % 1 > 0.01
    root = model.noise_schedule.alpha_bar(t_star).sqrt().item()
    expected = model.sampler.sample(state, steps=1)
    for prediction_type in ("sample", "epsilon"):
        view = DenoiserView(model, state, prediction_type)
        sample = state.symbols * view.unit * root
        output = view(sample, t_star - 1).sample
        sigma = model.noise_schedule.sigma(t_star).item()
        clean = output if prediction_type == "sample" else sample / root - sigma * output
        assert (view.latents(clean) - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.no_grad()
def test_a_fraction_lies_between_its_neighbours():
    model = woken(diffusion_steps=STEPS)
    coded = model.compress(picture(48, 64))
    view = DenoiserView(model, decode_latents(model, [[None], *coded["strings"][1:]], coded["shape"]))
    sample = torch.randn(view.decoder_state.mean.shape, generator=torch.Generator().manual_seed(0))
    low, middle, high = (view(sample, t).sample for t in (5, torch.tensor(5.5), 6.0))
    assert not torch.equal(low, middle)
    distance = (high - low).norm()
    assert max((middle - low).norm(), (high - middle).norm()) < distance
    for timestep in (-1.5, STEPS - 0.5):
        with pytest.raises(ValueError, match="t must lie in"):
            view(sample, timestep)


def test_another_prediction_is_refused(decode):
    with pytest.raises(
        ValueError, match="prediction_type must be one of sample, epsilon, got 'v_prediction'"
    ):
        DenoiserView(*decode, "v_prediction")
