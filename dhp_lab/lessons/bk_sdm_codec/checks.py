"""The exercises of the lesson on the BK-SDM codec."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from dhp_lab.notebook.exercises import Case, exercise


@exercise
def latent_step() -> Iterator[Case]:
    """Return the best step Δ: latent_step(lambda_rate, cost, channels, f)."""
    unit = "with cost 1 and as many latents as pixels, Δ^2 = 6 λ / ln 2: the lesson has the equation"
    yield Case({"lambda_rate": math.log(2) / 6, "cost": 1.0, "channels": 1, "f": 1}, 1.0, hint=unit)
    root = "a four times larger λ doubles the step: Δ is the root of what the equation gives"
    yield Case({"lambda_rate": 4 * math.log(2) / 6, "cost": 1.0, "channels": 1, "f": 1}, 2.0, hint=root)
    costly = (
        "where an error of the latents costs four times as much in the picture, the step is half as large"
    )
    yield Case({"lambda_rate": math.log(2) / 6, "cost": 4.0, "channels": 1, "f": 1}, 0.5, hint=costly)
    share = "bits are counted for a pixel: there are channels / f^2 latents for each"
    yield Case({"lambda_rate": math.log(2) / 6, "cost": 1.0, "channels": 4, "f": 8}, 0.25, hint=share)
    native = (
        "three latents for a pixel of three colours, in a transform that "
        "keeps lengths: the 5.1 √λ of lesson 10"
    )
    yield Case(
        {"lambda_rate": 1e-3, "cost": 1.0, "channels": 3, "f": 1}, math.sqrt(18e-3 / math.log(2)), hint=native
    )


@exercise
def clean_from_v() -> Iterator[Case]:
    """Return the clean latent from a U-Net's prediction v: clean_from_v(y_hat, sigma, v)."""
    still = "without noise (sigma = 0) y_hat is the clean latent, whatever v is"
    yield Case({"y_hat": 3.0, "sigma": 0.0, "v": 5.0}, 3.0, hint=still)
    scaled = (
        "the U-Net sees z_t = s y_hat with s = 1 / sqrt(1 + sigma^2); here "
        "v = 0, so the answer is s z_t = s^2 y_hat"
    )
    yield Case({"y_hat": 1.0, "sigma": 1.0, "v": 0.0}, 0.5, hint=scaled)
    weighted = "v counts sqrt(1 - s^2) times: here y_hat = 0 and sigma = 1, so it is sqrt(1/2)"
    yield Case({"y_hat": 0.0, "sigma": 1.0, "v": 1.0}, -math.sqrt(0.5), hint=weighted)
    draw = np.random.default_rng(0)
    y, eps, sigma = draw.normal(size=6), draw.normal(size=6), 0.6
    s = 1 / math.sqrt(1 + sigma**2)
    exact = (
        "a v without error, s eps - sqrt(1 - s^2) y, gives the latents "
        "back as they were; numpy arrays go in and out"
    )
    yield Case(
        {"y_hat": y + sigma * eps, "sigma": sigma, "v": s * eps - math.sqrt(1 - s**2) * y}, y, hint=exact
    )


@exercise
def averaged() -> Iterator[Case]:
    """Return the best average of two estimates, and its variance: averaged(a, variance_a, b, variance_b)."""
    even = "two estimates of equal variance have equal weights, and together half the variance"
    yield Case({"a": 1.0, "variance_a": 2.0, "b": 3.0, "variance_b": 2.0}, (2.0, 1.0), hint=even)
    inverse = "inverse-variance weighting: weights go as 1 / variance, so here 3/4 and 1/4"
    yield Case({"a": 0.0, "variance_a": 1.0, "b": 4.0, "variance_b": 3.0}, (1.0, 0.75), hint=inverse)
    small = (
        "an estimate of tiny variance is nearly the answer; "
        "1 / (1 / variance_a + 1 / variance_b) is the variance"
    )
    yield Case(
        {"a": 5.0, "variance_a": 1e-9, "b": -5.0, "variance_b": 1.0}, (5.0, 1e-9), hint=small, tolerance=1e-6
    )
    draw = np.random.default_rng(0)
    truth = draw.normal(size=200_000)
    a, b = truth + 0.5 * draw.normal(size=truth.size), truth + 1.5 * draw.normal(size=truth.size)
    weight = _least_error(a, b, truth)
    measured = "many draws: the weight that was best for them, found by trying; numpy arrays go in and out"
    yield Case(
        {"a": a, "variance_a": 0.25, "b": b, "variance_b": 2.25},
        (weight * a + (1 - weight) * b, 0.225),
        hint=measured,
        tolerance=1e-2,
    )


def _least_error(a: np.ndarray, b: np.ndarray, truth: np.ndarray) -> float:
    """The weight of a, of 1001 tried, with which the average is nearest to the truth."""
    weights = np.linspace(0, 1, 1001)
    return float(weights[np.argmin([np.square(w * a + (1 - w) * b - truth).mean() for w in weights])])
