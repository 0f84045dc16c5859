r"""Symbols to bytes: whole-number scale indexes, stored probability tables, rANS coding (CompressAI's coder).

A latent is coded as q = round((y/Delta - mean) / width), where ``bin_width`` is 1 or, with a dead zone, a
little more, with a zero-mean Gaussian whose scale the entropy model predicts (Minnen et al. 2018, eq. 3).
Scales are taken from a table, eight to the octave, and the index is found in fixed point:

    log2_scale = log2(spread) + log2(scale from h_s) - log2(Delta),     in whole multiples of 2^-16
    index = (log2_scale - log2(SCALE_MIN)) * 8,     rounded

so that a decoder on another device reads the same tables. Where the index is 0 the symbol is almost surely
zero (P(q != 0) < 1.3e-4): the encoder sets it to zero and nothing is coded. The levels of a trellis
(``trellis``) have two tables for each scale, and ``trellis_decoder`` reads them.

| paper   | here                        | unit             |
|---------|-----------------------------|------------------|
| sigma   | ``SCALES[index]``           | quantiser steps  |
| q       | ``symbols``                 | whole numbers    |
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dhp_lab.codec.bits.bitstream import BitstreamError
from dhp_lab.core.compressai_imports import EntropyModel, ans

SYMBOL_LIMIT = 2**26  # the coder's escape for large symbols breaks at 2^27
FEWEST = 4  # the coder writes beyond its memory with fewer symbols: zeros follow, never read
STATE_BYTES = 64  # more than the coder's state, which it reads at once


class CoderTables(NamedTuple):
    """Probability tables as the coder takes them: a row for each index."""

    cdfs: list[list[int]]
    lengths: list[int]
    offsets: list[int]


def coder_tables(model: EntropyModel) -> CoderTables:
    """The tables that ``update`` has made in one of CompressAI's entropy models.

    Raises:
        ValueError: there are none yet.
    """
    if model._quantized_cdf.numel() == 0:
        raise ValueError("this model has no probability tables yet: call model.update() first")
    return CoderTables(model._quantized_cdf.tolist(), model._cdf_length.tolist(), model._offset.tolist())


def rans_encode(symbols: Tensor, indexes: Tensor, tables: CoderTables) -> bytes:
    """rANS-code whole numbers.

    Args:
        symbols: (n,) int32 on any device. indexes: (n,) int32, the row of the tables for each.

    Returns:
        the bytes; none for no symbols.

    Raises:
        ValueError: a symbol beyond 2^26, which only a picture or a weight that is not finite makes.
    """
    if not len(symbols):  # the coder itself crashes on an empty list
        return b""
    least, most = int(symbols.min()), int(symbols.max())
    if least < -SYMBOL_LIMIT or most > SYMBOL_LIMIT:  # the coder would never return
        raise ValueError(
            f"symbols must lie within {SYMBOL_LIMIT}, got {least} .. {most}: "
            "is every pixel and every weight finite?"
        )
    padding = [0] * (FEWEST - len(symbols))
    return ans.RansEncoder().encode_with_indexes(
        symbols.tolist() + padding, indexes.tolist() + padding, *tables
    )


def rans_decode(data: bytes, indexes: Tensor, tables: CoderTables) -> Tensor:
    """The inverse of ``rans_encode``: (n,) int32 on the CPU.

    Damaged data gives wrong symbols, never an error: check a CRC.
    """
    return RansDecoder(data, len(indexes), tables).decode(indexes)


class RansDecoder:
    """``rans_decode`` in parts, for indexes that depend on earlier symbols.

    Args:
        data: what ``rans_encode`` made of all parts, one behind the other.
        most: no more symbols will be decoded in all.
    """

    def __init__(self, data: bytes, most: int, tables: CoderTables) -> None:
        self.tables, self.decoder = tables, ans.RansDecoder()
        self.decoder.set_stream(guarded(data, most))

    def decode(self, indexes: Tensor) -> Tensor:
        """The next symbols, (n,) int32 on the CPU, for the tables' rows ``indexes`` (n,)."""
        symbols = self.decoder.decode_stream(indexes.tolist(), *self.tables)
        return torch.from_numpy(np.array(symbols, dtype=np.int32))


def guarded(data: bytes, most: int) -> bytes:
    """A stream with zeros behind it, so that the decoder never reads beyond its memory.

    CompressAI's decoder (rans_interface.cpp, decode_stream) takes the stream for an array of 32-bit words and
    does not check where it ends. A damaged stream makes it read on: at most a word for each symbol, and in
    the escape code for large symbols, whose length is read from the stream itself, four more for each byte.
    """
    to_whole_word = -len(data) % 4
    return data + bytes(to_whole_word + STATE_BYTES + 4 * (most + 4 * len(data)))


def symbol_crc(symbols: Tensor) -> int:
    """CRC32 of whole numbers as little-endian int32: equal on both sides, or the picture is wrong."""
    return zlib.crc32(symbols.detach().cpu().numpy().astype("<i4").tobytes())


def check_symbols(name: str, symbols: Tensor, expected: int) -> None:
    """Pass if whole numbers have this CRC32.

    Raises:
        BitstreamError: they have another.
    """
    if (found := symbol_crc(symbols)) != expected:
        raise BitstreamError(
            f"the decoded symbols of {name} have CRC32 {found:08x}, the file says {expected:08x}: "
            "the stream is damaged or was made by another model; fetch the file again or name its model"
        )
