"""A codec with a trellis: files, estimates, training, effort, checkpoints."""

from __future__ import annotations

import pytest
import torch
from models import picture, untrained, woken

from dhp_lab.codec import effort
from dhp_lab.codec.bits.bitstream import BitstreamError
from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.create import with_settings
from dhp_lab.codec.denoising.decoder_state import TRELLIS_VARIANCE
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.trellis_latents import symbol_bits, symbol_probabilities, trellis_symbols

LAMBDA = 1e-3


@pytest.fixture(scope="module", params=[1, 4, 14])
def codec(request) -> DiffusionHyperprior:
    return woken(passes=request.param, trellis=True)


def latents_of(codec, x):
    return codec.encode(x, [lambda_code(LAMBDA)] * len(x))


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (64, 80), (130, 47)])
def test_a_file_decodes_to_what_the_encoder_saw(codec, size):
    x = picture(*size, count=2)
    coded = codec.compress(x, LAMBDA)
    for steps in (0, 1):
        found = codec.decompress(coded["strings"], coded["shape"], steps=steps)["x_hat"]
        assert torch.equal(found, codec(x, LAMBDA, steps=steps)["x_hat"].clamp(0, 1))


@torch.no_grad()
def test_the_estimate_is_the_files_length(codec):
    x = picture(128, 128)
    y = codec(x, LAMBDA)["likelihoods"]["y"]
    written = 8 * len(codec.compress(x, LAMBDA)["strings"][0][0])
    assert written == pytest.approx(-y.log2().sum().item(), rel=0.01, abs=64)


@torch.no_grad()
def test_symbols_are_halves_and_the_pictures_of_a_batch_have_trellises_of_their_own(codec):
    x = torch.cat([picture(64, 64, seed=seed) for seed in (1, 2)])
    symbols = latents_of(codec, x).symbols
    assert torch.equal(2 * symbols, (2 * symbols).round()) and bool((symbols % 1 != 0).any())
    assert torch.equal(symbols[1:], latents_of(codec, x[1:]).symbols)


@torch.no_grad()
def test_bits_and_error_together_are_less_than_those_of_rounding():
    """At the price that the encoder pays for, of the same residuals and scales."""
    plain, codec = woken(passes=4), woken(passes=4, trellis=True)
    latents = latents_of(plain, picture(128, 128))
    residual, log2_scale = (t.flatten(2).mT for t in (latents.residual, latents.log2_scale))
    bits = codec.tables.level_bits
    found = trellis_symbols(residual, log2_scale, bits)
    costs = [
        16 * (residual - symbols).square().sum() + spent
        for symbols, spent in (
            (found, symbol_bits(found, log2_scale, bits).sum()),
            (latents.symbols.flatten(2).mT, -plain.likelihoods(latents)["y"].log2().sum()),
        )
    ]
    assert costs[0] < 0.95 * costs[1]


@pytest.mark.parametrize("damage", [-1, 10])
def test_a_damaged_file_is_refused(codec, damage):
    coded = codec.compress(picture(64, 64), LAMBDA)
    y = bytearray(coded["strings"][0][0])
    y[damage] ^= 0x41
    coded["strings"][0][0] = bytes(y)
    with pytest.raises(BitstreamError, match="CRC32"):
        codec.decompress(coded["strings"], coded["shape"])


def test_training_rounds_on_the_same_trellis_and_lets_gradients_through():
    codec = woken(trellis=True).train()
    x = picture(64, 64)
    latents = codec.training_latents(x, torch.tensor([LAMBDA]))
    assert torch.equal(2 * latents.symbols.detach(), (2 * latents.symbols.detach()).round())
    (gradient,) = torch.autograd.grad(latents.symbols.sum(), codec.log2_spread, retain_graph=True)
    (plain,) = torch.autograd.grad(latents.residual.sum(), codec.log2_spread)
    assert torch.allclose(gradient, plain)
    out = codec(x)
    (out["x_hat"].square().mean() - out["likelihoods"]["y"].log2().mean()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in codec.h_s.parameters())


def test_bits_have_the_gradient_of_finite_differences():
    bits = untrained(trellis=True).tables.level_bits
    log2_scale = torch.linspace(-2.03, 3.97, 12).view(1, 12, 1).requires_grad_()
    symbols = trellis_symbols(log2_scale.detach().exp2(), log2_scale, bits)
    (gradient,) = torch.autograd.grad(symbol_bits(symbols, log2_scale, bits).sum(), log2_scale)
    with torch.no_grad():
        more, less = (symbol_bits(symbols, log2_scale + e, bits) for e in (1e-3, -1e-3))
    assert torch.allclose(gradient, (more - less) / 2e-3, atol=2e-2)


def test_probabilities_are_those_of_the_nearest_row():
    bits = untrained(trellis=True).tables.level_bits
    log2_scale = torch.tensor([[[0.03], [1.0], [-3.2]]])
    symbols = torch.tensor([[[0.0], [1.0], [0.0]]])
    found = symbol_probabilities(symbols, log2_scale, bits).flatten()
    assert found[2] == 1 and found[0] == pytest.approx(2 ** -bits[0, 24, 0], rel=1e-5)
    assert found[1] == pytest.approx(2 ** -bits[0, 32, 1], rel=1e-5), "a zero leaves the trellis in state 0"


@pytest.mark.parametrize("level", [3, 6])
def test_effort_never_makes_it_worse(level):
    codec, x = woken(passes=4, trellis=True), picture(64, 96)
    costs = []
    for one in (0, level):
        latents = effort.optimise_latents(codec, x, LAMBDA, one)
        costs.append(effort.file_cost(codec, x, latents, LAMBDA))
    coded = effort.compress(codec, x, LAMBDA, level)
    assert (
        costs[1] <= costs[0] and codec.decompress(coded["strings"], coded["shape"])["x_hat"].shape == x.shape
    )


@torch.no_grad()
def test_the_posterior_of_a_latent_is_its_value_with_one_variance():
    codec = woken(passes=4, trellis=True, dead_zone=0.35)
    state = codec.decoder_state(latents_of(codec, picture(64, 64)))
    mean, variance = state.posterior(codec.dead_zone)
    assert mean is state.symbols and state.with_moments() is state
    assert variance.max() == pytest.approx(TRELLIS_VARIANCE) and bool((variance > 0).all())
    assert state.prior_deviation(codec.dead_zone) is state.scale, "it counts steps, not widths of a bin"
    drawn = codec.sampler.sample(state, steps=4)
    assert bool(drawn.isfinite().all())


def test_a_checkpoint_keeps_it(tmp_path):
    codec = woken(passes=4, trellis=True)
    codec.save_pretrained(tmp_path)
    loaded = DiffusionHyperprior.from_pretrained(tmp_path)
    assert loaded.config.trellis and loaded.trellis
    x = picture(64, 64)
    coded = loaded.compress(x, LAMBDA)
    assert loaded.decompress(coded["strings"], coded["shape"])["x_hat"].shape == x.shape


def test_a_trained_codec_changes_over_to_it_and_back():
    plain = woken(passes=4)
    there = with_settings(plain, trellis=True)
    assert there.config.trellis and len(there.tables.y.cdfs) == 2 * len(plain.tables.y.cdfs)
    back, x = with_settings(there, trellis=False), picture(64, 64)
    assert back.compress(x, LAMBDA)["strings"] == plain.compress(x, LAMBDA)["strings"]


def test_it_is_refused_where_no_latents_are_sent():
    with pytest.raises(ValueError, match="trellis must be true or false, and false with z alone; got True"):
        untrained(transmit="z", trellis=True)
