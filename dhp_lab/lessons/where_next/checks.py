"""The exercises of the last lesson."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from dhp_lab.notebook.exercises import Case, exercise


@exercise
def noise_left() -> Iterator[Case]:
    """Return how much of each step's noise is left at the end of a linear chain: noise_left(keep, add)."""
    one = "one step: u becomes keep u + add eps, so add is what is left of eps"
    yield Case({"keep": np.array([0.5]), "add": np.array([2.0])}, np.array([2.0]), hint=one)
    later = "what a step adds is multiplied by `keep` of every later step, and not by its own"
    yield Case({"keep": np.array([0.5, 0.1]), "add": np.array([2.0, 3.0])}, np.array([0.2, 3.0]), hint=later)
    three = "after the first noise come two more steps: both multiply it"
    arguments = {"keep": np.array([9.0, 0.5, 0.25]), "add": np.array([1.0, 1.0, 1.0])}
    yield Case(arguments, np.array([0.125, 0.25, 1.0]), hint=three)
    zero = "a step that keeps nothing (keep = 0) wipes out all earlier noise, and divides nothing"
    arguments = {"keep": np.array([0.5, 0.0, 0.5]), "add": np.array([1.0, 2.0, 4.0])}
    yield Case(arguments, np.array([0.0, 1.0, 4.0]), hint=zero)


@exercise
def block_lambdas() -> Iterator[Case]:
    """Return a lambda for each block, from how much its errors count: block_lambdas(lambda_rate, weights)."""
    same = "equal weights: every block keeps lambda_rate, whatever number the weights are"
    yield Case({"lambda_rate": 1e-3, "weights": np.array([2.0, 2.0])}, np.array([1e-3, 1e-3]), hint=same)
    inverse = (
        "errors that count w times as much want lambda / w; multiply all by one "
        "number, so that their geometric mean is lambda_rate"
    )
    yield Case({"lambda_rate": 1e-3, "weights": np.array([4.0, 1.0])}, np.array([5e-4, 2e-3]), hint=inverse)
    mean = (
        "the mean that stays is that of log(lambda), because bits count log2 of "
        "the step: use the geometric mean of the weights"
    )
    yield Case(
        {"lambda_rate": 1.0, "weights": np.array([8.0, 1.0, 1.0])}, np.array([0.25, 2.0, 2.0]), hint=mean
    )
    shape = (
        "the weights are a map of rows and columns: the result has its shape, and one mean over all blocks"
    )
    weights = np.array([[1.0, 4.0], [16.0, 1.0]])
    yield Case({"lambda_rate": 2.0, "weights": weights}, 2 * math.sqrt(8) / weights, hint=shape)


@exercise
def best_shift() -> Iterator[Case]:
    """Return (down, right) for which frame[y, x] is nearest to reference[y + down, x + right]:
    best_shift(frame, reference, reach).
    """
    random = np.random.default_rng(0)
    scene = random.normal(size=(24, 30))
    still = "the same frame twice: the motion is (0, 0)"
    yield Case({"frame": scene[4:16, 4:20], "reference": scene[4:16, 4:20], "reach": 2}, (0, 0), hint=still)
    sign = (
        "try every whole motion from -reach to reach, and mind the sign: frame[y, "
        "x] is looked up at reference[y + down, x + right]"
    )
    yield Case({"frame": scene[6:18, 4:20], "reference": scene[4:16, 4:20], "reach": 3}, (2, 0), hint=sign)
    both = "rows first, then columns; here the frame came from a place further up and further right"
    yield Case({"frame": scene[3:15, 7:23], "reference": scene[4:16, 4:20], "reach": 3}, (-1, 3), hint=both)
    flat = 0.1 * random.normal(size=(12, 12))
    frame, reference = flat[2:10, 2:10] + 0.1 * random.normal(size=(8, 8)), flat[2:10, 2:10]
    mean = (
        "a far motion compares fewer pixels, so its sum of squares is "
        "small anyhow: compare means over the overlap"
    )
    yield Case({"frame": frame, "reference": reference, "reach": 4}, (0, 0), hint=mean)
