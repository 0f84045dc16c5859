"""Large pictures in bounded memory: run a network on overlapping tiles and keep their middles.

A convolutional network looks only so far; with an overlap of at least its reach the middles are what the
whole picture would give, up to the order in which sums are rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

TILE = 128  # largest side of a tile in latents: 2048 pixels
SMALL_TILE = 32  # where memory is short
UNIT = 4  # tiles start at whole multiples of this: one hyper-latent stands for 4 x 4 latents
OVERLAP = 8  # latents on each side, 128 pixels: the reach of g_a, of g_s and of D; h_s reaches less far


def tiled(
    network: Callable[[slice, slice], Tensor], rows: int, cols: int, scale: int, tile: int = TILE
) -> Tensor:
    """Assemble a network's result over rows x cols latents from tiles.

    Args:
        network: takes the rows and columns of latents that it may look at, returns its result for them,
            (..., scale * rows, scale * cols).
        rows, cols: size of the whole in latents. scale: pixels of the result for one latent.
        tile: largest side of a tile in latents, >= 1 and rounded up to a multiple of 4.

    Returns:
        (..., scale * rows, scale * cols)
    """
    if rows <= tile and cols <= tile:
        return network(slice(0, rows), slice(0, cols))
    whole = None
    for inner_r, outer_r in _spans(rows, tile):
        for inner_c, outer_c in _spans(cols, tile):
            part = network(outer_r, outer_c)
            if whole is None:
                whole = _empty_like(part, scale * rows, scale * cols)
            keep_r = _scaled(inner_r, scale, outer_r.start)
            keep_c = _scaled(inner_c, scale, outer_c.start)
            whole[..., _scaled(inner_r, scale), _scaled(inner_c, scale)] = part[..., keep_r, keep_c]
    return whole


def _empty_like(part: Tensor, height: int, width: int) -> Tensor:
    """Room for (..., height, width), in the order of memory that a part has."""
    by_place = part.ndim == 4 and part.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if by_place else torch.contiguous_format
    shape = (*part.shape[:-2], height, width)
    return torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=order)


def _spans(length: int, tile: int) -> list[tuple[slice, slice]]:
    """Cut a side into equal parts: what each gives to the whole, and what it looks at."""
    step = UNIT * math.ceil(length / math.ceil(length / tile) / UNIT)
    starts = range(0, length, step)
    inner = [slice(start, min(start + step, length)) for start in starts]
    return [(part, slice(max(0, part.start - OVERLAP), min(length, part.stop + OVERLAP))) for part in inner]


def _scaled(span: slice, scale: int, origin: int = 0) -> slice:
    return slice(scale * (span.start - origin), scale * (span.stop - origin))
