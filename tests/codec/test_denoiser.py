"""The denoiser's closed form against brute-force integration, its chain against its own marginals and against
diffusers.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from models import decoder_state
from scipy.stats import truncnorm

from dhp_lab.codec.denoising.decoder_state import FARTHEST, SIGMA_Q, DecoderState, truncated_gaussian_moments
from dhp_lab.codec.denoising.denoiser import LatentDenoiser
from dhp_lab.codec.denoising.sampling import bridge_sample, posterior_step
from dhp_lab.diffusion.schedules import linear

NODES, WEIGHTS = np.polynomial.legendre.leggauss(300)


def plane(values) -> torch.Tensor:
    """Numbers as latents (1, 1, 1, n)."""
    return torch.tensor(np.asarray(values), dtype=torch.float32).view(1, 1, 1, -1)


@pytest.fixture(scope="module")
def denoiser() -> LatentDenoiser:
    """One channel, untrained but for its posterior weight."""
    network = LatentDenoiser(4, 1)
    torch.nn.init.ones_(network.posterior_weight)
    return network


# a Gaussian cut to a bin


def grid() -> tuple[np.ndarray, np.ndarray]:
    """Scales 0.02 .. 1000 and symbols -50 .. 50, as far out as ``truncated_gaussian_moments`` goes."""
    scale, q = (a.ravel() for a in np.meshgrid(np.geomspace(0.02, 1000, 61), np.arange(-50.0, 51)))
    inside = np.abs(q) - 0.5 <= FARTHEST * scale
    return scale[inside], q[inside]


def moments(log_density: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance by Gauss-Legendre integration along the last axis; x lies on ``NODES`` of any
    interval.
    """
    weight = np.exp(log_density - log_density.max(-1, keepdims=True)) * WEIGHTS
    weight /= weight.sum(-1, keepdims=True)
    mean = (weight * x).sum(-1)
    return mean, (weight * (x - mean[..., None]) ** 2).sum(-1)


def test_bin_moments_are_those_of_scipys_truncated_gaussian():
    """Over the whole grid up to float32's rounding: means within 5e-6 of a step, variances within 1e-5 of
    themselves.
    """
    scale, q = grid()
    mean, variance = truncnorm.stats((q - 0.5) / scale, (q + 0.5) / scale, scale=scale, moments="mv")
    m, v = (
        a.double().numpy()
        for a in truncated_gaussian_moments(torch.from_numpy(q).float(), torch.from_numpy(scale).float())
    )
    assert np.abs(m - mean).max() < 5e-6
    assert np.abs(v / variance - 1).max() < 1e-5


def test_bin_moments_far_out_in_wide_gaussians():
    """Symbols of up to six scales, where densities that are almost equal are subtracted, and beyond scales of
    1000.
    """
    scale = np.repeat(np.geomspace(2, 3000, 40), 13)
    q = np.trunc(np.tile(np.linspace(-FARTHEST, FARTHEST, 13), 40) * scale)
    mean, variance = moments(-0.5 * ((q[:, None] + NODES / 2) / scale[:, None]) ** 2, NODES / 2)
    m, v = (
        a.double().numpy()
        for a in truncated_gaussian_moments(torch.from_numpy(q).float(), torch.from_numpy(scale).float())
    )
    assert np.abs(m - q - mean).max() < 1e-6 + 2**-24 * np.abs(q).max()
    assert np.abs(v / variance - 1).max() < 1e-3


def test_bin_moments_are_odd_and_even_and_inside_the_bin():
    scale, q = (torch.from_numpy(a).float() for a in grid())
    m, v = truncated_gaussian_moments(q, scale)
    opposite_m, opposite_v = truncated_gaussian_moments(-q, scale)
    assert torch.equal(opposite_m, -m) and torch.equal(opposite_v, v)
    assert bool(((m - q).abs() <= 0.5).all()) and bool((v > 0).all()) and v.max() <= SIGMA_Q**2


def test_a_bin_beyond_six_scales_counts_as_one_at_six():
    q = torch.tensor([3.0, -3.0, 40.0])
    at_six = (q.abs() - 0.5) / FARTHEST
    for scale in (at_six / 2, at_six / 100, torch.full_like(q, 1e-6)):
        for ours, expected in zip(
            truncated_gaussian_moments(q, scale), truncated_gaussian_moments(q, at_six), strict=True
        ):
            assert (ours - expected).abs().max() < 1e-6


# one noisy latent


@torch.no_grad()
def closed(denoiser: LatentDenoiser, u, q, scale, rho, decoded: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    sigma = SIGMA_Q * np.sqrt(rho) if decoded else rho
    sigma = np.broadcast_to(sigma, np.shape(u))
    q, scale = np.broadcast_to(q, np.shape(u)), np.broadcast_to(scale, np.shape(u))
    base, variance = denoiser.single_latent_posterior(
        plane(u), plane(sigma), decoder_state(plane(q), plane(scale), decoded)
    )
    return base.numpy().ravel(), variance.numpy().ravel()


def states(
    scale: float, q: float, rho: float, count: int = 3000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States u that occur, by the first equation of the module, and mean and variance of rest given (q, u),
    integrated.
    """
    random = np.random.default_rng(0)
    residual = truncnorm.rvs(
        (q - 0.5) / scale, (q + 0.5) / scale, scale=scale, size=count, random_state=random
    )
    spread = np.sqrt(rho * (1 - rho) / 12)
    u = (1 - rho) * residual + rho * q + spread * random.standard_normal(count)
    x = np.broadcast_to(q + NODES[:, None] / 2, (300, count))
    return u, *moments((-0.5 * (x / scale) ** 2 - 0.5 * ((u - (1 - rho) * x - rho * q) / spread) ** 2).T, x.T)


@pytest.mark.parametrize("rho", [0.05, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("scale", [0.03, 0.08])
def test_closed_form_is_the_posterior_where_the_bin_cuts_nothing(denoiser, scale, rho):
    """q = 0 and six scales inside the bin: Gaussian prior, Gaussian noise."""
    u, mean, variance = states(scale, 0.0, rho)
    base, stated = closed(denoiser, u, 0.0, scale, rho)
    assert np.abs(base - mean).max() < 1e-5 and np.abs(stated / variance - 1).max() < 1e-3


@pytest.mark.parametrize("scale, q", [(0.03, 0), (0.2, 0), (0.5, 1), (1.0, -2), (3.0, 0), (30.0, 17)])
def test_closed_form_at_both_ends_of_the_chain(denoiser, scale, q):
    """rho = 1 holds no news: the bin's moments. rho = 0 is the answer itself."""
    base, variance = closed(denoiser, [q], q, scale, 1.0)
    m, v = truncated_gaussian_moments(torch.tensor([float(q)]), torch.tensor([scale]))
    assert abs(base - m.numpy()).max() < 1e-5 and abs(variance / v.numpy() - 1).max() < 1e-5
    u = q + np.linspace(-0.5, 0.5, 11)
    base, variance = closed(denoiser, u, q, scale, 0.0)
    assert np.abs(base - u).max() < 1e-5 and variance.max() < 1e-9


@pytest.mark.parametrize("rho", [0.05, 0.1, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("scale, q", [(0.2, 0), (0.5, 0), (0.5, 1), (1.0, -2), (3.0, 5), (30.0, 17)])
def test_closed_form_loses_little_where_the_bin_cuts(denoiser, scale, q, rho):
    """It takes the cut Gaussian for a whole one. In bins within two scales its squared error exceeds the
    least possible one by 12.1 % at most, near rho = 0.1, and it states its variance 13 % too large there;
    from rho = 0.7 on by 1.4 %.
    """
    u, mean, variance = states(scale, float(q), rho)
    base, stated = closed(denoiser, u, q, scale, rho)
    assert np.mean((base - mean) ** 2) < (0.13 if rho < 0.5 else 0.02) * variance.mean()
    assert stated.mean() / variance.mean() == pytest.approx(1, abs=0.14 if rho < 0.5 else 0.02)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 7.0, 300.0])
@pytest.mark.parametrize("scale", [0.05, 1.0, 40.0])
def test_closed_form_without_a_bin_is_wieners_filter(denoiser, scale, sigma):
    """rest ~ N(0, scale^2), u = rest + sigma eps, integrated over 12 posterior deviations on both sides of
    the answer.
    """
    u = np.hypot(scale, sigma) * np.linspace(-3, 3, 21)
    centre, width = u * scale**2 / (scale**2 + sigma**2), scale * sigma / np.hypot(scale, sigma)
    x = centre[:, None] + 12 * width * NODES
    mean, variance = moments(-0.5 * (x / scale) ** 2 - 0.5 * ((u[:, None] - x) / sigma) ** 2, x)
    base, stated = closed(denoiser, u, 5.0, scale, sigma, decoded=0.0)
    assert (
        np.abs(base - mean).max() < 1e-5 * np.hypot(scale, sigma)
        and np.abs(stated / variance - 1).max() < 1e-4
    )


def test_the_posterior_weight_goes_from_the_symbol_to_the_bins_mean():
    """At t* base = q + weight (m - q); a new denoiser has weight 0 and gives q back as it is."""
    denoiser = LatentDenoiser(4, 1)
    assert closed(denoiser, [1.0], 1.0, 0.7, 1.0)[0].item() == 1
    m = truncated_gaussian_moments(torch.tensor([1.0]), torch.tensor([0.7]))[0].item()
    for weight in (0.3, 0.8, 1.0):
        torch.nn.init.constant_(denoiser.posterior_weight, weight)
        assert closed(denoiser, [1.0], 1.0, 0.7, 1.0)[0].item() == pytest.approx(
            1 + weight * (m - 1), abs=1e-6
        )


# the chain


def chain_start(q: float, decoded: float, count: int) -> tuple[DecoderState, torch.Tensor]:
    symbols = torch.full((1, 1, 1, count), q)
    return decoder_state(symbols, torch.ones_like(symbols), decoded), torch.full_like(symbols, q + 0.37)


@pytest.mark.parametrize("decoded, top", [(1.0, SIGMA_Q), (0.0, 3.0)])
def test_steps_towards_the_truth_pass_through_noised(decoded, top):
    """With clean = rest and variance 0 each level has the marginal of ``bridge_sample``: 2 * 10^5 draws, five
    standard errors.
    """
    count, generator = 200_000, torch.Generator().manual_seed(0)
    facts, residual = chain_start(2.0, decoded, count)

    def eps():
        return torch.randn(residual.shape, generator=generator)

    levels = [top * share for share in (1.0, 0.8, 0.45, 0.1, 0.02)]
    u = bridge_sample(residual, torch.full_like(residual, levels[0]), facts, eps())
    for sigma, lower in zip(levels, levels[1:], strict=False):
        u = posterior_step(u, residual, torch.zeros(1), torch.tensor(sigma), torch.tensor(lower), eps())
        rho = decoded * (lower / SIGMA_Q) ** 2
        mean, spread = (1 - rho) * residual[0, 0, 0, 0] + rho * 2.0, lower * math.sqrt(1 - rho)
        direct = bridge_sample(residual, torch.full_like(residual, lower), facts, eps())
        for draws in (u, direct):
            assert abs(draws.mean() - mean) < 5 * spread / math.sqrt(count)
            assert abs(draws.std() / spread - 1) < 5 / math.sqrt(2 * count)


def test_noised_at_the_top_is_the_symbol_and_at_the_bottom_the_truth():
    facts, residual = chain_start(2.0, 1.0, 3)
    noise = torch.randn(residual.shape)
    assert (
        bridge_sample(residual, torch.full_like(residual, SIGMA_Q), facts, noise) - 2.0
    ).abs().max() < 1e-6
    assert torch.equal(bridge_sample(residual, torch.zeros_like(residual), facts, noise), residual)


def test_sampling_a_gaussian_with_its_own_posterior_gives_that_gaussian(denoiser):
    """Analytic-DPM's variance makes even a coarse chain exact: at every level var(u) = scale^2 + sigma^2."""
    count, scale, generator = 200_000, 0.8, torch.Generator().manual_seed(0)
    facts = decoder_state(torch.zeros(1, 1, 1, count), torch.full((1, 1, 1, count), scale), 0.0)
    levels = [40.0, 2.0, 0.7, 0.1]
    u = math.hypot(levels[0], scale) * torch.randn(1, 1, 1, count, generator=generator)
    with torch.no_grad():
        for sigma, lower in zip(levels, levels[1:], strict=False):
            clean, variance = denoiser.single_latent_posterior(u, torch.full_like(u, sigma), facts)
            u = posterior_step(
                u,
                clean,
                variance,
                torch.tensor(sigma),
                torch.tensor(lower),
                torch.randn(u.shape, generator=generator),
            )
            assert abs(u.std() / math.hypot(scale, lower) - 1) < 5 / math.sqrt(2 * count)


@pytest.mark.parametrize("t", [2, 7, 30])
def test_a_step_is_the_ddpm_step_of_diffusers(t):
    schedule = linear(30)
    scheduler = DDPMScheduler(
        30, trained_betas=schedule.betas.numpy(), prediction_type="sample", clip_sample=False
    )
    clean, state, noise = torch.randn(3, 1, 4, 6, 8, generator=torch.Generator().manual_seed(t)).unbind(0)
    root, lower_root = (schedule.alpha_bar(s).sqrt().float() for s in (t, t - 1))
    theirs = scheduler.step(
        clean, t - 1, state * root, generator=torch.Generator().manual_seed(5)
    ).prev_sample
    noise = torch.randn(state.shape, generator=torch.Generator().manual_seed(5))
    sigma, lower = (schedule.sigma(s).float() for s in (t, t - 1))
    ours = lower_root * posterior_step(state, clean, torch.zeros(1), sigma, lower, noise)
    assert (ours - theirs).abs().max() < 1e-5
