r"""How far quantisers of normal numbers stay from what no quantiser can beat.

At rate R the error of numbers with deviation sigma is at least D = sigma^2 2^(-2R) (Shannon 1959, for the
normal distribution). The gap of a quantiser is 10 log10 of its error over that, at its own rate: the entropy
of its symbols, given what the decoder knows.

| quantiser | symbols                                                  | decoder knows      |
|-----------|----------------------------------------------------------|--------------------|
| rounding  | the nearest whole number                                 | nothing            |
| dead zone | rounded in wider bins (``scales.bin_width``)             | nothing            |
| trellis   | levels of the cheapest path (``bits.trellis``)           | the quantiser      |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from dhp_lab.codec.bits.scales import LEVELS, SCALES, bin_width, scale_indexes
from dhp_lab.codec.bits.trellis import PRICE, cheapest_path, path_of_values, values_of_path

NUMBERS = 20000
DEAD_ZONE = 0.35  # of the shipped codec
ROUNDS = 6  # of fitting the trellis's bits to its levels
WIDEST = 64  # levels beyond cost what this one does
UNSEEN = 1e-3  # count of a level that has not come


class Gap(NamedTuple):
    """One quantiser on numbers of one scale: bits a number, and decibels above the bound."""

    rate: float
    decibels: float


def quantiser_gaps(scales: Sequence[float], count: int = NUMBERS) -> dict[str, list[Gap]]:
    """The gap of each quantiser at each scale.

    Args:
        scales: deviations in steps, 1/8 .. 8; the nearest of ``SCALES`` are taken. count: numbers drawn.
    """
    rows = scale_indexes(torch.tensor(scales, dtype=torch.float64).log2()).tolist()
    normal = np.random.default_rng(0).standard_normal(count)
    gaps: dict[str, list[Gap]] = {"rounding": [], "dead zone": [], "trellis": []}
    for row in rows:
        numbers = (SCALES[row] * normal).astype(np.float32)
        width = bin_width(torch.tensor(SCALES[row]), DEAD_ZONE).item()
        for name, symbols in (("rounding", numbers.round()), ("dead zone", (numbers / width).round())):
            gaps[name].append(_gap(SCALES[row], entropy(symbols.astype(int)), numbers - symbols))
        gaps["trellis"].append(_trellis_gap(numbers, row))
    return gaps


def entropy(symbols: np.ndarray) -> float:
    """Bits of a symbol, by how often each of them comes."""
    share = np.unique(symbols, return_counts=True)[1] / len(symbols)
    return float(-(share * np.log2(share)).sum())


def _gap(scale: float, rate: float, error: np.ndarray) -> Gap:
    least = scale**2 * 2.0 ** (-2 * rate)
    return Gap(rate, float(10 * np.log10(np.square(error).mean() / least)))


def _trellis_gap(numbers: np.ndarray, row: int) -> Gap:
    """With bits that are those of its own levels: they are counted, and the path is looked for again."""
    rows = np.full(len(numbers), row)
    bits = np.zeros((2, LEVELS, WIDEST), np.float32)
    for _ in range(ROUNDS):
        levels = cheapest_path(numbers, rows, bits, PRICE)
        values = values_of_path(levels)
        _, quantisers = path_of_values(values)
        for quantiser in (0, 1):
            bits[quantiser, row] = _bits_by_count(np.abs(levels[quantisers == quantiser]))
    rate = sum(entropy(levels[quantisers == q]) * np.mean(quantisers == q) for q in (0, 1))
    return _gap(SCALES[row], float(rate), numbers - values)


def _bits_by_count(sizes: np.ndarray) -> np.ndarray:
    """Bits of a level of size 0 .. WIDEST - 1; all but 0 have a sign."""
    counts = np.bincount(np.minimum(sizes, WIDEST - 1), minlength=WIDEST) + UNSEEN
    return -np.log2(counts / counts.sum()) + (np.arange(WIDEST) > 0)
