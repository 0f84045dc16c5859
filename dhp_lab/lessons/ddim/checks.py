"""The exercises of the lesson on DDIM."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dhp_lab.data.digits import SIDE
from dhp_lab.diffusion.process import predict_eps
from dhp_lab.diffusion.samplers import last, probability_flow, start
from dhp_lab.lessons.ddim.figures import level_error
from dhp_lab.notebook.exercises import Case, exercise
from dhp_lab.training.digit_denoiser import load_denoiser

EVALUATIONS, GOAL = 8, 0.5  # of the open exercise; the goal in grey levels of 16


@exercise
def noise_kept() -> Iterator[Case]:
    """Return the correlation of the noise in x_s with the noise in x_t: noise_kept(alpha_bar_t, alpha_bar_s,
    eta).
    """
    pair = {"alpha_bar_t": 0.2, "alpha_bar_s": 0.5}
    none = (
        "at eta = 0 nothing is drawn anew: the noise in x_s is the old one, "
        "scaled to sqrt(1 - alpha_bar_s); divide by that"
    )
    yield Case({**pair, "eta": 0.0}, 1.0, hint=none)
    root = (
        "the noise levels sigma are 2 at t and 1 at s; a correlation "
        "compares standard deviations and not variances"
    )
    yield Case({**pair, "eta": 1.0}, 0.5, hint=root)
    yield Case({**pair, "eta": 0.5}, math.sqrt(13) / 4, hint="tau grows as eta, tau^2 as eta^2")
    rng, (kept, fresh) = np.random.default_rng(0), (math.sqrt(0.6), math.sqrt(0.4))
    noise_s = rng.standard_normal(200_000)  # x_s without its x_0, of variance 1 - 0.7
    noise_t = kept * math.sqrt(0.3) * noise_s + fresh * rng.standard_normal(200_000)
    measured = "measured: two states of 200 000 chains of lesson 01, whose steps back have eta = 1"
    found = float(np.corrcoef(noise_s, noise_t)[0, 1])
    yield Case({"alpha_bar_t": 0.42, "alpha_bar_s": 0.7, "eta": 1.0}, found, hint=measured, tolerance=0.01)


@exercise
def ddim_step() -> Iterator[Case]:
    """Return the state at s of equation (1), with the estimate in place of x0 and z as fresh noise:
    ddim_step(x_t, eps, z, alpha_bar_t, alpha_bar_s, eta).
    """
    x0, one = np.array([1.0, -0.5]), np.ones(2)
    clean = "at alpha_bar_s = 1 no noise is left: the state is the estimate of x0"
    yield Case(_step(0.6 * x0 + 0.8 * one, one, one, 0.36, 1.0, 1.0), x0, hint=clean)
    fades = "without noise the picture only fades, to sqrt(alpha_bar_s) x0"
    yield Case(_step(0.6 * x0, 0 * one, 0 * one, 0.36, 0.64, 0.0), 0.8 * x0, hint=fades)
    old = "at eta = 0 all of the noise is the old one, scaled to sqrt(1 - alpha_bar_s)"
    yield Case(_step(0.6 * x0 + 0.8 * one, one, 9 * one, 0.36, 0.64, 0.0), 0.8 * x0 + 0.6, hint=old)
    fresh = (
        "tau = eta sqrt((1 - alpha_bar_s) / (1 - alpha_bar_t)) sqrt(1 - alpha_bar_t / alpha_bar_s), times z"
    )
    tau = math.sqrt(0.375)  # of alpha_bar 0.2 and 0.5 at eta = 1
    yield Case(_step(0 * one, 0 * one, one, 0.2, 0.5, 1.0), tau * one, hint=fresh)
    kept = "what tau adds, the old noise loses: sqrt(1 - alpha_bar_s - tau^2) of it stays"
    half = math.sqrt(0.5 - tau**2 / 4)
    yield Case(_step(math.sqrt(0.8) * one, one, 0 * one, 0.2, 0.5, 0.5), half * one, hint=kept)
    eps, z = np.random.default_rng(0).standard_normal((2, 200_000))
    state = math.sqrt(0.42) * 0.5 + math.sqrt(0.58) * eps
    yield Case(
        _step(state, eps, z, 0.42, 0.7, 0.7),
        np.array([0.5 * math.sqrt(0.7), math.sqrt(0.3)]),
        hint="measured: for every eta the states at s have the mean and spread of training",
        tolerance=0.01,
        measure=_mean_and_spread,
    )


def _step(
    x_t: np.ndarray, eps: np.ndarray, z: np.ndarray, alpha_bar_t: float, alpha_bar_s: float, eta: float
) -> dict:
    names = "x_t", "eps", "z", "alpha_bar_t", "alpha_bar_s", "eta"
    return dict(zip(names, (x_t, eps, z, alpha_bar_t, alpha_bar_s, eta), strict=True))


def _mean_and_spread(x: object) -> object:
    """Of an array; what is none is returned as it is."""
    return np.array([x.mean(), x.std()]) if isinstance(x, np.ndarray) else x


class Denoise:
    """x0_hat = denoise(u, sigma), the shipped network for u = x0 + sigma eps; it counts its evaluations.

    Args:
        most: evaluations that are allowed.

    Raises:
        ValueError: when it is called once more, or at a noise level outside (0, sigma(T)].
    """

    def __init__(self, most: int) -> None:
        self.network, config = load_denoiser("digits")
        self.schedule, self.most, self.calls = config.noise_schedule(), most, 0

    def __repr__(self) -> str:
        return "the denoiser"

    def __deepcopy__(self, memo: dict) -> Denoise:
        return Denoise(self.most)

    @torch.no_grad()
    def __call__(self, u: Tensor, sigma: float) -> Tensor:
        """x0_hat (B, 1, 8, 8) for a noise level in (0, sigma(T)]."""
        self.calls += 1
        if self.calls > self.most:
            raise ValueError(f"denoise was called more than {self.most} times")
        if not sigma > 0:
            raise ValueError(f"sigma must be above 0, got {float(sigma):g}")
        t = self.schedule.time_of(sigma)
        return u - sigma * predict_eps(self.network, u * self.schedule.scale(t).item(), t)


@exercise
def few_evaluations() -> Iterator[Case]:
    """Return the clean digits to which the curve of slope eps leads from u = sigma eps, with 8 evaluations
    of x0_hat = denoise(u, sigma): few_evaluations(denoise, u, sigma).
    """
    u, sigma, exact = _long_way()
    yield Case(
        {"denoise": Denoise(EVALUATIONS), "u": u, "sigma": sigma},
        GOAL,
        hint=f"the error against 60 steps of Heun's method is to be {GOAL:g} grey levels of 16 or less: "
        "take a solver of second order, and put more of its steps near the end",
        measure=_error(exact),
    )


@lru_cache(maxsize=1)
def _long_way() -> tuple[Tensor, float, Tensor]:
    """Noise u at sigma(T), sigma(T), and the digits that a long way leads to."""
    network, config = load_denoiser("digits")
    schedule = config.noise_schedule()
    x_T = start(schedule, (16, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    exact = last(probability_flow(network, schedule, x_T, count=60)).x
    return x_T / schedule.scale(schedule.steps).item(), schedule.sigma(schedule.steps).item(), exact


def _error(exact: Tensor) -> Callable[[object], object]:
    """The error of digits in grey levels, or the goal where that is reached."""

    def measure(found: object) -> object:
        if not isinstance(found, Tensor) or found.shape != exact.shape:
            return found
        error = level_error(found, exact)
        return error if math.isnan(error) else max(GOAL, error)

    return measure
