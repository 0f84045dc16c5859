r"""Samplers: from noise to a picture, by walking the schedule's times from T down to 0.

Each is a generator, sampler(denoiser, schedule, x_T), that yields a ``State`` after every step, the last one
at t = 0. With u = x_t / s, the state beside an unscaled signal, and the noise estimate eps(x_t, t), they
follow one of

    du = 2 eps d(sigma) + noise    at random: twice the way down, and fresh noise    (Song et al. 2021, eq. 6)
    du =   eps d(sigma)            without noise: x_T decides where it ends          (Song et al. 2021, eq. 13)

as sigma falls to 0. In the limit of many steps the samples of both are spread alike.

| sampler                 | follows    | one step                                    | evaluations a step    |
|-------------------------|------------|---------------------------------------------|-----------------------|
| ``ddpm``                | the first  | exact for the guessed x0                    | 1                     |
| ``euler_maruyama``      | the first  | a straight line, and noise                  | 1                     |
| ``predictor_corrector`` | the first  | Langevin steps at one t, then the one above | 1 + corrector_steps   |
| ``ddim``, eta = 0 (1)   | the second (first) | a straight line in u (as ``ddpm``)  | 1                     |
| ``probability_flow``    | the second | the mean of two straight lines (Heun)       | 2                     |
| ``invert``              | the second | upwards, from a picture to its noise        | 1 + refinements       |

``x_T`` is (B, ...) noise, by ``start``; ``count`` is the number of steps, 1 .. T, all T by default. Noise is
drawn by ``noise_like``: a generator of the same seed gives the same samples. An argument outside its range
raises ValueError when the first state is asked for, as is the way of Python's generators.
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
    """Where a sampler stands after a step.

    Attributes:
        t: the time it has come to, in [0, T].
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
    """x_T, the noise to start from: s sigma eps at time T, of about unit variance if preserving, sigma_T if
    exploding.

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
    """Ho et al. 2020, algorithm 2: the exact step back for the guessed x0 (eq. 7), with the smaller variance
    of section 3.2.
    """
    x = x_T
    for t, earlier in _steps(schedule, count):
        x0 = x0_from_eps(schedule, x, t, predict_eps(denoiser, x, t))
        back = q_posterior(schedule, x0, x, t, earlier=earlier)
        x = back.sample(noise_like(x, generator)) if earlier > 0 else back.mean
        yield State(earlier, x, x0)


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
    """Song, Meng & Ermon 2021, eq. 12 and 16: keep a part of the guessed noise, draw the rest anew.

    Args:
        eta: in [0, 1]: 0 draws no noise at all, so that x_T decides the sample; 1 draws as much as ``ddpm``.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta:g}")
    x = x_T
    for t, earlier in _steps(schedule, count):
        eps = predict_eps(denoiser, x, t)
        x0 = x0_from_eps(schedule, x, t, eps)
        before, now = schedule.sigma(t).square(), schedule.sigma(earlier).square()
        anew = eta**2 * now * (1 - now / before)  # the variance drawn anew, beside an unscaled signal
        x = broadcast_to(schedule.scale(earlier), x) * (x0 + broadcast_to((now - anew).sqrt(), x) * eps)
        if anew > 0:
            x = x + broadcast_to(schedule.scale(earlier) * anew.sqrt(), x) * noise_like(x, generator)
        yield State(earlier, x, x0)


@torch.no_grad()
def euler_maruyama(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    count: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Song et al. 2021, eq. 6 by Euler-Maruyama: drift times dt, noise times sqrt(dt), and no noise in the
    last step.

    Drift and noise are integrals over the step of the schedule's own rates, with the score held still. For an
    exploding schedule that is the reverse diffusion sampler (appendix E). For a preserving one a step may not
    be long: it takes hundreds of them where ``ddim`` takes tens.
    """
    x = x_T
    for t, earlier in _steps(schedule, count):
        eps = predict_eps(denoiser, x, t)
        x0 = x0_from_eps(schedule, x, t, eps)
        back = _reverse_step(schedule, x, eps, t, earlier)
        x = back.sample(noise_like(x, generator)) if earlier > 0 else back.mean
        yield State(earlier, x, x0)


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
    """Song et al. 2021, algorithms 2-5: Langevin steps at each noise level, and a step of ``euler_maruyama``
    to the next.

    As in the authors' code the corrector comes first, so that the last thing done is a step without noise,
    and the size of its steps follows the mean norms over the batch: a sample depends a little on the batch
    that it is drawn in.

    Args:
        corrector_steps: Langevin steps at each level, 0 or more.
        snr: above 0: the length of a Langevin step's drift over that of its noise, nearly. Larger forgets
            faster, and leaves more noise behind.
    """
    if corrector_steps < 0 or not snr > 0:
        raise ValueError(
            f"corrector_steps must be at least 0 and snr above 0, got {corrector_steps} and {snr:g}"
        )
    x = x_T
    for t, earlier in _steps(schedule, count):
        for _ in range(corrector_steps):
            score = score_from_eps(schedule, x, t, predict_eps(denoiser, x, t))
            kept = (schedule.scale(t) / schedule.scale(earlier)).item()  # its square is the papers' alpha
            x = _langevin_step(x, score, noise_like(x, generator), snr * kept)
        eps = predict_eps(denoiser, x, t)
        x0 = x0_from_eps(schedule, x, t, eps)
        back = _reverse_step(schedule, x, eps, t, earlier)
        x = back.sample(noise_like(x, generator)) if earlier > 0 else back.mean
        yield State(earlier, x, x0)


@torch.no_grad()
def probability_flow(
    denoiser: Denoiser, schedule: NoiseSchedule, x_T: Tensor, *, count: int | None = None
) -> Iterator[State]:
    """Song et al. 2021, eq. 13 by Heun's method: a step of ``ddim``, then again with the mean of the
    estimates at both its ends.

    Karras et al. 2022, algorithm 1, does so for u; here it is done for z, see ``_flow``, which is as good
    where sigma is small and does not overshoot where a cosine schedule's sigma falls from thousands. The last
    step, whose end has no noise to estimate, takes the estimates at half its angle instead: time is not whole
    there.
    """
    x = x_T
    for t, earlier in _steps(schedule, count):
        eps = predict_eps(denoiser, x, t)
        x0 = x0_from_eps(schedule, x, t, eps)
        probe = earlier if earlier > 0 else schedule.time_of((schedule.sigma(t).atan() / 2).tan())
        ahead = q_sample(schedule, x0, probe, eps)
        eps_ahead = predict_eps(denoiser, ahead, probe)
        x0_ahead = x0_from_eps(schedule, ahead, probe, eps_ahead)
        weight = 0.5 if earlier > 0 else 1.0
        x0, eps = torch.lerp(x0, x0_ahead, weight), torch.lerp(eps, eps_ahead, weight)
        x = _flow(schedule, x, x0, eps, t, earlier)
        yield State(earlier, x, x0)


@torch.no_grad()
def invert(
    denoiser: Denoiser, schedule: NoiseSchedule, x0: Tensor, *, count: int | None = None, refinements: int = 0
) -> Iterator[State]:
    """Song, Meng & Ermon 2021, section 5.4: the noise that ``ddim`` makes this picture of, found by walking
    upwards.

    A step up needs the noise estimate at the state that it leads to, which is not known yet. The first guess
    asks for it at the state before; each refinement asks again at the state just found (Pan et al. 2023), and
    the way down with the same count then comes back to the picture more exactly.

    Args:
        x0: (B, ...) clean pictures.
        refinements: 0 or more for each step.

    Yields:
        States with rising t; the last is at T, and its x is the noise.
    """
    if refinements < 0:
        raise ValueError(f"refinements must be at least 0, got {refinements}")
    x = x0
    for t, earlier in reversed(list(_steps(schedule, count))):
        eps = predict_eps(denoiser, x, t)
        estimate = x0_from_eps(schedule, x, earlier, eps)
        later = q_sample(schedule, estimate, t, eps)
        for _ in range(refinements):
            eps = predict_eps(denoiser, later, t)
            estimate = x0_from_eps(schedule, later, t, eps)
            later = _flow(schedule, x, estimate, eps, earlier, t)
        x = later
        yield State(t, x, estimate)


def _steps(schedule: NoiseSchedule, count: int | None) -> Iterator[tuple[float, float]]:
    """The steps as pairs (t, earlier), from (T, ...) down to (..., 0)."""
    return pairwise(schedule.times(schedule.steps if count is None else count).tolist())


def _reverse_step(schedule: NoiseSchedule, x: Tensor, eps: Tensor, t: float, earlier: float) -> Gaussian:
    """x - [f(x, t) - g(t)^2 score] dt + g(t) noise (Song et al. 2021, eq. 6), f and g^2 integrated over the
    step.

    With s and sigma, f = x d(log s)/dt and g^2 = s^2 d(sigma^2)/dt, which is -d(log alpha_bar)/dt if
    preserving.
    """
    growth = (schedule.scale(earlier) / schedule.scale(t)).log()
    variance = (
        2 * growth if schedule.preserving else schedule.sigma(t).square() - schedule.sigma(earlier).square()
    )
    drift = broadcast_to(growth, x) * x + broadcast_to(variance, x) * score_from_eps(schedule, x, t, eps)
    return Gaussian(x + drift, broadcast_to(variance, x))


def _flow(schedule: NoiseSchedule, x: Tensor, x0: Tensor, eps: Tensor, t: float, goal: float) -> Tensor:
    """From t to goal by dz = x0 d(cos phi) + eps d(sin phi), x0 and eps constant; z = cos(phi) x_t / s, phi =
    atan(sigma).
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
