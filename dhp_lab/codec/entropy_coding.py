"""A model's latents as byte strings, and back: [y, z, side], each a list with a string for each picture.

z      symbols of z in the order of their memory, with the factorised prior's tables
y      symbols of y pass by pass (``networks.context``), within a pass channel by channel; those whose
       scale is so small that nothing is coded are left out
side   lambda code, CRC32 of z's symbols, CRC32 of y's symbols: 10 bytes, big-endian
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import torch
from torch import Tensor

from dhp_lab.codec.bits.bitstream import BitstreamError
from dhp_lab.codec.bits.lambdas import CODE_MAX, CODE_MIN, FRACTION_BITS
from dhp_lab.codec.bits.rans import RansDecoder, check_symbols, rans_decode, rans_encode, symbol_crc
from dhp_lab.codec.bits.trellis import values_of_path
from dhp_lab.codec.bits.trellis_decoder import TrellisDecoder
from dhp_lab.codec.denoising.decoder_state import DecoderState
from dhp_lab.codec.hyperprior import Hyperprior
from dhp_lab.codec.latents import Latents
from dhp_lab.codec.networks.context import Gaussian, coding_order
from dhp_lab.codec.networks.hyper_transforms import HYPER
from dhp_lab.codec.trellis_latents import coded_indexes, place_values, trellis_path
from dhp_lab.core.precision import float32_by_default

SIDE = struct.Struct(">HII")


class Side(NamedTuple):
    """The side string of one picture: lambda code, CRC32 of z's symbols, CRC32 of y's symbols (0 where not
    sent).
    """

    code: int
    z_crc: int
    y_crc: int


@float32_by_default()
def encode_latents(model: Hyperprior, latents: Latents, code: int) -> list[list[bytes]]:
    """The entropy coder.

    Args:
        latents: as ``model.encode`` makes them for this lambda code.

    Returns:
        [y, z, side], a string of each for each picture.
    """
    pictures = [_encode_one(model, latents, i, code) for i in range(len(latents.y))]
    return [list(strings) for strings in zip(*pictures, strict=True)]


def _encode_one(model: Hyperprior, latents: Latents, i: int, code: int) -> tuple[bytes, bytes, bytes]:
    z_symbols = latents.z_symbols[i].int()
    z = rans_encode(z_symbols.flatten(), _channel_rows(z_symbols.shape), model.tables.z)
    if not model.sends_y:
        return b"", z, SIDE.pack(code, symbol_crc(z_symbols), 0)
    symbols, indexes = _in_coding_order(model, latents.symbols[i : i + 1], latents.log2_scale[i : i + 1])
    y = rans_encode(symbols, indexes, model.tables.y)
    return y, z, SIDE.pack(code, symbol_crc(z_symbols), symbol_crc(symbols))


def _in_coding_order(model: Hyperprior, symbols: Tensor, log2_scale: Tensor) -> tuple[Tensor, Tensor]:
    """The symbols (n,) of one picture that are coded, or their levels, pass by pass, and the rows of the
    tables for them.
    """
    symbols, log2_scale = symbols.cpu(), log2_scale.cpu()
    found, rows = [], []
    for group in coding_order(model.context.count, *symbols.shape[1:]):
        coded, indexes = coded_indexes(group.gather(log2_scale))
        if model.trellis:
            path = trellis_path(group.gather(symbols), coded)
            found.append(torch.from_numpy(path.levels))
            rows.append(path.rows(indexes))
        else:
            found.append(group.gather(symbols).mT[coded].int())
            rows.append(indexes)
    return torch.cat(found), torch.cat(rows)


@torch.no_grad()
@float32_by_default()
def decode_latents(model: Hyperprior, strings: list, shape: tuple[int, int]) -> DecoderState:
    """The entropy decoder: byte strings to what the decoder holds. Arguments and errors as for
    ``model.decompress``.
    """
    states = [_decode_one(model, *picture, shape) for picture in zip(*strings, strict=True)]
    fields = ("symbols", "decoded", "mean", "scale", "log2_delta")
    batch = (torch.cat([getattr(one, name) for one in states]) for name in fields)
    return DecoderState(*batch, states[0].std, model.trellis)


def _decode_one(
    model: Hyperprior, y_bytes: bytes | None, z_bytes: bytes, side_bytes: bytes, shape: tuple[int, int]
) -> DecoderState:
    device, side = model.log2_spread.device, _read_side(side_bytes)
    size = tuple(math.ceil(length / model.block) for length in shape)
    z_shape = (model.N, *(math.ceil(length / HYPER) for length in size))
    z_symbols = rans_decode(z_bytes, _channel_rows(z_shape), model.tables.z).view(1, *z_shape)
    check_symbols("z", z_symbols, side.z_crc)
    first = model.predict(z_symbols.to(device), [side.code], size)
    log2_delta = torch.tensor([model.gain.fixed_point(side.code) / 2**FRACTION_BITS], device=device)
    if not model.sends_y or y_bytes is None:
        return model.make_decoder_state(torch.zeros_like(first.mean), first, log2_delta, decoded=False)
    symbols, coded_with = _decode_y(model, y_bytes, first, log2_delta, side.y_crc)
    return model.make_decoder_state(symbols, coded_with, log2_delta, decoded=True)


def _decoder(model: Hyperprior, y_bytes: bytes, most: int) -> RansDecoder | TrellisDecoder:
    """What reads y's symbols or levels, of which there are at most ``most``."""
    if model.trellis:
        return TrellisDecoder(y_bytes, model.tables.y_arrays)
    return RansDecoder(y_bytes, most, model.tables.y)


def _decode_y(
    model: Hyperprior, y_bytes: bytes, first: Gaussian, log2_delta: Tensor, crc: int
) -> tuple[Tensor, Gaussian]:
    """Symbols of y (1, M, h, w), and the mean and scale that they were coded with."""
    decoder = _decoder(model, y_bytes, first.mean.numel())
    mean, log2_scale, symbols = (
        torch.empty_like(first.mean, memory_format=torch.channels_last) for _ in range(3)
    )
    nothing = torch.zeros(0, dtype=torch.int32)
    seen, read = model.context.nothing_seen(first), [nothing]
    for group in model.context.groups(first):
        gaussian, shift = model.context.predict(group, first, seen, log2_delta, exact=True)
        coded, indexes = coded_indexes(gaussian.log2_scale)
        read.append(decoder.decode(indexes) if len(indexes) else nothing)
        levels = read[-1].numpy()
        values = place_values(values_of_path(levels) if model.trellis else levels, coded, first.mean)
        model.context.observe(group, first, seen, values, shift)
        group.scatter_all((mean, log2_scale, symbols), (*gaussian, values))
    found = torch.cat(read)
    if len(found) and not y_bytes:
        raise BitstreamError(
            f"y has 0 bytes where {len(found)} symbols are missing: fetch the file again, "
            "or see a preview of z alone"
        )
    check_symbols("y", found, crc)
    return symbols, Gaussian(mean, log2_scale)


def _channel_rows(shape: tuple[int, int, int]) -> Tensor:
    """Rows of z's tables for symbols (N, h, w) in the order of their memory: a row for each channel."""
    return torch.arange(shape[0], dtype=torch.int32).repeat_interleave(shape[1] * shape[2])


def _read_side(data: bytes) -> Side:
    if len(data) != SIDE.size:
        raise BitstreamError(
            f"the side string holds {len(data)} bytes, not {SIDE.size}; the stream is damaged"
        )
    side = Side(*SIDE.unpack(data))
    if not CODE_MIN <= side.code <= CODE_MAX:
        raise BitstreamError(
            f"the lambda code is {side.code}, not in {CODE_MIN} .. {CODE_MAX}; the stream is damaged"
        )
    return side
