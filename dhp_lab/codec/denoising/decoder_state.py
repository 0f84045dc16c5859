"""What the decoder holds of the latents before denoising, and the moments of a Gaussian within a quantiser's
bin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dhp_lab.codec.bits.scales import bin_width
from dhp_lab.codec.networks.tiling import TILE, tiled

SIGMA_Q = 1 / math.sqrt(12)  # of a rounding error, in quantiser steps
TRELLIS_VARIANCE = 0.06  # of a trellis's errors, in squared steps; SIGMA_Q^2 is 0.083
FARTHEST = 6.0  # a bin beyond this many scales is taken as one at this distance
WIDE = 1000  # scales above which a bin is uniform to first order


@dataclass(frozen=True)
class DecoderState:
    """The latents as the entropy decoder leaves them.

    Attributes:
        symbols: (B, M, h, w) q, float; zeros where not decoded. Whole numbers, with a trellis halves too.
        decoded: (B, 1, h, w) float, 1 where q is decoded, 0 where z alone is.
        mean, scale: (B, M, h, w) of the entropy model, in quantiser steps.
        log2_delta: (B,) log2 of the quantiser step. std: (M,) the channels' spread in latent units.
        trellis: whether symbols are those of a trellis (``bits.trellis``).
        moments: ``truncated_gaussian_moments(symbols, scale)`` where already computed; None leaves it to the
            denoiser.
    """

    symbols: Tensor
    decoded: Tensor
    mean: Tensor
    scale: Tensor
    log2_delta: Tensor
    std: Tensor
    trellis: bool = False
    moments: tuple[Tensor, Tensor] | None = None

    @property
    def delta(self) -> Tensor:
        """(B, 1, 1, 1) the quantiser step in latent units."""
        return self.log2_delta.exp2().view(-1, 1, 1, 1)

    def window(self, rows: slice, cols: slice) -> DecoderState:
        """The same for a rectangle of latents."""
        cut = [t[..., rows, cols] for t in (self.symbols, self.decoded, self.mean, self.scale)]
        moments = self.moments and tuple(t[..., rows, cols] for t in self.moments)
        return DecoderState(*cut, self.log2_delta, self.std, self.trellis, moments)

    def detach(self) -> DecoderState:
        """The same numbers without their gradients, as the denoiser and its loss see them."""
        fields = (self.symbols, self.decoded, self.mean, self.scale, self.log2_delta, self.std)
        moments = self.moments and tuple(t.detach() for t in self.moments)
        return DecoderState(*(t.detach() for t in fields), self.trellis, moments)

    def with_moments(self, tile: int = TILE) -> DecoderState:
        """The same with ``moments`` filled in, computed in tiles of at most ``tile`` latents a side; a
        trellis needs none.
        """
        if self.trellis:
            return self

        def part(rows: slice, cols: slice) -> Tensor:
            mean, variance = truncated_gaussian_moments(
                self.symbols[..., rows, cols], self.scale[..., rows, cols]
            )
            return torch.cat([mean, variance], 1)

        return replace(self, moments=tiled(part, *self.symbols.shape[-2:], 1, tile).chunk(2, 1))

    def prior_deviation(self, dead_zone: float) -> Tensor:
        """The deviation of residuals (B, M, h, w) before their symbols are known, in steps: with a dead zone
        the scale counts widths of a bin, with a trellis steps.
        """
        return self.scale if self.trellis else bin_width(self.scale, dead_zone) * self.scale

    def posterior(self, dead_zone: float) -> tuple[Tensor, Tensor]:
        """Mean and variance of the residuals of decoded latents, given their symbols: (B, M, h, w) each, in
        steps.

        The values of a trellis are the means already, within 0.03 steps; its errors have one variance, but
        where the scale is smaller.

        Args:
            dead_zone: of the symbols' bins (``scales.bin_width``); scales count widths of a bin.
        """
        if self.trellis:
            return self.symbols, self.scale.square().clamp(max=TRELLIS_VARIANCE)
        width = bin_width(self.scale, dead_zone)
        mean, variance = self.moments or truncated_gaussian_moments(self.symbols, self.scale)
        return width * mean, width.square() * variance


def truncated_gaussian_moments(symbols: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of N(0, scale^2) truncated to [q - 1/2, q + 1/2].

    Johnson, Kotz & Balakrishnan 1994, "Continuous univariate distributions", section 13.10.

    Args:
        symbols: q, whole numbers, any shape.
        scale: > 0, the same shape, in quantiser steps.
    """
    size = symbols.double().abs()  # float32 would lose the differences below
    s = torch.maximum(scale.double(), (size - 0.5) / FARTHEST).clamp(min=0.02)
    low, high = (size - 0.5) / s, (size + 0.5) / s
    density_low, density_high = _density(low), _density(high)
    mass = 0.5 * (torch.erfc(low / math.sqrt(2)) - torch.erfc(high / math.sqrt(2)))
    shift = (density_low - density_high) / mass
    spread = 1 + (low * density_low - high * density_high) / mass - shift.square()
    mean = torch.where(s > WIDE, size * (1 - 1 / (12 * s.square())), s * shift) * symbols.sign()
    variance = torch.where(s > WIDE, SIGMA_Q**2, s.square() * spread).clamp(min=1e-8, max=SIGMA_Q**2)
    return mean.to(scale.dtype), variance.to(scale.dtype)


def _density(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)
