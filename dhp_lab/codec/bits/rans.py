r"""Symbols to bytes: whole-number scale indexes, stored probability tables, rANS coding (CompressAI's coder).

A latent is sent as q = round((y/Delta - mean) / width), where ``bin_width`` is 1 or, with a dead zone, a
little more. It is coded with a zero-mean Gaussian whose scale the hyper-decoder gives (Minnen et al. 2018,
eq. 3). Scales are taken from a table, eight to the octave, and the index is found in fixed point:

    octaves = log2(spread) + log2(scale from h_s) - log2(Delta),     in whole multiples of 2^-16
    index = (octaves - log2(SCALE_MIN)) * 8,     rounded

so that a decoder on another device reads the same tables. Where the index is 0 the symbol is almost surely
zero (P(q != 0) < 1.3e-4): the encoder sets it to zero and nothing is sent.

| paper   | here                        | unit             |
|---------|-----------------------------|------------------|
| sigma   | ``SCALES[index]``           | quantiser steps  |
| q       | ``symbols``                 | whole numbers    |
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from compressai import ans
from compressai.entropy_models import EntropyModel
from torch import Tensor

from dhp_lab.codec.bits.bitstream import BitstreamError

SYMBOL_LIMIT = 2**26  # the coder's escape for large symbols breaks at 2^27
SPARE = 4  # the coder writes beyond its memory with fewer symbols: zeros follow, never read


def rans_encode(symbols: Tensor, indexes: Tensor, tables: EntropyModel) -> bytes:
    """rANS-code whole numbers with the tables' rows ``indexes``; both (n,) int32 on any device. No numbers,
    no bytes.

    Raises:
        ValueError: a symbol beyond 2^26, which only a picture or a weight that is not finite makes; or no
            tables yet.
    """
    if not len(symbols):  # the coder itself crashes on an empty list
        return b""
    if (
        int(symbols.min()) < -SYMBOL_LIMIT or int(symbols.max()) > SYMBOL_LIMIT
    ):  # the coder would never return
        raise ValueError(
            f"symbols must lie within {SYMBOL_LIMIT}, got {int(symbols.min())} .. {int(symbols.max())}: "
            "is every pixel and every weight finite?"
        )
    spare = [0] * (SPARE - len(symbols))
    return ans.RansEncoder().encode_with_indexes(
        symbols.tolist() + spare, indexes.tolist() + spare, *_lists(tables)
    )


def rans_decode(data: bytes, indexes: Tensor, tables: EntropyModel) -> Tensor:
    """The inverse of ``rans_encode``: (n,) int32 on the CPU. Damaged data gives wrong symbols, never an error: check
    a CRC.
    """
    return RansDecoder(data, len(indexes), tables).take(indexes)


class RansDecoder:
    """``rans_decode`` in parts, for indexes that are known only when earlier symbols are.

    Args:
        data: what ``rans_encode`` made of all parts, one behind the other. most: no more symbols will be asked for
            in all.
    """

    def __init__(self, data: bytes, most: int, tables: EntropyModel) -> None:
        self.lists, self.decoder = _lists(tables), ans.RansDecoder()
        self.decoder.set_stream(
            data + bytes(-len(data) % 4 + 64 + 4 * (most + 4 * len(data)))
        )  # it does not look for the end

    def take(self, indexes: Tensor) -> Tensor:
        """The next symbols, (n,) int32 on the CPU, for the tables' rows ``indexes`` (n,)."""
        return torch.from_numpy(
            np.array(self.decoder.decode_stream(indexes.tolist(), *self.lists), dtype=np.int32)
        )


def symbol_crc(symbols: Tensor) -> int:
    """CRC32 of whole numbers as little-endian int32: equal on encoder and decoder, or the picture is wrong."""
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


def _lists(tables: EntropyModel) -> tuple[list, list, list]:
    """The tables as the Python lists that the coder takes, made once for each set of tables."""
    sources = (tables._quantized_cdf, tables._cdf_length, tables._offset)
    cached = getattr(tables, "_cached_lists", None)
    if cached is None or any(
        a is not b or a._version != v for a, b, v in zip(sources, *cached[:2], strict=True)
    ):
        if tables._quantized_cdf.numel() == 0:
            raise ValueError("this model has no probability tables yet: call model.update() first")
        # the tensors themselves are kept: a new one may lie where an old one was freed
        cached = (sources, [t._version for t in sources], tuple(t.tolist() for t in sources))
        tables._cached_lists = cached
    return cached[2]
