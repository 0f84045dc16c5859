"""States of the chain between a quantised latent and the latent itself, and one posterior step down it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dhp_lab.codec.denoising.decoder_state import SIGMA_Q, DecoderState


def bridge_sample(residual: Tensor, sigma: Tensor, decoder_state: DecoderState, noise: Tensor) -> Tensor:
    """A state of the chain between q and rest at level sigma (the first equation above); plain rest + sigma
    eps where the bin is unknown. Shapes as in ``LatentDenoiser.forward``; noise: standard normal, like rest.
    """
    rho = decoder_state.decoded * (sigma / SIGMA_Q).square().clamp(max=1)
    return (1 - rho) * residual + rho * decoder_state.symbols + sigma * (1 - rho).sqrt() * noise


def posterior_step(
    u: Tensor, clean: Tensor, variance: Tensor, sigma: Tensor, lower: Tensor, noise: Tensor
) -> Tensor:
    """One step down the chain, sigma -> lower: DDPM's posterior (Ho et al. 2020, eq. 7) whose variance also
    counts that ``clean`` is only a guess that is off by ``variance`` (Bao et al. 2022, "Analytic-DPM", eq.
    8).
    """
    ratio = (lower / sigma).square()
    spread = lower.square() * (1 - ratio) + (1 - ratio).square() * variance
    return clean + ratio * (u - clean) + spread.sqrt() * noise


def _noise(decoder_state: DecoderState, seed: int) -> Callable[[], Tensor]:
    """A source of standard normal noise shaped like the latents; each picture draws from a generator of its
    own.
    """
    draws = [torch.Generator().manual_seed(seed) for _ in range(len(decoder_state.mean))]
    return lambda: torch.stack(
        [torch.randn(decoder_state.mean.shape[1:], generator=draw) for draw in draws]
    ).to(decoder_state.mean.device)
