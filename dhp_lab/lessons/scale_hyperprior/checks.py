"""The exercises of the lesson on the scale hyperprior."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np

from dhp_lab.lessons.scale_hyperprior.proxies import normal_bits
from dhp_lab.notebook.exercises import Case, exercise

FIELD = 96  # places on a side of the field of latents of `context_scale`
COARSE = 4  # places for each value of the map of its scales
STEPS = 2.0  # the scale that h_s predicts for all of them
NARROWEST = 1 / 8  # steps


@exercise
def dead_zone_symbol() -> Iterator[Case]:
    """Return the symbol of v = y/Delta - mean, with a dead zone: dead_zone_symbol(v, scale, zone)."""
    plain = "without a dead zone it is the nearest whole number"
    yield Case({"v": 0.6, "scale": 0.5, "zone": 0.0}, 1, hint=plain)
    border = "with scale 1/2 and zone 1 a bin is 1 + 1 / (1 + 12 / 4) = 1.25 steps wide, so 1 begins at 0.625"
    yield Case({"v": 0.6, "scale": 0.5, "zone": 1.0}, 0, hint=border)
    yield Case({"v": -0.65, "scale": 0.5, "zone": 1.0}, -1, hint=border)
    all_bins = "all borders move outwards, not only those of 0: 1.85 / 1.25 is 1.48"
    yield Case({"v": 1.85, "scale": 0.5, "zone": 1.0}, 1, hint=all_bins)
    part = "with zone 0.4 a bin of scale 1/2 is 1 + 0.4 / 4 = 1.1 steps wide"
    yield Case({"v": 0.56, "scale": 0.5, "zone": 0.4}, 1, hint=part)
    yield Case({"v": 0.54, "scale": 0.5, "zone": 0.4}, 0, hint=part)
    many = "v and scale may be arrays: use numpy"
    arrays = {"v": np.array([0.9, 0.9, -7.7]), "scale": np.array([0.0, 1.0, 4.0])}
    yield Case({**arrays, "zone": 1.0}, np.array([0, 1, -8]), hint=many)


@exercise
def latent_bits() -> Iterator[Case]:
    """Return the bits of a latent y that is sent as round(y - mean), for a normal density: latent_bits(y,
    mean, scale).
    """
    middle = (
        "the symbol is 0; its probability is that of -1/2 .. 1/2: a whole step, not the height of the density"
    )
    yield Case({"y": 0.2, "mean": 0.0, "scale": 1.0}, -math.log2(math.erf(0.5 / math.sqrt(2))), hint=middle)
    wide = "the ends of the step count in units of the scale: divide by it"
    yield Case(
        {"y": 0.0, "mean": 0.0, "scale": 3.0}, -math.log2(math.erf(0.5 / (3 * math.sqrt(2)))), hint=wide
    )
    two = (
        "here the symbol is 2: the probability of 1.5 .. 2.5, by the "
        "difference of two values of the distribution function"
    )
    yield Case(
        {"y": 1.9, "mean": 0.0, "scale": 1.0},
        -math.log2(NormalDist().cdf(2.5) - NormalDist().cdf(1.5)),
        hint=two,
    )
    even = "the density is even, so -2 has the code length of 2"
    yield Case(
        {"y": -1.9, "mean": 0.0, "scale": 1.0},
        -math.log2(NormalDist().cdf(2.5) - NormalDist().cdf(1.5)),
        hint=even,
    )
    mean = "first take the mean away, then round: y = 7.4 with a mean of 7.3 is sent as 0"
    yield Case({"y": 7.4, "mean": 7.3, "scale": 0.5}, -math.log2(math.erf(1 / math.sqrt(2))), hint=mean)
    yield Case({"y": 7.6, "mean": 7.2, "scale": 0.5}, -math.log2(math.erf(1 / math.sqrt(2))), hint=mean)
    draws = np.rint(np.random.default_rng(0).normal(0.0, 2.0, 400_000))
    share = float((draws == -3).mean())
    measured = "measured: how often the symbol -3 came among 400 000 draws"
    yield Case({"y": 1.1, "mean": 4.0, "scale": 2.0}, -math.log2(share), hint=measured, tolerance=0.01)


@exercise
def context_scale() -> Iterator[Case]:
    """Return the factor on each latent's scale, from the |r| of its four decoded neighbours:
    context_scale(left, right, above, below).
    """
    wide = "where the neighbours are large, the factor must be above 1, and below 1 where they are small"
    yield _field_to_code(0, 3.28, wide)
    yield _field_to_code(2, 3.22, "another field: did you fit your numbers to the first one?")


def latent_field(seed: int) -> np.ndarray:
    """(FIELD + 2, FIELD + 2) symbols whose true scale, in units of the predicted one, varies from place to
    place: 2^u for a u that is linear between normal numbers of deviation 1.2.
    """
    draws = np.random.default_rng(seed)
    coarse = draws.normal(0, 1.2, (FIELD // COARSE + 2, FIELD // COARSE + 2))
    at = np.arange(FIELD + 2) / COARSE
    low = at.astype(int)
    share = at - low
    rows = coarse[low] * (1 - share)[:, None] + coarse[low + 1] * share[:, None]
    log2_scale = rows[:, low] * (1 - share) + rows[:, low + 1] * share
    return np.rint(STEPS * draws.normal(size=log2_scale.shape) * 2.0**log2_scale)


def _field_to_code(seed: int, goal: float, hint: str) -> Case:
    symbols = latent_field(seed)
    size = np.abs(symbols) / STEPS
    white = np.add.outer(np.arange(FIELD), np.arange(FIELD)) % 2 == 1
    around = {
        "left": size[1:-1, :-2][white],
        "right": size[1:-1, 2:][white],
        "above": size[:-2, 1:-1][white],
        "below": size[2:, 1:-1][white],
    }
    measure = _bits_per_symbol(symbols[1:-1, 1:-1][white], goal)
    return Case(around, goal, hint=hint, tolerance=1e-6, measure=measure)


def _bits_per_symbol(symbols: np.ndarray, goal: float) -> Callable[[object], object]:
    """From factors on the predicted scale to the ideal bits a symbol, or the goal if that is more."""

    def measure(result: object) -> object:
        factors = np.asarray(result)
        if factors.dtype.kind not in "fiu" or factors.shape not in ((), symbols.shape):
            return result
        scale = np.broadcast_to(STEPS * factors, symbols.shape)
        if not np.isfinite(scale).all():
            return math.inf
        return max(goal, float(normal_bits(symbols, np.maximum(scale, NARROWEST)).mean()))

    return measure
