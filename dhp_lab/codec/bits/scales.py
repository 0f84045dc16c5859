"""The scales of the probability tables: log2 in exact fixed point, table rows, and the width of dead-zone
bins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dhp_lab.codec.bits.lambdas import FRACTION_BITS

LOG2_SCALE_MIN = -3  # the smallest scale of the table, 1/8 of a quantiser step
PER_OCTAVE = 8
LEVELS = 9 * PER_OCTAVE + 1  # 1/8 .. 64 quantiser steps; symbols far outside are escaped
LOG2_SCALES = LOG2_SCALE_MIN, LOG2_SCALE_MIN + (LEVELS - 1) / PER_OCTAVE  # of the smallest and the largest
SCALES = [2.0 ** (LOG2_SCALE_MIN + i / PER_OCTAVE) for i in range(LEVELS)]


def log2_scale_in_steps(log2_scale: Tensor, log2_spread: Tensor, log2_delta: int) -> Tensor:
    """log2 of the scales in quantiser steps, exact on every device.

    Args:
        log2_scale: (B, M, h, w) float64 from ``HyperSynthesis.exact``, whole multiples of 2^-10.
        log2_spread: (M,) log2 of the channels' spread.
        log2_delta: log2 of the quantiser step, in units of 2^-16.

    Returns:
        (B, M, h, w) float64, whole multiples of 2^-16.
    """
    unit = 2**FRACTION_BITS
    spread = torch.round(log2_spread.detach().double() * unit).view(-1, 1, 1)
    return log2_scale + (spread - log2_delta) / unit


def bin_width(scale: Tensor, dead_zone: float) -> Tensor:
    r"""Width of the symbols' bins in quantiser steps, 1 .. 1 + dead_zone: q = round(residual / width).

    A symbol one smaller saves about (2|q| - 1) / (2 ln 2 (scale^2 + 1/12)) bits, the logarithm of a Gaussian
    smoothed by a bin, and costs Delta^2/3 (2 (|residual| - |q|) + 1) of MSE * pixels; with Delta^2 = 26
    lambda (``networks.gain``) both are worth the same where |residual| = (|q| - 1/2) (1 + 1 / (1 + 12
    scale^2)). That is dead_zone = 1, where a decoder would not notice; the value used is smaller (cf.
    Sullivan 1996, "Efficient scalar quantization of exponential and Laplacian random variables").

    Args:
        scale: of the symbols, any shape, in quantiser steps. dead_zone: 0 (plain rounding) .. 1.
    """
    return 1 + dead_zone / (1 + 12 * scale.square())


def scale_indexes(log2_scale: Tensor) -> Tensor:
    """Rows of the probability table for scales of 2^log2_scale steps, int32 in 0 .. LEVELS - 1; nearest, ties
    go up.
    """
    nearest = torch.floor((log2_scale.detach().double() - LOG2_SCALE_MIN) * PER_OCTAVE + 0.5)
    return nearest.clamp(0, LEVELS - 1).int()


def is_coded(log2_scale: Tensor) -> Tensor:
    """Whether symbols with these scales are coded, bool: where ``scale_indexes`` is above 0."""
    return log2_scale.detach() >= LOG2_SCALE_MIN + 0.5 / PER_OCTAVE
