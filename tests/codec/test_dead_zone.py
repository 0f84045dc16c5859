"""Rounding that leans towards zero: where it starts to pay, what encoder and decoder make of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import picture, untrained, woken
from scipy.stats import norm, truncnorm

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.bits.scales import bin_width, scale_indexes
from dhp_lab.codec.create import with_settings
from dhp_lab.codec.denoising.decoder_state import SIGMA_Q, DecoderState
from dhp_lab.codec.denoising.denoiser import LatentDenoiser
from dhp_lab.codec.networks.gain import GainCurve

DEAD_ZONE = 0.35


def encoded(codec, x, lambda_rate=1e-3):
    return codec.encode(x, [lambda_code(lambda_rate)] * len(x))


@pytest.mark.parametrize("scale", [0.5, 0.7, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("q", [1, 2, 3])
def test_at_the_full_width_a_symbol_costs_as_much_as_the_one_below(scale, q):
    """MSE * pixels + lambda * bits of q and of q - 1, with the true probabilities and the curve's own Delta,
    at the edge.
    """
    lambda_rate = 1e-3
    delta = 2.0 ** GainCurve()(torch.tensor([lambda_rate])).item()
    edge = (q - 0.5) * bin_width(torch.tensor(scale), 1.0).item()

    def cost(symbol: int, residual: float) -> float:
        bits = -np.log2(norm.cdf(symbol + 0.5, scale=scale) - norm.cdf(symbol - 0.5, scale=scale))
        return delta**2 / 3 * (residual - symbol) ** 2 + lambda_rate * bits

    worth = 0.1 / scale**2  # of |rest|, by which the edge may be off
    assert cost(q, edge - worth) > cost(q - 1, edge - worth) and cost(q, edge + worth) < cost(
        q - 1, edge + worth
    )


def test_bins_are_one_step_wide_without_a_dead_zone_and_where_scales_are_large():
    scale = torch.tensor([0.125, 1.0, 64.0])
    assert torch.equal(bin_width(scale, 0.0), torch.ones(3))
    assert bin_width(scale, 0.5)[2].item() == pytest.approx(1, abs=1e-4)
    assert bin_width(torch.zeros(1), 0.5).item() == 1.5


@torch.no_grad()
@pytest.mark.parametrize("passes", [1, 2, 4])
def test_the_encoder_rounds_in_bins_of_that_width_and_the_decoder_follows(passes):
    codec, x = woken(passes=passes, dead_zone=DEAD_ZONE), picture(64, 80)
    latents = encoded(codec, x)
    expected = (latents.residual / bin_width(latents.scale, DEAD_ZONE)).round() * (
        scale_indexes(latents.log2_scale) > 0
    )
    assert torch.equal(latents.symbols, expected) and not torch.equal(expected, latents.residual.round())
    coded = codec.compress(x, 1e-3)
    assert torch.equal(
        codec.decompress(coded["strings"], coded["shape"])["x_hat"], codec(x, 1e-3)["x_hat"].clamp(0, 1)
    )


@torch.no_grad()
def test_a_dead_zone_makes_smaller_files_of_the_same_picture():
    x, sizes = picture(128, 128), []
    for dead_zone in (0.0, 0.25, 0.5, 1.0):
        coded = with_settings(woken(), dead_zone=dead_zone).compress(x, 3e-3)
        sizes.append(len(coded["strings"][0][0]))
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0]


@pytest.mark.parametrize("scale, q", [(0.25, 0), (0.25, 1), (0.7, -2), (2.0, 3)])
def test_the_denoisers_closed_form_uses_the_bins(scale, q):
    """At t* it is the mean of a Gaussian, a bin's width wider than the symbols' own, cut to that bin."""
    denoiser = LatentDenoiser(4, 1, DEAD_ZONE)
    torch.nn.init.ones_(denoiser.posterior_weight)
    one = torch.ones(1, 1, 1, 1)
    decoder_state = DecoderState(q * one, one, 0 * one, scale * one, torch.zeros(1), torch.ones(1))
    base, variance = (
        t.item() for t in denoiser.single_latent_posterior(q * one, SIGMA_Q * one, decoder_state)
    )
    width = 1 + DEAD_ZONE / (1 + 12 * scale**2)
    mean, expected = truncnorm.stats((q - 0.5) / scale, (q + 0.5) / scale, scale=width * scale, moments="mv")
    assert base == pytest.approx(mean, abs=1e-5) and variance == pytest.approx(expected, rel=1e-4)


def test_rounding_lets_the_gradient_through():
    codec = woken(dead_zone=DEAD_ZONE).train()
    latents = codec.training_latents(picture(64, 64), torch.tensor([1e-3]))
    expected = (latents.residual / bin_width(latents.scale, DEAD_ZONE)).round() * (
        scale_indexes(latents.log2_scale) > 0
    )  # silent ones too
    assert torch.equal(latents.symbols.detach(), expected.detach())
    (through,) = torch.autograd.grad(
        latents.symbols.sum(), latents.residual, retain_graph=True, allow_unused=True
    )
    (spread,) = torch.autograd.grad(latents.symbols.sum(), codec.log2_spread, retain_graph=True)
    (plain,) = torch.autograd.grad(latents.residual.sum(), codec.log2_spread)
    assert through is None and torch.allclose(
        spread, plain
    )  # rest is worked out twice: the same gradient reaches its sources


@torch.no_grad()
def test_a_dead_zone_is_the_encoders_and_can_be_changed():
    codec = woken(passes=4)
    leaning = with_settings(codec, dead_zone=0.5)
    assert (leaning.config.dead_zone, leaning.config.passes, with_settings(leaning)) == (0.5, 4, leaning)
    x = picture(64, 64)
    coded = leaning.compress(x)
    one, other = (
        model.decompress(coded["strings"], coded["shape"], steps=0)["x_hat"] for model in (codec, leaning)
    )
    assert torch.equal(one, other)  # only D's closed form uses it


@pytest.mark.parametrize(
    "settings", [{"dead_zone": -0.1}, {"dead_zone": 1.5}, {"dead_zone": 0.3, "transmit": "z"}]
)
def test_dead_zones_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="dead_zone must lie in 0 .. 1, and be 0 with z alone; got"):
        untrained(**settings)
