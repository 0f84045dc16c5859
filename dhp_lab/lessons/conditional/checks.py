"""The exercises of the lesson on conditional diffusion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from dhp_lab.data.digits import load_digits
from dhp_lab.diffusion.networks import UNet
from dhp_lab.diffusion.schedules import linear
from dhp_lab.notebook.exercises import Case, exercise
from dhp_lab.training.digit_denoiser import load_denoiser


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
def guided_noise() -> Iterator[Case]:
    """Return the noise estimate of classifier-free guidance, whose scale acts at times low < t <= high and is
    1 elsewhere: guided_noise(network, x, t, label, null, scale, low, high), t a number; network(x, t, label)
    gives the noise estimate.
    """
    case = {"network": _pulled, "x": np.array([4.0, -2.0]), "t": 300, "label": 3, "null": 10}
    whole = {"low": 0, "high": 1000}
    away = (
        "the estimate for any class is x, that for label 3 is x - 3, and the difference -3 is taken twice: "
        "x - 6; start from the estimate for any class"
    )
    yield Case({**case, "scale": 2.0, **whole}, np.array([-2.0, -8.0]), hint=away)
    zero = "at scale 0 the class has no effect: the estimate with the null label is left"
    yield Case({**case, "scale": 0.0, **whole}, np.array([4.0, -2.0]), hint=zero)
    time = "network needs the time as well: this one halves its estimate below t = 200"
    yield Case({**case, "t": 100, "scale": 3.0, **whole}, np.array([-2.5, -5.5]), hint=time)
    outside = "outside of the interval the scale is 1, not 0: the estimate for label 3, x - 3"
    yield Case({**case, "scale": 2.0, "low": 400, "high": 1000}, np.array([1.0, -5.0]), hint=outside)
    ends = "low < t <= high: low does not belong to the interval, high does"
    yield Case({**case, "scale": 2.0, "low": 300, "high": 1000}, np.array([1.0, -5.0]), hint=ends)
    yield Case({**case, "scale": 2.0, "low": 100, "high": 300}, np.array([-2.0, -8.0]), hint=ends)


def _pulled(x: np.ndarray, t: float, label: int) -> np.ndarray:
    """A noise estimate that a class moves by its number."""
    return (x - (0 if label == 10 else label)) * (0.5 if t < 200 else 1.0)


DELTA = 0.8  # the step of the open exercise's rounding
GOAL = 0.135  # the root mean square error to reach
SCHEDULE = linear(1000)  # of the shipped network


@exercise
def restored() -> Iterator[Case]:
    """Return an estimate of digits that were rounded to multiples of delta: restored(rounded, delta, denoise,
    scale, sigma, time_of). rounded is (B, 1, 8, 8); denoise(x_t, t) gives the noise estimate at a time t,
    scale(t) and sigma(t) are those of the schedule, time_of(sigma) is the time of a noise level. On 100 test
    digits rounded with delta = 0.8 the root mean square error shall be 0.135 or less; rounding leaves 0.204.
    """
    pictures = load_digits().test[:100]
    rounded = (pictures / DELTA).round() * DELTA
    goal = (
        "take the rounding for noise of the size of its error: at which time is sigma about delta / "
        "sqrt(12)? scale the picture as the states of that time are scaled, and do not add noise"
    )
    functions = {"denoise": _denoise, "scale": _scale, "sigma": _sigma, "time_of": _time_of}
    case = {"rounded": rounded, "delta": DELTA, **functions}
    yield Case(case, GOAL, hint=goal, measure=partial(_error, pictures))


def _error(pictures: Tensor, estimate: object) -> object:
    """The goal or, if it is more, the root mean square error; what is no picture is given back."""
    if not isinstance(estimate, Tensor) or estimate.shape != pictures.shape:
        return estimate
    error = (estimate.detach() - pictures).square().mean().sqrt().item()
    return max(GOAL, error) if math.isfinite(error) else error


def _scale(t: float) -> float:
    return SCHEDULE.scale(t).item()


def _sigma(t: float) -> float:
    return SCHEDULE.sigma(t).item()


def _time_of(sigma: float) -> float:
    return SCHEDULE.time_of(sigma).item()


@torch.no_grad()
def _denoise(x_t: Tensor, t: float) -> Tensor:
    """The noise estimate of the shipped network, for any class."""
    network = _network()
    return network(x_t, torch.full((len(x_t),), float(t)), torch.full((len(x_t),), network.null))


@lru_cache(maxsize=1)
def _network() -> UNet:
    return load_denoiser("digits-conditional")[0]
