r"""The latent denoiser D: what is y, given what the decoder knows?

Everything here is in quantiser steps and relative to the hyperprior's mean: rest = y/Delta - mean. The
decoder holds the symbol q = round(rest), that is rest plus an error of variance 1/12: a diffusion state at
time t* (see ``rate``). Below t* the chain goes on as DDPM's posterior does (Ho et al. 2020, eq. 7, written
for unscaled signals), with rho = sigma^2/sigma_q^2 falling from 1 to 0:

    u = (1 - rho) rest + rho q + sqrt(rho (1 - rho) / 12) eps

The hyperprior says rest ~ N(0, scale^2), so the best guess that looks at one latent alone is known in closed
form: a Gaussian cut to the bin [q - 1/2, q + 1/2], with mean m and variance v, then refined by the noisy
state:

    base = (sigma^2 m + v (u - rho q)) / (sigma^2 + v (1 - rho)),     variance = v sigma^2 / (sigma^2 + v (1 - rho))

Synthesis was trained on q and has learnt to live with its errors, so each channel has a share, ``trust``, of
the way from q to m; it starts at 0, where K = 1 is K = 0. D adds what neighbouring latents and channels tell:

    D = base + sqrt(variance) * network,     E[(rest - D)^2] = variance if v were v exp(doubt)

``doubt``, the network's second head, learns how far off D will be (Bao et al. 2022, "Estimating the optimal
covariance with imperfect mean"); only K > 1 asks for it. Where nothing but z is known (a preview, or transmit
= "z") all of this holds with m = 0, v = scale^2, rho = 0. Where rounding leans towards zero
(``entropy.bin_width``) scale counts widths of a bin: the bin, m and its deviation are as many steps wide as
that.

| symbol        | here           | range                                     |
|---------------|----------------|-------------------------------------------|
| q             | ``symbols``    | whole numbers                             |
| sigma (steps) | ``sigma``      | 0 .. 1/sqrt(12) where the bin is known    |
| rho           | ``rho``        | 0 .. 1                                    |
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.bits.scales import bin_width
from dhp_lab.codec.denoising.decoder_state import SIGMA_Q, DecoderState, truncated_gaussian_moments
from dhp_lab.codec.networks.layers import ResidualBlock, zero_init
from dhp_lab.core.precision import autocast


class Denoiser(nn.Module):
    """What all denoisers know: the guess from one latent alone.

    Args:
        M: channels of y. dead_zone: of the symbols' bins.
    """

    def __init__(self, M: int, dead_zone: float) -> None:
        super().__init__()
        self.dead_zone = dead_zone
        self.posterior_weight = nn.Parameter(torch.zeros(M, 1, 1))  # share of the way from q to m

    def closed_form(self, u: Tensor, sigma: Tensor, decoder_state: DecoderState) -> tuple[Tensor, Tensor]:
        """The guess from one latent alone, (B, M, h, w) each: base and variance as in the module's docstring."""
        m, v = decoder_state.moments or truncated_gaussian_moments(decoder_state.symbols, decoder_state.scale)
        width = bin_width(decoder_state.scale, self.dead_zone)
        m = decoder_state.decoded * torch.lerp(decoder_state.symbols, width * m, self.posterior_weight)
        v = width.square() * torch.where(
            decoder_state.decoded > 0, v, decoder_state.scale.clamp(1e-3, 1e3).square()
        )
        rho = decoder_state.decoded * (sigma / SIGMA_Q).square().clamp(max=1)
        noise = sigma.square()
        total = (noise + v * (1 - rho)).clamp(min=1e-12)
        return (noise * m + v * (u - rho * decoder_state.symbols)) / total, v * noise / total


class LatentDenoiser(Denoiser):
    """D(u, sigma; what is known) -> the posterior mean of rest, and the squared error that is left."""

    def __init__(self, N: int, M: int, dead_zone: float = 0.0) -> None:
        super().__init__(M, dead_zone)
        width = max(4, 4 * round(N * 5 / 16))
        self.near = nn.Conv2d(2 * M, 2 * M, 5, padding=2, groups=2 * M)  # each channel's own neighbours first
        self.mix = nn.Conv2d(6 * M + 4, width, 1)
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(3)))
        self.exit = zero_init(nn.Conv2d(width, M, 1))
        self.log_variance_head = zero_init(nn.Conv2d(width, M, 1))  # log of what v is too small by

    def forward(self, u: Tensor, sigma: Tensor, decoder_state: DecoderState) -> tuple[Tensor, Tensor]:
        """Denoise a state.

        Args:
            u: (B, M, h, w) in quantiser steps, relative to the mean. sigma: (B, 1, h, w) its noise, in
                quantiser steps; 1/sqrt(12), the top of the range, says that u is q itself.

        Returns:
            posterior mean (B, M, h, w) in quantiser steps, and its expected squared error (B, M, h, w) in
            steps squared; no gradient of the second reaches anything but its own head.
        """
        base, variance = self.closed_form(u, sigma, decoder_state)
        s = decoder_state.scale.clamp(0.02, 50)
        ratio = (decoder_state.symbols / s).clamp(-5, 5)
        surprise = ((u - base) / (sigma.square() + variance).sqrt().clamp(min=1e-3)).clamp(-5, 5)
        unit = decoder_state.std.view(-1, 1, 1) / decoder_state.log2_delta.exp2().view(
            -1, 1, 1, 1
        )  # the spread in steps
        place = (decoder_state.mean + base) / (1 + unit)
        planes = torch.cat(
            [
                ((decoder_state.log2_delta + 3.5) / 4).view(-1, 1, 1, 1).expand_as(sigma),
                sigma.clamp(1e-3, 1e3).log2() / 4,
                decoder_state.decoded,
                (sigma / SIGMA_Q).clamp(max=1),
            ],
            1,
        )
        pair = torch.cat([ratio, surprise], 1).contiguous(memory_format=torch.channels_last)
        near = self.near(
            pair
        )  # float32: bfloat16 takes thrice the time where channels have groups of their own
        with autocast(u.device):
            h = torch.cat([pair, near, s.log2() / 4, place, planes], 1)
            h = F.leaky_relu(self.body(self.mix(h)), 0.1)
            shift, log_excess = self.exit(h), self.log_variance_head(h.detach())
        rho = decoder_state.decoded * (sigma / SIGMA_Q).square().clamp(max=1)
        told = variance.detach() * (
            (1 - rho) / sigma.square().clamp(min=1e-12)
        )  # the state's share in what base knows
        predicted_variance = variance.detach() / torch.lerp(
            (-log_excess.float().clamp(-5, 5)).exp(), torch.ones_like(told), told
        )
        return base + variance.sqrt() * shift.float().clamp(-4, 4), predicted_variance
