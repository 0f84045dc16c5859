"""The exercises of the lesson on scores and SDEs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from dhp_lab.notebook.exercises import Case, exercise


@exercise
def noisy_score() -> Iterator[Case]:
    """Return the score at u of a normal variable plus noise: noisy_score(u, mean, std, sigma)."""
    yield Case(
        {"u": 3.0, "mean": 1.0, "std": 1.0, "sigma": 0.0}, -2.0, hint="the score points back to the mean"
    )
    wide = "a bell twice as wide is four times as flat: divide by the variance, not by the standard deviation"
    yield Case({"u": 3.0, "mean": 1.0, "std": 2.0, "sigma": 0.0}, -0.5, hint=wide)
    add = "variances add, standard deviations do not: here the variance is 9 + 16"
    yield Case({"u": 10.0, "mean": 0.0, "std": 3.0, "sigma": 4.0}, -0.4, hint=add)
    data = "std = 0 is a single data point: what is left is -(u - mean) / sigma^2"
    yield Case(
        {"u": np.array([-0.5, 0.0, 1.0]), "mean": 0.5, "std": 0.0, "sigma": 0.5},
        np.array([4.0, 2.0, -2.0]),
        hint=data,
    )


@exercise
def implicit_score_matching() -> Iterator[Case]:
    """Return the mean of s^2/2 + ds/dx over the data x for s(x) = -(x - m)/v: implicit_score_matching(x, m,
    v).
    """
    at_m = "all data lie at m, where s = 0; what is left is the derivative ds/dx = -1/v"
    yield Case({"x": np.array([2.0, 2.0]), "m": 2.0, "v": 4.0}, -0.25, hint=at_m)
    beside = "s = -(3 - 1)/2 = -1 and ds/dx = -1/2"
    yield Case({"x": np.array([3.0]), "m": 1.0, "v": 2.0}, 0.0, hint=beside)
    mean = "take the mean over the data of s squared, not the square of the mean of s"
    yield Case({"x": np.array([-2.0, 2.0]), "m": 0.0, "v": 1.0}, 1.0, hint=mean)
    drawn = np.random.default_rng(0).normal(0.0, 3.0, 100_000)
    best = "these data are normal with variance 9, and v = 9: the least value there is, -1/(2 v)"
    yield Case({"x": drawn, "m": 0.0, "v": 9.0}, -1 / 18, hint=best, tolerance=0.02)


@exercise
def reverse_step() -> Iterator[Case]:
    """Return x one step of reverse diffusion later, VE: reverse_step(x, score, sigma, earlier, noise),
    earlier < sigma.
    """
    drift = "without noise only the drift is left: (sigma^2 - earlier^2) score, here 16 times 0.5"
    zero = np.zeros(2)
    yield Case(
        {"x": zero, "score": np.array([0.5, -0.5]), "sigma": 5.0, "earlier": 3.0, "noise": zero},
        np.array([8.0, -8.0]),
        hint=drift,
    )
    noise = "without a score only the noise is left; its variance is sigma^2 - earlier^2 = 16"
    yield Case(
        {
            "x": np.array([1.0, 0.0]),
            "score": zero,
            "sigma": 5.0,
            "earlier": 3.0,
            "noise": np.array([1.0, -2.0]),
        },
        np.array([5.0, -8.0]),
        hint=noise,
    )
    both = "drift and noise together, for one number: 4 - 3 + sqrt(3)"
    yield Case(
        {"x": 4.0, "score": -1.0, "sigma": 2.0, "earlier": 1.0, "noise": 1.0}, 1 + math.sqrt(3), hint=both
    )
