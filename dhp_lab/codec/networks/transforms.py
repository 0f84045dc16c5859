r"""g_a and g_s: from picture to latents y and back.

    x --g_a--> y (M, H/16, W/16)  ...  y_hat --g_s--> x_hat

Each is the sum of a linear and a non-linear part. The linear part is a lapped orthogonal transform (Malvar &
Staelin 1989; 32 x 32 kernels at a stride of 16): it is orthonormal, so that the untrained model already is a
transform codec. The non-linear part is a small residual network with zero initialisation, which learns what
the linear part misses (cf. AuxT, Li et al. 2025). h_a and h_s are in ``hyper_transforms``.

What is learnt must not cap the quality of fine quantisation, where the lapped transform alone inverts
exactly:

    linear part      fixed filters + f * learnt corrections of the first 320,  f = 1 / (1 + (2^-5 / Delta)^2)
    non-linear part  L tanh(h / L),  L = 2 Delta f: it moves a latent or a pixel by two steps at most

Codecs of the first revision have ``LearntFilters`` and no limit.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.networks.lapped import BLOCK, LappedTransform, lapped_filters, mirror
from dhp_lab.codec.networks.layers import delta_plane, residual_blocks, widths, zero_init
from dhp_lab.core.precision import autocast

CORRECTED = 320  # channels whose filters are corrected: those that coarse quantisation leaves
FADE = 2.0**-5  # the step at which half of what is learnt is left
LIMIT = 2.0  # of the non-linear parts, in quantiser steps


class LearntFilters(nn.Module):
    """The linear part of the first revision: M learnt filters, which start as those of the lapped transform.

    ``weight`` (M, 3 * 16 * 16, 2, 2).
    """

    def __init__(self, M: int) -> None:
        super().__init__()
        filters = lapped_filters(M)
        self.weight = nn.Parameter(filters["weight"])
        self.register_buffer("parity_h", filters["parity_h"].view(-1, 1, 1), persistent=False)
        self.register_buffer("parity_w", filters["parity_w"].view(-1, 1, 1), persistent=False)

    def analyse(self, x: Tensor, log2_delta: Tensor) -> Tensor:
        """Picture (B, 3, H, W) about 0 -> (B, M, H/16, W/16)."""
        return filter_blocks(x, self.weight)

    def synthesise(self, y: Tensor, log2_delta: Tensor) -> Tensor:
        """The transpose, for the filters of g_s: (B, M, h, w) -> picture (B, 3, 16 h, 16 w) about 0."""
        return overlap_blocks(y, self.weight, self.parity_h, self.parity_w)


class CorrectedFilters(nn.Module):
    """The lapped transform, and learnt corrections of its first filters that fade as the step gets finer.

    ``correction`` (min(M, 320), 3 * 16 * 16, 2, 2).
    """

    def __init__(self, M: int) -> None:
        super().__init__()
        self.fixed = LappedTransform(M)
        self.count = min(M, CORRECTED)
        self.correction = nn.Parameter(torch.zeros(self.count, 3 * BLOCK * BLOCK, 2, 2))

    def analyse(self, x: Tensor, log2_delta: Tensor) -> Tensor:
        """As ``LearntFilters.analyse``; log2_delta: (B,)."""
        y = self.fixed.analyse(x)
        with self._precision(x.device):
            learnt = filter_blocks(x, self.correction)
        learnt = learnt_share(log2_delta) * learnt.float()
        return torch.cat([y[:, : self.count] + learnt, y[:, self.count :]], 1)

    def synthesise(self, y: Tensor, log2_delta: Tensor) -> Tensor:
        """As ``LearntFilters.synthesise``; log2_delta: (B,)."""
        faded = learnt_share(log2_delta) * y[:, : self.count]
        parity = (self.fixed.parity_h[: self.count], self.fixed.parity_w[: self.count])
        with self._precision(y.device):
            learnt = overlap_blocks(faded, self.correction, *parity)
        return self.fixed.synthesise(y) + learnt.float()

    def _precision(self, device: torch.device) -> AbstractContextManager:
        """Mixed precision in training; else float32, in which the layout of memory changes no picture."""
        return autocast(device) if self.training else nullcontext()


def learnt_share(log2_delta: Tensor) -> Tensor:
    """f(Delta), (B, 1, 1, 1) in 0 .. 1, for log2_delta (B,): how much of what is learnt counts."""
    return 1 / (1 + (FADE / log2_delta.exp2().view(-1, 1, 1, 1)).square())


def limited(h: Tensor, log2_delta: Tensor) -> Tensor:
    """L tanh(h / L) for (B, C, h, w): values within L = 2 Delta f(Delta); log2_delta: (B,)."""
    limit = LIMIT * log2_delta.exp2().view(-1, 1, 1, 1) * learnt_share(log2_delta)
    return limit * torch.tanh(h / limit)


def filter_blocks(x: Tensor, weight: Tensor) -> Tensor:
    """Kernels of 32 x 32 pixels at a stride of 16, with a mirrored border.

    Args:
        x: (B, 3, H, W), sides multiples of 16. weight: (C, 3 * 16 * 16, 2, 2), as of ``lapped_filters``.

    Returns:
        (B, C, H/16, W/16).
    """
    return F.conv2d(F.pixel_unshuffle(mirror(x, BLOCK // 2), BLOCK), weight)


def overlap_blocks(y: Tensor, weight: Tensor, parity_h: Tensor, parity_w: Tensor) -> Tensor:
    """The transpose of ``filter_blocks``: (B, C, h, w) -> (B, 3, 16 h, 16 w); parities (C, 1, 1)."""
    whole = mirror(y, 1, parity_h, parity_w)
    picture = F.pixel_shuffle(F.conv_transpose2d(whole, weight), BLOCK)  # (B, 3, 16 (h + 3), ...)
    edge = BLOCK + BLOCK // 2
    return picture[..., edge:-edge, edge:-edge]


class Analysis(nn.Module):
    """g_a: picture (B, 3, H, W) in [0, 1] -> latents y (B, M, H/16, W/16); H and W are multiples of 16.

    Args:
        N, M: as in ``CodecConfig``. bounded: whether the linear part is fixed but for a fading correction and
            the non-linear one limited, or both are free.
    """

    def __init__(self, N: int, M: int, bounded: bool = True) -> None:
        super().__init__()
        a, b, c = widths(N)
        self.bounded = bounded
        self.linear = CorrectedFilters(M) if bounded else LearntFilters(M)
        self.entry = nn.Conv2d(3, a, 8, stride=4, padding=2)  # H/4
        self.fine = residual_blocks(a, 2)
        self.middle = nn.Sequential(nn.Conv2d(a, b, 4, stride=2, padding=1), residual_blocks(b, 2))  # H/8
        self.coarse = nn.Conv2d(b, c, 4, stride=2, padding=1)  # H/16
        self.tail = residual_blocks(c, 2)
        self.rate = nn.Conv2d(1, c, 1)
        self.exit = zero_init(nn.Conv2d(c, M, 1))

    def forward(self, x: Tensor, log2_delta: Tensor, std: Tensor) -> Tensor:
        """log2_delta: (B,). std: (M,), the channels' spread, the unit of the network's output."""
        x = x - 0.5
        with autocast(x.device):
            h = self.coarse(self.middle(self.fine(self.entry(4 * x))))
            h = self.exit(self.tail(h + self.rate(delta_plane(log2_delta, h))))
        h = std.view(-1, 1, 1) * h.float()
        return self.linear.analyse(x, log2_delta) + (limited(h, log2_delta) if self.bounded else h)


class Synthesis(nn.Module):
    """g_s: latents (B, M, h, w) -> picture (B, 3, 16 h, 16 w), about [0, 1]; the mirror image of g_a.

    Arguments as for ``Analysis``.
    """

    def __init__(self, N: int, M: int, bounded: bool = True) -> None:
        super().__init__()
        a, b, c = widths(N)
        self.bounded = bounded
        self.linear = CorrectedFilters(M) if bounded else LearntFilters(M)
        self.entry = nn.Conv2d(M + 1, c, 1)
        self.tail = residual_blocks(c, 2)
        self.middle = nn.Sequential(nn.Conv2d(c, 4 * b, 1), nn.PixelShuffle(2), residual_blocks(b, 2))  # H/8
        self.fine = nn.Sequential(nn.Conv2d(b, 4 * a, 1), nn.PixelShuffle(2), residual_blocks(a, 2))  # H/4
        self.exit = nn.Sequential(zero_init(nn.Conv2d(a, 48, 3, padding=1)), nn.PixelShuffle(4))  # H

    def forward(self, y_hat: Tensor, log2_delta: Tensor, std: Tensor) -> Tensor:
        """log2_delta: (B,). std: (M,), the channels' spread."""
        unit = y_hat / (std.view(-1, 1, 1) + log2_delta.exp2().view(-1, 1, 1, 1))
        planes = torch.cat([unit, delta_plane(log2_delta, unit)], 1)
        with autocast(y_hat.device):
            h = self.entry(planes.contiguous(memory_format=torch.channels_last))
            h = self.exit(self.fine(self.middle(self.tail(h))))
        h = 0.25 * h.float()
        linear = self.linear.synthesise(y_hat, log2_delta)
        return 0.5 + linear + (limited(h, log2_delta) if self.bounded else h)
