"""The exercises of the lesson on DDPM."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dhp_lab.data.digits import load_digits
from dhp_lab.diffusion.process import noise_like, predict_eps, q_sample, x0_from_eps
from dhp_lab.notebook.exercises import Case, exercise
from dhp_lab.training.digit_denoiser import load_denoiser

DIGITS = 120  # test digits on which the open exercise is judged
GOALS = {100: 0.027, 400: 0.225, 700: 0.293, 1000: 0.3}  # mean squared error to reach at each time


@exercise
def guess_x0() -> Iterator[Case]:
    """Return the clean signal that a state and a noise estimate stand for: guess_x0(x_t, eps, alpha_bar)."""
    state = np.array([0.5, -0.5])
    no_noise = "with no noise in it the state is sqrt(alpha_bar) x0: here alpha_bar is 1/4"
    yield Case({"x_t": state, "eps": np.zeros(2), "alpha_bar": 0.25}, np.array([1.0, -1.0]), hint=no_noise)
    noise = "the state holds sqrt(1 - alpha_bar) eps, here 0.8 eps: subtract it before you divide"
    yield Case(
        {"x_t": np.array([1.4]), "eps": np.array([1.0]), "alpha_bar": 0.36}, np.array([1.0]), hint=noise
    )
    only = "a state that is all noise, for a signal of 0, must give 0"
    yield Case(
        {"x_t": np.array([[0.6, -1.2]]), "eps": np.array([[1.0, -2.0]]), "alpha_bar": 0.64},
        np.zeros((1, 2)),
        hint=only,
    )
    late = (
        "an error of the estimate grows by sigma = sqrt(1 / alpha_bar - 1): "
        "late estimates of x0 may lie far beyond -1 .. 1"
    )
    yield Case(
        {"x_t": np.array([1.0]), "eps": np.array([0.0]), "alpha_bar": 1e-4}, np.array([100.0]), hint=late
    )


@exercise
def ddpm_step() -> Iterator[Case]:
    """Return the state at t - 1 of algorithm 2, z being standard normal noise: ddpm_step(x_t, eps, z,
    alpha_bar_t, alpha_bar_before).
    """
    one, none = np.ones(1), np.zeros(1)
    end = "alpha_bar_before = 1 is time 0: the variance is 0 there, and the mean is the estimate of x0"
    yield Case(_step([1.4], one, 5 * one, 0.36, 1.0), one, hint=end)
    fades = "a state without noise only fades: x0 = 1, and the posterior's mean is sqrt(alpha_bar_before)"
    yield Case(_step([0.5], none, none, 0.25, 0.5), np.array([math.sqrt(0.5)]), hint=fades)
    kept = "here x0 = 0; the mean keeps (1 - alpha_bar_before) / (1 - alpha_bar_t) sqrt(1 - beta) of x_t"
    yield Case(_step([math.sqrt(0.8)], one, none, 0.2, 0.5), np.array([0.5 * math.sqrt(0.5)]), hint=kept)
    wide = "z is multiplied by the posterior's standard deviation, the square root of its variance"
    yield Case(_step([0.0], none, one, 0.2, 0.5), np.array([math.sqrt(0.375)]), hint=wide)
    rng = np.random.default_rng(0)
    eps, z = rng.standard_normal((2, 200_000))
    state = math.sqrt(0.42) * 0.5 + math.sqrt(0.58) * eps
    yield Case(
        _step(state, eps, z, 0.42, 0.7),
        np.array([0.5 * math.sqrt(0.7), math.sqrt(0.3)]),
        hint="measured: with the true noise of 200 000 states, check mean and spread at t - 1",
        tolerance=0.01,
        measure=_mean_and_spread,
    )


def _step(x_t: object, eps: np.ndarray, z: np.ndarray, alpha_bar_t: float, alpha_bar_before: float) -> dict:
    return {
        "x_t": np.asarray(x_t),
        "eps": eps,
        "z": z,
        "alpha_bar_t": alpha_bar_t,
        "alpha_bar_before": alpha_bar_before,
    }


def _mean_and_spread(x: object) -> object:
    """Of an array; what is none is returned as it is."""
    return np.array([x.mean(), x.std()]) if isinstance(x, np.ndarray) else x


@exercise
def better_x0() -> Iterator[Case]:
    """Return an estimate of x0 nearer to the clean digit than the network's, from that estimate, the noise
    level and the mean training digit: better_x0(x0_hat, sigma, mean).
    """
    clean, mean = load_digits().test[:DIGITS], load_digits().train.mean(0)
    hints = {
        100: "there is little noise: nothing needs to be changed",
        400: "half of the signal's detail can still be seen: hardly anything needs to be changed",
        700: "the mean digit is the better part of the answer here",
        1000: "nothing can be seen of the digit, and clipping to -1 .. 1 is not enough",
    }
    for t, (estimate, sigma) in _estimates().items():
        yield Case(
            {"x0_hat": estimate, "sigma": sigma, "mean": mean},
            GOALS[t],
            hint=f"the mean squared error at t = {t} is to be {GOALS[t]:g} or less; {hints[t]}",
            measure=_at_least(GOALS[t], clean),
        )


@lru_cache(maxsize=1)
def _estimates() -> dict[int, tuple[Tensor, float]]:
    """For each time the network's estimate of x0 (DIGITS, 1, 8, 8) of noisy test digits, and sigma."""
    network, config = load_denoiser("digits")
    schedule, clean = config.noise_schedule(), load_digits().test[:DIGITS]
    generator, found = torch.Generator().manual_seed(0), {}
    for t in GOALS:
        x_t = q_sample(schedule, clean, t, noise_like(clean, generator))
        with torch.no_grad():
            eps = predict_eps(network, x_t, t)
        found[t] = x0_from_eps(schedule, x_t, t, eps), schedule.sigma(t).item()
    return found


def _at_least(goal: float, clean: Tensor) -> Callable[[object], object]:
    """The mean squared error of an estimate, or the goal where that is reached."""

    def measure(estimate: object) -> object:
        if not isinstance(estimate, Tensor) or estimate.shape != clean.shape:
            return estimate
        error = (estimate - clean).square().mean().item()
        return error if math.isnan(error) else max(goal, error)

    return measure
