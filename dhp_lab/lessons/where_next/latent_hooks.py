r"""Hooks between the transforms and the coder: a lambda for each block, or conditional coding.

    x --g_a--> y --before--> coder ... bytes ... decoder --after--> y_hat --g_s--> x_hat

The entropy coder sees whole numbers only, and ``before`` and ``after`` lie outside of it: they need not be
exact.

| what                | before                    | after                     | side information         |
|---------------------|---------------------------|---------------------------|--------------------------|
| a map of lambdas    | y times gain, block-wise  | y_hat over gain           | a small number a block   |
| conditional coding  | y minus g_a(context)      | y_hat plus g_a(context)   | the motion, two bytes    |

Maps hold octaves, log2(lambda of the picture / lambda of the block): 1 halves a block's lambda.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.lambdas import LAMBDA_MAX, LAMBDA_MIN, lambda_code, lambda_of
from dhp_lab.codec.bits.rans import rans_decode, rans_encode
from dhp_lab.codec.bits.scales import scale_indexes
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.hyper_transforms import HYPER
from dhp_lab.codec.networks.lapped import BLOCK

MAP_BLOCK = HYPER * BLOCK  # 64 pixels: the block of one hyper-latent
EDGE = 64  # pixels that a shifted frame may lack on a side

Hook = Callable[[Tensor, Tensor], Tensor]


def with_latent_hooks(model: DiffusionHyperprior, before: Hook, after: Hook) -> DiffusionHyperprior:
    """The same codec, the same weights, with its latents changed on their way to and from the coder.

    Args:
        before: (y, log2_delta) -> the latents to code. after: (y_hat, log2_delta) -> the latents for g_s.
            Latents are (B, M, h, w), log2_delta (B,).
    """

    def analyse(x: Tensor, log2_delta: Tensor) -> Tensor:
        return before(model.analyse(x, log2_delta), log2_delta)

    def synthesise(y_hat: Tensor, log2_delta: Tensor, size: tuple[int, int]) -> Tensor:
        return model.synthesise(after(y_hat, log2_delta), log2_delta, size)

    hooked = copy.copy(model)
    hooked.analyse = analyse
    hooked.synthesise = synthesise
    return hooked


# a lambda for each block


def map_shape(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a map for a picture of ``size`` (H, W) pixels."""
    return math.ceil(size[0] / MAP_BLOCK), math.ceil(size[1] / MAP_BLOCK)


def over_pixels(values: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (rows, cols) -> a number for each pixel, (H, W)."""
    return values.repeat_interleave(MAP_BLOCK, 0).repeat_interleave(MAP_BLOCK, 1)[: size[0], : size[1]]


def block_gains(
    model: DiffusionHyperprior, lambda_rate: float, octaves: Tensor, size: tuple[int, int]
) -> Tensor:
    """What the latents are multiplied by where a block has a lambda of its own: the picture's step over the
    block's.

    Args:
        lambda_rate: of the picture, 1e-6 .. 1e-1; a block's lambda is kept in this range.
        octaves: (rows, cols) whole numbers.
        size: (H, W) of the picture in pixels.

    Returns:
        (1, 1, h, w) for latents (1, M, h, w).
    """
    lambdas = (lambda_rate * 2.0 ** -octaves.double()).clamp(LAMBDA_MIN, LAMBDA_MAX)
    steps = [[model.step_size(value) for value in row] for row in lambdas.tolist()]
    gains = (model.step_size(lambda_rate) / torch.tensor(steps, dtype=torch.float64)).float()
    rows, cols = (math.ceil(length / BLOCK) for length in size)
    gains = gains.repeat_interleave(HYPER, 0).repeat_interleave(HYPER, 1)[:rows, :cols]  # (h, w)
    return gains[None, None].to(model.log2_spread.device)


def with_map(
    model: DiffusionHyperprior, lambda_rate: float, octaves: Tensor, size: tuple[int, int]
) -> DiffusionHyperprior:
    """The codec with a lambda for each block. Arguments as for ``block_gains``."""
    gains = block_gains(model, lambda_rate, octaves, size)
    return with_latent_hooks(model, lambda y, _: y * gains, lambda y_hat, _: y_hat / gains)


def encode_map(model: DiffusionHyperprior, octaves: Tensor) -> bytes:
    """A map's whole numbers as bytes, coded as a Gaussian of scale 1 around 0."""
    symbols = octaves.flatten().int()
    return rans_encode(symbols, _unit_scale_rows(len(symbols)), model.tables.y)


def decode_map(model: DiffusionHyperprior, data: bytes, shape: tuple[int, int]) -> Tensor:
    """The inverse of ``encode_map``: (rows, cols) int32. Damage gives other numbers: there is no CRC."""
    return rans_decode(data, _unit_scale_rows(shape[0] * shape[1]), model.tables.y).view(shape)


def _unit_scale_rows(count: int) -> Tensor:
    """(count,) the row of the coder's tables whose scale is 1."""
    return scale_indexes(torch.zeros(count))


def encode_with_map(
    model: DiffusionHyperprior, x: Tensor, lambda_rate: float, octaves: Tensor
) -> tuple[bytes, bytes]:
    """Encode a picture with a lambda for each block.

    Args:
        x: (1, 3, H, W) in [0, 1].
        lambda_rate, octaves: as for ``block_gains``.

    Returns:
        A .dhp file, and the bytes of its map; both are needed to decode it.
    """
    stored_lambda = lambda_of(lambda_code(lambda_rate))  # what the decoder reads in the file
    codec = with_map(model, stored_lambda, octaves, tuple(x.shape[-2:]))
    return dhp_file.encode(codec, x, lambda_rate=lambda_rate), encode_map(model, octaves)


def decode_with_map(model: DiffusionHyperprior, data: bytes, map_data: bytes, *, steps: int = 1) -> Tensor:
    """The picture (1, 3, H, W) from what ``encode_with_map`` wrote; steps: K of the decoder.

    Raises:
        BitstreamError: a file that is damaged or another model's.
    """
    file = bitstream.read(data)
    octaves = decode_map(model, map_data, map_shape(file.shape))
    codec = with_map(model, file.lambda_rate, octaves, file.shape)
    return dhp_file.decode(codec, file, steps=steps)


def smoothness_rank(x: Tensor) -> Tensor:
    """The rank of each block's mean absolute gradient, as a map for ``block_gains``.

    Args:
        x: (1, 3, H, W).

    Returns:
        (rows, cols) from -1, the block of largest gradient, to 1, the smoothest.
    """
    luma = x.mean(1)[0].cpu()
    down = F.pad(luma.diff(dim=0).abs(), (0, 0, 0, 1))
    right = F.pad(luma.diff(dim=1).abs(), (0, 1))
    change = down + right  # (H, W)
    bands = change.split(MAP_BLOCK, 0)
    means = np.array([[block.mean().item() for block in band.split(MAP_BLOCK, 1)] for band in bands])
    order = np.argsort(-means, axis=None, kind="stable")
    ranks = np.argsort(order, kind="stable").reshape(means.shape)  # 0 .. rows cols - 1
    return torch.from_numpy(2 * ranks / max(1, means.size - 1) - 1).float()


def middle(x: Tensor) -> Tensor:
    """(rows, cols) with 1 in the middle of a picture (1, 3, H, W) and 0 in the blocks along its edges."""
    rows, cols = map_shape(tuple(x.shape[-2:]))
    inside = torch.zeros(rows, cols)
    inside[rows // 4 : rows - rows // 4, cols // 4 : cols - cols // 4] = 1
    return inside


def region_psnr(x_hat: Tensor, x: Tensor, region: Tensor) -> float:
    """PSNR in dB of pictures (1, 3, H, W) in [0, 1] over the pixels of a region, boolean (H, W)."""
    error = (x_hat - x).square().mean(1)[0]  # (H, W)
    return -10 * math.log10(error[region.to(error.device)].mean().item())


# conditional coding


def shifted(frame: Tensor, down: int, right: int) -> Tensor:
    """A frame (1, 3, H, W) moved: [y, x] is what was at [y + down, x + right], up to 64 pixels away.

    Beyond its edge the frame's last pixels are repeated.
    """
    rows, cols = frame.shape[-2:]
    wide = F.pad(frame, (EDGE,) * 4, mode="replicate")
    return wide[..., EDGE + down : EDGE + down + rows, EDGE + right : EDGE + right + cols]


def conditioned_on(model: DiffusionHyperprior, context: Tensor, weight: float = 1.0) -> DiffusionHyperprior:
    """The codec of the residual beside a context that encoder and decoder both have.

    Args:
        context: (1, 3, H, W) in [0, 1], a prediction of the frame.
        weight: of its latents, 0 (the plain codec) .. 1.
    """

    def predicted(log2_delta: Tensor) -> Tensor:
        return weight * model.analyse(context, log2_delta)

    return with_latent_hooks(
        model,
        lambda y, log2_delta: y - predicted(log2_delta),
        lambda y_hat, log2_delta: y_hat + predicted(log2_delta),
    )
