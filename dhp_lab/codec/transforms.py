r"""g_a, g_s, h_a, h_s: from picture to latents y, from y to hyper-latents z, and back (Ballé et al. 2018, fig. 4).

    x --g_a--> y (M, H/16, W/16) --h_a--> z (N, H/64, W/64) --h_s--> mean, log2(scale) of y;     y_hat --g_s--> x_hat

Each picture transform is a sum of two parts. The straight one is a lapped orthogonal transform (Malvar & Staelin 1989;
32 x 32 kernels, a step of 16), orthonormal, so that at step 0 the model is already a transform codec; the curved one is
a small residual network that starts at zero and learns what the straight part misses (cf. AuxT, Li et al. 2025).

h_s decides which probability table the entropy decoder reads, so encoder and decoder must agree to the last bit. Its
weights and activations are therefore evaluated as whole numbers held in float64 (Ballé et al. 2019, "Integer networks"):
every sum stays far below 2^53 and is exact in any order, on any device.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.lapped import BLOCK, lapped_filters, mirror
from dhp_lab.precision import autocast

HYPER = 4                                 # one hyper-latent position for 4 x 4 latents
WEIGHT_BITS, ACTIVATION_BITS = 12, 10     # fixed point: weights in units of 2^-12, activations of 2^-10
ACTIVATION_LIMIT = 2.0**20                # 1024 in fixed point: 2^20 * 2^15 * 2^12 terms < 2^53
WHOLE: WeakKeyDictionary = WeakKeyDictionary()      # of exact layers: their weights as they were, and in whole numbers


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


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


def silent(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, giving zeros until it is trained."""
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def delta_plane(log2_delta: Tensor, like: Tensor) -> Tensor:
    """log2(Delta) (B,) as one more input channel (B, 1, h, w), roughly in [-1, 1]."""
    return ((log2_delta + 3.5) / 4).to(like.dtype).view(-1, 1, 1, 1).expand(-1, 1, *like.shape[-2:])


class Analysis(nn.Module):
    """g_a: picture (B, 3, H, W) in [0, 1], H and W multiples of 16 -> latents y (B, M, H/16, W/16) in picture units."""

    def __init__(self, N: int, M: int) -> None:
        super().__init__()
        filters = lapped_filters(M)
        a, b, c = widths(N)
        self.lapped = nn.Parameter(filters["weight"])
        self.entry = nn.Conv2d(3, a, 8, stride=4, padding=2)                              # H/4
        self.fine = _blocks(a, 2)
        self.middle = nn.Sequential(nn.Conv2d(a, b, 4, stride=2, padding=1), _blocks(b, 2))   # H/8
        self.coarse = nn.Conv2d(b, c, 4, stride=2, padding=1)                                       # H/16
        self.tail = _blocks(c, 2)
        self.rate = nn.Conv2d(1, c, 1)
        self.exit = silent(nn.Conv2d(c, M, 1))

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
        self.middle = nn.Sequential(nn.Conv2d(c, 4 * b, 1), nn.PixelShuffle(2), _blocks(b, 2))   # H/8
        self.fine = nn.Sequential(nn.Conv2d(b, 4 * a, 1), nn.PixelShuffle(2), _blocks(a, 2))     # H/4
        self.exit = nn.Sequential(silent(nn.Conv2d(a, 48, 3, padding=1)), nn.PixelShuffle(4))              # H

    def forward(self, y_hat: Tensor, log2_delta: Tensor, std: Tensor) -> Tensor:
        """log2_delta: (B,). std: (M,), the channels' spread."""
        whole = mirror(y_hat, 1, self.parity_h, self.parity_w)
        straight = F.pixel_shuffle(F.conv_transpose2d(whole, self.lapped), BLOCK)         # (B, 3, 16 (h + 3), ...)
        edge = BLOCK + BLOCK // 2
        straight = straight[..., edge:-edge, edge:-edge]
        unit = y_hat / (std.view(-1, 1, 1) + log2_delta.exp2().view(-1, 1, 1, 1))
        with autocast(y_hat.device):
            h = self.entry(torch.cat([unit, delta_plane(log2_delta, unit)], 1).contiguous(memory_format=torch.channels_last))
            h = self.exit(self.fine(self.middle(self.tail(h))))
        return 0.5 + straight + 0.25 * h.float()


class HyperAnalysis(nn.Module):
    """h_a: latents in quantiser steps, y / Delta (B, M, h, w), h and w multiples of 4 -> z (B, N, h/4, w/4)."""

    def __init__(self, N: int, M: int, width: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(M + 1, width, 3, padding=1)
        self.down = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.exit = nn.Conv2d(width, N, 4, stride=2, padding=1)

    def forward(self, y_steps: Tensor, log2_delta: Tensor) -> Tensor:
        """log2_delta: (B,)."""
        steps = torch.asinh(y_steps)
        with autocast(y_steps.device):
            h = self.entry(torch.cat([steps, delta_plane(log2_delta, steps)], 1))
            h = self.exit(F.leaky_relu(self.down(F.leaky_relu(h, 0.1)), 0.1))
        return h.float()


class HyperSynthesis(nn.Module):
    """h_s: z_hat (B, N, h/4, w/4) -> mean and log2(scale) of the latents, (B, 2 M, h, w), in units of the channel's spread.

    ``forward`` is the float network that training sees; ``exact`` is the same network in whole numbers.
    """

    def __init__(self, N: int, M: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([
            nn.Conv2d(N + 1, 4 * N, 3, padding=1),                                        # then shuffled to h/2
            nn.Conv2d(N, 4 * N, 3, padding=1),                                            # then shuffled to h
            nn.Conv2d(N, width, 3, padding=1),
            silent(nn.Conv2d(width, 2 * M, 1)),
        ])

    def forward(self, z_hat: Tensor, log2_delta: Tensor) -> Tensor:
        """log2_delta: (B,)."""
        h = torch.cat([z_hat, delta_plane(log2_delta, z_hat)], 1)
        for i, layer in enumerate(self.layers[:-1]):
            h = layer(h)
            h = F.relu(F.pixel_shuffle(h, 2) if i < 2 else h)
        return self.layers[-1](h)

    @torch.no_grad()
    def exact(self, z_hat: Tensor, log2_delta: Tensor) -> Tensor:
        """The same for z_hat in whole multiples of 2^-10 and log2_delta of 2^-16, both float64; result likewise (2^-10).

        Raises:
            ValueError: a weight of 8 or more in absolute value, which the fixed point cannot hold.
        """
        plane = torch.floor(delta_plane(log2_delta, z_hat) * 2**ACTIVATION_BITS)
        h = torch.cat([torch.round(z_hat * 2**ACTIVATION_BITS), plane], 1).clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)
        for i, layer in enumerate(self.layers):
            h = exact_conv(h, layer)
            if i < 3:
                h = F.relu(F.pixel_shuffle(h, 2) if i < 2 else h)
        return h / 2**ACTIVATION_BITS


def exact_conv(h: Tensor, layer: nn.Conv2d) -> Tensor:
    """A 'same' convolution of stride 1 in whole numbers, (B, C, rows, cols) up to 2^20 in units of 2^-10; see ``exact_sum``."""
    rows, cols = h.shape[-2:]
    padded = F.pad(h, (layer.padding[0],) * 4).permute(0, 2, 3, 1)
    spans = product(*(range(size) for size in layer.kernel_size))
    windows = (padded[:, i : i + rows, j : j + cols].flatten(1, 2) for i, j in spans)
    return exact_sum(windows, layer).mT.unflatten(2, (rows, cols))


def exact_sum(windows: Iterable[Tensor], layer: nn.Conv2d) -> Tensor:
    """A convolution of whole numbers in float64, as one matrix product for each tap: no sum can round.

    Args:
        windows: for each tap of the kernel what it lies on, (B, n, C) whole numbers up to 2^20, in units of 2^-10.
        layer: plain or with a group for each channel.

    Returns:
        (B, n, channels of the layer), likewise: what is larger is cut off.

    Raises:
        ValueError: a weight of 8 or more in absolute value.
    """
    total = weighted_sum(windows, *_whole_numbers(layer))
    return total.div_(2**WEIGHT_BITS).add_(0.5).floor_().clamp_(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)


def weighted_sum(windows: Iterable[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """What a convolution of this weight (out, in, rows, cols), or (C, 1, rows, cols), and bias adds up; as ``exact_sum``."""
    total = None
    for window, taps in zip(windows, weight.flatten(2).unbind(2)):
        if total is None:
            total = bias.expand(*window.shape[:2], -1).clone()
        if weight.shape[1] == 1:
            total.addcmul_(taps.squeeze(1), window)
        else:
            total.baddbmm_(window, taps.mT.expand(len(window), -1, -1))
    return total


def _whole_numbers(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias in float64, whole multiples of 2^-12 and 2^-22; worked out anew only where the layer has changed."""
    sources, known = (layer.weight, layer.bias), WHOLE.get(layer)
    if known is None or not all(a.device == b.device and torch.equal(a, b) for a, b in zip(sources, known[0], strict=True)):
        weight = torch.round(layer.weight.detach().double() * 2**WEIGHT_BITS)
        if not bool((weight.abs() < 2 ** (WEIGHT_BITS + 3)).all()):
            raise ValueError(f"a weight of an exact layer is {layer.weight.abs().max().item():g}; the exact path holds values below 8")
        bias = torch.round(layer.bias.detach().double() * 2 ** (WEIGHT_BITS + ACTIVATION_BITS))
        known = WHOLE[layer] = [source.detach().clone() for source in sources], (weight, bias)
    return known[1]


def widths(N: int) -> tuple[int, int, int]:
    """Channels of the networks at 1/4, 1/8 and 1/16 of the picture's sides: 3N/4, N, 3N/2, whole multiples of 4."""
    return tuple(max(4, 4 * round(N * share / 4)) for share in (0.75, 1.0, 1.5))
