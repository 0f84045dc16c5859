"""The exercises of the lesson on the scale hyperprior."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from dhp_lab.notebook.exercises import Case, exercise


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
    even = "the density is even, so -2 costs as much as 2"
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
