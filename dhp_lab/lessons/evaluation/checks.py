"""The exercises of the lesson on evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from dhp_lab.notebook.exercises import Case, exercise

ALLOWED = 1.05  # of the least error: what an allocation has to reach


@exercise
def mean_psnr() -> Iterator[Case]:
    """Return the mean of the PSNRs of several pictures, from their mean squared errors: mean_psnr(mses,
    peak).
    """
    one = "PSNR = 10 log10(peak^2 / MSE); the peak is squared, for MSE is a square"
    yield Case({"mses": np.array([1.0]), "peak": 255}, 20 * math.log10(255), hint=one)
    peak = "pixels from 0 to 1 have the peak 1: take the one that you are given, not always 255"
    yield Case({"mses": np.array([0.01, 0.01]), "peak": 1.0}, 20.0, hint=peak)
    order = (
        "first the PSNR of each picture, then the mean: 20 dB and 40 dB make 30 dB, as in published curves"
    )
    yield Case({"mses": np.array([1e-2, 1e-4]), "peak": 1.0}, 30.0, hint=order)
    yield Case({"mses": np.array([1.0, 10.0, 100.0]), "peak": 1000.0}, 50.0, hint=order)


def _line(a: float, b: float, qualities: list[float]) -> tuple[list[float], list[float]]:
    """A curve with log10(bpp) = a + b dB."""
    return [10 ** (a + b * quality) for quality in qualities], qualities


@exercise
def bd_rate() -> Iterator[Case]:
    """Return the BD-rate in % of the test curve against the anchor; a curve is (rates, qualities):
    bd_rate(anchor, test).
    """
    rates, qualities = [0.1, 0.25, 0.5, 1.0, 2.0], [25.0, 28.0, 31.0, 35.0, 39.0]
    whole, half = (rates, qualities), ([rate / 2 for rate in rates], qualities)
    saved = "half the bits at each quality is -50 %"
    yield Case({"anchor": whole, "test": half}, -50.0, hint=saved)
    double = "the anchor is what the test is compared with: twice its bits are +100 %"
    yield Case({"anchor": half, "test": whole}, 100.0, hint=double)
    grid = [20.0, 25.0, 30.0, 35.0, 40.0]
    anchor, crossing = _line(-3.0, 0.1, grid), _line(-2.7, 0.09, grid)
    mean = "the curves cross in the middle: average the logarithms first, then turn them into %"
    yield Case({"anchor": anchor, "test": crossing}, 0.0, hint=mean)
    high = _line(-2.7, 0.09, [30.0, 35.0, 40.0, 45.0])
    common = "only the quality that both curves reach counts, here 30 to 40 dB"
    yield Case({"anchor": anchor, "test": high}, 100 * (10**-0.05 - 1), hint=common)
    low = _line(-2.7, 0.09, [18.0, 22.0, 26.0, 30.0])
    below = "only the quality that both curves reach counts, here 20 to 30 dB"
    yield Case({"anchor": anchor, "test": low}, 100 * (10**0.05 - 1), hint=below)
    backwards = tuple(part[::-1] for part in half)
    order = "points may come from the highest rate to the lowest: sort them by their quality"
    yield Case({"anchor": whole, "test": backwards}, -50.0, hint=order)


def _pictures(seed: int, count: int = 6, settings: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Bytes and mean squared errors of some pictures at some settings, smooth pictures and detailed ones."""
    draw = np.random.default_rng(seed)
    detail = 10 ** draw.uniform(1.0, 3.5, (count, 1))  # the error at no bytes at all
    scale = draw.uniform(2000, 6000, (count, 1))  # bytes that divide the error by e
    n_bytes = np.rint(np.linspace(0.3, 4.0, settings) * scale * draw.uniform(0.7, 1.3, (count, 1)))
    return n_bytes, detail * np.exp(-n_bytes / scale)


def least_error(n_bytes: np.ndarray, mses: np.ndarray, budget: float) -> float:
    """The least mean error of all choices of a setting for each picture that keep to the budget.

    Args:
        n_bytes, mses: (pictures, settings).
        budget: bytes of all pictures together.
    """
    size, error = np.zeros(1), np.zeros(1)
    for sizes, errors in zip(n_bytes, mses, strict=True):
        size, error = np.add.outer(size, sizes).ravel(), np.add.outer(error, errors).ravel()
    return float(error[size <= budget].min() / len(mses))


@exercise
def allocation() -> Iterator[Case]:
    """Return a setting for each picture, so that all files have at most budget bytes and the mean error comes
    within 5 % of the least one: allocation(n_bytes, mses, budget).
    """
    hint = (
        "no picture at the price of another: take for each picture the setting with the least "
        "mse + price * bytes, with one price for all, and search for the price"
    )
    for seed in range(3):
        n_bytes, mses = _pictures(seed)
        budget = float(n_bytes.mean(0)[3:5].mean() * len(n_bytes))
        goal = ALLOWED * least_error(n_bytes, mses, budget)

        def reached(
            chosen: object,
            n_bytes: np.ndarray = n_bytes,
            mses: np.ndarray = mses,
            budget: float = budget,
            goal: float = goal,
        ) -> object:
            try:
                places = np.asarray(chosen).astype(int).reshape(len(n_bytes), 1)
                size = np.take_along_axis(n_bytes, places, 1).sum()
                error = np.take_along_axis(mses, places, 1).mean().item()
            except (TypeError, ValueError, IndexError):
                return chosen
            return max(goal, error) if size <= budget else math.inf

        arguments = {"n_bytes": n_bytes, "mses": mses, "budget": budget}
        yield Case(arguments, goal, hint=hint, measure=reached)
