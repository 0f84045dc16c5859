"""Lesson 09: right answers to its exercises, and wrong ones."""

import math
from bisect import bisect_left, bisect_right
from statistics import NormalDist

import numpy as np


def right_cross_entropy(p, q):
    seen = p > 0
    with np.errstate(divide="ignore"):
        return float(-(p[seen] * np.log2(q[seen])).sum())


def right_pop(state, table, precision):
    slot = state % 2**precision
    symbol = bisect_right(table, slot) - 1
    return symbol, (table[symbol + 1] - table[symbol]) * (state >> precision) + slot - table[symbol]


def right_latent_bits(y, mean, scale):
    q, phi = round(y - mean), NormalDist(0, scale).cdf
    return -math.log2(phi(q + 0.5) - phi(q - 0.5))


def unrounded(y, mean, scale):
    phi = NormalDist(mean, scale).cdf
    return -math.log2(phi(y + 0.5) - phi(y - 0.5))


def rounded_first(y, mean, scale):
    q, phi = round(y), NormalDist(mean, scale).cdf
    return -math.log2(phi(q + 0.5) - phi(q - 0.5))


def end_included(state, table, precision):
    slot = state % 2**precision
    symbol = bisect_left(table, slot, lo=1) - 1
    return symbol, (table[symbol + 1] - table[symbol]) * (state >> precision) + slot - table[symbol]


def start_forgotten(state, table, precision):
    slot = state % 2**precision
    symbol = bisect_right(table, slot) - 1
    return symbol, (table[symbol + 1] - table[symbol]) * (state >> precision) + slot


RIGHT = {"cross_entropy": right_cross_entropy, "pop": right_pop, "latent_bits": right_latent_bits}

MISTAKES = {
    "cross_entropy": [
        (lambda p, q: float(-(p * np.log(q)).sum()), "a fair coin has one bit"),
        (lambda p, q: float(-np.log2(q).mean()), "weigh the costs"),
        (lambda p, q: float(-(p * np.log2(p)).sum()), "the table what it costs"),
        (lambda p, q: float(-(q * np.log2(p)).sum()), "sum p log2(1 / q)"),
        (lambda p, q: float(-(p * np.log2(q)).sum()), "0 log 0 counts as 0"),
        (lambda p, q: min(99.0, right_cross_entropy(p, q)), "return infinity"),
    ],
    "pop": [
        (
            lambda state, table, precision: (state % 2**precision, state >> precision),
            "place 13 lies in the part of symbol 2",
        ),
        (
            lambda state, table, precision: (right_pop(state, table, precision)[0], state >> precision),
            "2 * 1 + (13 - 12)",
        ),
        (end_included, "not its end"),
        (start_forgotten, "2 * 1 + (13 - 12)"),
        (lambda state, table, precision: right_pop(state, table, 4), "2^3 places"),
        (
            lambda state, table, precision: (0, 0) if state == 4001 else right_pop(state, table, precision),
            "pushing every symbol",
        ),
    ],
    "latent_bits": [
        (
            lambda y, mean, scale: -math.log2(NormalDist(mean, scale).pdf(round(y - mean) + mean)),
            "height of the density",
        ),
        (unrounded, "the symbol is 0"),
        (lambda y, mean, scale: right_latent_bits(y, mean, 1.0), "units of the scale"),
        (lambda y, mean, scale: -math.log2(math.erf(0.5 / scale / math.sqrt(2))), "1.5 .. 2.5"),
        (rounded_first, "take the mean away"),
        (lambda y, mean, scale: right_latent_bits(y, 0.0, scale), "take the mean away"),
    ],
}
