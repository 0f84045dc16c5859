r"""g_a and g_s: from picture to latents y and back.

    x --g_a--> y (M, H/16, W/16)  ...  y_hat --g_s--> x_hat

Each is the sum of a linear and a non-linear part. The linear part is a lapped orthogonal transform (Malvar &
Staelin 1989; 32 x 32 kernels at a stride of 16): it is orthonormal, so that the untrained model already is a
transform codec. The non-linear part is a small residual network with zero initialisation, which learns what
the linear part misses (cf. AuxT, Li et al. 2025). h_a and h_s are in ``hyper_transforms``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.networks.lapped import BLOCK, lapped_filters, mirror
from dhp_lab.codec.networks.layers import delta_plane, residual_blocks, widths, zero_init
from dhp_lab.core.precision import autocast


class Analysis(nn.Module):
    """g_a: picture (B, 3, H, W) in [0, 1] -> latents y (B, M, H/16, W/16); H and W are multiples of 16."""

    def __init__(self, N: int, M: int) -> None:
        super().__init__()
        filters = lapped_filters(M)
        a, b, c = widths(N)
        self.lapped = nn.Parameter(filters["weight"])
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
        linear = F.conv2d(F.pixel_unshuffle(mirror(x, BLOCK // 2), BLOCK), self.lapped)
        with autocast(x.device):
            h = self.coarse(self.middle(self.fine(self.entry(4 * x))))
            h = self.exit(self.tail(h + self.rate(delta_plane(log2_delta, h))))
        return linear + std.view(-1, 1, 1) * h.float()


class Synthesis(nn.Module):
    """g_s: latents (B, M, h, w) -> picture (B, 3, 16 h, 16 w), about [0, 1]; the mirror image of g_a."""

    def __init__(self, N: int, M: int) -> None:
        super().__init__()
        filters = lapped_filters(M)
        a, b, c = widths(N)
        self.lapped = nn.Parameter(filters["weight"].clone())
        self.register_buffer("parity_h", filters["parity_h"].view(-1, 1, 1), persistent=False)
        self.register_buffer("parity_w", filters["parity_w"].view(-1, 1, 1), persistent=False)
        self.entry = nn.Conv2d(M + 1, c, 1)
        self.tail = residual_blocks(c, 2)
        self.middle = nn.Sequential(nn.Conv2d(c, 4 * b, 1), nn.PixelShuffle(2), residual_blocks(b, 2))  # H/8
        self.fine = nn.Sequential(nn.Conv2d(b, 4 * a, 1), nn.PixelShuffle(2), residual_blocks(a, 2))  # H/4
        self.exit = nn.Sequential(zero_init(nn.Conv2d(a, 48, 3, padding=1)), nn.PixelShuffle(4))  # H

    def forward(self, y_hat: Tensor, log2_delta: Tensor, std: Tensor) -> Tensor:
        """log2_delta: (B,). std: (M,), the channels' spread."""
        whole = mirror(y_hat, 1, self.parity_h, self.parity_w)
        linear = F.pixel_shuffle(F.conv_transpose2d(whole, self.lapped), BLOCK)  # (B, 3, 16 (h + 3), ...)
        edge = BLOCK + BLOCK // 2
        linear = linear[..., edge:-edge, edge:-edge]
        unit = y_hat / (std.view(-1, 1, 1) + log2_delta.exp2().view(-1, 1, 1, 1))
        planes = torch.cat([unit, delta_plane(log2_delta, unit)], 1)
        with autocast(y_hat.device):
            h = self.entry(planes.contiguous(memory_format=torch.channels_last))
            h = self.exit(self.fine(self.middle(self.tail(h))))
        return 0.5 + linear + 0.25 * h.float()
