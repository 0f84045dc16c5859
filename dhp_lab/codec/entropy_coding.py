"""A model's latents as byte strings, and back: [y, z, side], each a list with a string for each picture.

z      symbols of z in the order of their memory, with the factorised prior's tables
y      symbols of y pass by pass (``context``), within a pass in the order of their memory; silent ones are left out
side   lambda code, CRC32 of z's symbols, CRC32 of y's symbols: 10 bytes, big-endian
"""

from __future__ import annotations

import math
import struct

import torch
from torch import Tensor

from dhp_lab.codec.bits.bitstream import BitstreamError
from dhp_lab.codec.bits.lambdas import CODE_MAX, CODE_MIN, FRACTION_BITS
from dhp_lab.codec.bits.rans import RansDecoder, check_symbols, rans_encode, symbol_crc, rans_decode
from dhp_lab.codec.bits.scales import scale_indexes
from dhp_lab.codec.denoising.decoder_state import DecoderState
from dhp_lab.codec.hyperprior import Hyperprior, Latents
from dhp_lab.codec.networks.context import LatentGroup, coding_order
from dhp_lab.codec.networks.hyper_transforms import HYPER

SIDE = struct.Struct(">HII")


def encode_latents(model: Hyperprior, latents: Latents, code: int) -> list[list[bytes]]:
    """The entropy coder: ``latents`` as ``model.encode`` makes them for this lambda code -> [y, z, side]."""
    order, strings = coding_order(model.passes.count, *latents.y.shape[1:]), [[], [], []]
    for i in range(len(latents.y)):
        z_symbols, y = (
            latents.z_symbols[i].int(),
            [whole[i : i + 1].cpu() for whole in (latents.symbols, latents.log2_scale)],
        )
        sent = [(part.take(y[0]).mT, *_sent(part.take(y[1]))) for part in order]
        symbols = torch.cat([symbols[at].int() for symbols, at, _ in sent])
        indexes = torch.cat([indexes for _, _, indexes in sent])
        strings[0].append(rans_encode(symbols, indexes, model.gaussian_conditional) if model.sends_y else b"")
        strings[1].append(
            rans_encode(z_symbols.flatten(), _channel_rows(z_symbols.shape), model.entropy_bottleneck)
        )
        strings[2].append(SIDE.pack(code, symbol_crc(z_symbols), symbol_crc(symbols) if model.sends_y else 0))
    return strings


@torch.no_grad()
def decode_latents(model: Hyperprior, strings: list, shape: tuple[int, int]) -> DecoderState:
    """The entropy decoder: byte strings -> what the decoder knows. Arguments and errors as for
    ``model.decompress``.
    """
    parts = [_receive_one(model, *one, shape) for one in zip(*strings, strict=True)]
    fields = ("symbols", "decoded", "mean", "scale", "log2_delta")
    return DecoderState(
        *(torch.cat([getattr(part, name) for part in parts]) for name in fields), parts[0].std
    )


def _receive_one(
    model: Hyperprior, y_bytes: bytes | None, z_bytes: bytes, side: bytes, shape: tuple[int, int]
) -> DecoderState:
    device, size = model.log2_spread.device, tuple(math.ceil(length / model.block) for length in shape)
    z_shape = (model.N, *(math.ceil(length / HYPER) for length in size))
    code, z_crc, y_crc = _read_side(side)
    z_symbols = rans_decode(z_bytes, _channel_rows(z_shape), model.entropy_bottleneck).view(1, *z_shape)
    check_symbols("z", z_symbols, z_crc)
    first = model.predict(z_symbols.to(device), [code], size)
    log2_delta = torch.tensor(
        [model.gain.fixed_point(code) / 2**FRACTION_BITS], dtype=torch.float32, device=device
    )
    if model.sends_y and y_bytes is not None:
        reader = _Reader(model, y_bytes, first[0].numel())
        mean, log2_scale, symbols = model.passes.run_passes(*first, log2_delta, reader.symbols_at, exact=True)
        if not y_bytes and reader.read:
            missing = sum(map(len, reader.read))
            raise BitstreamError(
                f"y has 0 bytes where {missing} symbols are missing: fetch the file again, or see a preview of z alone"
            )
        found = torch.cat(reader.read) if reader.read else torch.zeros(0, dtype=torch.int32)
        check_symbols("y", found, y_crc)
        return model.make_decoder_state(symbols, 1.0, mean, log2_scale, log2_delta)
    return model.make_decoder_state(torch.zeros_like(first[0]), 0.0, *first, log2_delta)


class _Reader:
    """Takes the symbols of y from their string, pass by pass."""

    def __init__(self, model: Hyperprior, y_bytes: bytes, most: int) -> None:
        self.unpacker = RansDecoder(y_bytes, most, model.gaussian_conditional)
        self.read: list[Tensor] = []

    def symbols_at(self, part: LatentGroup, mean: Tensor, log2_scale: Tensor) -> Tensor:
        symbols = torch.zeros(log2_scale.mT.shape)  # (1, C, n)
        at, indexes = _sent(log2_scale.cpu())
        if len(indexes):
            self.read.append(self.unpacker.take(indexes))
            symbols[at] = self.read[-1].float()
        return symbols.mT.to(mean.device)


def _channel_rows(shape: tuple[int, int, int]) -> Tensor:
    return torch.arange(shape[0], dtype=torch.int32).repeat_interleave(shape[1] * shape[2])


def _sent(log2_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Of a pass's scales (1, n, C): where the entropy coder says something, bool (1, C, n), and rows of its
    table there.
    """
    indexes = scale_indexes(log2_scale).mT.contiguous()
    return indexes > 0, indexes[indexes > 0]


def _read_side(side: bytes) -> tuple[int, int, int]:
    if len(side) != SIDE.size:
        raise BitstreamError(
            f"the side information holds {len(side)} bytes, not {SIDE.size}; the stream is damaged"
        )
    code, z_crc, y_crc = SIDE.unpack(side)
    if not CODE_MIN <= code <= CODE_MAX:
        raise BitstreamError(
            f"the lambda code is {code}, not in {CODE_MIN} .. {CODE_MAX}; the stream is damaged"
        )
    return code, z_crc, y_crc
