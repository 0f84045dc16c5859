r"""Trellis-coded quantisation: two quantisers, and a machine of 32 states that says which one is next.

    quantiser 0    ...  -2    -1     0     1     2  ...      level k stands for  k
    quantiser 1    ...  -3/2  -1/2   0    1/2   3/2 ...      level k stands for  k - sign(k) / 2

Both have levels a step apart and cost about the bits of plain rounding, but together they reach every half
step. The parity of each level moves the machine on, and its state chooses the next latent's quantiser: the
decoder follows without side information, while the encoder looks for the cheapest path through all states
with Viterbi's algorithm (Forney 1973). The errors of paths fill space better than the cubes of plain rounding
do: 1.1 dB less of them at the same rate, of the 1.53 dB that any quantiser can gain.

Marcellin & Fischer 1990, "Trellis coded quantization of memoryless and Gauss-Markov sources"; with a zero in
both quantisers, for low rates: Schwarz et al. 2021, "Quantization and entropy coding in the Versatile Video
Coding (VVC) standard". The machine: Ungerboeck 1982, "Channel coding with multilevel/phase signals", table I.

| name   | here                       | range                                  |
|--------|----------------------------|----------------------------------------|
| level  | k, what the coder writes   | whole numbers                          |
| value  | what it stands for         | multiples of 1/2, in quantiser steps   |
| row    | of a probability table     | 0 .. LEVELS - 1, as ``scale_indexes``  |

A trellis begins in state 0. Functions here work on one trellis: (n,) numbers in coding order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

STATE_BITS = 5
STATES = 2**STATE_BITS
CHECKS = 0o45, 0o10  # parity checks h0 and h1 of Ungerboeck's code with 32 states
PRICE = 18.0  # bits that a squared step is worth to the encoder where nothing else is said
FAR = 1e30  # cost of what cannot be
CANDIDATES = 3  # levels that are compared for each quantiser and parity


def machine() -> tuple[np.ndarray, np.ndarray]:
    """The machine: (STATES, 2) int8, the next state by parity, and (STATES,) int8, each state's quantiser.

    A systematic encoder with feedback: the state shifts down by a bit, and where the bit that leaves it, or
    the parity, is 1, the check h0, or h1, is added modulo 2. The bit that leaves it is the quantiser.
    """
    from_state, from_parity = (check >> 1 for check in CHECKS)
    states = np.arange(STATES)
    quantiser = states & 1
    shifted = states >> 1 ^ quantiser * from_state
    return np.stack([shifted, shifted ^ from_parity], 1).astype(np.int8), quantiser.astype(np.int8)


NEXT_STATE, QUANTISER = machine()


@njit(cache=True)
def value_of(level: int, quantiser: int) -> float:
    """What a level stands for, in steps."""
    if quantiser == 1:
        return level - 0.5 * np.sign(level)
    return float(level)


@njit(cache=True)
def _bits_of(bits: np.ndarray, row: int, size: int) -> float:
    """Bits of a level of this size: ``bits`` ends where the coder's table does, and escapes cost more."""
    last = bits.shape[1] - 1
    return bits[row, size] if size <= last else bits[row, last] + 8.0 * np.log2(size - last + 1.0)


@njit(cache=True)
def _cheapest_levels(
    size: float, quantiser: int, bits: np.ndarray, price: float, costs: np.ndarray, levels: np.ndarray
) -> None:
    """For a residual of this size, the cheapest level of each parity: ``costs`` (2,) and ``levels`` (2,).

    Compared are the two around the residual, and the least there is. bits: of one row, (1, W).
    """
    near = int(size + 0.5 * quantiser)
    for parity in range(2):
        below = near - ((near ^ parity) & 1)
        costs[parity] = FAR
        for candidate in range(CANDIDATES):
            level = parity if candidate == 0 else below + 2 * (candidate - 1)
            if level < 0:
                continue
            error = size - value_of(level, quantiser)
            cost = price * error * error + _bits_of(bits, 0, level)
            if cost < costs[parity]:
                costs[parity], levels[parity] = cost, level


@njit(cache=True)
def cheapest_path(residual: np.ndarray, rows: np.ndarray, bits: np.ndarray, price: float) -> np.ndarray:
    """The levels of the path with the least  price * squared error + bits.

    Args:
        residual: (n,) float, y/Delta - mean.
        rows: (n,) whole numbers, of the probability tables.
        bits: (2, LEVELS, W) what a level of size 0 .. W - 1 costs with each quantiser.
        price: of a squared step, in bits.

    Returns:
        (n,) int32 levels.
    """
    n = len(residual)
    total, following = np.full(STATES, FAR), np.empty(STATES)
    total[0] = 0.0
    came_from, parities = np.empty((n, STATES), np.int8), np.empty((n, STATES), np.int8)
    costs, levels = np.empty((2, 2)), np.empty((n, 2, 2), np.int32)
    for i in range(n):
        size, row = abs(residual[i]), rows[i]
        for quantiser in range(2):
            row_bits = bits[quantiser, row : row + 1]
            _cheapest_levels(size, quantiser, row_bits, price, costs[quantiser], levels[i, quantiser])
        following[:] = FAR
        for state in range(STATES):
            quantiser = QUANTISER[state]
            for parity in range(2):
                cost, then = total[state] + costs[quantiser, parity], NEXT_STATE[state, parity]
                if cost < following[then]:
                    following[then] = cost
                    came_from[i, then], parities[i, then] = state, parity
        total[:] = following
    path, state = np.empty(n, np.int32), int(np.argmin(total))
    for i in range(n - 1, -1, -1):
        parity, state = parities[i, state], came_from[i, state]
        level = levels[i, QUANTISER[state], parity]
        path[i] = level if residual[i] >= 0 else -level
    return path


@njit(cache=True)
def values_of_path(levels: np.ndarray) -> np.ndarray:
    """What the levels (n,) of a path stand for: (n,) float32, in steps."""
    values, state = np.empty(len(levels), np.float32), 0
    for i in range(len(levels)):
        values[i] = value_of(levels[i], QUANTISER[state])
        state = NEXT_STATE[state, levels[i] & 1]
    return values


@njit(cache=True)
def path_of_values(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of ``values_of_path``.

    Args:
        values: (n,) float, multiples of 1/2 that a path can have.

    Returns:
        (n,) int32 levels, and (n,) int8, the quantiser of each.
    """
    levels, quantisers = np.empty(len(values), np.int32), np.empty(len(values), np.int8)
    state = 0
    for i in range(len(values)):
        quantiser = QUANTISER[state]
        levels[i] = int(values[i] + 0.5 * np.sign(values[i]) * quantiser)
        quantisers[i] = quantiser
        state = NEXT_STATE[state, levels[i] & 1]
    return levels, quantisers
