"""Rate-distortion curves and the Bjontegaard delta rate between two of them (Bjontegaard 2001)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

Curve = tuple[Sequence[float], Sequence[float]]
"""Rates in bits per pixel and qualities in dB, point by point."""

MIN_POINTS = 4


@dataclass(frozen=True)
class BDRate:
    """Average difference in bits at equal quality, and the range of quality it was averaged over.

    Attributes:
        percent: -20 means that the test curve needs 20 % fewer bits than the anchor.
        low, high: the range of quality that both curves reach, in dB; nothing outside it counts.
        coverage: the share, 0..1, of the test curve's own range of quality that lies between low and high.
    """

    percent: float
    low: float
    high: float
    coverage: float

    @property
    def overlap(self) -> float:
        """Length of the common range of quality, in dB."""
        return self.high - self.low


def bd_rate(anchor: Curve, test: Curve) -> BDRate:
    """Bjontegaard delta rate of `test` against `anchor`: log rate by pchip, averaged over the common quality.

    Args:
        anchor, test: (rates, qualities): bits per pixel and dB of at least four points each, in any order.

    Returns:
        BDRate, percent < 0 where `test` saves bits.

    Raises:
        ValueError: fewer than four points, a value that is not finite or a rate that is not positive, a
            quality that does not grow with the rate, or curves without a common range of quality.
    """
    import bjontegaard  # here, because it loads pyplot

    rate_a, db_a = _check_curve("anchor", anchor)
    rate_t, db_t = _check_curve("test", test)
    low = max(db_a[0], db_t[0])
    high = min(db_a[-1], db_t[-1])
    if low >= high:
        raise ValueError(
            f"the curves share no quality: anchor {db_a[0]:.2f} to {db_a[-1]:.2f} dB, test {db_t[0]:.2f} to "
            f"{db_t[-1]:.2f} dB; measure them at rates where they overlap"
        )
    percent = bjontegaard.bd_rate(
        rate_a, db_a, rate_t, db_t, method="pchip", require_matching_points=False, min_overlap=0
    )
    coverage = (high - low) / (db_t[-1] - db_t[0])
    return BDRate(float(percent), float(low), float(high), float(coverage))


def smallest_gain(anchor: Curve, test: Curve, *, low: float = 0.2, high: float = 1.0) -> float | None:
    """The smallest difference in quality of `test` over `anchor` at equal rate: >= 0 means nowhere below.

    Args:
        anchor, test: as for `bd_rate`; between its points a curve is a pchip over the logarithm of the rate.
        low, high: the range of rates in bits per pixel; only those that both curves reach count.

    Returns:
        dB, or None if the curves reach no common rate between low and high.

    Raises:
        ValueError: as for `bd_rate`, but a common quality is not needed.
    """
    rate_a, db_a = _check_curve("anchor", anchor)
    rate_t, db_t = _check_curve("test", test)
    low = max(low, rate_a[0], rate_t[0])
    high = min(high, rate_a[-1], rate_t[-1])
    if low >= high:
        return None
    log_rate = np.linspace(math.log(low), math.log(high), 1001)
    quality_a = PchipInterpolator(np.log(rate_a), db_a)(log_rate)
    quality_t = PchipInterpolator(np.log(rate_t), db_t)(log_rate)
    return float((quality_t - quality_a).min())


def _check_curve(name: str, curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Return (rates, qualities) sorted by rate; ValueError unless bd_rate can use them."""
    rates, qualities = (np.asarray(values, dtype=float) for values in curve)
    if rates.shape != qualities.shape or rates.ndim != 1 or len(rates) < MIN_POINTS:
        raise ValueError(
            f"the {name} curve needs at least {MIN_POINTS} rates and as many qualities, "
            f"got {rates.size} and {qualities.size}; measure more settings"
        )
    for rate, quality in zip(rates, qualities, strict=True):
        if not (0 < rate < math.inf and math.isfinite(quality)):
            raise ValueError(
                f"the {name} curve holds {quality} dB at {rate} bpp: rates must be positive, both finite"
            )
    order = np.argsort(rates)
    rates, qualities = rates[order], qualities[order]
    for i in np.flatnonzero((np.diff(qualities) <= 0) | (np.diff(rates) <= 0)):
        first, second = (f"{qualities[j]:.3f} dB at {rates[j]:.4f} bpp" for j in (i, i + 1))
        raise ValueError(
            f"the {name} curve is not monotonic: {first}, then {second}; leave one of the two points out"
        )
    return rates, qualities
