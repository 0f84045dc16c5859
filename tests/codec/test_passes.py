"""The codec with coding passes: what is decoded is what was coded, and every pass learns."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models import M, N, coded_by, marked, picture, run_passes, untrained, woken
from oracles import largest
from scipy.stats import norm

from dhp_lab.codec.bits.scales import SCALES, log2_scale_in_steps, scale_indexes
from dhp_lab.codec.config import PASSES
from dhp_lab.codec.create import with_settings
from dhp_lab.codec.entropy_coding import decode_latents
from dhp_lab.codec.networks import context as module
from dhp_lab.codec.networks.context import (
    ContextModel,
    coding_order,
)

LATER = PASSES[1:]


# the codec with passes


@torch.no_grad()
@pytest.mark.parametrize("passes", LATER)
@pytest.mark.parametrize("shape", [(16, 16), (17, 31), (100, 77)])
@pytest.mark.parametrize("lambda_rate", [1e-2, 1e-4])
def test_what_is_decoded_is_what_was_coded(passes, shape, lambda_rate):
    codec, x = woken(passes=passes), picture(*shape, count=2)
    coded, latents = coded_by(codec, x, lambda_rate)
    decoder_state = decode_latents(codec, coded["strings"], coded["shape"])
    assert torch.equal(decoder_state.symbols, latents.symbols) and bool(decoder_state.symbols.any())
    assert torch.equal(decoder_state.mean, latents.mean) and torch.equal(decoder_state.scale, latents.scale)
    assert torch.equal(
        codec.decompress(coded["strings"], shape)["x_hat"], codec(x, lambda_rate)["x_hat"].clamp(0, 1)
    )


@torch.no_grad()
@pytest.mark.parametrize("passes", LATER)
def test_the_bytes_are_those_of_the_scales_that_each_pass_gives(passes):
    """White noise and a prior of its scale, then corrected at random: by scipy's normal distribution, within
    1 %.
    """
    codec, noise = (
        untrained(N=4, M=768, passes=passes),
        torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)),
    )
    codec.log2_spread.fill_(math.log2(0.1))
    for weights in codec.context.parameters():
        weights += 0.05 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(weights.numel()))
    coded, latents = coded_by(codec, 0.5 + 0.1 * noise, 1e-4)
    assert largest(latents.log2_scale - latents.first[1]) > 0.3
    rows = scale_indexes(latents.log2_scale)
    q, scale = (
        t[rows > 0].double().numpy() for t in (latents.symbols.abs(), torch.tensor(SCALES)[rows.long()])
    )
    bits = -np.log2(norm.sf((q - 0.5) / scale) - norm.sf((q + 0.5) / scale)).sum()
    assert 8 * len(coded["strings"][0][0]) == pytest.approx(bits, rel=0.01)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("passes", LATER)
def test_scales_do_not_depend_on_tiles_layout_threads_or_the_order_of_sums(passes, monkeypatch):
    codec, x = woken(passes=passes), picture(200, 180)
    expected = codec.encode(x, [15000])

    def convolved(windows, numbers):
        """`exact_sum` through torch's convolution in float64: other algorithms, other orders of summation."""
        side, depthwise = numbers.weight.shape[-1], numbers.weight.shape[1] == 1
        h = torch.stack(list(windows), 2)  # (B, n, taps, C)
        h = h.permute(0, 3, 1, 2).unflatten(3, (side, side)).flatten(2, 3)  # (B, C, n side, side)
        groups = h.shape[1] if depthwise else 1
        summed = F.conv2d(h, numbers.weight, numbers.bias, stride=side, groups=groups)
        return torch.floor(summed / 2**12 + 0.5).flatten(2).mT

    ways = [
        lambda: monkeypatch.setattr(module, "AT_ONCE", 5),
        lambda: torch.set_num_threads(2),
        lambda: monkeypatch.setattr(module, "exact_sum", convolved),
    ]
    threads, symbols = torch.get_num_threads(), expected.symbols
    try:
        for way in ways:
            way()
            found = run_passes(
                codec.context,
                *expected.first,
                expected.log2_delta,
                lambda part, *decoder_state: part.gather(symbols),
                exact=True,
            )
            assert torch.equal(found[0], expected.mean) and torch.equal(found[1], expected.log2_scale)
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def test_the_preview_is_that_of_z_alone():
    codec, x = woken(passes=4), picture(64, 64)
    coded, latents = coded_by(codec, x)
    decoder_state = decode_latents(codec, [[None], *coded["strings"][1:]], coded["shape"])
    assert (
        torch.equal(decoder_state.mean, latents.first[0])
        and largest(decoder_state.mean - latents.mean) > 0.01
    )
    assert not decoder_state.decoded.any() and not decoder_state.symbols.any()


@torch.no_grad()
def test_a_codec_of_one_pass_grows_into_one_of_four():
    """The same pictures before anything is learnt, on the weights of the first."""
    codec, x = woken(), picture(64, 80)
    grown = with_settings(codec, passes=4)
    assert (grown.config.passes, grown.training, with_settings(grown, passes=4)) == (4, False, grown)
    assert all(torch.equal(value, grown.state_dict()[name]) for name, value in codec.state_dict().items())
    assert torch.equal(grown(x, 1e-3)["x_hat"], codec(x, 1e-3)["x_hat"])


@pytest.mark.parametrize(
    "settings",
    [{"passes": 3}, {"passes": 2, "transmit": "z"}, {"passes": 4, "M": 1}, {"passes": 14, "M": 6}],
)
def test_other_numbers_of_passes_are_refused(settings):
    with pytest.raises(
        ValueError,
        match="passes must be 1, 2, 4 or 14, with z alone 1, and at most two for each of the .* channels",
    ):
        untrained(**settings)


@pytest.mark.parametrize("passes", LATER)
def test_gradients_reach_every_weight_of_every_pass(passes):
    codec = woken(passes=passes).train()
    latents = codec.training_latents(picture(64, 64, count=2), torch.full((2,), 1e-3))
    codec.likelihoods(latents)["y"].log2().sum().backward()
    assert all(bool(p.grad.any()) for p in codec.context.parameters())
    assert all(bool(part.weight.grad.any()) for part in (codec.h_s.layers[-1], codec.g_a.exit))


def rounded_residual(residual, part, mean, log2_scale):
    """The symbols of the latents that a pass sends, for given residuals."""
    return (part.gather(residual) - mean).round()


def test_a_network_learns_from_neighbours():
    """Latents that repeat their left neighbour's sign and size: the second pass saves bits, by the coder's
    own count.
    """
    torch.manual_seed(0)
    passes, optimizer = ContextModel(8, 2, 2), None
    optimizer = torch.optim.Adam(passes.parameters(), lr=1e-2)
    spent = []
    for _ in range(150):
        residual = torch.randn(8, 2, 8, 4).repeat_interleave(2, 3) * 4 + 0.3 * torch.randn(8, 2, 8, 8)
        log2_scale = torch.full_like(residual, 2.0)
        mean, found, _ = run_passes(
            passes,
            torch.zeros_like(residual),
            log2_scale,
            torch.zeros(8),
            partial(rounded_residual, residual),
            exact=False,
        )
        nats = 0.5 * ((residual - mean) / found.exp2()).square() + found * 0.6931
        optimizer.zero_grad()
        nats.mean().backward()
        optimizer.step()
        spent.append(coding_order(2, 2, 8, 8)[1].gather(nats.detach()).mean().item())
    assert sum(spent[-10:]) / 10 < spent[0] - 0.7


def test_scales_of_passes_are_rows_of_the_table():
    log2_scale = torch.tensor([0.5, -1.0]).double().view(1, 1, 1, 2)
    log2_scale = log2_scale_in_steps(log2_scale, torch.tensor([1.25]), -3 * 2**16)
    assert log2_scale.flatten().tolist() == [4.75, 3.25] and scale_indexes(log2_scale).flatten().tolist() == [
        62,
        50,
    ]


@torch.no_grad()
@pytest.mark.parametrize("exact", [True, False])
def test_a_scale_beyond_the_table_counts_as_its_largest(exact):
    """A drawn picture can drive h_s to 2^42 steps: in that unit a shift would throw the mean out of what can
    be coded.
    """
    passes = ContextModel(N, M, 2)
    torch.nn.init.ones_(passes.networks[0].exit.bias)  # a shift of 1 everywhere, an octave more
    still, wild = torch.zeros(1, M, 4, 4), torch.full((1, M, 4, 4), 42.0)
    mean, log2_scale, _ = run_passes(
        passes, still, wild, torch.zeros(1), lambda part, *decoder_state: part.gather(still), exact=exact
    )
    white = marked(coding_order(2, M, 4, 4), M, 4, 4)[1]
    assert (
        (mean[0][white] == SCALES[-1]).all()
        and not mean[0][~white].any()
        and (log2_scale[0][white] == 43).all()
    )
