"""Sides that must be multiples of a network's stride: padded before it, cropped after it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column below and to the right until both sides are multiples of a number.

    Unlike zeros, replicate padding adds no edge that the picture does not have. ``crop_to`` takes it off.

    Args:
        x: (B, C, H, W), H and W at least 1.
        multiple: of which both sides become multiples, at least 1.

    Returns:
        (B, C, H', W') with H' = multiple * ceil(H / multiple), and so W'; x itself if nothing is missing.

    Raises:
        ValueError: a multiple below 1.
    """
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1, got {multiple}")
    rows, columns = (-side % multiple for side in x.shape[-2:])
    if not rows and not columns:
        return x
    return F.pad(x, (0, columns, 0, rows), mode="replicate")


def crop_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The first rows and columns of a batch: the inverse of ``pad_to_multiple``, given the size before it.

    Args:
        x: (..., H', W').
        size: (H, W), at most (H', W').

    Returns:
        (..., H, W), a view of x.

    Raises:
        ValueError: a size larger than x.
    """
    height, width = size
    if height > x.shape[-2] or width > x.shape[-1]:
        raise ValueError(
            f"a picture of {x.shape[-2]} x {x.shape[-1]} cannot be cropped to {height} x {width}"
        )
    return x[..., :height, :width]
