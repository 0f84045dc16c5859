r"""Samplers: from noise to a picture, along the schedule's times from T down to 0.

Each is a generator, sampler(denoiser, schedule, x_T), that yields a ``State`` after every step, the last one
at t = 0. With u = x_t / s, the state with an unscaled signal, and the noise estimate eps(x_t, t), they solve
one of

    du = 2 eps d(sigma) + noise    the reverse SDE                      (Song et al. 2021, eq. 6)
    du =   eps d(sigma)            the probability-flow ODE             (Song et al. 2021, eq. 13)

as sigma falls to 0. The ODE is deterministic: x_T decides the sample. Both have the same marginals.

| sampler                 | solves  | one step                                       | NFE a step          |
|-------------------------|---------|------------------------------------------------|---------------------|
| ``ddpm``                | the SDE | exact, given the estimate of x0                | 1                   |
| ``euler_maruyama``      | the SDE | Euler, and noise                               | 1                   |
| ``predictor_corrector`` | the SDE | Langevin steps at one t, then Euler-Maruyama's | 1 + corrector_steps |
| ``ddim``, eta = 0       | the ODE | Euler in u and sigma; with eta = 1 ``ddpm``'s  | 1                   |
| ``probability_flow``    | the ODE | Heun                                           | 2                   |
| ``invert``              | the ODE | upwards, from a picture to its noise           | 1 + refinements     |

NFE is the number of function evaluations, of the denoiser. ``multistep.dpm_solver_2m`` and ``edm.edm_heun``
are two more solvers of the ODE; other times than evenly spaced ones are another schedule, ``edm.karras``.

``x_T`` is (B, ...) noise, by ``start``; ``count`` is the number of steps, 1 .. T, all T by default. Noise is
drawn by ``noise_like``: a generator of the same seed gives the same samples. An argument outside its range
raises ValueError at the first state, as is usual with Python's generators.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from dhp_lab.diffusion.process import (
    Denoiser,
    Gaussian,
    noise_like,
    predict_eps,
    q_posterior,
    q_sample,
    score_from_eps,
    x0_from_eps,
)
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to


@dataclass(frozen=True)
class State:
    """The state of a sampler after a step.

    Attributes:
        t: its time, in [0, T].
        x: (B, ...) the state at t; at t = 0 the sample.
        x0: (B, ...) the estimate of the clean signal that the step was made with.
    """

    t: float
    x: Tensor
    x0: Tensor


def start(
    schedule: NoiseSchedule,
    shape: Iterable[int],
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """x_T, the noise to start from: s sigma eps at time T.

    Its standard deviation is about 1 if the schedule is variance preserving, sigma_T if exploding.

    Args:
        shape: (B, ...), that of the samples.
        dtype, device: those of the result; the noise is the same on every device.
    """
    noise = noise_like(torch.empty(tuple(shape), dtype=dtype, device=device), generator)
    return broadcast_to(schedule.scale(schedule.steps) * schedule.sigma(schedule.steps), noise) * noise


def last(states: Iterable[State]) -> State:
    """Run a sampler to its end: ``last(ddim(denoiser, schedule, x_T, count=50)).x`` is the sample."""
    return deque(states, maxlen=1).pop()


@torch.no_grad()
def ddpm(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    count: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Ho et al. 2020, algorithm 2: ancestral sampling with the posterior given the estimate of x0 (eq. 7).

    The variance is the smaller one of section 3.2.
    """
    x = x_T
    for t, t_prev in time_pairs(schedule, count):
        x0 = x0_from_eps(schedule, x, t, predict_eps(denoiser, x, t))
        posterior = q_posterior(schedule, x0, x, t, t_prev=t_prev)
        x = posterior.sample(noise_like(x, generator)) if t_prev > 0 else posterior.mean
        yield State(t_prev, x, x0)


@torch.no_grad()
def ddim(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    count: int | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Song, Meng & Ermon 2021, eq. 12 and 16: keep a part of the estimated noise, draw the rest anew.

    Args:
        eta: in [0, 1]: 0 is deterministic sampling, x_T decides the sample; 1 has the noise of ``ddpm``.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta:g}")
    x = x_T
    for t, t_prev in time_pairs(schedule, count):
        state = ddim_step(denoiser, schedule, x, t, t_prev, eta=eta, generator=generator)
        x = state.x
        yield state


def ddim_step(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x: Tensor,
    t: float,
    t_prev: float,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> State:
    """One step of ``ddim``, from x (B, ...) at t to t_prev < t, with gradients where enabled.

    For what goes its own way from step to step: a denoiser that is trained on its samples, pictures in tiles.
    """
    eps = predict_eps(denoiser, x, t)
    x0 = x0_from_eps(schedule, x, t, eps)
    sigma2, sigma2_prev = schedule.sigma(t).square(), schedule.sigma(t_prev).square()
    fresh = eta**2 * sigma2_prev * (1 - sigma2_prev / sigma2)  # variance drawn anew, of an unscaled signal
    kept = (sigma2_prev - fresh).sqrt()
    x = broadcast_to(schedule.scale(t_prev), x) * (x0 + broadcast_to(kept, x) * eps)
    if fresh > 0:
        x = x + broadcast_to(schedule.scale(t_prev) * fresh.sqrt(), x) * noise_like(x, generator)
    return State(t_prev, x, x0)


@torch.no_grad()
def euler_maruyama(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    count: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Song et al. 2021, eq. 6 by Euler-Maruyama: drift times dt, noise times sqrt(dt), none in the last step.

    Drift and noise are integrals over the step of the schedule's own rates, with the score constant. For an
    exploding schedule that is the reverse diffusion sampler (appendix E). For a preserving one the steps must
    be short: it takes hundreds of them where ``ddim`` takes tens.
    """
    x = x_T
    for t, t_prev in time_pairs(schedule, count):
        eps = predict_eps(denoiser, x, t)
        x0 = x0_from_eps(schedule, x, t, eps)
        back = _reverse_step(schedule, x, eps, t, t_prev)
        x = back.sample(noise_like(x, generator)) if t_prev > 0 else back.mean
        yield State(t_prev, x, x0)


@torch.no_grad()
def predictor_corrector(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    count: int | None = None,
    corrector_steps: int = 1,
    snr: float = 0.16,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Song et al. 2021, algorithms 2-5: Langevin steps at each level, then a step of ``euler_maruyama``.

    As in the authors' code the corrector comes first, so that the last step has no noise, and the size of its
    steps follows the mean norms over the batch: a sample depends a little on the batch that it is drawn in.

    Args:
        corrector_steps: Langevin steps at each level, 0 or more.
        snr: signal-to-noise ratio of a Langevin step, above 0: about the length of its drift over that of its
            noise. A larger one mixes faster, and leaves more noise behind.
    """
    if corrector_steps < 0 or not snr > 0:
        raise ValueError(
            f"corrector_steps must be at least 0 and snr above 0, got {corrector_steps} and {snr:g}"
        )
    x = x_T
    for t, t_prev in time_pairs(schedule, count):
        for _ in range(corrector_steps):
            score = score_from_eps(schedule, x, t, predict_eps(denoiser, x, t))
            kept = (schedule.scale(t) / schedule.scale(t_prev)).item()  # its square is the papers' alpha
            x = _langevin_step(x, score, noise_like(x, generator), snr * kept)
        eps = predict_eps(denoiser, x, t)
        x0 = x0_from_eps(schedule, x, t, eps)
        back = _reverse_step(schedule, x, eps, t, t_prev)
        x = back.sample(noise_like(x, generator)) if t_prev > 0 else back.mean
        yield State(t_prev, x, x0)


@torch.no_grad()
def probability_flow(
    denoiser: Denoiser, schedule: NoiseSchedule, x_T: Tensor, *, count: int | None = None
) -> Iterator[State]:
    """Song et al. 2021, eq. 13 by Heun's method: a step of ``ddim``, repeated with the mean of estimates.

    Karras et al. 2022, algorithm 1, does so for u; here it is done for z, see ``_flow``, which is as good
    where sigma is small and does not overshoot where a cosine schedule's sigma falls from thousands. The last
    step, whose end has no noise to estimate, uses the estimates at half its angle instead, where the time is
    not whole.
    """
    x = x_T
    for t, t_prev in time_pairs(schedule, count):
        eps = predict_eps(denoiser, x, t)
        x0 = x0_from_eps(schedule, x, t, eps)
        probe = t_prev if t_prev > 0 else schedule.time_of((schedule.sigma(t).atan() / 2).tan())
        ahead = q_sample(schedule, x0, probe, eps)
        eps_ahead = predict_eps(denoiser, ahead, probe)
        x0_ahead = x0_from_eps(schedule, ahead, probe, eps_ahead)
        weight = 0.5 if t_prev > 0 else 1.0
        x0, eps = torch.lerp(x0, x0_ahead, weight), torch.lerp(eps, eps_ahead, weight)
        x = _flow(schedule, x, x0, eps, t, t_prev)
        yield State(t_prev, x, x0)


@torch.no_grad()
def invert(
    denoiser: Denoiser, schedule: NoiseSchedule, x0: Tensor, *, count: int | None = None, refinements: int = 0
) -> Iterator[State]:
    """DDIM inversion, Song, Meng & Ermon 2021, section 5.4: the noise from which ``ddim`` makes this picture.

    A step up needs the noise estimate at the state that it leads to. The first iterate takes the one at the
    state before; each refinement evaluates the denoiser at the last iterate (Pan et al. 2023), a fixed-point
    iteration after which ``ddim`` with the same count comes back to the picture more exactly.

    Args:
        x0: (B, ...) clean pictures.
        refinements: 0 or more for each step.

    Yields:
        States with rising t; the last is at T, and its x is the noise.
    """
    if refinements < 0:
        raise ValueError(f"refinements must be at least 0, got {refinements}")
    x = x0
    for t, t_prev in reversed(list(time_pairs(schedule, count))):
        eps = predict_eps(denoiser, x, t)
        estimate = x0_from_eps(schedule, x, t_prev, eps)
        later = q_sample(schedule, estimate, t, eps)
        for _ in range(refinements):
            eps = predict_eps(denoiser, later, t)
            estimate = x0_from_eps(schedule, later, t, eps)
            later = _flow(schedule, x, estimate, eps, t_prev, t)
        x = later
        yield State(t, x, estimate)


def time_pairs(schedule: NoiseSchedule, count: int | None) -> Iterator[tuple[float, float]]:
    """The steps as pairs (t, t_prev), from (T, ...) down to (..., 0)."""
    return pairwise(schedule.times(schedule.steps if count is None else count).tolist())


def _reverse_step(schedule: NoiseSchedule, x: Tensor, eps: Tensor, t: float, t_prev: float) -> Gaussian:
    """x - [f(x, t) - g(t)^2 score] dt + g(t) noise (Song et al. 2021, eq. 6), f and g^2 integrated.

    With s and sigma, f = x d(log s)/dt and g^2 = s^2 d(sigma^2)/dt, which is -d(log alpha_bar)/dt if
    preserving.
    """
    growth = (schedule.scale(t_prev) / schedule.scale(t)).log()
    if schedule.preserving:
        variance = 2 * growth
    else:
        variance = schedule.sigma(t).square() - schedule.sigma(t_prev).square()
    drift = broadcast_to(growth, x) * x + broadcast_to(variance, x) * score_from_eps(schedule, x, t, eps)
    return Gaussian(x + drift, broadcast_to(variance, x))


def _flow(schedule: NoiseSchedule, x: Tensor, x0: Tensor, eps: Tensor, t: float, goal: float) -> Tensor:
    """From t to goal by dz = x0 d(cos phi) + eps d(sin phi), for constant x0 and eps.

    z = cos(phi) x_t / s and phi = atan(sigma).
    """
    cos, cos_goal = ((schedule.log_alpha_bar(time) / 2).exp() for time in (t, goal))
    sin, sin_goal = cos * schedule.sigma(t), cos_goal * schedule.sigma(goal)
    z = (
        broadcast_to(cos / schedule.scale(t), x) * x
        + broadcast_to(cos_goal - cos, x) * x0
        + broadcast_to(sin_goal - sin, x) * eps
    )
    return broadcast_to(schedule.scale(goal) / cos_goal, x) * z


def _langevin_step(x: Tensor, score: Tensor, noise: Tensor, ratio: float) -> Tensor:
    """One step of Langevin dynamics whose length is set by ratio (Song et al. 2021, algorithms 4 and 5)."""
    lengths = [values.flatten(1).norm(dim=1).mean() for values in (noise, score)]
    size = 2 * (ratio * lengths[0] / lengths[1]).square()
    return x + size * score + (2 * size).sqrt() * noise
