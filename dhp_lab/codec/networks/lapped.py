"""The lapped orthogonal transform: the linear part of g_a and g_s (Malvar & Staelin 1989).

Kernels of 32 x 32 pixels at a step of 16, orthonormal: a block transform whose blocks overlap, so that coarse
quantisation leaves no edges between them. Its filters are even or odd, which makes a mirrored border
invertible.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

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
        the coefficient; place (channels, 3) int64: colour axis, and which row of ``lapped_basis`` down and
        across.

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
    tensors = {name: torch.tensor(a, dtype=torch.float32) for name, a in arrays.items()}
    return tensors | {"place": torch.tensor(np.stack([c, u, v], 1))}


def mirror(x: Tensor, pad: int, sign_h: Tensor | float = 1.0, sign_w: Tensor | float = 1.0) -> Tensor:
    """Half-sample symmetric extension by ``pad`` on all four sides, each mirror image times its sign."""
    x = torch.cat([x[..., :pad].flip(-1) * sign_w, x, x[..., -pad:].flip(-1) * sign_w], -1)
    return torch.cat([x[..., :pad, :].flip(-2) * sign_h, x, x[..., -pad:, :].flip(-2) * sign_h], -2)


class LappedTransform(nn.Module):
    """The lapped transform as two fixed matrix products along rows and columns: nothing here is learnt.

    Args:
        channels: M, the colour filters of largest variance that are kept, 1 .. 768. All 768 make it
            orthonormal.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        filters = lapped_filters(channels)
        colour, row, column = filters["place"].unbind(1)
        place = (colour * BLOCK + row) * BLOCK + column
        self.channels = channels
        fixed = {
            "colour": torch.tensor(COLOUR, dtype=torch.float32),
            "basis": torch.tensor(lapped_basis(), dtype=torch.float32),
            "place": place,
            "parity_h": filters["parity_h"].view(-1, 1, 1),
            "parity_w": filters["parity_w"].view(-1, 1, 1),
        }
        for name, tensor in fixed.items():
            self.register_buffer(name, tensor, persistent=False)

    def analyse(self, x: Tensor) -> Tensor:
        """Picture (B, 3, H, W), sides multiples of 16 -> coefficients (B, M, H/16, W/16)."""
        whole = mirror(torch.einsum("cd,bdhw->bchw", self.colour, x), BLOCK // 2)
        lines = self._analyse_lines(whole)  # (B, 3, H + 16, W/16, 16)
        both = self._analyse_lines(lines.permute(0, 1, 3, 4, 2))  # (B, 3, W/16, 16, H/16, 16)
        grid = both.permute(0, 1, 5, 3, 4, 2).flatten(1, 3)  # (B, 768, H/16, W/16)
        return grid.index_select(1, self.place)

    def synthesise(self, y: Tensor) -> Tensor:
        """The inverse of ``analyse`` for M = 768, its transpose for fewer.

        (B, M, h, w) -> (B, 3, 16 h, 16 w).
        """
        signed = mirror(y, 1, self.parity_h, self.parity_w)  # (B, M, h + 2, w + 2)
        grid = signed.new_zeros(len(y), 3 * BLOCK * BLOCK, *signed.shape[-2:])
        grid = grid.index_copy(1, self.place, signed).unflatten(1, (3, BLOCK, BLOCK))
        lines = self._synthesise_lines(grid.permute(0, 1, 3, 5, 4, 2))  # (B, 3, 16, w + 2, 16 (h + 1))
        whole = self._synthesise_lines(lines.permute(0, 1, 4, 3, 2))  # (B, 3, 16 (h + 1), 16 (w + 1))
        half = BLOCK // 2
        picture = whole[..., half:-half, half:-half]
        return torch.einsum("cd,bchw->bdhw", self.colour, picture)

    def _analyse_lines(self, x: Tensor) -> Tensor:
        """Along the last axis: (..., 16 (n + 1)) -> (..., n, 16)."""
        blocks = x.unflatten(-1, (-1, BLOCK))
        first, second = self.basis.T.split(BLOCK)  # (16 pixels, 16 coefficients) each
        return blocks[..., :-1, :] @ first + blocks[..., 1:, :] @ second

    def _synthesise_lines(self, y: Tensor) -> Tensor:
        """(..., n + 2, 16), a mirrored block at either end -> (..., 16 (n + 1))."""
        first, second = self.basis.split(BLOCK, 1)  # (16 coefficients, 16 pixels) each
        return (y[..., 1:, :] @ first + y[..., :-1, :] @ second).flatten(-2)
