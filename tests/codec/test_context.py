"""Coding passes: every latent is sent once, later passes know earlier ones and nothing else, all in whole
numbers.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from models import M, N, coded_by, marked, picture, run_passes, untrained, woken
from oracles import largest

from dhp_lab.codec.bits.scales import SCALES
from dhp_lab.codec.config import PASSES
from dhp_lab.codec.networks.context import (
    LIMIT,
    ContextNetwork,
    coding_order,
    normalised_symbols,
)

LATER = PASSES[1:]


# the order


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("channels, rows, cols", [(7, 1, 1), (32, 3, 5), (320, 4, 4)])
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
def test_a_pass_depends_on_the_earlier_ones_alone(passes):
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
            network.hidden(
                network.mix(torch.cat([seen, near, log2_scale[:, : network.scales] / 4, plane], 1)).relu()
            ).relu()
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
