r"""Consistency models: a network that jumps from any point of a flow's path to the path's end.

The probability flow takes u = x0 + sigma eps along a path to its end at sigma_min. The *consistency function*
f(u, sigma) is that end: the same for all points of one path, and u itself at sigma_min. A network is given
this boundary by its form (Song et al. 2023, appendix C; sigma_data as in EDM):

    f(u, sigma) = c_skip u + c_out F(c_in u, c_noise)

    c_skip = sigma_data^2 / ((sigma - sigma_min)^2 + sigma_data^2)                  1 at sigma_min
    c_out  = sigma_data (sigma - sigma_min) / sqrt(sigma^2 + sigma_data^2)          0 at sigma_min

*Consistency distillation* (algorithm 2) makes f equal at two neighbours of one path: u with much noise, and
where one step of a teacher's solver takes it. The neighbour with less noise is evaluated with the EMA of the
weights, so that the boundary at sigma_min is handed upwards, level after level.

| paper            | here                                | shape, range                           |
|------------------|-------------------------------------|----------------------------------------|
| t_1 .. t_N       | ``sigmas``                          | (N,) rising from sigma_min             |
| t_{n+1}, t_n     | ``sigma``, ``sigma_prev``           | (B,)                                   |
| f_theta          | ``ConsistencyModel``                | (B, ...), (B,) -> (B, ...)             |
| f_theta^-        | ``target``, the EMA of the student  | the same                               |
| Phi, the solver  | ``ode_step``                        | one Heun step of the teacher           |
| G(theta; z; t)   | ``consistency_sample``              | algorithm 1                            |
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dhp_lab.diffusion.edm import CleanEstimate, Preconditioning, preconditioning
from dhp_lab.diffusion.process import noise_like
from dhp_lab.diffusion.schedules import broadcast_to

SIGMA_MIN = 0.002


def consistency_scalings(
    sigma: float | Tensor, sigma_data: float = 1.0, sigma_min: float = SIGMA_MIN
) -> Preconditioning:
    """c_skip, c_out, c_in and c_noise, which make f(u, sigma_min) = u: Song et al. 2023, appendix C.

    Args:
        sigma: at least sigma_min, of any shape.
        sigma_data: the data's standard deviation. sigma_min: of the path's end; both above 0.

    Raises:
        ValueError: a sigma below sigma_min, or a value that is not above 0.
    """
    edm = preconditioning(sigma, sigma_data)
    above = (sigma if isinstance(sigma, Tensor) else torch.as_tensor(sigma, dtype=torch.float64)) - sigma_min
    if not bool((above >= -1e-6 * sigma_min).all()):
        raise ValueError(f"sigma must be at least {sigma_min:g}, got {above.min().item() + sigma_min:g}")
    c_skip = sigma_data**2 / (above.square() + sigma_data**2)
    return Preconditioning(c_skip, sigma_data * above * edm.c_in, edm.c_in, edm.c_noise)


class ConsistencyModel(nn.Module):
    """f(u, sigma) = c_skip u + c_out F(c_in u, c_noise): Song et al. 2023, eq. 5.

    Args:
        network: F, called as ``network(x, c_noise)`` with (B, ...) and (B,).
        sigma_data, sigma_min: as for ``consistency_scalings``.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 1.0, sigma_min: float = SIGMA_MIN) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data
        self.sigma_min = sigma_min

    def forward(self, u: Tensor, sigma: Tensor) -> Tensor:
        """The end of the path through u = x0 + sigma eps, (B, ...); sigma is (B,), at least sigma_min."""
        c = consistency_scalings(sigma, self.sigma_data, self.sigma_min)
        out = self.network(broadcast_to(c.c_in, u) * u, c.c_noise.to(u))
        return broadcast_to(c.c_skip, u) * u + broadcast_to(c.c_out, u) * out


@torch.no_grad()
def ode_step(teacher: CleanEstimate, u: Tensor, sigma: Tensor, sigma_prev: Tensor) -> Tensor:
    """One Heun step of the probability flow from sigma down to sigma_prev: Song et al. 2023, eq. 6.

    Args:
        teacher: D(u, sigma), an estimate of x0.
        u: (B, ...) states at sigma (B,). sigma_prev: (B,) above 0 and below sigma.
    """
    step = broadcast_to(sigma_prev - sigma, u)
    slope = (u - teacher(u, sigma)) / broadcast_to(sigma, u)
    ahead = u + step * slope
    slope_ahead = (ahead - teacher(ahead, sigma_prev)) / broadcast_to(sigma_prev, u)
    return u + step * (slope + slope_ahead) / 2


def distillation_loss(
    student: CleanEstimate,
    target: CleanEstimate,
    teacher: CleanEstimate,
    x0: Tensor,
    eps: Tensor,
    sigma: Tensor,
    sigma_prev: Tensor,
) -> Tensor:
    """() the mean of |f(u, sigma) - f_target(u', sigma')|^2, weight 1: Song et al. 2023, eq. 7.

    Args:
        student: f_theta, which gets the gradient. target: the EMA of its weights.
        teacher: D(u, sigma), whose flow is distilled.
        x0, eps: (B, ...) clean signals and standard normal noise.
        sigma, sigma_prev: (B,) two neighbouring noise levels, the second the smaller one.
    """
    u = x0 + broadcast_to(sigma, x0) * eps
    with torch.no_grad():
        goal = target(ode_step(teacher, u, sigma, sigma_prev), sigma_prev)
    return (student(u, sigma) - goal).square().mean()


def draw_neighbours(
    sigmas: Tensor, x: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """(B,) and (B,) neighbouring noise levels (sigma, sigma_prev) for the batch x, each pair equally often.

    Args:
        sigmas: (N,) rising, N >= 2, the first one sigma_min.
    """
    device = "cpu" if generator is None else generator.device
    n = torch.randint(len(sigmas) - 1, (len(x),), generator=generator, device=device).cpu()
    return sigmas[n + 1].to(x), sigmas[n].to(x)


@torch.no_grad()
def consistency_sample(
    model: CleanEstimate,
    u: Tensor,
    sigmas: Iterable[float],
    *,
    sigma_min: float = SIGMA_MIN,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples (B, ...) in one evaluation for each noise level: Song et al. 2023, algorithm 1.

    Jump to the end; for each further level add noise up to it and jump again.

    Args:
        model: f(u, sigma).
        u: (B, ...) noise of the first level's standard deviation.
        sigmas: falling, each at least sigma_min; the first is the level of u.

    Raises:
        ValueError: no noise level, or levels that do not fall.
    """
    levels = [float(sigma) for sigma in sigmas]
    if not levels or sorted(set(levels), reverse=True) != levels:
        raise ValueError(f"sigmas must fall and be at least one, got {levels}")
    x = model(u, u.new_full((len(u),), levels[0]))
    for sigma in levels[1:]:
        fresh = max(sigma**2 - sigma_min**2, 0.0) ** 0.5
        x = model(x + fresh * noise_like(x, generator), u.new_full((len(u),), sigma))
    return x


def gaussian_consistency(
    u: Tensor, sigma: float | Tensor, mean: Tensor, std: Tensor, sigma_min: float = SIGMA_MIN
) -> Tensor:
    """The consistency function of normal data, exactly: the distance from the mean shrinks as the spread.

        f(u, sigma) = mean + sqrt((std^2 + sigma_min^2) / (std^2 + sigma^2)) (u - mean)

    Args:
        u: (B, ...). mean, std: of the data, of shapes that broadcast to u.
        sigma: one for all or (B,).
    """
    noise = broadcast_to(sigma, u)
    return mean + ((std**2 + sigma_min**2) / (std**2 + noise**2)).sqrt() * (u - mean)
