"""The denoiser's network: silent when untrained, scaled by what is left to estimate, finite at extremes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from models import M, N, decoder_state, picture, woken

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.denoising.decoder_state import SIGMA_Q, truncated_gaussian_moments
from dhp_lab.codec.denoising.denoiser import LatentDenoiser


@pytest.fixture(scope="module")
def denoiser() -> LatentDenoiser:
    """One channel, untrained but for its posterior weight."""
    network = LatentDenoiser(4, 1)
    torch.nn.init.ones_(network.posterior_weight)
    return network


# the network


@torch.no_grad()
def test_an_untrained_denoiser_is_its_closed_form():
    denoiser, generator = LatentDenoiser(N, M), torch.Generator().manual_seed(0)
    symbols = torch.randn(2, M, 5, 7, generator=generator).mul(2).round()
    facts = decoder_state(symbols, torch.rand(symbols.shape, generator=generator) + 0.1, channels=M)
    u, sigma = symbols + 0.1 * torch.randn(symbols.shape, generator=generator), torch.full((2, 1, 5, 7), 0.2)
    for ours, expected in zip(
        denoiser(u, sigma, facts), denoiser.single_latent_posterior(u, sigma, facts), strict=True
    ):
        assert torch.equal(ours, expected) and ours.shape == symbols.shape


@torch.no_grad()
def test_the_networks_output_is_scaled_by_the_posterior_deviation():
    """D - base is at most the network's output times the closed form's deviation: nothing where nothing is
    open.
    """
    denoiser, generator = LatentDenoiser(N, M), torch.Generator().manual_seed(0)
    torch.nn.init.constant_(denoiser.exit.bias, 2.0)
    symbols = torch.zeros(1, M, 4, 4)
    facts = decoder_state(symbols, torch.rand(symbols.shape, generator=generator) + 0.1, channels=M)
    sigma = torch.full((1, 1, 4, 4), SIGMA_Q)
    clean, variance = denoiser(symbols, sigma, facts)
    base, _ = denoiser.single_latent_posterior(symbols, sigma, facts)
    assert (clean - base - 2.0 * variance.sqrt()).abs().max() < 1e-6
    nothing_open, _ = denoiser(symbols + 0.2, torch.zeros_like(sigma), facts)
    assert (nothing_open - 0.2).abs().max() < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("decoded", [1.0, 0.0])
@pytest.mark.parametrize("log_factor", [-2.0, 1.0])
def test_the_variance_at_the_start_is_that_before_the_state_is_seen(log_factor, decoded):
    """As if the bin's variance v (without a bin, the prior's) were exp(log_factor) as large: Bayes' rule with
    that.
    """
    denoiser, generator = LatentDenoiser(N, M), torch.Generator().manual_seed(0)
    torch.nn.init.constant_(denoiser.log_variance_head.bias, log_factor)
    facts = decoder_state(
        torch.randn(1, M, 4, 4, generator=generator).round(),
        torch.rand(1, M, 4, 4, generator=generator) + 0.1,
        decoded,
        M,
    )
    v = truncated_gaussian_moments(facts.symbols, facts.scale)[1] if decoded else facts.scale.square()
    for sigma in (0.01, 0.2, SIGMA_Q):
        of_noise = sigma**2 / (
            1 - decoded * sigma**2 / SIGMA_Q**2 + 1e-12
        )  # of u about rest, where q is known too
        expected = 1 / (1 / of_noise + math.exp(-log_factor) / v)
        predicted_variance = denoiser(facts.symbols, torch.full((1, 1, 4, 4), sigma), facts)[1]
        assert torch.allclose(predicted_variance, expected, rtol=1e-4)


@pytest.mark.slow
def test_the_second_head_learns_how_far_off_the_first_is():
    """Latents three times as wide as the hyperprior says: D's mean stays, and the error it foretells becomes
    the true one.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser, generator = LatentDenoiser(N, M), torch.Generator().manual_seed(0)
    residual = 0.3 * torch.randn(1, M, 64, 64, generator=generator)
    residual = torch.where(residual.abs() < 0.5, residual, 0.0)
    facts = decoder_state(torch.zeros_like(residual), torch.full_like(residual, 0.1), channels=M)
    sigma = torch.full((1, 1, 64, 64), SIGMA_Q)
    optimizer = torch.optim.Adam(denoiser.parameters(), 0.1)
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 100)
        clean, predicted_variance = denoiser(torch.zeros_like(residual), sigma, facts)
        optimizer.zero_grad()
        (residual.square() / predicted_variance + predicted_variance.log()).mean().backward()
        optimizer.step()
    assert bool((clean == 0).all())
    assert predicted_variance.mean().item() == pytest.approx(residual.square().mean().item(), rel=0.05)
    assert (
        denoiser.single_latent_posterior(torch.zeros_like(residual), sigma, facts)[1].mean().item()
        < 0.2 * residual.square().mean().item()
    )


@torch.no_grad()
def test_extremes_stay_finite():
    denoiser = LatentDenoiser(N, M)
    torch.nn.init.normal_(denoiser.exit.weight)
    for q, scale, sigma in ((0, 1e-6, 1e-9), (2000, 1e-6, SIGMA_Q), (-2000, 1e6, 0.0), (1, 1e-3, 1e3)):
        facts = decoder_state(
            torch.full((1, M, 3, 3), float(q)), torch.full((1, M, 3, 3), scale), float(sigma < 1), channels=M
        )
        clean, variance = denoiser(facts.symbols, torch.full((1, 1, 3, 3), sigma), facts)
        assert bool(clean.isfinite().all()) and bool((variance >= 0).all())


def test_a_window_is_a_rectangle_of_everything():
    symbols = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    facts = decoder_state(symbols, symbols + 1, channels=3)
    part = facts.window(slice(1, 3), slice(0, 2))
    assert torch.equal(part.symbols, symbols[..., 1:3, :2]) and torch.equal(
        part.scale, symbols[..., 1:3, :2] + 1
    )
    assert part.mean.shape == (2, 3, 2, 2) and part.decoded.shape == (2, 1, 2, 2)
    assert part.log2_delta is facts.log2_delta and part.std is facts.std


@torch.no_grad()
def test_moments_worked_out_beforehand_change_nothing(denoiser):
    """``with_moments`` holds what D would work out itself; D uses it, also through a window."""
    symbols, scale = torch.arange(-4.0, 5).view(1, 1, 3, 3), torch.linspace(0.1, 3, 9).view(1, 1, 3, 3)
    plain, sigma = decoder_state(symbols, scale), torch.full((1, 1, 3, 3), SIGMA_Q / 2)
    ready = plain.with_moments()
    assert all(
        torch.equal(a, b)
        for a, b in zip(ready.moments, truncated_gaussian_moments(symbols, scale), strict=True)
    )
    assert torch.equal(denoiser(symbols, sigma, ready)[0], denoiser(symbols, sigma, plain)[0])
    part = ready.window(slice(1, 3), slice(0, 2))
    assert all(
        torch.equal(a, b)
        for a, b in zip(part.moments, truncated_gaussian_moments(part.symbols, part.scale), strict=True)
    )
    doubled = replace(ready, moments=tuple(2 * moment for moment in ready.moments))
    assert torch.allclose(
        denoiser.single_latent_posterior(symbols, 2 * sigma, doubled)[0],
        2 * truncated_gaussian_moments(symbols, scale)[0],
    )


def test_detached_facts_carry_no_gradient():
    scale = torch.full((1, 1, 2, 2), 0.5, requires_grad=True)
    facts = decoder_state(torch.ones(1, 1, 2, 2), scale * 2).with_moments()
    still = facts.detach()
    assert facts.scale.requires_grad and facts.moments[1].requires_grad
    assert not (still.scale.requires_grad or any(moment.requires_grad for moment in still.moments))
    assert torch.equal(still.scale, facts.scale) and torch.equal(still.symbols, facts.symbols)


@torch.no_grad()
def test_the_network_moves_a_latent_by_four_standard_deviations_at_most():
    """On drawn patterns its body can run away from all that it was trained on."""
    denoiser = LatentDenoiser(N, M)
    torch.nn.init.constant_(denoiser.exit.bias, 1e6)
    what = decoder_state(torch.zeros(1, M, 3, 3), torch.ones(1, M, 3, 3), channels=M)
    clean, variance = denoiser(what.symbols, SIGMA_Q * what.decoded, what)
    base, spread = denoiser.single_latent_posterior(what.symbols, SIGMA_Q * what.decoded, what)
    assert torch.allclose(clean, base + 4 * spread.sqrt())


@torch.no_grad()
def test_the_network_leaves_the_channels_beyond_320_alone():
    """They get the posterior of a single latent, and do not reach the others."""
    model = woken(N=4, M=330)
    state = model.decoder_state(model.encode(picture(64, 64), [lambda_code(1e-4)]))
    sigma = SIGMA_Q * state.decoded
    mean, variance = model.denoiser(state.symbols, sigma, state)
    base, spread = model.denoiser.single_latent_posterior(state.symbols, sigma, state)
    assert torch.equal(mean[:, 320:], base[:, 320:]) and not torch.equal(mean[:, :320], base[:, :320])
    assert torch.allclose(variance[:, 320:], spread[:, 320:])
    others = state.symbols.clone()
    others[:, 320:] += 1
    changed = replace(state, symbols=others, moments=None)
    assert torch.equal(model.denoiser(state.symbols, sigma, changed)[0][:, :320], mean[:, :320])
