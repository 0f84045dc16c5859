r"""Lesson 10, what may stand between the transforms and the coder: a lambda for each block, or a frame that
is known already.

    x --g_a--> y --before--> coder ... bytes ... decoder --after--> y_hat --g_s--> x_hat

The entropy coder sees whole numbers only, and ``before`` and ``after`` lie outside of it: they need not be
exact.

| what              | before                    | after                     | sent as well              |
|-------------------|---------------------------|---------------------------|---------------------------|
| a map of lambdas  | y times gain, block-wise  | y_hat over gain           | a small number a block    |
| a known frame     | y minus g_a(frame)        | y_hat plus g_a(frame)     | the motion, two bytes     |
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.lambdas import LAMBDA_MAX, LAMBDA_MIN, lambda_code, lambda_of
from dhp_lab.codec.bits.rans import rans_encode, rans_decode
from dhp_lab.codec.bits.scales import scale_indexes
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.hyper_transforms import HYPER
from dhp_lab.codec.networks.lapped import BLOCK

MAP_BLOCK = HYPER * BLOCK  # 64 pixels: the block of one hyper-latent
EDGE = 64  # pixels that a shifted frame may lack on a side

Change = Callable[[Tensor, Tensor], Tensor]


def with_latent_hooks(model: DiffusionHyperprior, before: Change, after: Change) -> DiffusionHyperprior:
    """The same codec with something done to its latents: before(y, log2_delta) when coding, after(y_hat,
    log2_delta) when decoding.
    """
    changed = copy.copy(model)  # the same weights
    changed.analyse = lambda x, log2_delta: before(model.analyse(x, log2_delta), log2_delta)
    changed.synthesise = lambda y_hat, log2_delta, size: model.synthesise(
        after(y_hat, log2_delta), log2_delta, size
    )
    return changed


# a lambda for each block
def blocks(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a map for a picture of this size in pixels."""
    return math.ceil(size[0] / MAP_BLOCK), math.ceil(size[1] / MAP_BLOCK)


def over_pixels(values: Tensor, size: tuple[int, int]) -> Tensor:
    """A number a block -> a number a pixel, (H, W)."""
    return values.repeat_interleave(MAP_BLOCK, 0).repeat_interleave(MAP_BLOCK, 1)[: size[0], : size[1]]


def block_gains(
    model: DiffusionHyperprior, lambda_rate: float, octaves: Tensor, size: tuple[int, int]
) -> Tensor:
    """What the latents are multiplied by where a block has a lambda of its own: the picture's step over the
    block's.

    Args:
        octaves: (rows, cols) whole numbers, log2 of lambda over the block's lambda: 1 halves it. size: of the
            picture in pixels.

    Returns:
        (1, 1, h, w) for latents (1, M, h, w).
    """
    lambdas = (lambda_rate * 2.0 ** -octaves.double()).clamp(LAMBDA_MIN, LAMBDA_MAX)
    gains = (
        lambdas.clone().apply_(lambda value: model.step_size(lambda_rate) / model.step_size(value)).float()
    )
    rows, cols = (math.ceil(length / BLOCK) for length in size)
    return (
        gains.repeat_interleave(HYPER, 0)
        .repeat_interleave(HYPER, 1)[None, None, :rows, :cols]
        .to(model.log2_spread.device)
    )


def with_map(
    model: DiffusionHyperprior, lambda_rate: float, octaves: Tensor, size: tuple[int, int]
) -> DiffusionHyperprior:
    """The codec with a lambda for each block; arguments as for ``block_gains``."""
    gains = block_gains(model, lambda_rate, octaves, size)
    return with_latent_hooks(model, lambda y, _: y * gains, lambda y_hat, _: y_hat / gains)


def pack_map(model: DiffusionHyperprior, octaves: Tensor) -> bytes:
    """A map's whole numbers as bytes, coded as a Gaussian of scale 1 around 0."""
    numbers = F.pad(
        octaves.flatten().int(), (0, 2)
    )  # the coder's buffer is too small for a single number; nobody reads these
    return rans_encode(numbers, _plain_rows(len(numbers)), model.gaussian_conditional)


def unpack_map(model: DiffusionHyperprior, data: bytes, shape: tuple[int, int]) -> Tensor:
    """The way back: (rows, cols) int32. Damage gives other numbers: nothing here checks for it."""
    return rans_decode(data, _plain_rows(shape[0] * shape[1]), model.gaussian_conditional).view(shape)


def _plain_rows(count: int) -> Tensor:
    return scale_indexes(torch.zeros(count))


def encode_with_map(
    model: DiffusionHyperprior, x: Tensor, lambda_rate: float, octaves: Tensor
) -> tuple[bytes, bytes]:
    """A picture (1, 3, H, W) -> a .dhp file and the bytes of its map; both are needed to decode it."""
    size = tuple(x.shape[-2:])
    coded = with_map(model, lambda_of(lambda_code(lambda_rate)), octaves, size).compress(x, lambda_rate)
    return bitstream.write(coded["strings"], coded["shape"], **model.file_fields), pack_map(model, octaves)


def decode_with_map(model: DiffusionHyperprior, data: bytes, map_data: bytes, *, steps: int = 1) -> Tensor:
    """The picture (1, 3, H, W) from both."""
    file = bitstream.read(data)
    octaves = unpack_map(model, map_data, blocks(file.shape))
    codec = with_map(model, file.lambda_rate, octaves, file.shape)
    return codec.decompress(file.strings, file.shape, steps=steps)["x_hat"]


def encode_within(model: DiffusionHyperprior, x: Tensor, n_bytes: int) -> bytes:
    """The .dhp file with one lambda for all blocks that comes nearest to n_bytes without exceeding them; else
    the smallest.
    """
    low, high = lambda_code(1e-5), lambda_code(LAMBDA_MAX)  # larger codes: smaller files
    best = None
    while low <= high:
        code = (low + high) // 2
        coded = model.compress(x, lambda_of(code))
        data = bitstream.write(coded["strings"], coded["shape"], **model.file_fields)
        if len(data) <= n_bytes:
            best, high = data, code - 64  # 1/32 of an octave is close enough
        else:
            low = code + 64
            best = best if best is not None and len(best) <= n_bytes else data
    return best


def smoothness_rank(x: Tensor) -> Tensor:
    """(rows, cols) from -1 (the busiest block of a picture) to 1 (the calmest): the rank of its mean
    gradient.
    """
    luma = x.mean(1)[0].cpu()
    change = F.pad(luma.diff(dim=0).abs(), (0, 0, 0, 1)) + F.pad(luma.diff(dim=1).abs(), (0, 1))
    rows, cols = blocks(tuple(luma.shape))
    means = [[part.mean().item() for part in band.split(MAP_BLOCK, 1)] for band in change.split(MAP_BLOCK, 0)]
    ranks = np.argsort(np.argsort(-np.array(means), axis=None, kind="stable"), kind="stable").reshape(
        rows, cols
    )
    return torch.from_numpy(2 * ranks / max(1, rows * cols - 1) - 1).float()


def middle(x: Tensor) -> Tensor:
    """(rows, cols) with 1 in the middle of a picture and 0 in the blocks along its edges."""
    rows, cols = blocks(tuple(x.shape[-2:]))
    inside = torch.zeros(rows, cols)
    inside[rows // 4 : rows - rows // 4, cols // 4 : cols - cols // 4] = 1
    return inside


def region_psnr(x_hat: Tensor, x: Tensor, region: Tensor) -> float:
    """PSNR in dB over the pixels (H, W) of a region."""
    error = (x_hat - x).square().mean(1)[0]
    return -10 * math.log10(error[region.to(error.device)].mean().item())


# a known frame
def shifted(frame: Tensor, down: int, right: int) -> Tensor:
    """A frame whose content was ``down`` rows lower and ``right`` columns further right, up to 64; its edge
    is repeated.
    """
    rows, cols = frame.shape[-2:]
    wide = F.pad(frame, (EDGE,) * 4, mode="replicate")
    return wide[..., EDGE + down : EDGE + down + rows, EDGE + right : EDGE + right + cols]


def conditioned_on(model: DiffusionHyperprior, context: Tensor, share: float = 1.0) -> DiffusionHyperprior:
    """The codec for a frame of which encoder and decoder expect that it looks like ``context``, (1, 3, H, W).

    share: how much of the context's latents is taken off, 0 (none: the plain codec) .. 1.
    """
    expected = partial(model.analyse, context)
    return with_latent_hooks(
        model, lambda y, d: y - share * expected(d), lambda y_hat, d: y_hat + share * expected(d)
    )
