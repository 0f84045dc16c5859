"""The exercises of the last lesson."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from dhp_lab.notebook.exercises import Case, exercise

SIDE, BLOCK, REACH = 64, 8, 3  # pixels of the frames of `block_motion`, and of its motions
MOTIONS = [(down, right) for down in range(-REACH, REACH + 1) for right in range(-REACH, REACH + 1)]
GOAL = 0.2  # the share of the best single motion's error to reach


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
def chosen_candidate() -> Iterator[Case]:
    """Return the number, from 1, of the candidate that stands for a sample of N(mean, std^2):
    chosen_candidate(z, times, mean, std).
    """
    one = "a single candidate is chosen, and its number is 1"
    yield Case(_candidates([0.3], [1.0], 0.0, 0.5), 1, hint=one)
    prior = "where q is nearly p every ratio is 1: the first arrival wins"
    yield Case(_candidates([0.4, -0.2, 0.1], [0.5, 0.9, 1.7], 0.0, 1 - 1e-9), 1, hint=prior)
    ratio = "z = 2 is far likelier under q = N(2, 0.5^2) than under p: t p(z)/q(z) is least there"
    yield Case(_candidates([0.0, 2.0, -1.0], [0.5, 0.9, 1.7], 2.0, 0.5), 2, hint=ratio)
    late = "a likely candidate may come too late: its time counts as a factor"
    yield Case(_candidates([1.2, 2.0], [0.1, 20.0], 2.0, 0.5), 1, hint=late)
    prior_counts = (
        "q/p, and not q alone: of two candidates equally likely under q, the one that p finds rarer"
    )
    yield Case(_candidates([0.0, 2.0], [1.0, 1.2], 1.0, 0.5), 2, hint=prior_counts)
    far = "work with logarithms: here q/p is too small for a float"
    yield Case(_candidates([0.0, 0.5, -3.0], [0.1, 0.2, 0.3], 60.0, 0.5), 2, hint=far)


def _candidates(z: list[float], times: list[float], mean: float, std: float) -> dict[str, object]:
    return {"z": np.array(z), "times": np.array(times), "mean": mean, "std": std}


@exercise
def block_motion() -> Iterator[Case]:
    """Return a motion for each block, (rows, cols, 2) whole numbers (down, right), so that the prediction's
    squared error is a fifth of the best single motion's: block_motion(frame, reference, block, reach).
    """
    frame, reference = _zoomed_frames()
    hint = (
        "frame[y, x] is looked up at reference[y + down, x + right], whose edge pixels are repeated beyond "
        "the edge; try all motions from -reach to reach for each block, and keep the one of least error"
    )
    arguments = {"frame": frame, "reference": reference, "block": BLOCK, "reach": REACH}
    measure = partial(_share_of_error, frame, reference)
    yield Case(arguments, GOAL, hint=hint, tolerance=1e-6, measure=measure)


def _zoomed_frames() -> tuple[np.ndarray, np.ndarray]:
    """A texture (64, 64), seen 6 % nearer in the first frame than in the second."""
    draw = np.random.default_rng(3)
    waves = draw.uniform(-1.2, 1.2, size=(40, 2))  # radians a pixel
    phases = draw.uniform(0, 2 * np.pi, size=40)
    middle = (SIDE - 1) / 2
    place = np.arange(SIDE) - middle

    def seen(zoom: float) -> np.ndarray:
        angles = waves[:, 0, None, None] * (place / zoom)[:, None] + waves[:, 1, None, None] * (place / zoom)
        return np.cos(angles + phases[:, None, None]).mean(0)

    return seen(1.06), seen(1.0)


def _share_of_error(frame: np.ndarray, reference: np.ndarray, motions: object) -> object:
    """The squared error with these motions, over that of the best single motion, or GOAL if it is less."""
    shape = (SIDE // BLOCK, SIDE // BLOCK, 2)
    if not isinstance(motions, np.ndarray) or motions.shape != shape or np.abs(motions).max() > REACH:
        return motions
    errors = {motion: np.square(frame - _moved(reference, *motion)) for motion in MOTIONS}
    single = min(error.mean() for error in errors.values())
    found = np.empty_like(frame)
    for row, col in np.ndindex(shape[:2]):
        window = slice(BLOCK * row, BLOCK * (row + 1)), slice(BLOCK * col, BLOCK * (col + 1))
        down, right = (int(step) for step in motions[row, col])
        found[window] = errors[down, right][window]
    return max(GOAL, float(found.mean() / single))


def _moved(reference: np.ndarray, down: int, right: int) -> np.ndarray:
    wide = np.pad(reference, REACH, mode="edge")
    return wide[REACH + down :, REACH + right :][:SIDE, :SIDE]
