"""Large pictures in bounded memory: run a network on overlapping squares and keep their middles.

A convolutional network looks only so far; with an overlap of at least its reach the middles are what the whole picture would
give, up to the order in which sums are rounded.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

TILE = 96                  # side of a square in latents: 1536 pixels
OVERLAP = 8                # latents on each side, 128 pixels: the reach of g_a, of g_s and of D


def tiled(network: Callable[[slice, slice], Tensor], rows: int, cols: int, scale: int, tile: int = TILE) -> Tensor:
    """Assemble a network's result over rows x cols latents from squares.

    Args:
        network: takes the rows and columns of latents that it may look at, returns its result for them,
            (..., scale * rows, scale * cols).
        rows, cols: size of the whole in latents. scale: pixels of the result for one latent.
        tile: side of a square in latents, >= 1.

    Returns:
        (..., scale * rows, scale * cols)
    """
    if rows <= tile and cols <= tile:
        return network(slice(0, rows), slice(0, cols))
    whole = None
    for top in range(0, rows, tile):
        for left in range(0, cols, tile):
            inner_r, outer_r = _spans(top, tile, rows)
            inner_c, outer_c = _spans(left, tile, cols)
            part = network(outer_r, outer_c)
            if whole is None:
                whole = part.new_empty(*part.shape[:-2], scale * rows, scale * cols)
            keep_r = _scaled(inner_r, scale, outer_r.start)
            keep_c = _scaled(inner_c, scale, outer_c.start)
            whole[..., _scaled(inner_r, scale), _scaled(inner_c, scale)] = part[..., keep_r, keep_c]
    return whole


def _spans(start: int, tile: int, length: int) -> tuple[slice, slice]:
    stop = min(start + tile, length)
    return slice(start, stop), slice(max(0, start - OVERLAP), min(length, stop + OVERLAP))


def _scaled(span: slice, scale: int, origin: int = 0) -> slice:
    return slice(scale * (span.start - origin), scale * (span.stop - origin))
