r"""Drawing a picture that looks like a photo: the residual's diffusion, from t* down to 0.

    u_T = sigma_T * noise  --ddim, K steps-->  r,      x = x_hat + e * r

The chain starts at sigma_T = 3, three times the error that lambda has left at each place: enough noise for
what is not known to be drawn anew, little enough for what is known to stay. Noise belongs to a place of the
picture, so tiles show no seams and a seed gives one picture on a device, whatever the tiling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dhp_lab.codec.denoising.residual_unet import Conditions, ResidualUNet, pixel_scale
from dhp_lab.codec.networks.lapped import BLOCK
from dhp_lab.codec.networks.tiling import TILE, tiled
from dhp_lab.diffusion.process import noise_like
from dhp_lab.diffusion.samplers import last, unrolled_ddim
from dhp_lab.diffusion.schedules import NoiseSchedule, geometric

START = 3.0  # sigma_T, in units of e
FIRST = 0.16  # sigma of the schedule's first time: with it two steps are at 3 and 0.7
TIMES = 1000  # of the schedule


def residual_schedule() -> NoiseSchedule:
    """The chain's noise levels, in units of e: geometric, variance exploding."""
    return geometric(TIMES, first=FIRST, last=START)


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
        draws = [
            torch.randn(shape[1:], generator=torch.Generator().manual_seed(seed)) for _ in range(shape[0])
        ]
        return torch.stack(draws)

    def sample(self, conditions: Conditions, *, steps: int, gamma: float = 0.0, seed: int = 0) -> Tensor:
        """Draw pictures, (B, 3, H, W) about [0, 1].

        Args:
            conditions: of the decoded pictures.
            steps: K, 1 .. 1000. gamma: weight of the decoded picture in the result, 0 .. 1.
            seed: of the noise.

        Raises:
            ValueError: steps out of range.
        """
        noise = self.noise(conditions.picture.shape, seed).to(conditions.picture)
        with torch.no_grad():
            drawn = self.draw(conditions, noise, steps=steps)
        return torch.lerp(drawn, conditions.picture, gamma)

    def draw(self, conditions: Conditions, noise: Tensor, *, steps: int) -> Tensor:
        """The picture that noise (B, 3, H, W) becomes, with gradients where they are enabled. Errors as for
        ``sample``.
        """
        u = self.schedule.sigma(self.schedule.steps).item() * noise
        residual = last(unrolled_ddim(self._noise_estimate(conditions), self.schedule, u, count=steps)).x
        return conditions.picture + pixel_scale(conditions.errors) * residual

    def _noise_estimate(self, conditions: Conditions):
        """The network as the samplers take it: eps(u, t)."""

        def denoiser(u: Tensor, t: Tensor) -> Tensor:
            sigma = self.schedule.sigma(t).to(u)
            clean = self.estimate(u, sigma, conditions)
            return (u - clean) / sigma.view(-1, 1, 1, 1)

        return denoiser

    def estimate(self, u: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """One evaluation of the network, in tiles: the estimate of the residual (B, 3, H, W); sigma: (B,)."""

        def part(rows: slice, cols: slice) -> Tensor:
            pixels = [slice(BLOCK * side.start, BLOCK * side.stop) for side in (rows, cols)]
            return self.network(u[..., pixels[0], pixels[1]], sigma, conditions.window(rows, cols))

        return tiled(part, *conditions.errors.shape[-2:], BLOCK, self.tile)


def training_state(residual: Tensor, sigma: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """u: a residual (B, 3, H, W) with noise of level sigma (B,) in units of e."""
    return residual + sigma.view(-1, 1, 1, 1) * noise_like(residual, generator)
