"""Patch-KID: do the patches of decoded pictures look like those of the originals, as a whole?

The squared maximum mean discrepancy with the kernel k(a, b) = (a . b / d + 1)^3 (Bińkowski et al. 2018,
section 3) of features of 64-pixel patches. The features are EfficientNet-Lite0's here, not Inception's:
figures are to be compared with each other, never with a published KID.

Each decoded patch has its original, so the two sets are not independent, and the pair of a patch with its own
original must stay out. The unbiased estimate that does so (Gretton et al. 2012, lemma 6, eq. 4) is

    mean over i != j of   k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j)

It is exactly 0 for equal sets, and may be negative by chance. The interval is that of a bootstrap over
pictures (not patches: those of one picture are alike). A resample is the mean over pairs of patches of two
different pictures, each pair as often as both were drawn, and the mean within pictures, each as often as it
was drawn, in the shares that both kinds of pairs have in the estimate. With few pictures it is rough.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dhp_lab.metrics.paired import COVERED, Interval

SIDE = 64  # of a patch, in pixels
PATCHES = 128  # at most of one picture; Kodak's have 96
RESAMPLES = 1000


def cut_patches(x: Tensor, *, side: int = SIDE, most: int = PATCHES, seed: int = 0) -> Tensor:
    """Cut a picture into patches side by side, from the top left corner.

    Args:
        x: (1, 3, H, W).
        side: of a patch, in pixels.
        most: of a picture with more, as many are drawn, the same ones for the same size and seed.
        seed: of that draw.

    Returns:
        (n, 3, side, side); n = 0 where none fits.
    """
    if min(x.shape[-2:]) < side:
        return x.new_zeros(0, 3, side, side)
    patches = x[0].unfold(1, side, side).unfold(2, side, side)  # (3, rows, columns, side, side)
    patches = patches.permute(1, 2, 0, 3, 4).flatten(0, 1)
    if len(patches) <= most:
        return patches
    chosen = torch.randperm(len(patches), generator=torch.Generator().manual_seed(seed))[:most]
    return patches[chosen.sort().values.to(x.device)]


def cubic_kernel(a: Tensor, b: Tensor) -> Tensor:
    """k = (a . b / d + 1)^3, (N, M) in float64, of features (N, d) and (M, d)."""
    return ((a @ b.T).double() / a.shape[1] + 1) ** 3


def paired_kernel_distance(
    real: Sequence[Tensor], fake: Sequence[Tensor], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Estimate the squared maximum mean discrepancy of paired features, see above.

    Args:
        real, fake: of each picture, features (n, d) of its patches and of the decoded ones, in one order.
        resamples: of the bootstrap over pictures.
        seed: of those.

    Raises:
        ValueError: numbers or shapes that do not fit, or fewer than two patches.
    """
    return _interval(*_estimates(real, fake, resamples, seed))


def kernel_distance_difference(
    real: Sequence[Tensor],
    fake: Sequence[Tensor],
    other: Sequence[Tensor],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The distance of ``fake`` from ``real`` less that of ``other``: below 0 where ``fake`` is nearer.

    Both distances are resampled together, so that what the pictures have in common cancels out. Arguments and
    errors as for ``paired_kernel_distance``.
    """
    (a, of_a), (b, of_b) = (_estimates(real, one, resamples, seed) for one in (fake, other))
    return _interval(a - b, None if of_a is None else of_a - of_b)


def _estimates(
    real: Sequence[Tensor], fake: Sequence[Tensor], resamples: int, seed: int
) -> tuple[float, Tensor | None]:
    """The estimate, and those of the resamples (R,), not numbers where all are one picture."""
    if [part.shape for part in real] != [part.shape for part in fake] or sum(map(len, real)) < 2:
        raise ValueError(
            "equally many patches of each picture are needed, two at least in all, got "
            f"{[tuple(part.shape) for part in real]} and {[tuple(part.shape) for part in fake]}"
        )
    sums, counts = _sums_by_picture(list(real), list(fake))
    value = (sums.sum() / counts.sum()).item()
    if len(real) < 2:
        return value, None
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(real), (resamples, len(real)), generator=generator)
    times = torch.nn.functional.one_hot(drawn, len(real)).sum(1).double()  # (R, P) how often each was drawn
    return value, _resampled(sums, counts, times)


def _interval(value: float, found: Tensor | None) -> Interval:
    if found is None:
        return Interval(value, None, None)
    found = found[found.isfinite()]  # a single picture, drawn alone, has no pair of two
    tail = (1 - COVERED) / 2
    low, high = found.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(value, low, high)


def _sums_by_picture(real: list[Tensor], fake: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(P, P) sums of the terms over the patches of two pictures, and how many they are."""
    lengths = torch.tensor([len(part) for part in real])
    owner = torch.repeat_interleave(torch.arange(len(real)), lengths)  # (N,)
    x, y = torch.cat(real).float().cpu(), torch.cat(fake).float().cpu()
    sums = torch.zeros(len(real), len(real), dtype=torch.float64)
    ends = lengths.cumsum(0).tolist()
    for number, (end, length) in enumerate(zip(ends, lengths.tolist(), strict=True)):
        own = slice(end - length, end)
        terms = cubic_kernel(x[own], x) + cubic_kernel(y[own], y)
        terms = terms - cubic_kernel(x[own], y) - cubic_kernel(y[own], x)
        terms[:, own].fill_diagonal_(0)
        sums[number].index_add_(0, owner, terms.sum(0))
    counts = (lengths[:, None] * lengths - torch.diag(lengths)).double()
    return sums, counts


def _resampled(sums: Tensor, counts: Tensor, times: Tensor) -> Tensor:
    """(R,) estimates from pictures drawn so often; not a number where all are one picture."""
    own, own_counts = sums.diagonal(), counts.diagonal()
    within = times @ own / (times @ own_counts)
    between = _of_two(sums, times) / _of_two(counts, times)
    share = (own_counts.sum() / counts.sum()).item()
    return between if share == 0 else share * within + (1 - share) * between


def _of_two(values: Tensor, times: Tensor) -> Tensor:
    """(R,) sums over pairs of different pictures, each as often as both were drawn."""
    off_diagonal = values - torch.diag(values.diagonal())
    return torch.einsum("rp,pq,rq->r", times, off_diagonal, times)
