"""The latents of a batch of pictures on the encoder's side, and what a codec accepts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dhp_lab.codec.networks.context import Gaussian

if TYPE_CHECKING:
    from dhp_lab.core.compressai_imports import EntropyBottleneck


@dataclass(frozen=True)
class Latents:
    """A batch of pictures as the encoder sees it; see the table in ``hyperprior``.

    Attributes:
        first: mean and log2(scale) that h_s predicts. mean, log2_scale: those that latents are coded with.
        symbols, z_symbols: whole numbers (with a straight-through gradient in training).
        std: (M,) the channels' spread in latent units. z_likelihood: of z's symbols.
    """

    y: Tensor
    z: Tensor
    z_symbols: Tensor
    symbols: Tensor
    first: Gaussian
    mean: Tensor
    log2_scale: Tensor
    log2_delta: Tensor
    std: Tensor
    z_likelihood: Tensor

    @property
    def steps(self) -> Tensor:
        """y/Delta: the latents in quantiser steps."""
        return in_steps(self.y, self.log2_delta)

    @cached_property
    def residual(self) -> Tensor:
        """y/Delta - mean, as y."""
        return self.steps - self.mean

    @property
    def scale(self) -> Tensor:
        """The standard deviation that each latent is coded with, in quantiser steps."""
        return scale_from_log2(self.log2_scale)


def scale_from_log2(log2_scale: Tensor) -> Tensor:
    """2^log2_scale, kept within 2^-20 .. 2^20."""
    return log2_scale.clamp(-20, 20).exp2()


def in_steps(y: Tensor, log2_delta: Tensor) -> Tensor:
    """y / Delta: latents (B, M, h, w) in quantiser steps, for log2_delta (B,)."""
    return y / log2_delta.exp2().view(-1, 1, 1, 1)


def probability(
    bottleneck: EntropyBottleneck, z: Tensor, noise: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """The probability of each z (B, N, h, w): rounded, or in train mode with noise in the place of rounding.

    Args:
        noise: makes uniform noise in [-1/2, 1/2] in the shape of z, for training (Ballé et al. 2018, eq. 6);
            None draws it from torch's own generator, as CompressAI does.
    """
    if noise is None or not bottleneck.training:
        return bottleneck(z)[1]
    values = (z + noise(z)).transpose(0, 1)  # (N, B, h, w)
    likelihood = bottleneck._likelihood(values.reshape(len(values), 1, -1))[0]
    return bottleneck.likelihood_lower_bound(likelihood).reshape(values.shape).transpose(0, 1)


def check_pictures(x: Tensor) -> None:
    """Pass pictures that a codec can take.

    Raises:
        ValueError: another type or shape, or pixels that are no finite numbers.
    """
    if x.dtype != torch.float32 or x.ndim != 4 or len(x) == 0 or x.shape[1] != 3 or min(x.shape[-2:]) < 16:
        raise ValueError(
            f"pictures must be float32 of shape (B, 3, H, W) with H, W >= 16, got {tuple(x.shape)}, {x.dtype}"
        )
    wrong = ~torch.isfinite(x)
    if bool(wrong.any()):
        places = wrong.nonzero()
        b, c, row, column = places[0].tolist()
        raise ValueError(
            f"pictures must hold finite numbers, {len(places)} of {x.numel()} are not: the first is "
            f"{x[b, c, row, column].item()} in picture {b}, channel {c}, row {row}, column {column}"
        )


def check_sampling(steps: int, gamma: float) -> None:
    """Pass numbers of steps and weights that a decoder can take.

    Raises:
        ValueError: one out of range.
    """
    if not 0 <= steps <= 1000:
        raise ValueError(f"steps must lie in 0 .. 1000, got {steps}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma}")
