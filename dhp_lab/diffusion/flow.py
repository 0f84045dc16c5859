r"""Flow matching: straight lines from clean signals to noise, and a network that learns their velocity.

    x_t = (1 - t) x0 + t eps,     dx_t/dt = eps - x0,     t = 0 .. 1      (Liu et al. 2023, eq. 1)

The network's v(x_t, t) is the mean of eps - x0 given x_t, and samples follow dx = v dt from t = 1 to 0. Paths
of single pairs are straight; those of the flow bend where pairs cross. *Reflow* trains again on pairs that
the flow itself has connected: its paths do not cross, so the next flow's are nearly straight.

The state is one of a ``NoiseSchedule`` in other units, with s = 1 - t and sigma = t / (1 - t):

    x_t = s (x0 + sigma eps),       x0 = x - t v,       eps = x + (1 - t) v

so each denoiser is a velocity and each velocity a denoiser: VP, VE and flow are three scalings.

| paper                                     | here                       | range                         |
|-------------------------------------------|----------------------------|-------------------------------|
| t (1 - t in Liu et al. and Lipman et al.) | ``t``                      | 0 .. 1; 0 is the clean signal |
| X_t = t X_1 + (1 - t) X_0, eq. 1          | ``interpolate``            | (B, ...)                      |
| X_1 - X_0, u_t(x given x_1)               | ``-conditional_velocity``  | (B, ...)                      |
| L_CFM (Lipman et al. 2023, eq. 9, 23)     | ``flow_loss``              | >= 0                          |
| S(Z) (Liu et al. 2023, section 2)         | ``straightness``           | >= 0, 0 is straight           |

Both papers count t from noise to data; here, as in the rest of the kit and in Esser et al. 2024, 0 is clean.
Every t is one for the batch or (B,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from dhp_lab.diffusion.process import Denoiser, predict_eps
from dhp_lab.diffusion.samplers import State, last
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to

Velocity = Callable[[Tensor, Tensor], Tensor]
"""``v = velocity(x_t, t)``: states (B, ...) and times (B,) in [0, 1] to velocities (B, ...)."""


def interpolate(x0: Tensor, eps: Tensor, t: float | Tensor) -> Tensor:
    """x_t = (1 - t) x0 + t eps: Liu et al. 2023, eq. 1; Lipman et al. 2023, eq. 22 with sigma_min = 0.

    Args:
        x0, eps: (B, ...) clean signals and standard normal noise.
        t: in [0, 1].

    Raises:
        ValueError: shapes that differ, or a time outside [0, 1].
    """
    _check_same_shape("eps", eps, x0)
    share = broadcast_to(_checked(t), x0)
    return (1 - share) * x0 + share * eps


def conditional_velocity(x0: Tensor, eps: Tensor) -> Tensor:
    """eps - x0, the velocity of the line from x0 to eps, the same at all t: Lipman et al. 2023, eq. 23."""
    _check_same_shape("eps", eps, x0)
    return eps - x0


def predict_velocity(velocity: Velocity, x: Tensor, t: float | Tensor) -> Tensor:
    """The network's velocity (B, ...) at time t in [0, 1].

    Raises:
        ValueError: a time outside [0, 1], or a result of another shape than x.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    v = velocity(x, _checked(t).to(dtype).to(x.device).expand(len(x)))  # (B,) times
    _check_same_shape("the velocity", v, x)
    return v


def flow_loss(velocity: Velocity, x0: Tensor, eps: Tensor, t: float | Tensor) -> Tensor:
    """() the mean of |v(x_t, t) - (eps - x0)|^2: Liu et al. 2023, eq. 1; Lipman et al. 2023, eq. 23.

    Args:
        x0, eps: (B, ...) pairs: independent ones for a first flow, those of ``reflow_pairs`` for the next.
        t: in [0, 1]; training draws it by ``draw_flow_times``.
    """
    x_t = interpolate(x0, eps, t)
    return (predict_velocity(velocity, x_t, t) - conditional_velocity(x0, eps)).square().mean()


def draw_flow_times(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """(B,) times for the batch x, uniform in [0, 1); float32 on x's device."""
    device = "cpu" if generator is None else generator.device
    return torch.rand(len(x), generator=generator, device=device).to(x.device)


def flow_sigma(t: float | Tensor) -> Tensor:
    """sigma = t / (1 - t), the noise level of an unscaled signal; float64, infinite at t = 1."""
    t = _checked(t).double()
    return t / (1 - t)


def flow_time(sigma: float | Tensor) -> Tensor:
    """t = sigma / (1 + sigma), the inverse of ``flow_sigma``; float64, the shape of sigma.

    Raises:
        ValueError: a sigma below 0.
    """
    sigma = torch.as_tensor(sigma, dtype=torch.float64)
    if not bool((sigma >= 0).all()):
        raise ValueError(f"sigma must be at least 0, got {sigma.min().item():g}")
    return 1 - 1 / (1 + sigma)


def x0_from_velocity(x: Tensor, t: float | Tensor, v: Tensor) -> Tensor:
    """x0 = x - t v: the straight line's end at t = 0; all (B, ...)."""
    _check_same_shape("v", v, x)
    return x - broadcast_to(_checked(t), x) * v


def eps_from_velocity(x: Tensor, t: float | Tensor, v: Tensor) -> Tensor:
    """eps = x + (1 - t) v: the straight line's end at t = 1; all (B, ...)."""
    _check_same_shape("v", v, x)
    return x + (1 - broadcast_to(_checked(t), x)) * v


def velocity_from_x0(x: Tensor, t: float | Tensor, x0: Tensor) -> Tensor:
    """v = (x - x0) / t, for t in (0, 1]; all (B, ...).

    Raises:
        ValueError: t = 0, or outside [0, 1].
    """
    _check_same_shape("x0", x0, x)
    t = _checked(t)
    if not bool((t > 0).all()):
        raise ValueError("t must lie in (0, 1], got 0: there the state is x0 and says nothing of the noise")
    return (x - x0) / broadcast_to(t, x)


def denoiser_from_flow(velocity: Velocity, schedule: NoiseSchedule) -> Denoiser:
    """The flow's noise estimate for states of a schedule, so that every sampler takes it.

    A state x / s = x0 + sigma eps is the flow's (1 - t) x / s at t = sigma / (1 + sigma).
    """

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        time = flow_time(schedule.sigma(t))
        state = broadcast_to((1 - time) / schedule.scale(t), x) * x
        return eps_from_velocity(state, time, predict_velocity(velocity, state, time))

    return denoise


def flow_from_denoiser(denoiser: Denoiser, schedule: NoiseSchedule) -> Velocity:
    """The velocity that a denoiser of a schedule stands for, at t in (0, 1].

    Times whose sigma is above the schedule's last one count as that: the noise hides the signal as well.
    """
    top = schedule.sigma(schedule.steps)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        sigma = flow_sigma(t.cpu()).clamp(max=top)
        times = schedule.time_of(sigma)
        u = broadcast_to(sigma / t.cpu().double(), x) * x  # (B, ...) x0 + sigma eps
        eps = predict_eps(denoiser, broadcast_to(schedule.scale(times), x) * u, times)
        return velocity_from_x0(x, t, u - broadcast_to(sigma, x) * eps)

    return velocity


def flow_times(count: int) -> Tensor:
    """(count + 1,) float64: evenly spaced times from 1 down to 0.

    Raises:
        ValueError: a count below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    return torch.linspace(1, 0, count + 1, dtype=torch.float64)


@torch.no_grad()
def flow_euler(velocity: Velocity, x_1: Tensor, times: Tensor) -> Iterator[State]:
    """Euler's method for dx = v dt: Liu et al. 2023, algorithm 1.

    x' = (1 - t') x0 + t' eps: this is a step of ``samplers.ddim`` in another scaling. What differs is where
    the times lie, and what the network was trained for.

    Args:
        x_1: (B, ...) the state at the first time; standard normal noise if that is 1.
        times: (n + 1,) falling, in [0, 1]: ``flow_times(n)`` or the ``flow_time`` of noise levels.

    Yields:
        A state for each step, n evaluations in all; x0 is the estimate that the step was made with.
    """
    x = x_1
    for t, t_prev in _falling(times):
        v = predict_velocity(velocity, x, t)
        x0, x = x0_from_velocity(x, t, v), x + (t_prev - t) * v
        yield State(t_prev, x, x0)


@torch.no_grad()
def flow_heun(velocity: Velocity, x_1: Tensor, times: Tensor) -> Iterator[State]:
    """Heun's method for dx = v dt, the last step Euler's; 2n - 1 evaluations. Arguments as ``flow_euler``."""
    x = x_1
    for t, t_prev in _falling(times):
        v = predict_velocity(velocity, x, t)
        if t_prev > 0:
            v = (v + predict_velocity(velocity, x + (t_prev - t) * v, t_prev)) / 2
        x0, x = x0_from_velocity(x, t, v), x + (t_prev - t) * v
        yield State(t_prev, x, x0)


def reflow_pairs(velocity: Velocity, eps: Tensor, *, count: int = 100) -> tuple[Tensor, Tensor]:
    """Pairs (x0, eps) that the flow has connected: the data of the next flow. Liu et al. 2023, section 2.

    Args:
        eps: (B, ...) standard normal noise.
        count: Heun steps from noise to sample.
    """
    return last(flow_heun(velocity, eps, flow_times(count))).x, eps


@torch.no_grad()
def straightness(velocity: Velocity, eps: Tensor, *, count: int = 100) -> Tensor:
    """() the mean over paths and times of |(x_1 - x_0) - v(x_t, t)|^2: Liu et al. 2023, section 2.

    0 for straight paths, on which one Euler step from eps is exact.

    Args:
        eps: (B, ...) standard normal noise.
        count: Euler steps of the paths.
    """
    states = [eps, *(state.x for state in flow_euler(velocity, eps, flow_times(count)))]
    steps = [count * (earlier - later) for earlier, later in pairwise(states)]  # the velocities
    whole = states[0] - states[-1]
    return torch.stack([(whole - v).square().flatten(1).sum(1).mean() for v in steps]).mean()


def _falling(times: Tensor) -> Iterator[tuple[float, float]]:
    """The steps as pairs (t, t_prev)."""
    times = _checked(times)
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() < 0).all()):
        raise ValueError(f"times must fall and be at least two, got {times.tolist()}")
    return pairwise(times.tolist())


def _checked(t: float | Tensor) -> Tensor:
    t = t if isinstance(t, Tensor) else torch.as_tensor(t, dtype=torch.float64)
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"a flow's t must lie in [0, 1], got {t.min().item():g} .. {t.max().item():g}")
    return t


def _check_same_shape(name: str, values: Tensor, x: Tensor) -> None:
    if values.shape != x.shape:
        raise ValueError(f"{name} must have the shape {tuple(x.shape)}, got {tuple(values.shape)}")
