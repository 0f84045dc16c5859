"""The realism decoder: expected errors against quantised Gaussians, the U-Net against its closed form, the
sampler against the distribution that it solves.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import replace

import pytest
import torch
from models import decoder_state, picture, untrained, woken
from oracles import largest
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.denoising.decoder_state import truncated_gaussian_moments
from dhp_lab.codec.denoising.expected_error import BANDS, LEAST, expected_errors, latent_variance
from dhp_lab.codec.denoising.residual_sampling import START, ResidualSampler, residual_schedule
from dhp_lab.codec.denoising.residual_unet import Conditions, ResidualUNet, pixel_scale

SMALL = (8, 12, 16)


def conditions(rows: int = 4, cols: int = 6, count: int = 1) -> Conditions:
    generator = torch.Generator().manual_seed(0)
    errors = 0.01 + 0.05 * torch.rand(count, 1 + BANDS, rows, cols, generator=generator)
    return Conditions(picture(16 * rows, 16 * cols, count=count), errors, torch.full((count,), -2.0))


def network(seed: int = 0, *, awake: bool = True) -> ResidualUNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = ResidualUNet(SMALL).eval()
        if awake:
            torch.nn.init.normal_(unet.exit.weight, std=0.1)
    return unet.requires_grad_(False)


# the expected error


def test_the_expected_error_is_that_of_quantised_gaussians():
    """Latents drawn from the entropy model itself, through an orthonormal transform of all channels."""
    model, generator = untrained(N=4, M=768), torch.Generator().manual_seed(0)
    shape, log2_delta = (1, 768, 6, 8), torch.tensor([-4.0])
    scale = torch.exp(1.5 * torch.randn(1, 768, 1, 1, generator=generator) - 1).expand(shape).contiguous()
    latents = scale * torch.randn(shape, generator=generator)
    symbols = latents.round()
    state = replace(decoder_state(symbols, scale, channels=768), log2_delta=log2_delta)
    means, _ = truncated_gaussian_moments(symbols, scale)
    delta = log2_delta.exp2()
    pictures = [model.synthesise(delta * y, log2_delta, (96, 128)) for y in (latents, means)]
    true = (pictures[0] - pictures[1]).square().mean().sqrt().item()
    expected = expected_errors(state, 0.0)[:, 0].square().mean().sqrt().item()
    assert expected == pytest.approx(true, rel=0.03)


def test_the_bands_share_the_error_and_tiles_change_nothing():
    model = woken(M=40)
    state = model.decoder_state(model.encode(picture(96, 160), [lambda_code(1e-2)]))
    errors = expected_errors(state, 0.0)
    assert errors.shape == (1, 1 + BANDS, 6, 10) and errors.min().item() >= LEAST
    loud = errors[:, 1:].square().sum(1) > BANDS * LEAST**2 * 4
    assert torch.allclose(errors[:, 0][loud], errors[:, 1:].square().sum(1).sqrt()[loud], rtol=0.1)
    variance = latent_variance(state, 0.0)[:, : 40 // BANDS].sum(1) * state.delta[:, 0].square() / 768
    assert torch.allclose(errors[:, 1], variance.sqrt().clamp(min=LEAST), rtol=1e-5)
    assert torch.allclose(expected_errors(state, 0.0, tile=4), errors, rtol=1e-5)


def test_where_nothing_is_decoded_all_of_the_scale_is_left():
    model = woken()
    state = model.decoder_state(model.encode(picture(64, 64), [lambda_code(1e-3)]), decoded=False)
    assert torch.allclose(latent_variance(state, 0.0), state.scale.square())


def test_a_pixels_scale_is_that_of_its_place():
    errors = torch.full((1, 1 + BANDS, 3, 4), 0.03)
    assert torch.allclose(pixel_scale(errors), torch.full((1, 1, 48, 64), 0.03))
    errors[0, 0, 1, 2] = 0.12
    scale = pixel_scale(errors)[0, 0]
    assert scale[23:25, 39:41].mean().item() == pytest.approx(0.12, rel=0.2) and scale.max().item() <= 0.12
    assert scale[24, 48].item() == pytest.approx(math.sqrt(0.03 * 0.12), rel=0.1), (
        "the geometric mean between"
    )


# the network


@pytest.mark.parametrize("sigma", [0.05, 1.0, 3.0])
def test_an_untrained_network_is_the_posterior_mean_of_unit_variance(sigma):
    u = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    found = network(awake=False)(u, torch.full((2,), sigma), conditions(count=2))
    assert torch.allclose(found, u / (1 + sigma**2))


def test_each_picture_has_a_noise_level_of_its_own():
    u, both = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)), conditions(count=2)
    found = network()(u, torch.tensor([0.5, 2.0]), both)
    for i, sigma in enumerate((0.5, 2.0)):
        one = Conditions(both.picture[i : i + 1], both.errors[i : i + 1], both.log2_delta[i : i + 1])
        alone = network()(u[i : i + 1], torch.tensor([sigma]), one)
        assert largest(found[i : i + 1] - alone) < 0.02 * largest(alone)


def test_the_gradient_reaches_every_layer():
    unet, u = network().requires_grad_(True), torch.randn(1, 3, 64, 96)
    unet(u, torch.tensor([1.0]), conditions()).square().mean().backward()
    assert all(bool(p.grad.any()) for p in unet.parameters())


# the sampler


def test_the_tile_does_not_change_the_picture(in_float32):
    """Its overlap is larger than what a pixel depends on, in each step."""
    where, unet = conditions(20, 40), network()
    whole, tiled = (
        ResidualSampler(unet, residual_schedule(), tile).sample(where, steps=3, seed=2) for tile in (64, 12)
    )
    assert largest(whole - tiled) < 1e-5 < 1e-2 < largest(whole - where.picture)


def test_the_noise_of_a_picture_is_that_of_its_seed():
    noise = ResidualSampler(network(), residual_schedule()).noise(torch.Size((2, 3, 32, 48)), 5)
    wanted = torch.randn(3, 32, 48, generator=torch.Generator().manual_seed(5))
    assert torch.equal(noise, torch.stack([wanted, wanted]))


class Alive(TorchDispatchMode):
    """The greatest number of tensors of some size that were made in it and lived at once."""

    def __init__(self, numel: int) -> None:
        super().__init__()
        self.numel, self.made, self.most = numel, {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.numel() == self.numel:
                self.made.setdefault(tensor.data_ptr(), []).append(weakref.ref(tensor))
        alive = [place for place, those in self.made.items() if any(one() is not None for one in those)]
        self.most = max(self.most, len(alive))
        return result


def test_two_states_of_the_whole_picture_are_held_at_once():
    where = conditions(20, 40)
    with Alive(where.picture.numel()) as alive:
        ResidualSampler(network(), residual_schedule(), 12).sample(where, steps=4, gamma=0.5)
    assert alive.most == 2


def test_a_seed_is_a_picture_in_any_batch():
    sampler, both = ResidualSampler(network(), residual_schedule()), conditions(count=2)
    one = Conditions(both.picture[:1], both.errors[:1], both.log2_delta[:1])
    first, again, other = (sampler.sample(one, steps=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and largest(first - other) > 1e-3
    assert largest(sampler.sample(both, steps=3, seed=1)[:1] - first) < 0.02 * largest(first - one.picture)


def test_gamma_leads_back_to_the_decoded_picture():
    sampler, where = ResidualSampler(network(), residual_schedule()), conditions()
    drawn, half, none = (sampler.sample(where, steps=2, gamma=gamma) for gamma in (0.0, 0.5, 1.0))
    assert torch.equal(none, where.picture)
    assert torch.allclose(half, (drawn + none) / 2, atol=1e-6)


@pytest.mark.parametrize("steps", [4, 100])
def test_samples_have_the_spread_of_what_was_learnt(steps):
    """The untrained network's data are white noise of variance 1 in units of e; the chain starts at 3, where
    its marginal has sqrt(1 + 9), so a share 3 / sqrt(10) of the spread is drawn.
    """
    where = conditions(16, 16)
    sampler = ResidualSampler(network(awake=False), residual_schedule())
    drawn = (sampler.sample(where, steps=steps) - where.picture) / pixel_scale(where.errors)
    if steps == 100:
        assert drawn.std().item() == pytest.approx(START / math.sqrt(1 + START**2), rel=0.05)
    else:
        assert 0.6 < drawn.std().item() < 1.0, "few steps lose some of it"


@pytest.mark.parametrize("steps", [0, 1001])
def test_steps_out_of_range_are_refused(steps):
    with pytest.raises(ValueError, match=f"count must lie in 1 .. 1000.*got {steps}"):
        ResidualSampler(network(), residual_schedule()).sample(conditions(), steps=steps)


def test_the_schedule_is_at_the_levels_of_two_steps():
    levels = [residual_schedule().sigma(t).item() for t in residual_schedule().times(2)]
    assert levels == pytest.approx([3.0, 0.69, 0.0], abs=0.01)
