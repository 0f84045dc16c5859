"""Probabilities of trellis-coded levels, their tables, and what they cost in a stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from dhp_lab.codec.bits.rans import coder_tables, rans_encode
from dhp_lab.codec.bits.scales import LEVELS, SCALES
from dhp_lab.codec.bits.trellis import PRICE, cheapest_path, path_of_values, values_of_path
from dhp_lab.codec.networks.trellis_tables import (
    HALF_ZEROS,
    TrellisConditional,
    level_bits,
    level_probabilities,
)


@pytest.fixture(scope="module")
def tables():
    model = TrellisConditional(SCALES, scale_bound=SCALES[0])
    model.update()
    return coder_tables(model)


@pytest.mark.parametrize("quantiser", [0, 1])
@pytest.mark.parametrize("octave", [0, 2, 5, 9])
def test_a_levels_probability_is_the_mixtures_between_its_edges(quantiser, octave):
    scale, half_zero = 2.0 ** (octave - 3), HALF_ZEROS[quantiser][octave]
    found = level_probabilities(8 * octave, quantiser, 9).numpy()

    def below(r):
        return 0.9 * norm.cdf(r / (0.85 * scale)) + 0.1 * norm.cdf(r / (1.55 * scale))

    half = 0.5 - 0.5 * quantiser  # quantiser 1's values lie half a step nearer to zero
    edges = np.array([half_zero, *(np.arange(1, 10) + half)])
    expected = np.diff(below(edges))
    assert np.allclose(found[10:], expected, atol=1e-6) and np.array_equal(found, found[::-1])
    assert found[9] == pytest.approx(2 * below(half_zero) - 1, abs=1e-6)


def test_the_tables_are_the_probabilities_in_units_of_2_to_minus_16(tables):
    assert len(tables.cdfs) == 2 * LEVELS
    for row in (12, LEVELS // 2, LEVELS + 20, 2 * LEVELS - 1):
        cdf, most = np.array(tables.cdfs[row][: tables.lengths[row]]), -tables.offsets[row]
        expected = level_probabilities(row % LEVELS, row // LEVELS, most).numpy()
        found = np.diff(cdf)[:-1] / 2**16
        assert np.abs(found - expected).max() < 4 * len(found) / 2**16 + 1e-4


@pytest.mark.parametrize("far", [False, True])
def test_levels_cost_in_a_stream_what_the_bits_say(tables, far):
    draw, bits = np.random.default_rng(0), level_bits(tables)
    indexes = draw.integers(20, LEVELS, 20000)
    residual = (np.array(SCALES)[indexes] * draw.standard_normal(len(indexes))).astype(np.float32)
    if far:  # the table's last entry but one, and an escape of two digits
        residual[::10] = np.array(SCALES)[indexes[::10]] * 12
    levels = cheapest_path(residual, indexes, bits, PRICE)
    _, quantisers = path_of_values(values_of_path(levels))
    rows = torch.from_numpy(indexes + LEVELS * quantisers.astype(np.int64)).int()
    size = np.minimum(np.abs(levels), bits.shape[2] - 1)
    expected = bits[quantisers, indexes, size].sum()
    assert 8 * len(rans_encode(torch.from_numpy(levels), rows, tables)) == pytest.approx(expected, rel=0.01)


def test_tables_of_the_mixture_fit_what_the_trellis_makes_of_it(tables):
    """Of residuals drawn from the mixture: the levels' entropy given scale and quantiser, within 2 %."""
    draw, bits = np.random.default_rng(1), level_bits(tables)
    for row in (12, 20, 28, 44):
        width = np.where(draw.random(40000) < 0.9, 0.85, 1.55)
        residual = (SCALES[row] * width * draw.standard_normal(len(width))).astype(np.float32)
        rows = np.full(len(residual), row)
        levels = cheapest_path(residual, rows, bits, PRICE)
        _, quantisers = path_of_values(values_of_path(levels))
        spent = bits[quantisers, rows, np.abs(levels)].mean()
        least = 0.0
        for quantiser in (0, 1):
            of_one = levels[quantisers == quantiser]
            share = np.bincount(of_one - of_one.min()) / len(of_one)
            share = share[share > 0]
            least -= (share * np.log2(share)).sum() * len(of_one) / len(levels)
        assert least <= spent < 1.03 * least + 0.01
