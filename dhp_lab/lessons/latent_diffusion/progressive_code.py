"""A latent diffusion model as a progressive coder (Ho et al. 2020, section 4.3), behind a first stage.

To go from t to t - 1 costs the variational bound's KL. With E_t the mean squared error of the noise estimate,
w_t its weight (``bound.bound_weight``) and the best variance for it (``bound.elbo``), that is
D/2 log2(1 + 2 w_t E_t) bits for D numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dhp_lab.diffusion.bound import bound_weight
from dhp_lab.diffusion.process import noise_like, predict_eps, q_sample, x0_from_eps
from dhp_lab.latent.autoencoders import encode
from dhp_lab.latent.pipeline import LatentDiffusion

GREY_LEVELS = 255  # of a picture in files, 0 .. 255; here a picture is in [0, 1]


@dataclass(frozen=True)
class ProgressiveCode:
    """The chain as a coder that sends a picture from coarse to fine.

    Attributes:
        times: (n,) falling from T to 1.
        bits: (n,) received until then, for one picture; an estimate, no file is written.
        rmse: (n,) of the picture predicted from what was received, in grey levels 0 .. 255.
    """

    times: Tensor
    bits: Tensor
    rmse: Tensor


@torch.no_grad()
def progressive_code(
    model: LatentDiffusion,
    x: Tensor,
    captions: Sequence[str],
    *,
    count: int = 24,
    seed: int = 0,
) -> ProgressiveCode:
    """Estimated bits and error on the way down the latents' chain.

    E_t is measured on these pictures at some times and interpolated between them. The bits of x_T, next to
    none, are counted too.

    Args:
        x: (B, 3, H, W) pictures in [0, 1].
        captions: B of them, or "".
        count: of times, evenly spaced in log(sigma).
        seed: of the noise.
    """
    schedule, contexts = model.schedule, model.context(captions)
    generator = torch.Generator().manual_seed(seed)
    z0 = encode(model.vae, x) * model.vae.config.scaling_factor  # (B, 4, h, w)
    ends = schedule.sigma(torch.tensor([1.0, schedule.steps])).log().tolist()
    sigmas = torch.linspace(*ends, count, dtype=torch.float64).exp()
    times = schedule.time_of(sigmas).round().unique().flip(0)
    errors, rmse = [], []
    for t in times.tolist():
        eps = noise_like(z0, generator)
        z_t = q_sample(schedule, z0, t, eps)
        eps_hat = predict_eps(lambda z_t, t: model.eps(z_t, t, contexts), z_t, t)
        errors.append((eps - eps_hat).double().square().mean().item())
        difference = model.pictures(x0_from_eps(schedule, z_t, t, eps_hat)) - x
        rmse.append(GREY_LEVELS * difference.double().square().mean().sqrt().item())
    bits = _cumulative_bits(model, z0, times, torch.tensor(errors))
    return ProgressiveCode(times, bits, torch.tensor(rmse))


def _cumulative_bits(model: LatentDiffusion, z0: Tensor, times: Tensor, errors: Tensor) -> Tensor:
    """(n,) bits of one picture until each of the times, falling from T to 1, from the errors (n,) there."""
    schedule = model.schedule
    steps = torch.arange(2, schedule.steps + 1, dtype=torch.float64)
    measured_at = schedule.sigma(times.flip(0)).log().numpy()
    interpolated = np.interp(schedule.sigma(steps).log().numpy(), measured_at, errors.flip(0).numpy())
    weighted = bound_weight(schedule, steps) * torch.as_tensor(interpolated)  # (T - 1,)
    each = z0[0].numel() / 2 * torch.log2(1 + 2 * weighted)  # from t to t - 1
    until = torch.cat([each.flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64)])  # 1, 2 .. T
    return _prior_bits(model, z0) + until[times.long() - 1]


def _prior_bits(model: LatentDiffusion, z0: Tensor) -> float:
    """KL(q(z_T | z0) || N(0, 1)) in bits for one picture."""
    left = model.schedule.alpha_bar(model.schedule.steps).item()
    nats = ((z0.double().square() - 1) * left - math.log1p(-left)).sum().item() / (2 * len(z0))
    return nats / math.log(2)
