"""What the decoder holds of the latents before denoising, and the moments of a Gaussian cut to a quantiser
bin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dhp_lab.codec.networks.tiling import tiled

SIGMA_Q = 1 / math.sqrt(12)  # of a rounding error, in quantiser steps
FARTHEST = 6.0  # a bin beyond this many scales is taken as one at this distance


@dataclass(frozen=True)
class DecoderState:
    """What the decoder knows of the latents before denoising.

    Attributes:
        symbols: (B, M, h, w) q, float; zeros where not decoded.
        decoded: (B, 1, h, w) float, 1 where q is known, 0 where z alone is.
        mean, scale: (B, M, h, w) from the hyperprior, in quantiser steps.
        log2_delta: (B,) log2 of the quantiser step. std: (M,) the channels' spread in latent units.
        moments: ``truncated_gaussian_moments(symbols, scale)`` where already worked out; None leaves it to the denoiser.
    """

    symbols: Tensor
    decoded: Tensor
    mean: Tensor
    scale: Tensor
    log2_delta: Tensor
    std: Tensor
    moments: tuple[Tensor, Tensor] | None = None

    def window(self, rows: slice, cols: slice) -> DecoderState:
        """The same for a rectangle of latents."""
        cut = [t[..., rows, cols] for t in (self.symbols, self.decoded, self.mean, self.scale)]
        moments = self.moments and tuple(t[..., rows, cols] for t in self.moments)
        return DecoderState(*cut, self.log2_delta, self.std, moments)

    def detach(self) -> DecoderState:
        """The same numbers without their gradients, as what D and its loss look at."""
        still = [
            t.detach() for t in (self.symbols, self.decoded, self.mean, self.scale, self.log2_delta, self.std)
        ]
        return DecoderState(*still, self.moments and tuple(t.detach() for t in self.moments))

    def with_moments(self) -> DecoderState:
        """The same with ``moments`` filled in, worked out in tiles to spare memory."""

        def part(r: slice, c: slice) -> Tensor:
            return torch.cat(truncated_gaussian_moments(self.symbols[..., r, c], self.scale[..., r, c]), 1)

        return replace(self, moments=tiled(part, *self.symbols.shape[-2:], 1).chunk(2, 1))


def truncated_gaussian_moments(symbols: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of N(0, scale^2) cut to [q - 1/2, q + 1/2] (Johnson, Kotz & Balakrishnan 1994,
    section 13.10).

    Args:
        symbols: whole numbers, any shape. scale: > 0, the same shape, in quantiser steps.
    """
    size = symbols.double().abs()  # float32 would lose the differences below
    s = torch.maximum(scale.double(), (size - 0.5) / FARTHEST).clamp(min=0.02)
    low, high = (size - 0.5) / s, (size + 0.5) / s
    density_low, density_high = (
        torch.exp(-0.5 * edge.square()) / math.sqrt(2 * math.pi) for edge in (low, high)
    )
    mass = 0.5 * (torch.erfc(low / math.sqrt(2)) - torch.erfc(high / math.sqrt(2)))
    shift = (density_low - density_high) / mass
    spread = 1 + (low * density_low - high * density_high) / mass - shift.square()
    wide = s > 1000  # then the bin is uniform to first order
    mean = torch.where(wide, size * (1 - 1 / (12 * s.square())), s * shift) * symbols.sign()
    variance = torch.where(wide, SIGMA_Q**2, s.square() * spread).clamp(min=1e-8, max=SIGMA_Q**2)
    return mean.to(scale.dtype), variance.to(scale.dtype)
