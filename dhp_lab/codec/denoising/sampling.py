"""The decoder's sampler: K steps from t* to 0, conditioned on the decoded bins.

    levels[0] > ... > levels[K-1]     K noise levels at equal times from the start towards 0
    u = q                             the state at t*; where z alone is decoded, pure noise at T
    u <- posterior_step(u, D(u))      down to the last level, whose D(u) is the result

A plain chain from the rounded latents has no noise where they were rounded to zero, and never regains texture
there: the decoded bin stays a condition, and each step adds the denoiser's own expected error
(``posterior_step``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dhp_lab.codec.denoising.decoder_state import DecoderState
from dhp_lab.codec.denoising.denoiser import Denoiser, quantised_share
from dhp_lab.codec.networks.gain import quantisation_sigma
from dhp_lab.codec.networks.tiling import TILE, tiled
from dhp_lab.diffusion.schedules import NoiseSchedule

START_STREAM = (
    0x5EED  # combined with the seed: the noise that undecoded latents start from is a stream of its own
)


@dataclass(frozen=True)
class LatentSampler:
    """A denoiser with the schedule that its noise levels come from.

    Attributes:
        denoiser: as ``Denoiser``.
        schedule: in units of the latents' root mean square.
        latent_scale: that root mean square, in latent units.
        tile: largest side of what the denoiser sees at once, in latents.
    """

    denoiser: Denoiser
    schedule: NoiseSchedule
    latent_scale: float
    tile: int = TILE

    def start_time(self, delta: float) -> float:
        """t*: the schedule's time at which its noise is as strong as the rounding error of step Delta; the
        last one where it never is.
        """
        most = self.schedule.sigma(self.schedule.steps).item()
        return self.schedule.time_of(min(quantisation_sigma(delta) / self.latent_scale, most)).item()

    def noise_levels(self, state: DecoderState, steps: int) -> list[Tensor]:
        """K noise levels, each (B, 1, h, w) in quantiser steps, at equal times from the start towards 0.

        The start is t* where symbols are decoded, and the schedule's last time where z alone is.
        """
        deltas = state.log2_delta.double().exp2().tolist()
        from_bins = torch.tensor([self.start_time(delta) for delta in deltas])
        from_noise = torch.full_like(from_bins, float(self.schedule.steps))
        levels = []
        for k in range(steps):
            decoded, undecoded = (
                self._in_steps(start * (1 - k / steps), state) for start in (from_bins, from_noise)
            )
            levels.append(torch.where(state.decoded > 0, decoded, undecoded))
        return levels

    def _in_steps(self, times: Tensor, state: DecoderState) -> Tensor:
        """(B, 1, 1, 1) the schedule's noise at times (B,), in quantiser steps."""
        sigma = self.schedule.sigma(times) * self.latent_scale
        return sigma.to(state.log2_delta).view(-1, 1, 1, 1) / state.delta

    def sample(self, state: DecoderState, *, steps: int, gamma: float = 0.0, seed: int = 0) -> Tensor:
        """Denoise from the decoder's state to latents for g_s.

        Args:
            state: what was decoded.
            steps: K, 0 .. 1000. 0: the dequantised latents; 1: the posterior mean; more: a sample.
            gamma: weight of the posterior mean in the result, 0 .. 1.
            seed: of the noise; each picture draws the same whatever batch it is in.

        Returns:
            (B, M, h, w) in latent units.
        """
        if steps == 0:
            return (state.symbols + state.mean) * state.delta
        levels = self.noise_levels(state, steps)
        u = self._start(state, levels[0], seed)
        noise = _Noise(state, seed)
        if steps > 1:
            state = state.with_moments(self.tile)  # for all steps at once
        posterior_mean = clean = None
        for k, sigma in enumerate(levels):
            clean, variance = self.denoise(u, sigma, state)
            posterior_mean = clean if posterior_mean is None else posterior_mean
            if k + 1 < steps:
                u = posterior_step(u, clean, variance, sigma, levels[k + 1], noise.draw())
        if steps > 1:
            clean = torch.lerp(clean, posterior_mean, gamma)
        return (clean + state.mean) * state.delta

    def _start(self, state: DecoderState, sigma: Tensor, seed: int) -> Tensor:
        """The chain's first state: the symbols where they are decoded, noise of level sigma elsewhere."""
        if bool(state.decoded.all()):  # a large picture's noise would take a gigabyte
            return state.symbols
        return torch.where(
            state.decoded > 0, state.symbols, sigma * _Noise(state, seed ^ START_STREAM).draw()
        )

    def denoise(self, u: Tensor, sigma: Tensor, state: DecoderState) -> tuple[Tensor, Tensor]:
        """One evaluation of the denoiser, in tiles; arguments and results as ``LatentDenoiser.forward``."""

        def part(rows: slice, cols: slice) -> Tensor:
            outputs = self.denoiser(u[..., rows, cols], sigma[..., rows, cols], state.window(rows, cols))
            return torch.cat(outputs, 1)

        return tiled(part, *u.shape[-2:], 1, self.tile).chunk(2, 1)


def bridge_sample(residual: Tensor, sigma: Tensor, decoder_state: DecoderState, noise: Tensor) -> Tensor:
    """A state of the chain between q and the residual at level sigma (the first equation of ``denoiser``).

    It is residual + sigma eps where the symbol is not decoded. Shapes as in ``LatentDenoiser.forward``;
    noise: standard normal, like residual.
    """
    rho = quantised_share(sigma, decoder_state)
    return (1 - rho) * residual + rho * decoder_state.symbols + sigma * (1 - rho).sqrt() * noise


def posterior_step(
    u: Tensor, clean: Tensor, variance: Tensor, sigma: Tensor, lower: Tensor, noise: Tensor
) -> Tensor:
    """One step down the chain, sigma -> lower: DDPM's posterior (Ho et al. 2020, eq. 7).

    Its variance also counts that ``clean`` is an estimate with an expected squared error of ``variance`` (Bao
    et al. 2022, "Analytic-DPM", eq. 8). noise: standard normal, like u.
    """
    ratio = (lower / sigma).square()
    spread = lower.square() * (1 - ratio) + (1 - ratio).square() * variance
    return clean + ratio * (u - clean) + spread.sqrt() * noise


class _Noise:
    """Standard normal noise shaped like the latents; each picture draws from a generator of its own."""

    def __init__(self, state: DecoderState, seed: int) -> None:
        self.shape, self.device = state.mean.shape[1:], state.mean.device
        self.generators = [torch.Generator().manual_seed(seed) for _ in range(len(state.mean))]

    def draw(self) -> Tensor:
        draws = [torch.randn(self.shape, generator=generator) for generator in self.generators]
        return torch.stack(draws).to(self.device)
