r"""g_a, g_s, h_a, h_s: from picture to latents y, from y to hyper-latents z, and back (Ballé et al. 2018,
fig. 4).

    x --g_a--> y (M, H/16, W/16) --h_a--> z (N, H/64, W/64) --h_s--> mean, log2(scale) of y;     y_hat --g_s--> x_hat

Each picture transform is a sum of two parts. The straight one is a lapped orthogonal transform (Malvar &
Staelin 1989; 32 x 32 kernels, a step of 16), orthonormal, so that at step 0 the model is already a transform
codec; the curved one is a small residual network that starts at zero and learns what the straight part misses
(cf. AuxT, Li et al. 2025).

h_s decides which probability table the entropy decoder reads, so encoder and decoder must agree to the last
bit. Its weights and activations are therefore evaluated as whole numbers held in float64 (Ballé et al. 2019,
"Integer networks"): every sum stays far below 2^53 and is exact in any order, on any device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.networks.lapped import BLOCK, lapped_filters, mirror
from dhp_lab.codec.networks.layers import _blocks, delta_plane, zero_init, widths
from dhp_lab.core.precision import autocast


class Analysis(nn.Module):
    """g_a: picture (B, 3, H, W) in [0, 1], H and W multiples of 16 -> latents y (B, M, H/16, W/16) in picture
    units.
    """

    def __init__(self, N: int, M: int) -> None:
        super().__init__()
        filters = lapped_filters(M)
        a, b, c = widths(N)
        self.lapped = nn.Parameter(filters["weight"])
        self.entry = nn.Conv2d(3, a, 8, stride=4, padding=2)  # H/4
        self.fine = _blocks(a, 2)
        self.middle = nn.Sequential(nn.Conv2d(a, b, 4, stride=2, padding=1), _blocks(b, 2))  # H/8
        self.coarse = nn.Conv2d(b, c, 4, stride=2, padding=1)  # H/16
        self.tail = _blocks(c, 2)
        self.rate = nn.Conv2d(1, c, 1)
        self.exit = zero_init(nn.Conv2d(c, M, 1))

    def forward(self, x: Tensor, log2_delta: Tensor, std: Tensor) -> Tensor:
        """log2_delta: (B,). std: (M,), the channels' spread, the unit in which the network speaks."""
        x = x - 0.5
        straight = F.conv2d(F.pixel_unshuffle(mirror(x, BLOCK // 2), BLOCK), self.lapped)
        with autocast(x.device):
            h = self.coarse(self.middle(self.fine(self.entry(4 * x))))
            h = self.exit(self.tail(h + self.rate(delta_plane(log2_delta, h))))
        return straight + std.view(-1, 1, 1) * h.float()


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
        self.tail = _blocks(c, 2)
        self.middle = nn.Sequential(nn.Conv2d(c, 4 * b, 1), nn.PixelShuffle(2), _blocks(b, 2))  # H/8
        self.fine = nn.Sequential(nn.Conv2d(b, 4 * a, 1), nn.PixelShuffle(2), _blocks(a, 2))  # H/4
        self.exit = nn.Sequential(zero_init(nn.Conv2d(a, 48, 3, padding=1)), nn.PixelShuffle(4))  # H

    def forward(self, y_hat: Tensor, log2_delta: Tensor, std: Tensor) -> Tensor:
        """log2_delta: (B,). std: (M,), the channels' spread."""
        whole = mirror(y_hat, 1, self.parity_h, self.parity_w)
        straight = F.pixel_shuffle(F.conv_transpose2d(whole, self.lapped), BLOCK)  # (B, 3, 16 (h + 3), ...)
        edge = BLOCK + BLOCK // 2
        straight = straight[..., edge:-edge, edge:-edge]
        unit = y_hat / (std.view(-1, 1, 1) + log2_delta.exp2().view(-1, 1, 1, 1))
        with autocast(y_hat.device):
            h = self.entry(
                torch.cat([unit, delta_plane(log2_delta, unit)], 1).contiguous(
                    memory_format=torch.channels_last
                )
            )
            h = self.exit(self.fine(self.middle(self.tail(h))))
        return 0.5 + straight + 0.25 * h.float()
