"""The exercises of the lesson on flow matching, EDM and few steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch

from dhp_lab.diffusion.mixture import ISLANDS
from dhp_lab.diffusion.samplers import ddim, last
from dhp_lab.diffusion.schedules import from_sigmas
from dhp_lab.lessons.few_steps.methods import reference
from dhp_lab.notebook.exercises import Case, exercise
from dhp_lab.training.islands import SIGMA_MAX

GOAL = 0.07  # of ``sixteen_levels``: RMS distance from the reference solution
BUDGET = 16  # and noise levels, one evaluation of the denoiser each
POINTS = 200


@exercise
def flow_time_of_sigma() -> Iterator[Case]:
    """Return the flow's time t at which (1 - t) x0 + t eps has the noise level sigma: flow_time_of_sigma(
    sigma).
    """
    yield Case({"sigma": 1.0}, 0.5, hint="signal and noise are equally strong half way")
    yield Case({"sigma": 3.0}, 0.75, hint="solve sigma = t / (1 - t) for t")
    clean = "at t = 0 there is no noise; and an array of sigmas gives an array of times"
    yield Case({"sigma": np.array([0.0, 0.25])}, np.array([0.0, 0.2]), hint=clean)


@exercise
def two_m_step() -> Iterator[Case]:
    """Return u at the noise level after, from u at now, by DPM-Solver++ 2M: two_m_step(u, x0, x0_before,
    before, now, after), where x0 is the estimate at now, x0_before that at the noise level before.
    """
    zero, one = torch.zeros(2), torch.ones(2)
    linear = "if the estimates are 0, u shrinks as sigma does: u after / now"
    yield Case(
        {"u": 4 * one, "x0": zero, "x0_before": zero, "before": 8.0, "now": 4.0, "after": 1.0},
        one,
        hint=linear,
    )
    constant = "if both estimates agree, 2M is DDIM: after / now u + (1 - after / now) x0"
    yield Case(
        {"u": 4 * one, "x0": one, "x0_before": one, "before": 8.0, "now": 4.0, "after": 1.0},
        torch.tensor([1.75, 1.75]),
        hint=constant,
    )
    ahead = "steps of one size in log sigma: r = 1, and D = x0 + (x0 - x0_before) / 2"
    yield Case(
        {"u": zero, "x0": one, "x0_before": zero, "before": 4.0, "now": 2.0, "after": 1.0},
        torch.tensor([0.75, 0.75]),
        hint=ahead,
    )
    sizes = (
        "h = log(now / after) and h_before = log(before / now); D = x0 + h / (2 h_before) (x0 - x0_before)"
    )
    yield Case(
        {"u": zero, "x0": one, "x0_before": zero, "before": 4.0, "now": 2.0, "after": 0.5},
        torch.tensor([1.5, 1.5]),
        hint=sizes,
    )
    end = "at sigma = 0 the step ends at x0: log 0 is infinite, so take the first-order step there"
    yield Case(
        {"u": 3 * one, "x0": one, "x0_before": zero, "before": 4.0, "now": 2.0, "after": 0.0}, one, hint=end
    )


@exercise
def consistency_jump() -> Iterator[Case]:
    """Return f(u, sigma) = c_skip u + c_out F with f(u, sigma_min) = u: consistency_jump(u, F, sigma,
    sigma_min, sigma_data).
    """
    border = "at sigma = sigma_min c_skip is 1 and c_out is 0, whatever F is"
    yield Case(
        {
            "u": np.array([2.0, -1.0]),
            "F": np.array([9.0, 9.0]),
            "sigma": 0.5,
            "sigma_min": 0.5,
            "sigma_data": 1.0,
        },
        np.array([2.0, -1.0]),
        hint=border,
    )
    skip = "c_skip = sigma_data^2 / ((sigma - sigma_min)^2 + sigma_data^2), here 1 / (4 + 1)"
    yield Case({"u": 10.0, "F": 0.0, "sigma": 2.5, "sigma_min": 0.5, "sigma_data": 1.0}, 2.0, hint=skip)
    out = "c_out = sigma_data (sigma - sigma_min) / sqrt(sigma^2 + sigma_data^2), here 2 * 3 / 5"
    yield Case({"u": 0.0, "F": 1.0, "sigma": 4.0, "sigma_min": 1.0, "sigma_data": 3.0}, 1.8, hint=out)


@exercise
def sixteen_levels() -> Iterator[Case]:
    """Return error(levels) for at most 16 noise levels that fall from 80, with the error below 0.07:
    sixteen_levels(error).
    """
    hint = "the error must be below 0.07; put more levels where the islands come apart, about 0.1 to 1"
    yield Case({"error": ddim_error}, 0.0, hint=hint, tolerance=GOAL)


def ddim_error(levels: Sequence[float] | np.ndarray | torch.Tensor) -> float:
    """Root mean square distance from the reference solution of DDIM with the exact denoiser.

    Args:
        levels: noise levels that fall from SIGMA_MAX, at most BUDGET; the last step, to 0, is added.

    Raises:
        ValueError: too many levels, or levels that do not fall from SIGMA_MAX.
    """
    levels = torch.as_tensor(levels, dtype=torch.float64)
    if levels.ndim != 1 or not 1 <= len(levels) <= BUDGET:
        raise ValueError(f"give 1 to {BUDGET} levels, got shape {tuple(levels.shape)}")
    if abs(levels[0].item() / SIGMA_MAX - 1) > 1e-6:
        raise ValueError(
            f"the first level must be {SIGMA_MAX:g}, where the noise is drawn; got {levels[0]:g}"
        )
    schedule = from_sigmas("the reader's", levels.flip(0))
    eps, goal = _start_and_goal()
    x = last(ddim(ISLANDS.denoiser(schedule), schedule, SIGMA_MAX * eps)).x
    return (x - goal).square().sum(1).mean().sqrt().item()


@lru_cache(maxsize=1)
def _start_and_goal() -> tuple[torch.Tensor, torch.Tensor]:
    """Noise (n, 2) float64, and its reference solution."""
    eps = torch.randn(POINTS, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return eps, reference(eps)
