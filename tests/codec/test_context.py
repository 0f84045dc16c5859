"""Coding passes: every latent is sent once, later passes know earlier ones and nothing else, all in whole
numbers.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models import M, N, picture, untrained, woken
from oracles import largest
from scipy.stats import norm

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.bits.scales import SCALES, log2_scale_in_steps, scale_indexes
from dhp_lab.codec.config import PASSES
from dhp_lab.codec.create import with_settings
from dhp_lab.codec.entropy_coding import decode_latents
from dhp_lab.codec.networks import context as module
from dhp_lab.codec.networks.context import (
    LIMIT,
    ContextNetwork,
    ContextModel,
    Gaussian,
    coding_order,
    normalised_symbols,
)

LATER = PASSES[1:]


def coded_by(codec, x, lambda_rate=1e-3):
    coded = codec.compress(x, lambda_rate)
    return coded, codec.encode(x, [lambda_code(lambda_rate)] * len(x))


def marked(order, channels, rows, cols):
    """For each pass, bool (M, rows, cols): the latents that it sends."""
    found = [
        torch.zeros(1, channels, rows, cols).contiguous(memory_format=torch.channels_last) for _ in order
    ]
    for part, whole in zip(order, found, strict=True):
        part.scatter(whole, torch.ones(1, len(part.places), part.channels.stop - part.channels.start))
    return [whole[0].bool() for whole in found]


def run_passes(context, mean, log2_scale, log2_delta, symbols_at, *, exact):
    """Mean, log2(scale) and symbols of all latents, with symbols of the test's own choice in each pass."""
    first = Gaussian(mean, log2_scale)
    seen = context.nothing_seen(first)
    found = [torch.empty_like(mean, memory_format=torch.channels_last) for _ in range(3)]
    for group in context.groups(first):
        gaussian, shift = context.predict(group, first, seen, log2_delta, exact=exact)
        symbols = symbols_at(group, *gaussian)
        context.observe(group, first, seen, symbols, shift)
        for whole, values in zip(found, (*gaussian, symbols), strict=True):
            group.scatter(whole, values)
    return found


# the order


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("channels, rows, cols", [(2, 1, 1), (32, 3, 5), (320, 4, 4)])
def test_every_latent_is_sent_once(passes, channels, rows, cols):
    sent = marked(coding_order(passes, channels, rows, cols), channels, rows, cols)
    assert len(sent) == passes and bool((sum(places.int() for places in sent) == 1).all())


def test_the_order_is_that_of_the_table():
    black, white = marked(coding_order(2, 1, 2, 3), 1, 2, 3)
    assert black.int().tolist() == [[[1, 0, 1], [0, 1, 0]]] and torch.equal(white, ~black)
    loud_black, loud_white, quiet_black, quiet_white = marked(coding_order(4, 20, 2, 3), 20, 2, 3)
    for loud, quiet, same in ((loud_black, quiet_black, black), (loud_white, quiet_white, white)):
        assert torch.equal(loud[:3], same.expand(3, 2, 3)) and not loud[3:].any()
        assert torch.equal(quiet[3:], same.expand(17, 2, 3)) and not quiet[:3].any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_part_is_taken_and_put_back(layout):
    whole = torch.randn(2, 20, 3, 5, generator=torch.Generator().manual_seed(0)).contiguous(
        memory_format=layout
    )
    again = torch.zeros_like(whole, memory_format=torch.channels_last)
    for part, places in zip(
        coding_order(4, 20, 3, 5), marked(coding_order(4, 20, 3, 5), 20, 3, 5), strict=True
    ):
        assert torch.equal(part.gather(whole).mT.flatten(), whole[:, places].flatten())
        part.scatter(again, part.gather(whole))
    assert torch.equal(again, whole)


# what a pass sees


def test_symbols_are_measured_in_their_scale():
    rows = torch.arange(len(SCALES)).repeat(3, 1)
    symbols = torch.tensor([[-2.0], [1.0], [3.0]]).expand(3, len(SCALES))
    plain = (symbols / torch.tensor(SCALES)).clamp(-LIMIT, LIMIT)
    found = normalised_symbols(symbols, rows)
    assert found.dtype == torch.float64 and largest(found - plain) <= 3 * 2.0**-11 and largest(found) == LIMIT
    assert torch.equal(found * 2**10, (found * 2**10).round())


@pytest.mark.parametrize("passes", LATER)
def test_untrained_networks_correct_nothing(passes):
    """So a codec with more passes starts as the same codec: other order, equal symbols and pictures, as many
    bytes or so.
    """
    x = picture(64, 80)
    one, more = (untrained(passes=count) for count in (1, passes))
    (coded, latents), (other, found) = coded_by(one, x), coded_by(more, x)
    assert torch.equal(latents.symbols, found.symbols) and torch.equal(latents.log2_scale, found.log2_scale)
    assert abs(len(coded["strings"][0][0]) - len(other["strings"][0][0])) <= 8
    pictures = [
        codec.decompress(file["strings"], file["shape"])["x_hat"]
        for codec, file in ((one, coded), (more, other))
    ]
    assert torch.equal(*pictures)


@torch.no_grad()
@pytest.mark.parametrize("passes", LATER)
def test_a_pass_knows_the_earlier_ones_and_nothing_else(passes):
    """Change one symbol of a pass: mean and scale of that pass and of those before stay, some of a later pass
    move.
    """
    order, generator = marked(coding_order(passes, M, 8, 8), M, 8, 8), torch.Generator().manual_seed(0)
    codec = woken(passes=passes)
    mean, log2_scale = (torch.randn(1, M, 8, 8, generator=generator) for _ in range(2))
    truth = torch.randint(-3, 4, (1, M, 8, 8), generator=generator).float()

    def walk(symbols):
        return run_passes(
            codec.context,
            mean,
            log2_scale,
            torch.tensor([-5.0]),
            lambda part, *decoder_state: part.gather(symbols),
            exact=True,
        )

    before = walk(truth)
    for number, places in enumerate(order[:-1]):
        altered, at = truth.clone(), places.flatten().nonzero()[0]
        altered.view(-1)[at] = (altered.view(-1)[at] == 0).float()
        after = walk(altered)
        for decoder_state in order[: number + 1]:
            assert all(
                torch.equal(a[0][decoder_state], b[0][decoder_state])
                for a, b in zip(before[:2], after[:2], strict=True)
            )
        later = ~sum(order[: number + 1]).bool()
        assert all((a[0][later] != b[0][later]).any() for a, b in zip(before[:2], after[:2], strict=True))


@torch.no_grad()
@pytest.mark.parametrize("passes", LATER)
def test_the_exact_network_is_the_trained_one_but_for_rounding(passes):
    generator = torch.Generator().manual_seed(0)
    r = (8 * torch.randn(2, M, 6, 7, generator=generator)).round() / 8
    log2_scale, log2_delta = torch.randn(2, M, 6, 7, generator=generator), torch.tensor([-4.0, -7.5])
    for network, part in zip(
        woken(passes=passes).context.networks, coding_order(passes, M, 6, 7)[1:], strict=True
    ):
        exact, plain = (
            network.exact(r, log2_scale, log2_delta, part),
            network(r, log2_scale, log2_delta, part),
        )
        for a, b in zip(exact, plain, strict=True):
            assert a.shape == b.shape == part.gather(r).shape
            assert a.dtype == torch.float64 and largest(a - b) < 0.02 < 0.1 < largest(b)
            assert torch.equal(a * 2**10, (a * 2**10).round())


@torch.no_grad()
@pytest.mark.parametrize("passes", LATER)
def test_the_network_is_that_of_torchs_convolutions(passes):
    """The same function on whole maps, through torch's own convolutions."""
    generator = torch.Generator().manual_seed(0)
    r, log2_scale = (torch.randn(2, M, 6, 7, generator=generator) for _ in range(2))
    for network, part in zip(
        woken(passes=passes).context.networks, coding_order(passes, M, 6, 7)[1:], strict=True
    ):
        decoder_state, plane = r[:, : network.decoded], torch.full((2, 1, 6, 7), (-5.5 + 3.5) / 4)
        seen = torch.cat([decoder_state, decoder_state.abs()], 1)
        near = F.conv2d(
            F.pad(seen, (1, 1, 1, 1)), network.near.weight, network.near.bias, groups=seen.shape[1]
        )
        wanted = network.exit(
            network.hidden(network.mix(torch.cat([seen, near, log2_scale / 4, plane], 1)).relu()).relu()
        )
        if network.own is not None:
            wanted = wanted + network.own(
                torch.cat([half[:, network.channels] for half in near.chunk(2, 1)], 1)
            )
        found = network(r, log2_scale, torch.full((2,), -5.5), part)
        for a, b in zip(found, wanted.chunk(2, 1), strict=True):
            whole = torch.zeros_like(r)
            whole[:, network.channels] = b
            assert torch.allclose(a, part.gather(whole), atol=1e-5) and largest(a) > 0.1


def test_a_network_looks_at_what_is_decoded():
    """In four passes over 20 channels: the 3 loud ones first; what is not decoded yet, and nobody's to
    correct, is no input.
    """
    first, second, third = (ContextNetwork(N, 20, number, 4) for number in (1, 2, 3))
    assert [(network.channels, network.decoded) for network in (first, second, third)] == [
        (slice(0, 3), 3),
        (slice(3, 20), 3),
        (slice(3, 20), 20),
    ]
    assert second.own is None and first.own is not None and third.own is not None


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
    """White noise and a prior that knows it, then corrected at random: by scipy's normal distribution, within
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
    """The same pictures before anything is learnt, on the weights of the first; one of two passes does not
    grow.
    """
    codec, x = woken(), picture(64, 80)
    grown = with_settings(codec, passes=4)
    assert (grown.config.passes, grown.training, with_settings(grown, passes=4)) == (4, False, grown)
    assert all(torch.equal(value, grown.state_dict()[name]) for name, value in codec.state_dict().items())
    assert torch.equal(grown(x, 1e-3)["x_hat"], codec(x, 1e-3)["x_hat"])
    with pytest.raises(ValueError, match="a model of 2 passes cannot be made one of 4; start from one of 1"):
        with_settings(woken(passes=2), passes=4)


@pytest.mark.parametrize("settings", [{"passes": 3}, {"passes": 2, "transmit": "z"}, {"passes": 4, "M": 1}])
def test_other_numbers_of_passes_are_refused(settings):
    with pytest.raises(
        ValueError, match="passes must be 1, 2 or 4, with z alone 1, with one channel at most 2; got"
    ):
        untrained(**settings)


@pytest.mark.parametrize("passes", LATER)
def test_gradients_reach_every_weight_of_every_pass(passes):
    codec = woken(passes=passes).train()
    latents = codec.training_latents(picture(64, 64, count=2), torch.full((2,), 1e-3))
    codec.likelihoods(latents)["y"].log2().sum().backward()
    assert all(bool(p.grad.any()) for p in codec.context.parameters())
    assert all(bool(part.weight.grad.any()) for part in (codec.h_s.layers[-1], codec.g_a.exit))


def test_a_network_learns_what_neighbours_tell():
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
            lambda part, mean, log2_scale: (part.gather(residual) - mean).round(),
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
