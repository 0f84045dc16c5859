"""A grown codec against the one it has grown from: the shipped weights and made ones."""

from __future__ import annotations

import pytest
import torch
from models import N, picture, untrained, woken
from oracles import largest

from dhp_lab.codec.config import CodecConfig
from dhp_lab.codec.create import with_settings
from dhp_lab.codec.growth import grown
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.context import ContextNetwork, LatentGroup, channel_groups
from dhp_lab.codec.networks.lapped import lapped_filters


@torch.no_grad()
@pytest.mark.parametrize("passes", [1, 4])
def test_the_old_channels_are_what_they_were(passes):
    """Same y, z, mean and scale; a new channel is the lapped transform's, with a mean of zero."""
    old = woken(passes=passes)
    new = grown(old, 48, passes)
    assert (new.config.M, new.config.passes, new.training) == (48, passes, False)
    x, delta = picture(64, 80), torch.tensor([-2.0])
    y, more = old.analyse(x, delta), new.analyse(x, delta)
    assert largest(more[:, :32] - y) < 1e-5
    assert largest(more[:, 32:] - new.g_a.linear.fixed.analyse(x - 0.5)[:, 32:]) < 2e-6
    z = old.hyper_analyse(y, delta)
    assert largest(new.hyper_analyse(more, delta) - z) < 1e-4 * largest(z)
    symbols = torch.round(z - old.medians().float())
    first = old.predict_in_floats(symbols, delta, y.shape[-2:])
    grown_first = new.predict_in_floats(symbols, delta, y.shape[-2:])
    for a, b in zip(first, grown_first, strict=True):
        assert largest(a - b[:, :32]) < 1e-4
    assert not grown_first.mean[:, 32:].any()


@torch.no_grad()
def test_a_new_channels_scale_is_that_of_the_nearest_frequency():
    old = woken()
    new = grown(old, 33, 1)
    place = lapped_filters(33)["place"]
    same_colour = [i for i in range(32) if place[i, 0] == place[32, 0]]
    nearest = min(same_colour, key=lambda i: ((place[i] - place[32]) ** 2).sum().item())
    exits = old.h_s.layers[-1].weight, new.h_s.layers[-1].weight
    assert torch.equal(exits[1][33 + 32], exits[0][32 + nearest])


@torch.no_grad()
def test_the_picture_of_the_old_latents_is_the_same():
    old = woken()
    new, delta = grown(old, 768, 1), torch.tensor([-1.0])
    y = old.analyse(picture(64, 80), delta)
    silent = torch.cat([y, torch.zeros(1, 736, *y.shape[-2:])], 1)
    assert largest(new.synthesise(silent, delta, (64, 80)) - old.synthesise(y, delta, (64, 80))) < 1e-4


@torch.no_grad()
def test_a_context_network_keeps_what_both_know():
    """White places of four passes: the loud channels' network in a larger group of a larger model, alike
    where the added channels are silent.
    """
    old, M = woken(M=20, passes=4), 40
    new = grown(old, M, 4)
    source, target = old.context.networks[0], new.context.networks[0]
    assert (source.channels, target.channels) == (slice(0, 3), slice(0, 6))
    r = torch.zeros(1, M, 4, 4)
    r[:, :3] = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    scales = torch.zeros(1, M, 4, 4)
    scales[:, :20] = torch.randn(1, 20, 4, 4, generator=torch.Generator().manual_seed(1))
    delta, places = torch.tensor([-3.0]), torch.arange(16)
    found = target(r, scales, delta, LatentGroup(1, target.channels, places))
    wanted = source(r[:, :20], scales[:, :20], delta, LatentGroup(1, source.channels, places))
    for a, b in zip(found, wanted, strict=True):
        assert largest(a[:, :, :3] - b) < 1e-5 < largest(b) and not a[:, :, 3:].any()


def test_more_passes_start_from_fewer():
    """Each network of 14 passes has outputs only for channels that its like had, and the same there."""
    old = woken(M=100, passes=2)
    new = with_settings(old, passes=14)
    assert new.config.passes == 14 and new.config.M == 100
    for number, (network, group) in enumerate(
        zip(new.context.networks, [g for g in channel_groups(14, 100) for _ in range(2)][1:], strict=True), 1
    ):
        assert isinstance(network, ContextNetwork) and network.channels == group
        rows = old.context.networks[0].exit.weight[:100][group]
        if number % 2:
            assert torch.equal(network.exit.weight[: len(rows)], rows)
        else:
            assert not network.exit.weight.any(), "two passes have no network for black places"


def test_what_cannot_grow_is_refused():
    with pytest.raises(ValueError, match="a model of 32 channels cannot shrink to 20"):
        grown(woken(), 20, 1)
    with pytest.raises(ValueError, match="M must lie in 1 .. 768"):
        grown(untrained(), 800, 1)


def test_a_codec_of_the_first_revision_keeps_its_pictures():
    """Its learnt filters become corrections, which hardly fade at this step."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = DiffusionHyperprior(CodecConfig(N, 32, 10, revision=1)).eval()
    with torch.no_grad():
        for part in (first.g_a, first.g_s):
            part.linear.weight += 2e-3 * torch.randn(part.linear.weight.shape)
        new, delta, x = grown(first, 32, 1), torch.tensor([0.0]), picture(64, 64)
        y = first.analyse(x, delta)
        assert largest(new.analyse(x, delta) - y) < 0.02 < largest(y)
        assert largest(new.synthesise(y, delta, (64, 64)) - first.synthesise(y, delta, (64, 64))) < 0.02
    assert new.config.revision == 2
