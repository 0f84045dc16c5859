"""Is one way of decoding better than another? The mean difference over the same pictures, with its interval.

Two ways that are measured on the same pictures differ by far less than the pictures do: what counts is the
spread of the differences. The interval is that of a bootstrap over pictures (Efron & Tibshirani 1993, chapter
13: percentiles). With few pictures it is rough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

COVERED = 0.95  # of the interval
RESAMPLES = 10_000


class Interval(NamedTuple):
    """An estimate, and between what it lies in 95 % of the resamples; None where there is one picture."""

    value: float
    low: float | None
    high: float | None


def mean_difference(
    a: Sequence[float], b: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean of a - b over pictures.

    Args:
        a, b: a figure of each picture, in one order.
        resamples: of the bootstrap. seed: of those.

    Raises:
        ValueError: no pictures, or numbers of them that differ.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"both ways need a figure of each picture, got {len(a)} and {len(b)}")
    differences = torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
    value, count = differences.mean().item(), len(differences)
    if count < 2:
        return Interval(value, None, None)
    drawn = torch.randint(count, (resamples, count), generator=torch.Generator().manual_seed(seed))
    means = differences[drawn].mean(1)  # (R,)
    tail = (1 - COVERED) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(value, low, high)
