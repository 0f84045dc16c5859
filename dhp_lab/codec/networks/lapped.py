"""The lapped orthogonal transform: the straight part of g_a and g_s (Malvar & Staelin 1989).

Kernels of 32 x 32 pixels at a step of 16, orthonormal: a block transform whose blocks overlap, so that coarse
quantisation leaves no edges between them. Its filters are even or odd, which makes a mirrored border
invertible.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

BLOCK = 16  # one latent position for 16 x 16 pixels
COLOUR = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt(
    [[3], [2], [6]]
)  # orthonormal luma and two chromas
COLOUR_VARIANCE = (
    0.19,
    0.0095,
    0.0019,
)  # of photographs in [0, 1] along those axes, and how alike neighbouring pixels
COLOUR_CORRELATION = (
    0.90,
    0.97,
    0.97,
)  # are: chosen so that the first channels hold most energy of training photos


def lapped_basis(size: int = BLOCK, correlation: float = 0.95) -> np.ndarray:
    """The lapped orthogonal transform of an AR(1) signal (Malvar & Staelin 1989, eq. 11), largest variance
    first.

    Returns:
        (size, 2 * size): orthonormal rows, also against rows shifted by ``size``; each is even or odd under
        reversal.
    """
    k, n = np.arange(size)[:, None], np.arange(size)[None]
    dct = np.sqrt(2 / size) * np.cos(np.pi * k * (n + 0.5) / size)
    dct[0] /= math.sqrt(2)
    half = (dct[0::2] - dct[1::2]) / 2
    rows = []
    for start in (np.hstack([half, half[:, ::-1]]), np.hstack([half, -half[:, ::-1]])):  # even rows, odd rows
        rows.append(np.linalg.eigh(start @ _ar1(2 * size, correlation) @ start.T)[1].T @ start)
    basis = np.concatenate(rows)
    return basis[np.argsort(-_variances(basis, correlation), kind="stable")]


def _ar1(size: int, correlation: float) -> np.ndarray:
    return correlation ** np.abs(np.subtract.outer(np.arange(size), np.arange(size)))


def _variances(basis: np.ndarray, correlation: float) -> np.ndarray:
    """Of each coefficient, for a signal of variance 1."""
    return np.einsum("ka,ab,kb->k", basis, _ar1(basis.shape[1], correlation), basis)


def lapped_filters(channels: int) -> dict[str, Tensor]:
    """The ``channels`` colour filters of largest variance.

    Returns:
        weight (channels, 3 * 16 * 16, 2, 2): for a convolution over the picture's 16 x 16 blocks; variance
        (channels,); parity_h, parity_w (channels,): +1 or -1, the sign that a mirror along that axis gives
        the coefficient.

    Raises:
        ValueError: channels outside 1 .. 768.
    """
    if not 1 <= channels <= 3 * BLOCK * BLOCK:
        raise ValueError(
            f"M must lie in 1 .. {3 * BLOCK * BLOCK}, the numbers in a {BLOCK} x {BLOCK} RGB block, "
            f"got {channels}"
        )
    basis = lapped_basis()
    parity = np.sign((basis * basis[:, ::-1]).sum(1))
    lines = [_variances(basis, correlation) for correlation in COLOUR_CORRELATION]
    power = np.stack(
        [v * np.outer(line, line) for v, line in zip(COLOUR_VARIANCE, lines, strict=True)]
    )  # (3, 16, 16)
    best = np.argsort(-np.log(power.ravel()).round(9), kind="stable")[
        :channels
    ]  # ties in one order on every machine
    c, u, v = np.unravel_index(best, power.shape)
    kernel = np.einsum("mc,ma,mb->mcab", COLOUR[c], basis[u], basis[v])  # (M, 3, 32, 32)
    blocks = (
        kernel.reshape(channels, 3, 2, BLOCK, 2, BLOCK)
        .transpose(0, 1, 3, 5, 2, 4)
        .reshape(channels, -1, 2, 2)
    )
    arrays = {"weight": blocks, "variance": power.ravel()[best], "parity_h": parity[u], "parity_w": parity[v]}
    return {name: torch.tensor(a, dtype=torch.float32) for name, a in arrays.items()}


def mirror(x: Tensor, pad: int, sign_h: Tensor | float = 1.0, sign_w: Tensor | float = 1.0) -> Tensor:
    """Half-sample symmetric extension by ``pad`` on all four sides, each mirror image times its sign."""
    x = torch.cat([x[..., :pad].flip(-1) * sign_w, x, x[..., -pad:].flip(-1) * sign_w], -1)
    return torch.cat([x[..., :pad, :].flip(-2) * sign_h, x, x[..., -pad:, :].flip(-2) * sign_h], -2)
