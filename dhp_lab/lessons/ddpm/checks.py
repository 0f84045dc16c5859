"""The exercises of the lesson on DDPM."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from dhp_lab.notebook.exercises import Case, exercise


@exercise
def cosine_share() -> Iterator[Case]:
    """Return alpha_bar(t) = f(t) / f(0) with f(t) = cos^2((t/T + s) / (1 + s) * pi/2): cosine_share(t, steps,
    offset).
    """
    yield Case({"t": 0, "steps": 1000, "offset": 0.0}, 1.0, hint="at time 0 all of the signal is left")
    half = (
        "cos^2 of a quarter turn's half is 1/2; the angle is in radians, and pi/2 belongs inside the cosine"
    )
    yield Case({"t": 50, "steps": 100, "offset": 0.0}, 0.5, hint=half)
    yield Case({"t": 3, "steps": 9, "offset": 0.0}, 0.75, hint="square the cosine: that of 30 degrees is 3/4")
    yield Case(
        {"t": 0, "steps": 10, "offset": 0.5},
        1.0,
        hint="divide by f(0), which is below 1 where the offset is above 0",
    )
    yield Case(
        {"t": 5, "steps": 10, "offset": 0.5},
        1 / 3,
        hint="with s = 1/2 the angle goes from 30 to 60 to 90 degrees",
    )
    yield Case(
        {"t": 10, "steps": 10, "offset": 0.5}, 0.0, hint="the angle must end at 90 degrees: divide by 1 + s"
    )


@exercise
def guess_x0() -> Iterator[Case]:
    """Return the clean signal that a state and a noise estimate stand for: guess_x0(x_t, eps, alpha_bar)."""
    state = np.array([0.5, -0.5])
    no_noise = "with no noise in it the state is sqrt(alpha_bar) x0: here alpha_bar is 1/4"
    yield Case({"x_t": state, "eps": np.zeros(2), "alpha_bar": 0.25}, np.array([1.0, -1.0]), hint=no_noise)
    noise = "the state holds sqrt(1 - alpha_bar) eps, here 0.8 eps: subtract it before you divide"
    yield Case(
        {"x_t": np.array([1.4]), "eps": np.array([1.0]), "alpha_bar": 0.36}, np.array([1.0]), hint=noise
    )
    only = "a state that is all noise, for a signal of 0, must give 0"
    yield Case(
        {"x_t": np.array([[0.6, -1.2]]), "eps": np.array([[1.0, -2.0]]), "alpha_bar": 0.64},
        np.zeros((1, 2)),
        hint=only,
    )
    late = (
        "an error of the estimate grows by sigma = sqrt(1 / alpha_bar - 1): "
        "late estimates of x0 may lie far beyond -1 .. 1"
    )
    yield Case(
        {"x_t": np.array([1.0]), "eps": np.array([0.0]), "alpha_bar": 1e-4}, np.array([100.0]), hint=late
    )


@exercise
def gaussian_kl() -> Iterator[Case]:
    """Return KL(N(mean, var) || N(guess, var)) in bits, summed over all pixels: gaussian_kl(mean, guess,
    variance).
    """
    zero = np.zeros(3)
    yield Case(
        {"mean": zero, "guess": zero, "variance": 1.0}, 0.0, hint="equal Gaussians have no distance: return 0"
    )
    one = "a distance of one standard deviation is 1/2 nat, and a bit is log(2) nats"
    yield Case(
        {"mean": np.array([0.0]), "guess": np.array([1.0]), "variance": 1.0}, 0.5 / math.log(2), hint=one
    )
    square = "the distance counts squared, in units of the variance: 2^2 / (2 * 2) nats"
    yield Case(
        {"mean": np.array([3.0]), "guess": np.array([1.0]), "variance": 2.0}, 1 / math.log(2), hint=square
    )
    pixels = "bits of independent pixels add up: take the sum over all of them"
    yield Case(
        {"mean": np.zeros((2, 4)), "guess": np.ones((2, 4)), "variance": 4.0}, 1 / math.log(2), hint=pixels
    )
    samples = np.random.default_rng(0).normal(0.5, 0.3, 200_000)
    ratio = ((samples - 0.1) ** 2 - (samples - 0.5) ** 2) / (2 * 0.09 * math.log(2))
    measured = "a KL is the mean of log2 p / q over draws of p: here it was measured with 200 000 of them"
    yield Case(
        {"mean": np.array([0.5]), "guess": np.array([0.1]), "variance": 0.09},
        ratio.mean(),
        hint=measured,
        tolerance=0.02,
    )
