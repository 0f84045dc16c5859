r"""Drawing a picture that looks like a photo: the residual's diffusion, from t* down to 0.

    u_T = sigma_T * noise  --ddim, K steps-->  r,      x = x_hat + e * r

The chain starts at sigma_T, three times the error that lambda has left at each place unless the network was
trained for another level: enough noise for what is not known to be drawn anew, little enough for what is
known to stay. Noise belongs to a place of the picture, so tiles show no seams and a seed gives one picture on
a device, whatever the tiling. Every step goes in tiles from one state of the whole picture to the next:
beside the tile there are these two and x_hat.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from dhp_lab.codec.denoising.residual_unet import FIRST, START, Conditions, ResidualUNet, pixel_scale
from dhp_lab.codec.networks.lapped import BLOCK
from dhp_lab.codec.networks.tiling import TILE, tiled
from dhp_lab.diffusion.process import Denoiser, noise_like
from dhp_lab.diffusion.samplers import ddim_step
from dhp_lab.diffusion.schedules import NoiseSchedule, geometric

TIMES = 1000  # of the schedule


def residual_schedule(start: float = START, first: float = FIRST) -> NoiseSchedule:
    """The chain's noise levels, in units of e: geometric, variance exploding, from start down to first."""
    return geometric(TIMES, first=first, last=start)


@dataclass(frozen=True)
class ResidualSampler:
    """A realism denoiser with the schedule that its noise levels come from.

    Attributes:
        network: in eval mode.
        schedule: in units of e. tile: largest side of what the network sees at once, in latents.
    """

    network: ResidualUNet
    schedule: NoiseSchedule
    tile: int = TILE

    def noise(self, shape: torch.Size, seed: int) -> Tensor:
        """(B, 3, H, W) standard normal; each picture draws the same whatever batch it is in."""
        noise = torch.empty(shape)
        for picture in noise:
            picture.normal_(generator=torch.Generator().manual_seed(seed))
        return noise

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, steps: int, gamma: float = 0.0, seed: int = 0) -> Tensor:
        """Draw pictures, (B, 3, H, W) about [0, 1].

        Args:
            conditions: of the decoded pictures.
            steps: K, 1 .. 1000. gamma: weight of the decoded picture in the result, 0 .. 1.
            seed: of the noise.

        Raises:
            ValueError: steps out of range.
        """
        shape, start = conditions.picture.shape, self._start()
        drawn = self._chain(self.noise(shape, seed).to(conditions.picture).mul_(start), conditions, steps)
        return drawn.lerp_(conditions.picture, gamma)

    def draw(self, conditions: Conditions, noise: Tensor, *, steps: int) -> Tensor:
        """The picture that noise (B, 3, H, W) becomes, with gradients where they are enabled. Errors as for
        ``sample``.
        """
        return self._chain(self._start() * noise, conditions, steps)

    def _start(self) -> float:
        """sigma_T."""
        return self.schedule.sigma(self.schedule.steps).item()

    def _chain(self, u: Tensor, conditions: Conditions, steps: int) -> Tensor:
        """The picture that u_T (B, 3, H, W) becomes; no state is kept longer than the next one needs it."""
        for t, t_prev in pairwise(self.schedule.times(steps).tolist()):
            u = self._step(u, conditions, t, t_prev)
        return self._picture(u, conditions)

    def _step(self, u: Tensor, conditions: Conditions, t: float, t_prev: float) -> Tensor:
        """The state at t_prev, from u at t."""

        def part(rows: slice, cols: slice) -> Tensor:
            noise_estimate = self._noise_estimate(conditions.window(rows, cols))
            window = u[..., _pixels(rows), _pixels(cols)]
            return ddim_step(noise_estimate, self.schedule, window, t, t_prev).x

        return tiled(part, *conditions.errors.shape[-2:], BLOCK, self.tile)

    def _picture(self, residual: Tensor, conditions: Conditions) -> Tensor:
        """x_hat + e * r."""

        def part(rows: slice, cols: slice) -> Tensor:
            window = conditions.window(rows, cols)
            return window.picture + pixel_scale(window.errors) * residual[..., _pixels(rows), _pixels(cols)]

        return tiled(part, *conditions.errors.shape[-2:], BLOCK, self.tile)

    def _noise_estimate(self, conditions: Conditions) -> Denoiser:
        """The network as the samplers take it: eps(u, t)."""

        def denoiser(u: Tensor, t: Tensor) -> Tensor:
            sigma = self.schedule.sigma(t).to(u)
            return (u - self.network(u, sigma, conditions)) / sigma.view(-1, 1, 1, 1)

        return denoiser


def _pixels(latents: slice) -> slice:
    """Where the pixels of some rows or columns of latents are."""
    return slice(BLOCK * latents.start, BLOCK * latents.stop)


def training_state(residual: Tensor, sigma: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """u: a residual (B, 3, H, W) with noise of level sigma (B,) in units of e."""
    return residual + sigma.view(-1, 1, 1, 1) * noise_like(residual, generator)
