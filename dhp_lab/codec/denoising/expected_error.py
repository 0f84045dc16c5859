r"""How wrong the decoded picture is, place by place, as the decoder itself can tell.

The entropy model knows what quantisation has left out. A latent whose symbol is q has the variance v of its
distribution within q's bin: about 1/12 of a squared step where much was sent, the predicted scale^2 where
nothing was. The lapped transform is orthonormal, so the errors of a place's latents add up to that of its
pixels:

    e^2 = Delta^2 / (3 * 16 * 16) * sum over channels of v

e is the noise level that lambda leaves there, in the unit of pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dhp_lab.codec.denoising.decoder_state import DecoderState
from dhp_lab.codec.networks.lapped import BLOCK
from dhp_lab.codec.networks.tiling import TILE, tiled

BANDS = 8  # groups of channels, of falling variance
LEAST = 2.0**-10  # of e: a quarter of an 8-bit level


def latent_variance(state: DecoderState, dead_zone: float) -> Tensor:
    """v of every latent, (B, M, h, w) in squared quantiser steps: what is left of its residual's variance.

    Args:
        dead_zone: of the symbols' bins.
    """
    prior = state.prior_deviation(dead_zone).square()
    return torch.where(state.decoded > 0, state.posterior(dead_zone)[1], prior)


def expected_errors(state: DecoderState, dead_zone: float, tile: int = TILE) -> Tensor:
    """Standard deviations of the error of pixels in [0, 1], one for each place of the latents.

    Args:
        dead_zone: of the symbols' bins. tile: largest side of what is computed at once, in latents.

    Returns:
        (B, 1 + BANDS, h, w): e of all channels, and of each of BANDS equal shares of them alone, the first of
        largest variance; LEAST at the least.
    """

    def part(rows: slice, cols: slice) -> Tensor:
        window = state.window(rows, cols)
        variance = latent_variance(window, dead_zone) * window.delta.square() / (3 * BLOCK**2)
        bands = [share.sum(1, keepdim=True) for share in variance.tensor_split(BANDS, 1)]
        return torch.cat([variance.sum(1, keepdim=True), *bands], 1).sqrt().clamp(min=LEAST)

    return tiled(part, *state.symbols.shape[-2:], 1, tile)
