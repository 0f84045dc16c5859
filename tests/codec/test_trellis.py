"""The trellis: its path against all paths, its quantisers, and what it gains over rounding."""

from __future__ import annotations

import hashlib
from itertools import product

import numpy as np
import pytest

from dhp_lab.codec.bits.scales import LEVELS, SCALES
from dhp_lab.codec.bits.trellis import (
    NEXT_STATE,
    QUANTISER,
    STATES,
    cheapest_path,
    path_of_values,
    value_of,
    values_of_path,
)

FREE = np.zeros((2, LEVELS, 8), np.float32)  # levels that cost no bits


def any_bits(seed: int) -> np.ndarray:
    """Bits that rise with a level's size, different ones for each row and quantiser."""
    return np.random.default_rng(seed).uniform(0.2, 3, (2, LEVELS, 12)).cumsum(2).astype(np.float32)


def cost_of(levels, residual, rows, bits, price) -> float:
    total, state = 0.0, 0
    for level, r, row in zip(levels, residual, rows, strict=True):
        quantiser = QUANTISER[state]
        value = level - 0.5 * np.sign(level) if quantiser else level
        total += price * (r - value) ** 2 + bits[quantiser, row, abs(level)]
        state = NEXT_STATE[state][level % 2]
    return total


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("price", [0.5, 4.0, 16.0])
def test_no_other_path_is_cheaper(seed, price):
    draw = np.random.default_rng(seed)
    residual = draw.normal(0, 1.2, 5).clip(-2.4, 2.4).astype(np.float32)
    rows, bits = draw.integers(0, LEVELS, 5), any_bits(seed)
    found = cheapest_path(residual, rows, bits, price)
    least = min(cost_of(path, residual, rows, bits, price) for path in product(range(-3, 4), repeat=5))
    assert cost_of(found, residual, rows, bits, price) == pytest.approx(least, rel=1e-6)


def test_the_two_quantisers_reach_every_half_step():
    assert [value_of(k, 0) for k in range(-2, 3)] == [-2, -1, 0, 1, 2]
    assert [value_of(k, 1) for k in range(-2, 3)] == [-1.5, -0.5, 0, 0.5, 1.5]


def test_every_state_has_two_ways_in_and_two_ways_out():
    assert sorted(NEXT_STATE.flatten()) == sorted(2 * list(range(STATES)))
    assert all(a != b for a, b in NEXT_STATE) and QUANTISER.sum() == STATES // 2


def test_the_machine_is_part_of_the_format():
    """Files are decoded with it for ever."""
    assert NEXT_STATE[:4].tolist() == [[0, 4], [18, 22], [1, 5], [19, 23]]
    digest = hashlib.sha256(NEXT_STATE.tobytes() + QUANTISER.tobytes()).hexdigest()
    assert digest[:16] == "0c622845e2bb68f6"


def test_values_and_levels_are_each_others_inverse():
    levels = np.random.default_rng(3).integers(-40, 41, 5000).astype(np.int32)
    values = values_of_path(levels)
    back, quantisers = path_of_values(values)
    assert np.array_equal(back, levels) and set(quantisers) == {0, 1}
    assert np.array_equal(2 * values, (2 * values).round())


def test_no_latents_have_an_empty_path():
    nothing = np.zeros(0, np.float32)
    assert len(cheapest_path(nothing, np.zeros(0, np.int64), FREE, 1.0)) == 0
    assert len(values_of_path(np.zeros(0, np.int32))) == 0 and len(path_of_values(nothing)[0]) == 0


def test_levels_far_outside_the_tables_are_found():
    residual = np.array([30000.25, -7.0, 0.0], np.float32)
    values = values_of_path(cheapest_path(residual, np.zeros(3, np.int64), any_bits(0), 16.0))
    assert np.abs(values - residual).max() <= 1


def entropy(levels: np.ndarray) -> float:
    counts = np.bincount(levels - levels.min())
    share = counts[counts > 0] / len(levels)
    return -(share * np.log2(share)).sum()


def test_at_high_rates_errors_are_more_than_a_decibel_smaller_than_those_of_rounding():
    """Of many latents of one scale, at the same entropy; 1.53 dB is the bound (Gish & Pierce 1968)."""
    row = 60
    residual = (SCALES[row] * np.random.default_rng(0).standard_normal(60000)).astype(np.float32)
    rows = np.full(len(residual), row)
    rounded = residual.round()
    size = np.arange(400) / SCALES[row]
    bits = np.broadcast_to((0.5 * size**2 * np.log2(np.e)).astype(np.float32), (2, LEVELS, 400)).copy()
    levels = cheapest_path(residual, rows, bits, 16.0)
    _, quantisers = path_of_values(values_of_path(levels))
    rate = np.mean([entropy(levels[quantisers == q]) for q in (0, 1)])
    decibels = 10 * np.log10(
        np.mean((residual - rounded) ** 2) / np.mean((residual - values_of_path(levels)) ** 2)
    )
    saved = 6.02 * (entropy(rounded.astype(np.int64)) - rate)
    assert 1.0 < decibels + saved < 1.53
