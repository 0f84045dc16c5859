"""The exercises of the lesson on scores and SDEs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from dhp_lab.lessons.score_and_sde.mixture import ISLANDS
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
def reverse_diffusion() -> Iterator[Case]:
    """Return the points at the last of the falling noise levels, by Euler-Maruyama for VE:
    reverse_diffusion(score, x, sigmas, noises); the last step draws no noise.
    """
    x = np.array([4.0, -8.0])
    drift = (
        "the last step is the drift alone, (sigma^2 - next^2) times the score: here the score points to 0 "
        "and 4 becomes 4 - (4 - 1) * 4 / 4"
    )
    yield Case(
        {"score": _to_zero, "x": x, "sigmas": np.array([2.0, 1.0]), "noises": np.ones((1, 2))},
        np.array([1.0, -2.0]),
        hint=drift,
    )
    noise = "every step but the last adds noise of the variance sigma^2 - next^2, here 25 - 9"
    yield Case(
        {"score": _flat, "x": x, "sigmas": np.array([5.0, 3.0, 0.0]), "noises": np.array([[1, 0], [9, 9]])},
        np.array([8.0, -8.0]),
        hint=noise,
    )
    levels = "the score of each step is that at its first, larger noise level, at the point reached so far"
    yield Case(
        {
            "score": _to_zero,
            "x": x,
            "sigmas": np.array([4.0, 2.0, 1.0, 0.5]),
            "noises": np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 3.0]]),
        },
        np.array([(1 / 4 + math.sqrt(3)) / 4, (-2 / 4 + 2 * math.sqrt(3)) / 4]),
        hint=levels,
    )


def _to_zero(x: np.ndarray, sigma: float) -> np.ndarray:
    """The score of a single data point at 0."""
    return -x / sigma**2


def _flat(x: np.ndarray, sigma: float) -> np.ndarray:
    """The score of data that are everywhere alike."""
    return 0 * x


GOAL = 0.02  # the median distance to reach in the open exercise
LEVELS = 15
TOP = 157.0  # the noise level that the points start from


@exercise
def noise_levels() -> Iterator[Case]:
    """Return count noise levels that fall from top, all above 0: noise_levels(count, top). Heun's method
    takes them, and a last step to 0, on the islands; its median distance to the exact flow shall be 0.02 or
    less with 15 levels.
    """
    form = "as many falling numbers as asked for, the first of them top and all above 0"
    yield Case({"count": 2, "top": 4.0}, "falling", hint=form, measure=partial(_falling, 2, 4.0))
    goal = (
        "levels at equal times reach 0.071, those of Karras et al. with rho = 7 and a least level of 0.002 "
        "reach 0.039: where do these waste their steps?"
    )
    yield Case({"count": LEVELS, "top": TOP}, GOAL, hint=goal, measure=_median_distance)


def _falling(count: int, top: float, levels: object) -> object:
    """Whether these are noise levels; what is none is given back."""
    try:
        values = np.asarray(levels, dtype=float)
    except (TypeError, ValueError):
        return levels
    right = values.shape == (count,) and bool((np.diff(values) < 0).all()) and values[-1] > 0
    return "falling" if right and abs(values[0] / top - 1) < 1e-6 else levels


def _median_distance(levels: object) -> object:
    """The goal or, if it is more, the median distance of Heun's points to those of very many levels."""
    if _falling(LEVELS, TOP, levels) != "falling":
        return levels
    found = heun(_start(), np.asarray(levels, dtype=float).tolist())
    distance = (found - _reference()).norm(dim=1).median().item()
    return max(GOAL, distance) if math.isfinite(distance) else distance


def _start() -> Tensor:
    """200 points of noise, (200, 2) float64."""
    return TOP * torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@lru_cache(maxsize=1)
def _reference() -> Tensor:
    """Where the flow leads these points: Heun's method on 250 levels, exact to about 1e-4."""
    return heun(_start(), karras_levels(250, 1e-4, TOP))


def heun(u: Tensor, levels: list[float]) -> Tensor:
    """Heun's method for the islands' probability flow, and a step of Euler's from the last level to 0."""
    for sigma, goal in pairwise([*levels, 0.0]):
        eps = -sigma * ISLANDS.score(u, sigma)
        ahead = u + (goal - sigma) * eps
        if goal > 0:
            ahead = u + (goal - sigma) * (eps - goal * ISLANDS.score(ahead, goal)) / 2
        u = ahead
    return u


def karras_levels(count: int, low: float, top: float, rho: float = 7.0) -> list[float]:
    """Karras et al. 2022, eq. 5: falling noise levels from top to low, evenly spaced in sigma^(1/rho)."""
    return (np.linspace(top ** (1 / rho), low ** (1 / rho), count) ** rho).tolist()
