r"""The mean-scale hyperprior that the codec is built on (Minnen et al. 2018), with one set of weights for every rate.

    x --g_a--> y --/Delta--> h_a --> z --entropy bottleneck--> z_hat --h_s--> mean, scale
               |                                                             |
               +---> q = round(y/Delta - mean) ---- Gaussian conditional ----+--> bytes

| paper        | here                            | shape                                              |
|--------------|---------------------------------|----------------------------------------------------|
| y, z         | ``Latents.y``, ``Latents.z``    | (B, M, H/16, W/16), (B, N, H/64, W/64), rounded up |
| Delta        | ``2 ** Latents.log2_delta``     | (B,)                                               |
| q            | ``Latents.symbols``             | as y                                               |
| mu, sigma    | ``Latents.mean``, ``.scale``    | as y, in quantiser steps                           |
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.models import CompressionModel
from torch import Tensor, nn

from dhp_lab.codec.bitstream import BitstreamError
from dhp_lab.codec.denoiser import Known
from dhp_lab.codec.entropy import SCALES, check_symbols, pack, scale_indexes, symbol_crc, unpack
from dhp_lab.codec.lapped import BLOCK, lapped_filters
from dhp_lab.codec.rate import CODE_MAX, CODE_MIN, FRACTION_BITS, GainCurve, lambda_code
from dhp_lab.codec.tiling import TILE, tiled
from dhp_lab.codec.transforms import ACTIVATION_BITS, HYPER, Analysis, HyperAnalysis, HyperSynthesis, Synthesis

SIDE = struct.Struct(">HII")               # lambda code, CRC32 of z's symbols, CRC32 of y's symbols


@dataclass(frozen=True)
class Latents:
    """A batch of pictures as the encoder sees it; see the table in the module's docstring."""

    y: Tensor
    z: Tensor
    mean: Tensor
    scale: Tensor
    indexes: Tensor | None
    rest: Tensor
    symbols: Tensor
    z_symbols: Tensor
    log2_delta: Tensor
    std: Tensor
    z_likelihood: Tensor | None


def round_through(x: Tensor) -> Tensor:
    """x rounded, with the gradient of x (Theis et al. 2017)."""
    return x + (x.round() - x).detach()


class Hyperprior(CompressionModel):
    """Transforms, gain curve, entropy models: everything but the diffusion. See ``DiffusionHyperprior``.

    Args:
        N: width of the networks and channels of z, 4 .. 1024. M: channels of y, 1 .. 768.
        sends_y: whether y's symbols are transmitted, or z's alone.
    """

    def __init__(self, N: int, M: int, sends_y: bool) -> None:
        super().__init__()
        self.N, self.M, self.sends_y = N, M, sends_y
        self._tables_stale = False                     # whether training has moved on since the last update
        self.g_a, self.g_s = Analysis(N, M), Synthesis(N, M)
        self.h_a, self.h_s = HyperAnalysis(N, M), HyperSynthesis(N, M)
        self.gain = GainCurve()
        self.log2_spread = nn.Parameter(0.5 * lapped_filters(M)["variance"].log2())
        self.entropy_bottleneck = EntropyBottleneck(N)
        self.gaussian_conditional = GaussianConditional(SCALES, scale_bound=SCALES[0])

    def step_size(self, lambda_rate: float) -> float:
        """Delta: the quantiser step that a trade-off stands for, in latent units.

        Raises:
            ValueError: lambda_rate outside [1e-6, 1e-1].
        """
        return 2.0 ** (self.gain.fixed_point(lambda_code(lambda_rate)) / 2**FRACTION_BITS)

    def analyse(self, x: Tensor, log2_delta: Tensor, tile: int = TILE) -> Tensor:
        """g_a on pictures of any size: (B, 3, H, W) -> y (B, M, ceil(H/16), ceil(W/16))."""
        x = _pad(x, BLOCK)
        std, rows, cols = self.log2_spread.exp2(), x.shape[-2] // BLOCK, x.shape[-1] // BLOCK

        def part(r: slice, c: slice) -> Tensor:
            window = x[..., BLOCK * r.start : BLOCK * r.stop, BLOCK * c.start : BLOCK * c.stop]
            return self.g_a(window.contiguous(memory_format=torch.channels_last), log2_delta, std)

        return tiled(part, rows, cols, 1, tile)

    def synthesise(self, y_hat: Tensor, log2_delta: Tensor, size: tuple[int, int], tile: int = TILE) -> Tensor:
        """g_s: latents -> picture (B, 3, *size), about [0, 1]."""
        std = self.log2_spread.exp2()
        whole = tiled(lambda r, c: self.g_s(y_hat[..., r, c], log2_delta, std), *y_hat.shape[-2:], BLOCK, tile)
        return whole[..., : size[0], : size[1]]

    def hyper_analyse(self, y: Tensor, log2_delta: Tensor) -> Tensor:
        """h_a: y -> z (B, N, ceil(h/4), ceil(w/4))."""
        steps = y / log2_delta.exp2().view(-1, 1, 1, 1)
        return self.h_a(_pad(steps, HYPER).contiguous(memory_format=torch.channels_last), log2_delta)

    def medians(self) -> Tensor:
        """(1, N, 1, 1) float64 centres of z's bins, in whole multiples of 2^-10 so that every device adds the same."""
        medians = self.entropy_bottleneck._get_medians().detach().double().view(1, -1, 1, 1)
        return torch.round(medians * 2**ACTIVATION_BITS) / 2**ACTIVATION_BITS

    def predict(self, z_symbols: Tensor, codes: list[int], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """What z says of y, the same on every device as far as the entropy decoder looks.

        Args:
            z_symbols: (B, N, h/4, w/4) whole numbers. codes: B lambda codes. size: (h, w) of y.

        Returns:
            mean, scale: (B, M, h, w) float32 in quantiser steps. indexes: likewise int32, rows of the probability table.
        """
        fixed = [self.gain.fixed_point(code) for code in codes]
        log2_delta = torch.tensor(fixed, dtype=torch.float64, device=z_symbols.device) / 2**FRACTION_BITS
        z_hat = z_symbols.double() + self.medians()

        def part(r: slice, c: slice) -> Tensor:
            window = z_hat[..., r.start // HYPER : -(-r.stop // HYPER), c.start // HYPER : -(-c.stop // HYPER)]
            mean, log2_scale = self.h_s.exact(window, log2_delta)[..., : r.stop - r.start, : c.stop - c.start].chunk(2, 1)
            indexes = [scale_indexes(log2_scale[i : i + 1], self.log2_spread, fixed[i]) for i in range(len(fixed))]
            return torch.cat([*self._in_steps(mean.float(), log2_scale.float(), log2_delta.float()), torch.cat(indexes)], 1)

        mean, scale, indexes = tiled(part, *size, 1).chunk(3, 1)
        return mean, scale, indexes.int()

    def _in_steps(self, mean: Tensor, log2_scale: Tensor, log2_delta: Tensor) -> tuple[Tensor, Tensor]:
        octaves = self.log2_spread.view(-1, 1, 1) - log2_delta.view(-1, 1, 1, 1)
        return mean * octaves.exp2(), (log2_scale + octaves).clamp(-20, 20).exp2()

    def latents(self, x: Tensor, lambda_rate: Tensor) -> Latents:
        """Encode pictures with a trade-off each, (B,): differentiable, with training's stand-in for rounding."""
        self._tables_stale = True
        return self._latents(x, self.gain(lambda_rate), None)

    def encode(self, x: Tensor, codes: list[int]) -> Latents:
        """Encode pictures with a lambda code each: the numbers that the entropy coder sends. For eval mode."""
        return self._latents(x, x.new_tensor([self.gain.fixed_point(code) / 2**FRACTION_BITS for code in codes]), codes)

    def _latents(self, x: Tensor, log2_delta: Tensor, codes: list[int] | None) -> Latents:
        y = self.analyse(x, log2_delta)
        z = self.hyper_analyse(y, log2_delta)
        medians = self.medians().float()
        z_symbols = round_through(z - medians)
        z_likelihood = self.entropy_bottleneck(z)[1]
        if codes is None:
            out = self.h_s(z_symbols + medians, log2_delta)[..., : y.shape[-2], : y.shape[-1]]
            (mean, scale), indexes = self._in_steps(*out.chunk(2, 1), log2_delta), None
        else:
            mean, scale, indexes = self.predict(z_symbols, codes, y.shape[-2:])
        rest = y / log2_delta.exp2().view(-1, 1, 1, 1) - mean
        symbols = round_through(rest) if indexes is None else rest.round() * (indexes > 0)
        return Latents(y, z, mean, scale, indexes, rest, symbols, z_symbols, log2_delta, self.log2_spread.exp2(), z_likelihood)

    def likelihoods(self, latents: Latents) -> dict[str, Tensor]:
        """Probabilities of y's and z's symbols; the bits they add up to are an estimate of the file's."""
        if not self.sends_y:
            return {"y": torch.ones_like(latents.y), "z": latents.z_likelihood}
        at = latents.rest + torch.rand_like(latents.rest) - 0.5 if self.training else latents.symbols
        y = self.gaussian_conditional._likelihood(at, latents.scale)
        return {"y": self.gaussian_conditional.likelihood_lower_bound(y), "z": latents.z_likelihood}

    def known(self, latents: Latents, decoded: bool | None = None) -> Known:
        """What the decoder of these latents holds; ``decoded=False`` leaves it z alone."""
        decoded = self.sends_y if decoded is None else decoded
        mask = torch.full_like(latents.y[:, :1], float(decoded))
        return Known(latents.symbols * mask, mask, latents.mean, latents.scale, latents.log2_delta, latents.std)

    def send(self, latents: Latents, code: int) -> list[list[bytes]]:
        """The entropy coder: [y, z, side], each a list of B byte strings. ``latents`` as made in eval mode."""
        strings: list[list[bytes]] = [[], [], []]
        for i in range(len(latents.y)):
            z_symbols, at = latents.z_symbols[i].int(), _sent(latents.indexes[i])
            symbols, indexes = latents.symbols[i].flatten()[at].int(), latents.indexes[i].flatten()[at]
            strings[0].append(pack(symbols, indexes, self.gaussian_conditional) if self.sends_y else b"")
            strings[1].append(pack(z_symbols.flatten(), _channel_rows(z_symbols.shape), self.entropy_bottleneck))
            strings[2].append(SIDE.pack(code, symbol_crc(z_symbols), symbol_crc(symbols) if self.sends_y else 0))
        return strings

    @torch.no_grad()
    def receive(self, strings: list, shape: tuple[int, int]) -> Known:
        """The entropy decoder: byte strings -> what the decoder knows. Arguments and errors as for ``decompress``."""
        device = self.log2_spread.device
        size = tuple(math.ceil(side / BLOCK) for side in shape)
        z_shape = (self.N, *(math.ceil(side / HYPER) for side in size))
        parts = []
        for y_bytes, z_bytes, side in zip(*strings, strict=True):
            code, z_crc, y_crc = _read_side(side)
            z_symbols = unpack(z_bytes, _channel_rows(z_shape), self.entropy_bottleneck).view(1, *z_shape)
            check_symbols("z", z_symbols, z_crc)
            mean, scale, indexes = self.predict(z_symbols.to(device), [code], size)
            symbols, at = torch.zeros(indexes.shape, dtype=torch.int32), _sent(indexes).cpu()
            has_y = self.sends_y and y_bytes is not None and (len(y_bytes) > 0 or len(at) == 0)
            if has_y:
                values = unpack(y_bytes, indexes.cpu().flatten()[at], self.gaussian_conditional)
                check_symbols("y", values, y_crc)
                symbols.view(-1)[at] = values
            decoded = torch.full((1, 1, *size), float(has_y))
            log2_delta = self.gain.fixed_point(code) / 2**FRACTION_BITS
            parts.append((symbols.float(), decoded, mean, scale, torch.tensor([log2_delta], dtype=torch.float32)))
        return Known(*(torch.cat(tensors).to(device) for tensors in zip(*parts, strict=True)), self.log2_spread.detach().exp2())

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True):
        """As in torch; probability tables of any size are taken over as they are stored."""
        for tables in (self.entropy_bottleneck, self.gaussian_conditional):
            for name in ("_quantized_cdf", "_offset", "_cdf_length"):
                setattr(tables, name, torch.IntTensor().to(self.log2_spread.device))
        self._tables_stale = False
        return super().load_state_dict(state_dict, strict)

    def update(self, scale_table=None, force: bool = False, update_quantiles: bool = False) -> bool:
        """Make the probability tables, as CompressAI's ``update`` does; the Gaussian ones never depend on the weights."""
        changed = self.gaussian_conditional.update_scale_table(SCALES, force=force)
        force, self._tables_stale = force or self._tables_stale, False
        return self.entropy_bottleneck.update(force=force, update_quantiles=update_quantiles) or changed


def _pad(x: Tensor, unit: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples of ``unit``."""
    rows, cols = (-side % unit for side in x.shape[-2:])
    return F.pad(x, (0, cols, 0, rows), mode="replicate") if rows or cols else x


def _channel_rows(shape: tuple[int, int, int]) -> Tensor:
    return torch.arange(shape[0], dtype=torch.int32).repeat_interleave(shape[1] * shape[2])


def _sent(indexes: Tensor) -> Tensor:
    """Where among all latents, in their order in memory, are those that the entropy coder says something of: (n,)."""
    return indexes.flatten().nonzero().squeeze(1)


def _read_side(side: bytes) -> tuple[int, int, int]:
    if len(side) != SIDE.size:
        raise BitstreamError(f"the side information holds {len(side)} bytes, not {SIDE.size}; the stream is damaged")
    code, z_crc, y_crc = SIDE.unpack(side)
    if not CODE_MIN <= code <= CODE_MAX:
        raise BitstreamError(f"the lambda code is {code}, not in {CODE_MIN} .. {CODE_MAX}; the stream is damaged")
    return code, z_crc, y_crc
