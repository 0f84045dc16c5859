r"""The latent denoiser D: the posterior mean of y, given what the decoder holds.

Everything here is in quantiser steps and relative to the entropy model's mean: residual = y/Delta - mean. The
decoder holds the symbol q = round(residual), that is the residual plus an error of variance 1/12: a diffusion
state at time t* (see ``networks.gain``). Below t* the chain goes on as DDPM's posterior does (Ho et al. 2020,
eq. 7, written for unscaled signals), with rho = sigma^2/sigma_q^2 falling from 1 to 0:

    u = (1 - rho) residual + rho q + sqrt(rho (1 - rho) / 12) eps

The entropy model says residual ~ N(0, scale^2), so the posterior of a single latent is known in closed form:
a Gaussian truncated to the bin [q - 1/2, q + 1/2], with mean m and variance v, then refined by the noisy
state:

    base = (sigma^2 m + v (u - rho q)) / (sigma^2 + v (1 - rho)),
    variance = v sigma^2 / (sigma^2 + v (1 - rho))

g_s was trained on q and has learnt to live with its errors, so each channel has a weight,
``posterior_weight``, of the way from q to m; it starts at 0, where K = 1 is K = 0. D adds what neighbouring
latents and channels contribute:

    D = base + sqrt(variance) * network,
    E[(residual - D)^2] = variance with v exp(log_variance_head) in the place of v

``log_variance_head``, the network's second output, is trained on D's own squared error (Bao et al. 2022,
"Estimating the optimal covariance with imperfect mean in diffusion probabilistic models"); only K > 1 uses
it. Where z alone is decoded (a preview, or transmit = "z") all of this holds with m = 0, v = scale^2, rho =
0. With dead-zone quantisation (``scales.bin_width``) scale counts widths of a bin: the bin, m and its
deviation are as many steps wide as that.

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

from dhp_lab.codec.denoising.decoder_state import SIGMA_Q, DecoderState
from dhp_lab.codec.networks.layers import ResidualBlock, scaled_log2_delta, zero_init
from dhp_lab.core.precision import autocast

CORRECTED = 320  # channels of y that the network corrects


def quantised_share(sigma: Tensor, decoder_state: DecoderState) -> Tensor:
    """rho, (B, 1, h, w): the weight of the symbol in the state at level sigma; 0 where it is not decoded."""
    return decoder_state.decoded * (sigma / SIGMA_Q).square().clamp(max=1)


class Denoiser(nn.Module):
    """What all denoisers share: the posterior of a single latent.

    Args:
        M: channels of y. dead_zone: of the symbols' bins.
    """

    def __init__(self, M: int, dead_zone: float) -> None:
        super().__init__()
        self.dead_zone = dead_zone
        self.posterior_weight = nn.Parameter(torch.zeros(M, 1, 1))  # of the way from q to m

    def single_latent_posterior(
        self, u: Tensor, sigma: Tensor, decoder_state: DecoderState
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance, (B, M, h, w) each: ``base`` and ``variance`` of the module's docstring."""
        state = decoder_state
        m, v = state.posterior(self.dead_zone)
        m = state.decoded * torch.lerp(state.symbols, m, self.posterior_weight)
        prior = state.prior_deviation(self.dead_zone).clamp(1e-3, 1e3)
        v = torch.where(state.decoded > 0, v, prior.square())
        rho, noise = quantised_share(sigma, state), sigma.square()
        total = (noise + v * (1 - rho)).clamp(min=1e-12)
        return (noise * m + v * (u - rho * state.symbols)) / total, v * noise / total


class LatentDenoiser(Denoiser):
    """D(u, sigma, decoder state): the posterior mean of the residual, and the squared error that is left.

    The network sees and corrects the first 320 channels at most; of the others, which are seldom sent, the
    single-latent posterior is all.
    """

    def __init__(self, N: int, M: int, dead_zone: float = 0.0) -> None:
        super().__init__(M, dead_zone)
        self.silent = max(0, M - CORRECTED)
        M = self.corrected = M - self.silent
        width = max(4, 4 * round(N * 5 / 16))
        self.near = nn.Conv2d(2 * M, 2 * M, 5, padding=2, groups=2 * M)  # each channel's own neighbours first
        self.mix = nn.Conv2d(6 * M + 4, width, 1)
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(3)))
        self.exit = zero_init(nn.Conv2d(width, M, 1))
        self.log_variance_head = zero_init(nn.Conv2d(width, M, 1))

    def forward(self, u: Tensor, sigma: Tensor, decoder_state: DecoderState) -> tuple[Tensor, Tensor]:
        """Denoise a state.

        Args:
            u: (B, M, h, w) in quantiser steps, relative to the mean.
            sigma: (B, 1, h, w) its noise, in quantiser steps; 1/sqrt(12), the top of the range, says that u
                is q.

        Returns:
            posterior mean (B, M, h, w) in quantiser steps, and its expected squared error (B, M, h, w) in
            steps squared; no gradient of the second reaches anything but its own head.
        """
        base, variance = self.single_latent_posterior(u, sigma, decoder_state)
        pair, context, planes = self._inputs(u, sigma, decoder_state, base, variance)
        near = self.near(pair)  # float32: in bfloat16 a depthwise convolution takes three times as long
        with autocast(u.device):
            h = torch.cat([pair, near, context, planes], 1)
            h = F.leaky_relu(self.body(self.mix(h)), 0.1)
            shift, log_excess = self.exit(h), self.log_variance_head(h.detach())
        shift, log_excess = (self._with_silent(t.float()) for t in (shift, log_excess))
        mean = base + variance.sqrt() * shift.clamp(-4, 4)
        return mean, self._error_variance(log_excess, sigma, decoder_state, variance.detach())

    def _with_silent(self, corrected: Tensor) -> Tensor:
        """Zeros for the channels that the network does not correct: (B, M, h, w)."""
        return F.pad(corrected, (0, 0, 0, 0, 0, self.silent))

    def _inputs(
        self, u: Tensor, sigma: Tensor, state: DecoderState, base: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the network sees: (B, 2 M, h, w) for the depthwise layer, (B, 2 M, h, w) and (B, 4, h, w)
        beside it.
        """
        u, base, variance, symbols, mean, scale = (
            t[:, : self.corrected] for t in (u, base, variance, state.symbols, state.mean, state.scale)
        )
        scale = scale.clamp(0.02, 50)
        symbol = (symbols / scale).clamp(-5, 5)
        surprise = (u - base) / (sigma.square() + variance).sqrt().clamp(min=1e-3)
        pair = torch.cat([symbol, surprise.clamp(-5, 5)], 1).contiguous(memory_format=torch.channels_last)
        spread = state.std[: self.corrected].view(-1, 1, 1) / state.delta  # in quantiser steps
        level = (mean + base) / (1 + spread)
        step = scaled_log2_delta(state.log2_delta).view(-1, 1, 1, 1).expand_as(sigma)
        noise = sigma.clamp(1e-3, 1e3).log2() / 4
        planes = torch.cat([step, noise, state.decoded, (sigma / SIGMA_Q).clamp(max=1)], 1)
        return pair, torch.cat([scale.log2() / 4, level], 1), planes

    def _error_variance(
        self, log_excess: Tensor, sigma: Tensor, state: DecoderState, variance: Tensor
    ) -> Tensor:
        """E[(residual - D)^2]: the closed form's variance with v exp(log_excess) in the place of v."""
        rho = quantised_share(sigma, state)
        from_state = variance * (
            (1 - rho) / sigma.square().clamp(min=1e-12)
        )  # the noisy state's share of precision
        prior_share = (-log_excess.clamp(-5, 5)).exp()
        return variance / torch.lerp(prior_share, torch.ones_like(from_state), from_state)
