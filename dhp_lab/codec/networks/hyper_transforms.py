"""h_a and h_s: latents to hyper-latents z, and z to mean and log2(scale) of the latents (Ballé et al. 2018,
fig. 4).

y / Delta --h_a--> z (N, H/64, W/64) --entropy bottleneck--> z_hat --h_s--> mean, log2(scale) of y
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.networks.exact import ACTIVATION_BITS, ACTIVATION_LIMIT, ExactNetwork, exact_conv
from dhp_lab.codec.networks.layers import delta_plane, zero_init
from dhp_lab.core.precision import autocast

HYPER = 4  # one hyper-latent position for 4 x 4 latents
APART = 320  # channels of y that h_a sees one by one
SHARES = 8  # of the others


class HyperAnalysis(nn.Module):
    """h_a: latents in quantiser steps (B, M, h, w), h and w multiples of 4 -> z (B, N, h/4, w/4).

    Of more than 320 channels it sees the others, seldom above zero, as eight planes: mean sizes of equal
    shares.
    """

    def __init__(self, N: int, M: int, width: int) -> None:
        super().__init__()
        self.apart = min(M, APART)
        self.shares = min(M - self.apart, SHARES)
        self.entry = nn.Conv2d(self.apart + self.shares + 1, width, 3, padding=1)
        self.down = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.exit = nn.Conv2d(width, N, 4, stride=2, padding=1)

    def forward(self, y_steps: Tensor, log2_delta: Tensor) -> Tensor:
        """log2_delta: (B,)."""
        steps = torch.asinh(y_steps)
        with autocast(y_steps.device):
            h = self.entry(self._planes(steps, log2_delta))
            h = self.exit(F.leaky_relu(self.down(F.leaky_relu(h, 0.1)), 0.1))
        return h.float()

    def _planes(self, steps: Tensor, log2_delta: Tensor) -> Tensor:
        """What the network sees, (B, C, h, w)."""
        apart, others = steps[:, : self.apart], steps[:, self.apart :]
        shares = others.abs().tensor_split(self.shares, 1) if self.shares else ()
        sizes = [share.mean(1, keepdim=True) for share in shares]
        return torch.cat([apart, *sizes, delta_plane(log2_delta, steps)], 1)


class HyperSynthesis(ExactNetwork):
    """h_s: z_hat (B, N, h/4, w/4) -> mean and log2(scale) of the latents, (B, 2 M, h, w).

    Both in units of the channel's spread. ``forward`` is the float network that training sees; ``exact`` is
    the same network in fixed point.
    """

    def __init__(self, N: int, M: int, width: int) -> None:
        super().__init__()
        to_half = nn.Conv2d(N + 1, 4 * N, 3, padding=1)  # then shuffled to h/2
        to_full = nn.Conv2d(N, 4 * N, 3, padding=1)  # then shuffled to h
        hidden = nn.Conv2d(N, width, 3, padding=1)
        exit_ = zero_init(nn.Conv2d(width, 2 * M, 1))
        self.layers = nn.ModuleList([to_half, to_full, hidden, exit_])

    def forward(self, z_hat: Tensor, log2_delta: Tensor) -> Tensor:
        """log2_delta: (B,)."""
        to_half, to_full, hidden, exit_ = self.layers
        h = torch.cat([z_hat, delta_plane(log2_delta, z_hat)], 1)
        h = F.relu(F.pixel_shuffle(to_half(h), 2))  # (B, N, h/2, w/2)
        h = F.relu(F.pixel_shuffle(to_full(h), 2))  # (B, N, h, w)
        return exit_(F.relu(hidden(h)))

    @torch.no_grad()
    def exact(self, z_hat: Tensor, log2_delta: Tensor) -> Tensor:
        """The same for z_hat in multiples of 2^-10 and log2_delta of 2^-16, both float64; result of 2^-10.

        Raises:
            ValueError: a weight of 8 or more in absolute value, which the fixed point cannot hold.
        """
        to_half, to_full, hidden, exit_ = (self.exact_weights(layer) for layer in self.layers)
        plane = torch.floor(delta_plane(log2_delta, z_hat) * 2**ACTIVATION_BITS)
        h = torch.cat([torch.round(z_hat * 2**ACTIVATION_BITS), plane], 1)
        h = h.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)
        h = F.relu(F.pixel_shuffle(exact_conv(h, to_half), 2))
        h = F.relu(F.pixel_shuffle(exact_conv(h, to_full), 2))
        h = exact_conv(F.relu(exact_conv(h, hidden)), exit_)
        return h / 2**ACTIVATION_BITS
