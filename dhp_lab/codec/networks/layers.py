"""Layers that the codec's networks share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def round_through(x: Tensor) -> Tensor:
    """x rounded, with the gradient of x (Theis et al. 2017)."""
    return x + (x.round() - x).detach()


class ResidualBlock(nn.Module):
    """x + conv(act(conv(act(x)))), the second convolution starting near zero (He et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.normal_(self.conv2.weight, std=1e-3)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.leaky_relu(x, 0.1))
        return x + self.conv2(F.leaky_relu(h, 0.1))


def residual_blocks(width: int, count: int) -> nn.Sequential:
    """``count`` residual blocks in a row."""
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


def zero_init(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, giving zeros until it is trained."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def scaled_log2_delta(log2_delta: Tensor) -> Tensor:
    """log2(Delta) as the networks take it: Delta = 2^-7.5 .. 2^0.5 becomes -1 .. 1."""
    return (log2_delta + 3.5) / 4


def delta_plane(log2_delta: Tensor, like: Tensor) -> Tensor:
    """``scaled_log2_delta`` of (B,) as one more input channel (B, 1, h, w)."""
    values = scaled_log2_delta(log2_delta).to(like.dtype)
    return values.view(-1, 1, 1, 1).expand(-1, 1, *like.shape[-2:])


def widths(N: int) -> tuple[int, int, int]:
    """Channels of the networks at 1/4, 1/8 and 1/16 of the picture's sides: 3N/4, N, 3N/2, multiples of 4."""
    return tuple(max(4, 4 * round(N * share / 4)) for share in (0.75, 1.0, 1.5))
