"""The exercises of the lesson on the diffusion hyperprior."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from dhp_lab.notebook.exercises import Case, exercise

SIDE = 32  # of the textures of the open exercise, in pixels
LEVELS = 0.3, 1.0, 2.5  # noise levels of its cases
GOALS = 0.83, 0.55, 0.67  # the loss to reach at each; 1 is what one weight for white residuals reaches


@exercise
def expected_error() -> Iterator[Case]:
    """Return the error of a pixel from the variances of its place: expected_error(variances, delta)."""
    one = np.zeros(768)
    one[5] = 768.0
    add = (
        "variances of independent errors add up; divide by the 3 x 16 x 16 values of the place, take the root"
    )
    yield Case({"variances": one, "delta": 1.0}, 1.0, hint=add)
    unit = "variances are in squared steps: one step is delta"
    yield Case({"variances": one, "delta": 0.25}, 0.25, hint=unit)
    fewer = "a codec may keep fewer than 768 channels; the place has 768 pixel values all the same"
    yield Case({"variances": np.full(192, 1 / 12), "delta": 2.0}, 2 / math.sqrt(12) / 2, hint=fewer)


def _shrink(u: np.ndarray, sigma: float) -> np.ndarray:
    """The posterior mean of a white residual of variance 1."""
    return u / (1 + sigma**2)


def _point(u: np.ndarray, sigma: float) -> np.ndarray:
    """The posterior mean of a residual that is always 0.5."""
    return 0 * u + 0.5


@exercise
def draw_residual() -> Iterator[Case]:
    """Return x_hat + e r, with r drawn by DDIM: draw_residual(denoise, x_hat, e, noise, levels)."""
    flat, noise = np.array([0.25, 0.5, 0.75]), np.array([1.0, -2.0, 0.5])
    one = "with one level the result is x_hat + e * denoise(level * noise, level)"
    given = {"denoise": _shrink, "x_hat": flat, "e": 0.1, "noise": noise, "levels": [3.0]}
    yield Case(given, flat + 0.1 * 0.3 * noise, hint=one)
    end = "the last level is followed by 0, so that the last estimate is the result"
    given = {"denoise": _point, "x_hat": flat, "e": 0.1, "noise": noise, "levels": [3.0, 1.5, 0.75]}
    yield Case(given, flat + 0.05, hint=end)
    step = "one step: r = denoise(u, sigma), then u = r + (lower / sigma) * (u - r)"
    share = 3 * (0.1 + 1 / 3 * 0.9) * 0.5  # at level 1 u is 1.2 of the noise, and half of it is kept
    given = {"denoise": _shrink, "x_hat": flat, "e": np.array([0.1, 0.2, 0.0]), "noise": noise}
    yield Case(given | {"levels": [3.0, 1.0]}, flat + given["e"] * share * noise, hint=step)


@cache
def _texture(level: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """64 pictures of a texture to learn from, 64 others, and noise: (64, SIDE, SIDE) each.

    It is white noise, filtered in the ring frequencies of a bump, and of variance 1.
    """
    random = np.random.default_rng(level)
    rows, cols = (np.fft.fftfreq(SIDE) for _ in range(2))
    frequency = np.hypot(rows[:, None], cols)
    gain = np.exp(-((frequency - 0.12) ** 2) / (2 * 0.05**2)) + 0.15
    white = np.fft.fft2(random.normal(size=(128, SIDE, SIDE)))
    texture = np.fft.ifft2(white * gain / np.sqrt((gain**2).mean())).real
    return texture[:64], texture[64:], random.normal(size=(64, SIDE, SIDE))


@exercise
def texture_denoiser() -> Iterator[Case]:
    """Return estimates of r from u = r + sigma * noise: texture_denoiser(u, sigma, examples)."""
    for number, (sigma, goal) in enumerate(zip(LEVELS, GOALS, strict=True)):
        examples, clean, noise = _texture(number)
        white = ((clean + sigma * noise) / (1 + sigma**2) - clean) ** 2  # the best weight for white r

        def loss(found: Any, goal=goal, clean=clean, white=white) -> Any:
            estimates = np.asarray(found)
            if estimates.shape != clean.shape:
                return found
            return max(goal, float(((estimates - clean) ** 2).mean() / white.mean()))

        hint = (
            f"reach {goal:g} of the error that one weight leaves, 1 / (1 + sigma^2): each frequency of "
            "the Fourier transform has a weight of its own, from the mean power of the examples there"
        )
        given = {"u": clean + sigma * noise, "sigma": sigma, "examples": examples}
        yield Case(given, goal, hint=hint, measure=loss)
