"""The entropy models of the lesson on the scale hyperprior code what they estimate."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from compressai import ans
from models import picture, woken
from scipy.stats import norm

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.lessons.scale_hyperprior import entropy_models

CHANNELS = 6


@pytest.fixture(scope="module")
def model():
    return woken(passes=4, dead_zone=0.35)


@pytest.fixture(scope="module")
def latents():
    """Three sets of latents whose channels have other widths, wide where a hidden map says so."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.0]).view(1, CHANNELS, 1, 1)
    found = []
    for _ in range(3):
        busy = (
            torch.rand(1, 1, 5, 6, generator=generator)
            .round()
            .repeat_interleave(4, 2)
            .repeat_interleave(4, 3)
        )
        found.append(torch.randn(1, CHANNELS, 20, 24, generator=generator) * spread * (0.05 + busy))
    return found


def small(latents, *, with_mean: bool, steps: int = 0) -> entropy_models.SmallHyperprior:
    spread = torch.cat([y.transpose(0, 1).flatten(1) for y in latents], 1).square().mean(1).sqrt()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hyper = entropy_models.SmallHyperprior(spread, with_mean=with_mean, N=4, width=8)
        torch.nn.init.normal_(hyper.h_s[-1].weight, std=0.1)  # not silent, so that z counts
    if steps:
        return entropy_models.fit(hyper, latents, steps=steps, count=4)
    hyper.eval().update()
    return hyper


# entropy models


def test_latents_are_the_encoders(model):
    x = picture(50, 40)
    with torch.no_grad():
        latents = model.encode(x, [lambda_code(1e-3)])
    found = entropy_models.latents_in_steps(model, x, 1e-3)
    assert (found - latents.y / model.step_size(1e-3)).abs().max() < 1e-4
    decoded = entropy_models.picture(model, latents.symbols + latents.mean, 1e-3, (50, 40))
    coded = model.compress(x, lambda_rate=1e-3)
    assert (decoded - model.decompress(coded["strings"], coded["shape"], steps=0)["x_hat"]).abs().max() < 1e-4


def test_a_picture_is_augmented_four_ways():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    found = [view[0, 0].tolist() for view in entropy_models.augmented(x)]
    assert found == [
        [[0, 1, 2], [3, 4, 5]],
        [[2, 1, 0], [5, 4, 3]],
        [[0, 3], [1, 4], [2, 5]],
        [[3, 0], [4, 1], [5, 2]],
    ]


def test_the_factorised_prior_counts(latents):
    prior = entropy_models.FactorisedPrior(latents[:2])
    for channel in range(CHANNELS):
        seen = Counter(int(v) for y in latents[:2] for v in y[0, channel].round().flatten())
        low = prior.lows[channel]
        assert {low + i: n for i, n in enumerate(prior.counts[channel]) if n} == seen
        assert (
            len(prior.tables[channel]) == len(prior.counts[channel]) + 2
            and prior.tables[channel][-1] == 2**16
        )
        assert min(np.diff(prior.tables[channel])) > 0


def test_the_factorised_prior_codes_what_it_says(latents):
    prior, y = entropy_models.FactorisedPrior(latents[:2]), latents[2]
    coded = prior.encode(y)
    assert coded.z == b"" and torch.equal(coded.y_hat, y.round())
    rows = [channel for channel in range(CHANNELS) for _ in range(y[0, 0].numel())]
    lengths = [len(table) for table in prior.tables]
    found = ans.RansDecoder().decode_with_indexes(
        coded.y + bytes(64), rows, prior.tables, lengths, prior.lows.tolist()
    )
    assert found == y.round().int().flatten().tolist()
    bits = escaped = 0
    for value, row in zip(found, rows, strict=True):
        table, place = prior.tables[row], value - prior.lows[row]
        in_table = 0 <= place < len(table) - 2
        place, escaped = place if in_table else len(table) - 2, escaped + (not in_table)
        bits += 16 - math.log2(table[place + 1] - table[place])
    assert -1 < len(coded.y) - bits / 8 < 9 + 4 * escaped


@pytest.mark.parametrize("with_mean", [False, True])
def test_bits_are_those_of_normal_densities(latents, with_mean):
    hyper, y = small(latents, with_mean=with_mean), latents[0]
    with torch.no_grad():
        z_hat, p_z = hyper.bottleneck(hyper.analyse(y))
        mean, scale = (t.double().numpy() for t in hyper.predict(z_hat, y.shape[-2:]))
        y_bits, z_bits = hyper.bits(y)
    assert (np.abs(mean).max() > 0) == with_mean and scale.shape == tuple(y.shape)
    symbols, wide = np.round(y.numpy() - mean), np.maximum(scale, 1 / 8)
    p = norm.cdf((0.5 - np.abs(symbols)) / wide) - norm.cdf((-0.5 - np.abs(symbols)) / wide)
    assert abs(y_bits.item() / -np.log2(np.maximum(p, 1e-9)).sum() - 1) < 1e-3
    assert abs(z_bits.item() + p_z.log2().sum().item()) < 1e-3


@pytest.mark.parametrize("with_mean", [False, True])
def test_the_bytes_hold_the_latents(latents, with_mean):
    hyper, y = small(latents, with_mean=with_mean, steps=20), latents[0]
    coded = hyper.encode(y)
    with torch.no_grad():
        mean, scale = hyper.predict(hyper.bottleneck(hyper.analyse(y), training=False)[0], y.shape[-2:])
        y_bits, z_bits = (bits.item() for bits in hyper.bits(y))
    sent = scale > 0.14
    assert (coded.y_hat - mean - (y - mean).round())[sent].abs().max() < 1e-4
    assert torch.equal(coded.y_hat[scale < 0.12], mean[scale < 0.12])
    assert abs(len(coded.y) - y_bits / 8) < 16 + 0.02 * y_bits / 8  # tables have 8 scales an octave
    assert abs(len(coded.z) - z_bits / 8) < 12 + 0.02 * z_bits / 8


def test_scale_alone_does_not_see_the_sign(latents):
    hyper, other = small(latents, with_mean=False), small(latents, with_mean=True)
    assert torch.equal(hyper.analyse(latents[0]), hyper.analyse(-latents[0]))
    assert not torch.equal(other.analyse(latents[0]), other.analyse(-latents[0]))
    assert hyper.analyse(latents[0][..., :17, :22]).shape == (1, 4, 5, 6)


def test_fitting_saves_bits_and_leaves_chance_alone(latents):
    state, seen = torch.get_rng_state(), []
    hyper = small(latents, with_mean=False)
    before = sum(b.item() for b in hyper.bits(latents[2]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fitted = entropy_models.fit(
            hyper, latents[:2], steps=60, count=4, progress=lambda step, bits: seen.append(bits)
        )
    assert torch.equal(state, torch.get_rng_state()) and not fitted.training
    assert len(seen) == 60 and np.mean(seen[-10:]) < np.mean(seen[:10])
    assert sum(b.item() for b in fitted.bits(latents[2])) < before  # latents that it has not seen
    again = small(latents, with_mean=False, steps=3).state_dict()
    assert all(
        torch.equal(value, again[name])
        for name, value in small(latents, with_mean=False, steps=3).state_dict().items()
    )
