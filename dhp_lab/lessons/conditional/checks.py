"""The exercises of the lesson on conditional diffusion."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from dhp_lab.notebook.exercises import Case, exercise


@exercise
def drop_labels() -> Iterator[Case]:
    """Return labels with each one replaced by null whose number u is below p: drop_labels(labels, u, p,
    null).
    """
    labels, u = np.array([3, 0, 7, 7]), np.array([0.5, 0.05, 0.95, 0.1])
    first = "only the second number, 0.05, is below 0.1; 0.1 itself is not"
    yield Case({"labels": labels, "u": u, "p": 0.1, "null": 10}, np.array([3, 10, 7, 7]), hint=first)
    zero = "the null label is one more class, not class 0: a 0 is a digit like any other"
    yield Case(
        {"labels": np.array([0, 1]), "u": np.array([0.9, 0.0]), "p": 0.1, "null": 5},
        np.array([0, 5]),
        hint=zero,
    )
    low = "drop the labels whose number is below p, and keep the others"
    yield Case({"labels": labels, "u": u, "p": 0.9, "null": 10}, np.array([10, 10, 7, 10]), hint=low)
    yield Case(
        {"labels": labels, "u": u, "p": 0.0, "null": 10}, labels, hint="with p = 0 no label is dropped"
    )


@exercise
def implied_gradient() -> Iterator[Case]:
    """Return the gradient of log p(class | x_t) that two noise estimates imply: implied_gradient(eps,
    eps_null, s, sigma).
    """
    bayes = (
        "log p(class | x_t) = log p(x_t | class) - log p(x_t) + a "
        "constant: take the difference of the two scores"
    )
    yield Case({"eps": 1.0, "eps_null": 3.0, "s": 1.0, "sigma": 1.0}, 2.0, hint=bayes)
    unit = "a score is -eps / (s sigma): both the scale and the noise level divide"
    yield Case({"eps": 1.0, "eps_null": 3.0, "s": 0.5, "sigma": 2.0}, 2.0, hint=unit)
    yield Case({"eps": -2.0, "eps_null": 1.0, "s": 0.5, "sigma": 0.5}, 12.0, hint=unit)
    yield Case(
        _two_classes(s=0.6, sigma=4 / 3),
        _sigmoid_gradient(s=0.6, sigma=4 / 3),
        hint=(
            "two classes of one number each, 1 and -1, of equal probability: p(class | x_t) is the logistic "
            "function of 2 x_t / (s sigma^2), and these are the exact noise estimates for it"
        ),
    )


@exercise
def sharpened() -> Iterator[Case]:
    """Return mean and variance of p(x) (p(x | class) / p(x))^w for two normal densities: sharpened(m, v, m0,
    v0, w).
    """
    one = "at w = 1 the density of all data cancels: the class as it is"
    yield Case({"m": 2.0, "v": 1.0, "m0": 0.0, "v0": 4.0, "w": 1.0}, (2.0, 1.0), hint=one)
    powers = "p^w has w times the precision 1 / variance; the precision of the result is w / v + (1 - w) / v0"
    yield Case({"m": 0.0, "v": 1.0, "m0": 0.0, "v0": 4.0, "w": 3.0}, (0.0, 0.4), hint=powers)
    weighted = (
        "the mean is weighted by precisions: (w m / v + (1 - w) m0 / v0) times the variance of the result"
    )
    yield Case({"m": 1.0, "v": 1.0, "m0": 0.0, "v0": 4.0, "w": 3.0}, (1.2, 0.4), hint=weighted)
    yield Case({"m": 1.0, "v": 1.0, "m0": 2.0, "v0": 4.0, "w": 3.0}, (0.8, 0.4), hint=weighted)
    beyond = "measured on a fine grid: the mean goes beyond the class's own, away from the others"
    yield Case(
        {"m": 1.0, "v": 0.5, "m0": -0.5, "v0": 2.0, "w": 8.0},
        _on_a_grid(1.0, 0.5, -0.5, 2.0, 8.0),
        hint=beyond,
    )


def _two_classes(*, s: float, sigma: float, x_t: float = 0.3) -> dict[str, float]:
    """The exact noise estimates for the class {1} and for {1, -1}: (x_t / s - mean of x0) / sigma."""
    mean = math.tanh(x_t / (s * sigma**2))
    return {"eps": (x_t / s - 1) / sigma, "eps_null": (x_t / s - mean) / sigma, "s": s, "sigma": sigma}


def _sigmoid_gradient(*, s: float, sigma: float, x_t: float = 0.3) -> float:
    """The slope at x_t of log(1 / (1 + exp(-2 x_t / (s sigma^2)))), by a small difference."""
    log_p = [-math.log1p(math.exp(-2 * x / (s * sigma**2))) for x in (x_t - 1e-5, x_t + 1e-5)]
    return (log_p[1] - log_p[0]) / 2e-5


def _on_a_grid(m: float, v: float, m0: float, v0: float, w: float) -> tuple[float, float]:
    """Mean and variance of the sharpened density, by a sum over many numbers."""
    x = np.linspace(-12, 12, 200_001)
    log_p = -w * (x - m) ** 2 / (2 * v) - (1 - w) * (x - m0) ** 2 / (2 * v0)
    p = np.exp(log_p - log_p.max())
    mean = float((x * p).sum() / p.sum())
    return mean, float(((x - mean) ** 2 * p).sum() / p.sum())
