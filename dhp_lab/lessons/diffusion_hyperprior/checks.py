"""The exercises of the lesson on the diffusion hyperprior."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
from scipy.special import ndtri

from dhp_lab.notebook.exercises import Case, exercise


@exercise
def time_of_step() -> Iterator[Case]:
    """Return the time t* of rounding to steps of delta: time_of_step(delta, latent_scale, alpha_bars)."""
    whole = 1 / (1 + np.arange(4.0) ** 2)  # sigma is 0, 1, 2, 3 at t = 0, 1, 2, 3
    spread = "rounding makes noise of standard deviation delta / sqrt(12), and alpha_bar = 1 / (1 + sigma^2)"
    yield Case({"delta": 2 * math.sqrt(12), "latent_scale": 1.0, "alpha_bars": whole}, 2.0, hint=spread)
    unit = "a schedule counts noise beside a signal of size 1: divide the noise by latent_scale"
    yield Case({"delta": math.sqrt(12), "latent_scale": 0.5, "alpha_bars": whole}, 2.0, hint=unit)
    line = (
        "between two whole times log(alpha_bar) follows a straight line: "
        "interpolate the logarithm, and let it rise"
    )
    middle = math.sqrt(12 * (math.sqrt(10) - 1))  # 1 + sigma^2 half way from 2 to 5, in logarithms
    yield Case({"delta": middle, "latent_scale": 1.0, "alpha_bars": whole}, 1.5, hint=line)
    equal = "here every beta is 0.1, so alpha_bar_t = 0.9^t, and t* = log(1 + sigma^2) / -log(0.9)"
    t = math.log1p(1 / (12 * 0.4**2)) / -math.log(0.9)
    yield Case({"delta": 1.0, "latent_scale": 0.4, "alpha_bars": 0.9 ** np.arange(21)}, t, hint=equal)


@exercise
def one_step_guess() -> Iterator[Case]:
    """Return the latent that one step gives from a noise estimate: one_step_guess(q, mean, delta, eps)."""
    nothing = "without noise (eps = 0) the latent is delta (q + mean): q counts steps from the mean"
    yield Case({"q": 3.0, "mean": 0.25, "delta": 2.0, "eps": 0.0}, 6.5, hint=nothing)
    strength = "the noise is sigma_q eps with sigma_q = delta / sqrt(12): take it away"
    yield Case({"q": 1.0, "mean": 0.0, "delta": math.sqrt(12), "eps": 1.0}, math.sqrt(12) - 1, hint=strength)
    y = np.random.default_rng(0).normal(0, 2, 6)
    q = np.round(y / 0.7 - 0.3)
    eps = (0.7 * (q + 0.3) - y) / (0.7 / math.sqrt(12))
    exact = (
        "an estimate without error gives the latents back as they were; "
        "delta is 0.7, and numpy arrays go in and out"
    )
    yield Case({"q": q, "mean": 0.3, "delta": 0.7, "eps": eps}, y, hint=exact)


@exercise
def bin_mean() -> Iterator[Case]:
    """Return the mean of numbers from a normal density around 0 that are rounded to q: bin_mean(q, scale)."""
    yield Case({"q": 0, "scale": 1.0}, 0.0, hint="the bin from -1/2 to 1/2 is symmetric")
    cut = (
        "average x over the bin from q - 1/2 to q + 1/2, weighted by "
        "exp(-x^2 / (2 scale^2)), and divide by the weights"
    )
    yield Case({"q": 1, "scale": 1.0}, _many_draws(1, 1.0), hint=cut, tolerance=2e-3)
    yield Case({"q": -2, "scale": 1.5}, _many_draws(-2, 1.5), hint="a bin below 0: " + cut, tolerance=2e-3)
    near = "a small scale: what is rounded to 1 all the same lies close to 1/2, the near edge of the bin"
    yield Case({"q": 1, "scale": 0.2}, _many_draws(1, 0.2), hint=near, tolerance=2e-3)
    even = "a scale of 100 steps is the same all over the bin, so the mean is the middle of the bin"
    yield Case({"q": 3, "scale": 100.0}, 3.0, hint=even)


@cache
def _many_draws(q: int, scale: float) -> float:
    """The mean of those numbers that round to q, one drawn from each of many equally likely intervals."""
    draws = scale * ndtri((np.arange(400_000) + 0.5) / 400_000)
    return float(draws[np.round(draws) == q].mean())
