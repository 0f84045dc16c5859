"""Convolutions in fixed point, evaluated in float64 on whole numbers (Ballé et al. 2019, "Integer networks").

Encoder and decoder must read the same row of a probability table for every latent, so the networks that
predict scales are evaluated exactly: weights are whole multiples of 2^-12, activations of 2^-10, and every
sum stays far below 2^53. Whatever the order of its terms, on any device, the result is the same to the last
bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHT_BITS, ACTIVATION_BITS = 12, 10  # weights in units of 2^-12, activations of 2^-10
ACTIVATION_LIMIT = 2.0**20  # 1024 in fixed point: 2^20 * 2^15 * 2^12 terms < 2^53


class FixedPoint(NamedTuple):
    """A layer's weight (out, in, rows, cols) and bias (out,), whole numbers in float64."""

    weight: Tensor
    bias: Tensor


def fixed_point(layer: nn.Conv2d) -> FixedPoint:
    """A layer in units of 2^-12 (weight) and 2^-22 (bias).

    Raises:
        ValueError: a weight of 8 or more in absolute value, which the fixed point cannot hold.
    """
    weight = torch.round(layer.weight.detach().double() * 2**WEIGHT_BITS)
    if not bool((weight.abs() < 2 ** (WEIGHT_BITS + 3)).all()):
        largest = layer.weight.abs().max().item()
        raise ValueError(f"a weight of an exact layer is {largest:g}; the exact path holds values below 8")
    return FixedPoint(
        weight, torch.round(layer.bias.detach().double() * 2 ** (WEIGHT_BITS + ACTIVATION_BITS))
    )


class ExactNetwork(nn.Module):
    """A network that is evaluated in floats while it is trained, and in fixed point where files are coded.

    The fixed-point copies of its layers are made when they are first needed and kept until the weights may
    have changed: they are dropped on entering train mode, on loading, on moving to a device and by
    ``refresh``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._copies: dict[nn.Conv2d, FixedPoint] = {}

    def exact_weights(self, layer: nn.Conv2d) -> FixedPoint:
        """The fixed-point copy of one of its layers. Errors as for ``fixed_point``."""
        if layer not in self._copies:
            self._copies[layer] = fixed_point(layer)
        return self._copies[layer]

    def refresh(self) -> None:
        """Drop the copies: call it after changing weights in place."""
        self._copies = {}

    def train(self, mode: bool = True) -> ExactNetwork:
        """As in torch; train mode drops the copies."""
        if mode:
            self.refresh()
        return super().train(mode)

    def _apply(self, fn: Callable, recurse: bool = True) -> ExactNetwork:
        self.refresh()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *arguments: object) -> None:
        self.refresh()
        super()._load_from_state_dict(*arguments)

    def __deepcopy__(self, memo: dict) -> ExactNetwork:
        self.refresh()  # a copied network has layers of its own
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin


def to_fixed_point(x: Tensor) -> Tensor:
    """Activations in units of 2^-10, rounded down and limited: the input of the exact layers."""
    return x.double().mul_(2**ACTIVATION_BITS).floor_().clamp_(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)


def exact_conv(h: Tensor, numbers: FixedPoint) -> Tensor:
    """A 'same' convolution of stride 1.

    Args:
        h: (B, C, rows, cols) whole numbers up to 2^20, in units of 2^-10. numbers: of a layer with a square
            kernel of odd side.

    Returns:
        (B, out, rows, cols), likewise.
    """
    rows, cols = h.shape[-2:]
    side = numbers.weight.shape[-1]
    padded = F.pad(h, (side // 2,) * 4).permute(0, 2, 3, 1)  # (B, rows + side - 1, cols + side - 1, C)
    taps = product(range(side), range(side))
    windows = (padded[:, i : i + rows, j : j + cols].flatten(1, 2) for i, j in taps)  # (B, rows cols, C) each
    return exact_sum(windows, numbers).mT.unflatten(2, (rows, cols))


def exact_sum(windows: Iterable[Tensor], numbers: FixedPoint) -> Tensor:
    """What a convolution adds up, one matrix product for each tap of its kernel: no sum can round.

    Args:
        windows: for each tap, row by row, what it lies on: (B, n, C) whole numbers up to 2^20, in units of
            2^-10.
        numbers: of a plain convolution, or of one with a group for each channel, (C, 1, rows, cols).

    Returns:
        (B, n, out), likewise; larger values are limited to 2^20.
    """
    total = None
    for window, taps in zip(windows, numbers.weight.flatten(2).unbind(2), strict=True):
        if total is None:
            total = numbers.bias.expand(*window.shape[:2], -1).clone()
        if numbers.weight.shape[1] == 1:
            total.addcmul_(taps.squeeze(1), window)
        else:
            total.baddbmm_(window, taps.mT.expand(len(window), -1, -1))
    rounded = total.div_(2**WEIGHT_BITS).add_(0.5).floor_()
    return rounded.clamp_(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)
