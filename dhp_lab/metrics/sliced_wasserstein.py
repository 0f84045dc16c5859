r"""The sliced Wasserstein distance: how far two clouds of points are apart, in units of their coordinates.

On a line the cheapest way to move one cloud onto another joins their quantiles, so sorting gives the
distance. In more dimensions it is averaged over directions (Rabin et al. 2012; Bonneel et al. 2015):

    SW_1(a, b) = E over directions w of  integral_0^1 |Q_a(p) - Q_b(p)| dp,     Q the quantiles of w . x

Points of one distribution have a distance above 0 too, which falls as their number grows: compare with that.
"""

from __future__ import annotations

import torch
from torch import Tensor

QUANTILES = 512


def sliced_wasserstein(a: Tensor, b: Tensor, *, directions: int = 64, seed: int = 0) -> float:
    """SW_1 of two clouds of points, 0 or more, in the units of their coordinates.

    Args:
        a, b: (N, d) and (M, d), each at least one point.
        directions: how many are drawn.
        seed: of the directions.

    Raises:
        ValueError: clouds of other shapes, or with numbers that are not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise ValueError(f"points must be (N, d) and (M, d), got {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise ValueError("points must be finite, got some that are not: the sampler has diverged")
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(a.shape[1], directions, generator=generator, dtype=torch.float64)
    w = w / w.norm(dim=0)  # (d, directions) of length 1
    p = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    quantiles = [torch.quantile(points @ w, p, dim=0) for points in (a, b)]  # (QUANTILES, directions)
    return (quantiles[0] - quantiles[1]).abs().mean().item()
