r"""DPM-Solver++(2M): a second-order solver with one evaluation a step, because it keeps the last estimate.

With u = x_t / s, the state with an unscaled signal, and lambda = -ln(sigma), half the log-SNR, the
probability-flow ODE is linear but for the estimate x0 (Lu et al. 2022b, eq. 8 and proposition 4.1):

    u(r) = (sigma_r / sigma_t) u(t) + sigma_r * integral of e^lambda x0(lambda) d(lambda)  from t to r

The linear part is exact. A constant x0 gives ``ddim``; 2M takes the straight line through the last two x0:

    D  = x0 + (x0 - x0_before) / (2 r),      r = h_before / h
    u' = (sigma' / sigma) u + (1 - sigma' / sigma) D            (algorithm 2; e^-h = sigma' / sigma)

| paper       | here                                     |
|-------------|------------------------------------------|
| lambda_t    | ``-log(sigma)``; alpha cancels in u      |
| h_i         | ``h``, above 0                           |
| r_0         | ``h_before / h``                         |
| x_theta     | ``x0``                                   |
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from dhp_lab.diffusion.process import Denoiser, predict_eps, x0_from_eps
from dhp_lab.diffusion.samplers import State, time_pairs
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to


@torch.no_grad()
def dpm_solver_2m(
    denoiser: Denoiser, schedule: NoiseSchedule, x_T: Tensor, *, count: int | None = None
) -> Iterator[State]:
    """Lu et al. 2022b, algorithm 2, DPM-Solver++(2M): one evaluation a step, second order.

    The first step has no predecessor and the last one ends at sigma = 0, where lambda is infinite: both are
    of first order, as in ``ddim``.

    Args:
        x_T, count: as for the samplers of ``samplers``.
    """
    x, x0_before, h_before = x_T, None, 0.0
    for t, t_prev in time_pairs(schedule, count):
        x0 = x0_from_eps(schedule, x, t, predict_eps(denoiser, x, t))
        kept = (schedule.sigma(t_prev) / schedule.sigma(t)).item()  # e^-h
        estimate, h = x0, math.inf
        if t_prev > 0:
            h = -math.log(kept)
            if x0_before is not None:
                estimate = x0 + h / (2 * h_before) * (x0 - x0_before)
        u = kept * x / broadcast_to(schedule.scale(t), x) + (1 - kept) * estimate
        x, x0_before, h_before = broadcast_to(schedule.scale(t_prev), x) * u, x0, h
        yield State(t_prev, x, x0)
