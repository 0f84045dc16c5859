"""How far apart are two sets of features? Three metrics, for the features of any network.

| question                                  | function             | source                                |
|-------------------------------------------|----------------------|---------------------------------------|
| Have both one mean and covariance?        | ``frechet_distance`` | Heusel et al. 2017, eq. 6             |
| Have both the same first three moments?   | ``kernel_distance``  | Bińkowski et al. 2018                 |
| Does each sample lie among the real ones? | ``precision_recall`` | precision in Kynkäänniemi et al. 2019 |
| Does each real one lie among the samples? | ``precision_recall`` | recall, in the same                   |

The second's kernel is torchmetrics'. Its Fréchet distance takes pictures and a module, not features, and a
product of covariances that is not symmetric; here it is a symmetric one, whose eigenvalues are real: tests
compare both.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 1024  # distances to all others that are held in memory at once


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The Fréchet distance of two sets of features as Gaussians: Heusel et al. 2017, eq. 6.

        |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))       (Dowson & Landau 1982)

    It falls with the number of features that it is computed from: compare figures of equal numbers only.

    Args:
        a, b: (N, d) and (M, d) features, N and M at least 2.

    Returns:
        At least 0, up to rounding.

    Raises:
        ValueError: features of different widths, fewer than 2, or some that are not finite.
    """
    _check_features(a, b)
    mean_a, cov_a = _moments(a)
    mean_b, cov_b = _moments(b)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T  # (d, d) C_a^(1/2)
    product = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()  # tr (C_a C_b)^(1/2)
    return ((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * product).item()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of features (N, d), in float64."""
    x = x.double()
    return x.mean(0), torch.cov(x.T).view(x.shape[1], -1)


def kernel_distance(
    a: Tensor, b: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The squared maximum mean discrepancy with the kernel (x . y / d + 1)^3 (Bińkowski et al. 2018).

    Args:
        a, b: (N, d) and (M, d) features.
        subsets: how often it is estimated, at least 1.
        subset_size: from how many features of each set, drawn at random, 2 .. min(N, M).
        seed: of the draw.

    Returns:
        Mean and standard deviation of the estimates, which are unbiased and so may be negative.

    Raises:
        ValueError: features that do not fit, or numbers outside their ranges.
    """
    _check_features(a, b)
    if subsets < 1 or not 2 <= subset_size <= min(len(a), len(b)):
        raise ValueError(
            f"subsets must be at least 1 and subset_size lie in 2 .. {min(len(a), len(b))}, the smaller "
            f"number of features, got {subsets} and {subset_size}"
        )
    from torchmetrics.image.kid import poly_mmd

    generator = torch.Generator().manual_seed(seed)

    def draw(x: Tensor) -> Tensor:
        return x[torch.randperm(len(x), generator=generator)[:subset_size].to(x.device)].double()

    found = torch.stack([poly_mmd(draw(a), draw(b)) for _ in range(subsets)])
    return found.mean().item(), found.std(correction=0).item()


def precision_recall(real: Tensor, samples: Tensor, *, neighbours: int = 3) -> tuple[float, float]:
    """Improved precision and recall: Kynkäänniemi et al. 2019, eq. 1.

    Precision is the share of samples that lie in the manifold of the real features, recall the share of real
    features in that of the samples. A set's manifold is the union of balls around its members, each reaching
    to the member's k-th nearest neighbour.

    Args:
        real, samples: (N, d) and (M, d) features.
        neighbours: k, at least 1 and below N and M; 3 is the paper's.

    Returns:
        Precision and recall, in [0, 1].

    Raises:
        ValueError: as ``frechet_distance``, or a number of neighbours outside its range.
    """
    _check_features(real, samples)
    if not 1 <= neighbours < min(len(real), len(samples)):
        raise ValueError(f"neighbours must lie in 1 .. {min(len(real), len(samples)) - 1}, got {neighbours}")
    return _share_inside(real, samples, neighbours), _share_inside(samples, real, neighbours)


def _share_inside(members: Tensor, points: Tensor, neighbours: int) -> float:
    """The share of points in the union of balls around the members."""
    kth = neighbours + 1  # a member's nearest neighbour is itself
    radii = [distances(part, members).kthvalue(kth, dim=1).values for part in members.split(ROWS)]
    radius = torch.cat(radii)  # (N,)
    inside = [(distances(part, members) <= radius).any(1) for part in points.split(ROWS)]
    return torch.cat(inside).double().mean().item()


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances, each computed by itself: exactly 0 between equal points.

    Args:
        a, b: (N, d) and (M, d).

    Returns:
        (N, M) float64.
    """
    return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")


def _check_features(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            "two sets of at least 2 features of one width are needed, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise ValueError("features must be finite; pictures that are not give such: their sampler diverged")
