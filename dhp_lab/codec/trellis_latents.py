"""Trellis-coded quantisation of latents: tensors of a pass to trellises of ``bits.trellis``, and back.

A pass's latents (B, n, C) at n places are B trellises, in the order of coding: channel by channel, in each
the places. Latents whose scale is so small that nothing is coded are left out, and 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dhp_lab.codec.bits.scales import LEVELS, LOG2_SCALE_MIN, LOG2_SCALES, PER_OCTAVE, scale_indexes
from dhp_lab.codec.bits.trellis import PRICE, cheapest_path, path_of_values, values_of_path


class Path(NamedTuple):
    """One trellis: (n,) int32 levels of latents that are coded, and the quantiser of each, int8."""

    levels: np.ndarray
    quantisers: np.ndarray

    def rows(self, indexes: Tensor) -> Tensor:
        """(n,) int32 rows of the tables of both quantisers, for the rows of scales ``indexes`` (n,)."""
        return indexes.int() + LEVELS * torch.from_numpy(self.quantisers).int()


def coded_indexes(log2_scale: Tensor) -> tuple[Tensor, Tensor]:
    """What is coded of a pass (1, n, C): bool (1, C, n), and the rows of the scales there, (m,) int32; on the
    CPU.
    """
    indexes = scale_indexes(log2_scale.cpu()).mT.contiguous()
    return indexes > 0, indexes[indexes > 0]


def place_values(values: np.ndarray, coded: Tensor, like: Tensor) -> Tensor:
    """Numbers (m,) of what is coded, bool (1, C, n), as latents (1, n, C); zeros elsewhere."""
    whole = torch.zeros(coded.shape, dtype=like.dtype)
    whole[coded] = torch.from_numpy(values).to(like.dtype)
    return whole.mT.to(like.device)


def trellis_symbols(residual: Tensor, log2_scale: Tensor, bits: np.ndarray, price: float = PRICE) -> Tensor:
    """Quantise a pass.

    Args:
        residual: (B, n, C) y/Delta - mean. log2_scale: (B, n, C) of the scales in steps.
        bits: (2, LEVELS, W) what levels cost. price: of a squared step, in bits.

    Returns:
        (B, n, C) multiples of 1/2.
    """
    pictures = zip(residual.detach().split(1), log2_scale.detach().split(1), strict=True)
    return torch.cat([_symbols_of_one(*picture, bits, price) for picture in pictures])


def _symbols_of_one(residual: Tensor, log2_scale: Tensor, bits: np.ndarray, price: float) -> Tensor:
    coded, indexes = coded_indexes(log2_scale)
    ordered = residual.cpu().mT[coded].float().numpy()
    levels = cheapest_path(ordered, indexes.numpy(), bits, price)
    return place_values(values_of_path(levels), coded, residual)


def trellis_path(symbols: Tensor, coded: Tensor) -> Path:
    """The path through the trellis of a picture's pass (1, n, C), of which ``coded`` (1, C, n) is coded."""
    return Path(*path_of_values(symbols.detach().cpu().mT[coded].float().numpy()))


def symbol_bits(symbols: Tensor, log2_scale: Tensor, bits: np.ndarray) -> Tensor:
    """What the symbols of a pass cost, (B, n, C) float32: differentiable in the scale.

    Between the rows of the tables bits are interpolated; at a row they are the coder's own. 0 where nothing
    is coded.

    Args:
        symbols, log2_scale: (B, n, C). bits: (2, LEVELS, W).
    """
    pictures = zip(symbols.split(1), log2_scale.split(1), strict=True)
    return torch.cat([_bits_of_one(*picture, torch.from_numpy(bits)) for picture in pictures])


def _bits_of_one(symbols: Tensor, log2_scale: Tensor, bits: Tensor) -> Tensor:
    coded, indexes = coded_indexes(log2_scale)
    path = trellis_path(symbols, coded)
    size = torch.from_numpy(np.abs(path.levels)).long()
    beyond = (size - bits.shape[2] + 1).clamp(min=0)
    table = bits[
        torch.from_numpy(path.quantisers).long(), :, size.clamp(max=bits.shape[2] - 1)
    ]  # (m, LEVELS)
    place = (log2_scale.cpu().mT[coded].clamp(*LOG2_SCALES) - LOG2_SCALE_MIN) * PER_OCTAVE
    below = place.detach().floor().clamp(max=LEVELS - 2).long()
    ends = [table.gather(1, (below + more)[:, None])[:, 0] for more in (0, 1)]
    cost = torch.lerp(*ends, place - below) + 8 * (1.0 + beyond).log2()
    whole = torch.zeros(coded.shape, dtype=cost.dtype)
    return whole.masked_scatter(coded, cost).mT.to(symbols.device)


def symbol_probabilities(symbols: Tensor, log2_scale: Tensor, bits: np.ndarray) -> Tensor:
    """P of the symbols of a pass, (B, n, C) float32, as the coder's tables have it; 1 where nothing is
    coded.
    """
    nearest = (scale_indexes(log2_scale).to(log2_scale.dtype) / PER_OCTAVE + LOG2_SCALE_MIN).detach()
    return symbol_bits(symbols, nearest, bits).neg().exp2()
