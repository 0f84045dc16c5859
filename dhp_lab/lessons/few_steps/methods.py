r"""The methods that the lesson compares on the islands, at any number of steps and with any spacing.

All start from the same noise and are compared with one reference solution: where the probability flow of the
exact denoiser takes that noise, by ``REFERENCE_STEPS`` steps of Heun's method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dhp_lab.diffusion.consistency import consistency_sample
from dhp_lab.diffusion.edm import denoiser_from_edm, edm_heun, karras
from dhp_lab.diffusion.flow import flow_euler, flow_sigma, flow_time
from dhp_lab.diffusion.mixture import ISLANDS
from dhp_lab.diffusion.multistep import dpm_solver_2m
from dhp_lab.diffusion.samplers import ddim, last
from dhp_lab.diffusion.schedules import NoiseSchedule, from_sigmas, geometric, linear
from dhp_lab.metrics.sliced_wasserstein import sliced_wasserstein
from dhp_lab.training.islands import SIGMA_MAX, SIGMA_MIN, IslandModels

REFERENCE_STEPS = 64
REAL_POINTS = 20_000


def even_in_time(steps: int) -> NoiseSchedule:
    """Noise levels at evenly spaced times of DDPM's linear chain, from SIGMA_MAX down."""
    chain = linear(1000)
    times = chain.time_of(SIGMA_MAX) * torch.arange(1, steps + 1, dtype=torch.float64) / steps
    return from_sigmas("even in t", chain.sigma(times))


def even_in_log(steps: int) -> NoiseSchedule:
    """Noise levels with evenly spaced logarithms, from SIGMA_MAX to SIGMA_MIN."""
    return geometric(steps, first=SIGMA_MIN, last=SIGMA_MAX)


def even_in_flow_time(steps: int) -> NoiseSchedule:
    """Noise levels at evenly spaced times sigma / (1 + sigma) of the flow, from SIGMA_MAX down."""
    times = flow_time(SIGMA_MAX) * torch.arange(1, steps + 1, dtype=torch.float64) / steps
    return from_sigmas("even in flow time", flow_sigma(times))


def karras_levels(steps: int) -> NoiseSchedule:
    """Karras spacing with rho = 7, from SIGMA_MAX to SIGMA_MIN."""
    return karras(steps, first=SIGMA_MIN, last=SIGMA_MAX)


SPACINGS: dict[str, Callable[[int], NoiseSchedule]] = {
    "Karras, ρ = 7": karras_levels,
    "even in DDPM's t": even_in_time,
    "even in the flow's t": even_in_flow_time,
    "even in log σ": even_in_log,
}
SOLVERS = {"DDIM": ddim, "Heun": edm_heun, "DPM-Solver++ 2M": dpm_solver_2m}
FLOWS = {"Euler, flow": "flow", "Euler, reflow": "reflow"}
CONSISTENCY = "consistency model"
METHODS = (*SOLVERS, *FLOWS, CONSISTENCY)


@dataclass(frozen=True)
class Drawn:
    """What a method has drawn.

    Attributes:
        levels: (n + 1,) the noise levels of the states, falling.
        path: (n + 1, B, 2) the states x0 + sigma eps; the last ones are the samples.
        evaluations: of the network, for each sample.
    """

    levels: Tensor
    path: Tensor
    evaluations: int

    @property
    def samples(self) -> Tensor:
        """(B, 2) the end of the path."""
        return self.path[-1]


def draw(models: IslandModels, method: str, spacing: str, steps: int, eps: Tensor) -> Drawn:
    """Samples from standard normal noise eps (B, 2) by one of METHODS, with one of SPACINGS.

    Raises:
        ValueError: there is no such method or spacing.
    """
    if method not in METHODS or spacing not in SPACINGS:
        choices = f"one of {', '.join(METHODS)} and one of {', '.join(SPACINGS)}"
        raise ValueError(f"choose {choices}; got {method!r} and {spacing!r}")
    if method == CONSISTENCY:
        return _jumps(models, SPACINGS[spacing](steps + 1), steps, eps)
    schedule = SPACINGS[spacing](steps)
    levels = schedule.sigma(schedule.times(steps))  # (steps + 1,), falling to 0
    if method in FLOWS:
        times = flow_time(levels)
        times[0] = 1.0  # a flow starts from noise alone
        network = getattr(models, FLOWS[method])
        states = [state.x / (1 - state.t) for state in flow_euler(network, eps, times)]
        return Drawn(levels, torch.stack([SIGMA_MAX * eps, *states]), steps)
    denoiser = denoiser_from_edm(models.diffusion, schedule)
    states = [state.x for state in SOLVERS[method](denoiser, schedule, SIGMA_MAX * eps)]
    evaluations = 2 * steps - 1 if method == "Heun" else steps
    return Drawn(levels, torch.stack([SIGMA_MAX * eps, *states]), evaluations)


def _jumps(models: IslandModels, schedule: NoiseSchedule, steps: int, eps: Tensor) -> Drawn:
    """Multistep consistency sampling at the first ``steps`` levels of a schedule."""
    levels = schedule.sigma(schedule.times(steps + 1))[:-2].tolist()
    states = [
        consistency_sample(
            models.consistency,
            SIGMA_MAX * eps,
            levels[: n + 1],
            sigma_min=SIGMA_MIN,
            generator=torch.Generator().manual_seed(1),
        )
        for n in range(steps)
    ]
    return Drawn(torch.tensor([*levels, 0.0]), torch.stack([SIGMA_MAX * eps, *states]), steps)


def reference(eps: Tensor) -> Tensor:
    """(B, 2) the reference solution: the end of the exact probability flow from SIGMA_MAX eps."""
    schedule = karras_levels(REFERENCE_STEPS)
    u = SIGMA_MAX * eps.double()
    return last(edm_heun(ISLANDS.denoiser(schedule), schedule, u)).x.to(eps)


@dataclass(frozen=True)
class Distances:
    """How far samples are from where they should be, in units of the plane.

    Attributes:
        path: root mean square distance from the reference solution, point by point.
        cloud: sliced Wasserstein distance from REAL_POINTS points of the data.
    """

    path: float
    cloud: float


def distances(samples: Tensor, goal: Tensor) -> Distances:
    """Compare samples (B, 2) with the reference solution (B, 2) of the same noise, and with the data."""
    real = ISLANDS.sample(REAL_POINTS, torch.Generator().manual_seed(99))
    path = (samples - goal).square().sum(1).mean().sqrt().item()
    return Distances(path, sliced_wasserstein(samples, real))
