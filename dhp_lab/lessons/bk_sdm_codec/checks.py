"""The exercises of the lesson on the BK-SDM codec."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dhp_lab.latent.folder import EPSILON
from dhp_lab.latent.folder import V_PREDICTION as V
from dhp_lab.notebook.exercises import Case, exercise

GOAL = 0.96  # the squared error to reach in `combined`, over that of the better estimate


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
def clean_latent() -> Iterator[Case]:
    """Return the clean latent after one evaluation: clean_latent(y_hat, sigma, unet, prediction)."""
    still = "without noise (sigma = 0) y_hat is the clean latent, whatever v is"
    yield Case(_evaluated(3.0, 0.0, _constant(5.0), V), 3.0, hint=still)
    scaled = (
        "the U-Net sees z_t = s y_hat with s = 1 / sqrt(1 + sigma^2); here "
        "v = 0, so the answer is s z_t = s^2 y_hat"
    )
    yield Case(_evaluated(1.0, 1.0, _constant(0.0), V), 0.5, hint=scaled)
    weighted = "v counts sqrt(1 - s^2) times: here y_hat = 0 and sigma = 1, so it is sqrt(1/2)"
    yield Case(_evaluated(0.0, 1.0, _constant(1.0), V), -math.sqrt(0.5), hint=weighted)
    state = "the U-Net is evaluated on the scaled state s y_hat: here it returns v = z_t"
    s = 1 / math.sqrt(1 + 0.75**2)
    yield Case(_evaluated(2.0, 0.75, _same, V), 2 * s * (s - math.sqrt(1 - s**2)), hint=state)
    noise = "with prediction 'epsilon' it returns the noise, of variance 1: y_hat - sigma eps"
    yield Case(_evaluated(3.0, 0.5, _constant(2.0), EPSILON), 2.0, hint=noise)
    draw = np.random.default_rng(0)
    y, eps, sigma = draw.normal(size=6), draw.normal(size=6), 0.6
    s = 1 / math.sqrt(1 + sigma**2)
    exact = "a U-Net without error gives the latents back as they were; numpy arrays go in and out"
    v = s * eps - math.sqrt(1 - s**2) * y
    yield Case(_evaluated(y + sigma * eps, sigma, _constant(v), V), y, hint=exact)


def _evaluated(y_hat: float | np.ndarray, sigma: float, unet: Callable, prediction: str) -> dict[str, Any]:
    return {"y_hat": y_hat, "sigma": sigma, "unet": unet, "prediction": prediction}


def _constant(value: float | np.ndarray) -> Callable:
    return lambda z_t: value


def _same(z_t: float) -> float:
    return z_t


@exercise
def combined() -> Iterator[Case]:
    """Return the weights (w_a, w_b) of an average whose error on other examples is 0.96 or less, in units of
    the squared error of a alone: combined(a, b, truth).
    """
    a, b, truth = _two_estimates(20_000, seed=0)
    hint = (
        "1/V weights assume uncorrelated errors; find the weights whose error on these examples is least: "
        "least squares, and a weight above 1 or below 0 is allowed"
    )
    arguments = {"a": a, "b": b, "truth": truth}
    yield Case(arguments, GOAL, hint=hint, tolerance=1e-6, measure=_error_elsewhere)


def _two_estimates(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimates a and b of a truth of variance 4, with errors of variance 1 and 1.6 and correlation 0.9."""
    draw = np.random.default_rng(seed)
    first, second = draw.normal(size=(2, count))
    truth = 2 * draw.normal(size=count)
    return truth + first, truth + math.sqrt(1.6) * (0.9 * first + math.sqrt(1 - 0.9**2) * second), truth


def _error_elsewhere(weights: object) -> object:
    """The squared error with these weights on other examples, over that of a alone, or GOAL if it is less."""
    if not isinstance(weights, (tuple, list, np.ndarray)) or len(weights) != 2:
        return weights
    a, b, truth = _two_estimates(20_000, seed=1)
    found = np.square(weights[0] * a + weights[1] * b - truth).mean() / np.square(a - truth).mean()
    return max(GOAL, float(found))
