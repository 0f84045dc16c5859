"""rANS decoding where each symbol's table depends on the symbols before it, as trellis-coded levels need.

CompressAI's decoder takes the rows of all symbols at once; here the row of a latent is known when the level
before it is. The stream is the one that CompressAI's encoder writes (``rans.rans_encode``): a 64-bit state,
32-bit words, probabilities in units of 2^-16 (Duda 2013, "Asymmetric numeral systems"; F. Giesen's rans64),
and for levels outside a table four bits at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from dhp_lab.codec.bits.rans import CoderTables
from dhp_lab.codec.bits.trellis import NEXT_STATE, QUANTISER

PROBABILITY_BITS = 16
LEAST_STATE = 2**31  # below it the coder's state takes in another word
DIGIT_BITS, LAST_DIGIT = 4, 15  # of escapes
MOST_DIGITS = 7  # of an escape: 2^28; a damaged stream asks for more


class TableArrays(NamedTuple):
    """``CoderTables`` as arrays: cdfs (rows, W), lengths and offsets (rows,), all int64."""

    cdfs: np.ndarray
    lengths: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, tables: CoderTables) -> TableArrays:
        """The same tables."""
        return cls(*(np.array(part, dtype=np.int64) for part in tables))


class TrellisDecoder:
    """Levels from a stream, pass by pass; the trellis begins anew in each.

    Damaged data gives wrong levels, never an error, and zeros are read behind its end: check a CRC.

    Args:
        data: what ``rans_encode`` made of the levels of all passes, with the row of quantiser 1 LEVELS below
            that of quantiser 0.
        tables: of 2 LEVELS rows.
    """

    def __init__(self, data: bytes, tables: TableArrays) -> None:
        whole = data + bytes(-len(data) % 4 + 8)
        self.words = np.frombuffer(whole, dtype="<u4").astype(np.uint64)
        self.tables = tables
        self.coder = np.array([self.words[0] | self.words[1] << np.uint64(32), 2], dtype=np.uint64)

    def decode(self, indexes: Tensor) -> Tensor:
        """The levels of the next pass, (n,) int32, for the rows ``indexes`` (n,) of their scales."""
        rows = indexes.cpu().numpy().astype(np.int64)
        machine = NEXT_STATE, QUANTISER
        return torch.from_numpy(_decode_levels(self.words, self.coder, rows, *self.tables, *machine))


@njit(cache=True)
def _take_in(words: np.ndarray, coder: np.ndarray) -> None:
    """Keep the state, coder[0], at LEAST_STATE or more; coder[1] counts the words read."""
    if coder[0] < np.uint64(LEAST_STATE):
        place = int(coder[1])
        word = words[place] if place < len(words) else np.uint64(0)
        coder[0] = coder[0] << np.uint64(32) | word
        coder[1] += np.uint64(1)


@njit(cache=True)
def _digit(words: np.ndarray, coder: np.ndarray) -> int:
    """The next four bits of an escape."""
    digit = int(coder[0] & np.uint64(LAST_DIGIT))
    coder[0] = coder[0] >> np.uint64(DIGIT_BITS)
    _take_in(words, coder)
    return digit


@njit(cache=True)
def _escaped(words: np.ndarray, coder: np.ndarray, last: int) -> int:
    """A symbol outside a table whose last is ``last``: how many digits, then the digits, the lowest first."""
    count = digit = _digit(words, coder)
    while digit == LAST_DIGIT and count <= MOST_DIGITS:
        digit = _digit(words, coder)
        count += digit
    distance = 0
    for i in range(min(count, MOST_DIGITS)):
        distance |= _digit(words, coder) << (DIGIT_BITS * i)
    return -(distance + 1) // 2 if distance & 1 else last + distance // 2


@njit(cache=True)
def _decode_levels(
    words: np.ndarray,
    coder: np.ndarray,
    indexes: np.ndarray,
    cdfs: np.ndarray,
    lengths: np.ndarray,
    offsets: np.ndarray,
    next_state: np.ndarray,
    quantiser: np.ndarray,
) -> np.ndarray:
    """``TrellisDecoder.decode`` with the coder's state and place in ``coder`` (2,), which move on.

    The machine is an argument: numba keeps what it has compiled of this file until this file changes.
    """
    levels, state = np.empty(len(indexes), np.int32), 0
    mask = np.uint64(2**PROBABILITY_BITS - 1)
    for i in range(len(indexes)):
        row = indexes[i] + len(lengths) // 2 * quantiser[state]
        cumulative = int(coder[0] & mask)
        last = lengths[row] - 2
        symbol = np.searchsorted(cdfs[row, : last + 2], cumulative, side="right") - 1
        start, width = cdfs[row, symbol], cdfs[row, symbol + 1] - cdfs[row, symbol]
        coder[0] = np.uint64(width) * (coder[0] >> np.uint64(PROBABILITY_BITS)) + np.uint64(
            cumulative - start
        )
        _take_in(words, coder)
        if symbol == last:
            symbol = _escaped(words, coder, last)
        levels[i] = symbol + offsets[row]
        state = next_state[state, levels[i] & 1]
    return levels
