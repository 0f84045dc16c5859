"""Convolutions in fixed point, evaluated as whole numbers in float64: exact in any order on any device (Balle
et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHT_BITS, ACTIVATION_BITS = 12, 10  # fixed point: weights in units of 2^-12, activations of 2^-10
ACTIVATION_LIMIT = 2.0**20  # 1024 in fixed point: 2^20 * 2^15 * 2^12 terms < 2^53
WHOLE: WeakKeyDictionary = (
    WeakKeyDictionary()
)  # of exact layers: their weights as they were, and in whole numbers


def exact_conv(h: Tensor, layer: nn.Conv2d) -> Tensor:
    """A 'same' convolution of stride 1 in whole numbers, (B, C, rows, cols) up to 2^20 in units of 2^-10; see
    ``exact_sum``.
    """
    rows, cols = h.shape[-2:]
    padded = F.pad(h, (layer.padding[0],) * 4).permute(0, 2, 3, 1)
    spans = product(*(range(size) for size in layer.kernel_size))
    windows = (padded[:, i : i + rows, j : j + cols].flatten(1, 2) for i, j in spans)
    return exact_sum(windows, layer).mT.unflatten(2, (rows, cols))


def exact_sum(windows: Iterable[Tensor], layer: nn.Conv2d) -> Tensor:
    """A convolution of whole numbers in float64, as one matrix product for each tap: no sum can round.

    Args:
        windows: for each tap of the kernel what it lies on, (B, n, C) whole numbers up to 2^20, in units of
            2^-10.
        layer: plain or with a group for each channel.

    Returns:
        (B, n, channels of the layer), likewise: what is larger is cut off.

    Raises:
        ValueError: a weight of 8 or more in absolute value.
    """
    total = weighted_sum(windows, *_whole_numbers(layer))
    return total.div_(2**WEIGHT_BITS).add_(0.5).floor_().clamp_(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)


def weighted_sum(windows: Iterable[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """What a convolution of this weight (out, in, rows, cols), or (C, 1, rows, cols), and bias adds up; as
    ``exact_sum``.
    """
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
    """Weight and bias in float64, whole multiples of 2^-12 and 2^-22; worked out anew only where the layer
    has changed.
    """
    sources, decoder_state = (layer.weight, layer.bias), WHOLE.get(layer)
    if decoder_state is None or not all(
        a.device == b.device and torch.equal(a, b) for a, b in zip(sources, decoder_state[0], strict=True)
    ):
        weight = torch.round(layer.weight.detach().double() * 2**WEIGHT_BITS)
        if not bool((weight.abs() < 2 ** (WEIGHT_BITS + 3)).all()):
            raise ValueError(
                f"a weight of an exact layer is {layer.weight.abs().max().item():g}; the exact path holds values below 8"
            )
        bias = torch.round(layer.bias.detach().double() * 2 ** (WEIGHT_BITS + ACTIVATION_BITS))
        decoder_state = WHOLE[layer] = [source.detach().clone() for source in sources], (weight, bias)
    return decoder_state[1]
