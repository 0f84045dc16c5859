r"""Later coding passes: what latents that are already decoded tell of those that come next.

y is sent in parts. The first is coded with the mean and scale that h_s gives; for each later one a network looks at all
that is decoded, and corrects both (He et al. 2021, "Checkerboard context model"; Minnen & Singh 2020, for channels):

    mean' = mean + scale * shift,     scale' = scale * 2^octaves

| passes | which latents, pass by pass                                                            |
|--------|----------------------------------------------------------------------------------------|
| 1      | all of them                                                                            |
| 2      | the black places of a checkerboard; the white ones                                     |
| 4      | the first, loudest channels at black places, at white ones; the other channels likewise |

It sees each decoded latent as r = (y/Delta - mean)/scale, cut off at 5. The encoder and every decoder must agree on the
scale to the last bit, so it is evaluated in whole numbers, as h_s is (``transforms``); so is r, with a table for 1/scale.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.entropy import LOG2_SCALES, SCALES, table_rows
from dhp_lab.codec.tiling import tiled
from dhp_lab.codec.transforms import ACTIVATION_BITS, delta_plane, exact_conv, silent, widths

PASSES = (1, 2, 4)
LOUD_SHARE = 0.15                          # of the channels are coded first where there are four passes
LIMIT = 5.0                                # of |r|
CONTEXT_TILE = 64                          # largest side of a tile in latents: float64 takes twice the memory
UNIT = 2**ACTIVATION_BITS
INVERSE = torch.tensor([round(UNIT / scale) for scale in SCALES], dtype=torch.float64)       # of the table's scales


def coding_order(passes: int, M: int, rows: int, cols: int) -> list[Tensor]:
    """Which latents each pass sends: bool (M, rows, cols) for each; every latent is in exactly one of them.

    Args:
        passes: 1, 2 or 4. M: channels, at least 2 for four passes.
    """
    every = torch.ones(M, rows, cols, dtype=torch.bool)
    if passes == 1:
        return [every]
    black = (torch.arange(rows).view(-1, 1) + torch.arange(cols)) % 2 == 0                          # (rows, cols)
    return [channels & places for channels in (_channels(part, M) for part in _parts(passes, M)) for places in (every & black, every & ~black)]


def relative(symbols: Tensor, indexes: Tensor) -> Tensor:
    """Symbols in units of their first scale, cut off at 5: float64, whole multiples of 2^-10, the same on every device.

    Args:
        symbols: whole numbers, any shape. indexes: rows of the probability table that the first pass's scales gave, likewise.
    """
    steps = symbols.detach().double() * INVERSE.to(symbols.device)[indexes.long()]
    return steps.clamp(-LIMIT * UNIT, LIMIT * UNIT) / UNIT


class Context(nn.Module):
    """The network of one later pass; until it is trained it corrects nothing.

    Args:
        N: width. M: channels of y. number: which pass of how many, 1 .. passes - 1; the first is 0.
    """

    def __init__(self, N: int, M: int, number: int, passes: int) -> None:
        super().__init__()
        self.part = _parts(passes, M)[number // 2]
        self.rest = M - self.part.stop
        width, count = widths(N)[1], self.part.stop - self.part.start
        self.near = nn.Conv2d(2 * M, 2 * M, 3, padding=1, groups=2 * M)      # each channel's own neighbours first
        self.mix = nn.Conv2d(5 * M + 1, width, 1)
        self.hidden = nn.Conv2d(width, width, 1)
        self.exit = silent(nn.Conv2d(width, 2 * count, 1))
        self.own = silent(nn.Conv2d(2 * count, 2 * count, 1, groups=2 * count))

    def forward(self, r: Tensor, octaves: Tensor, log2_delta: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """The float network that training sees.

        Args:
            r: (B, M, h, w) in [-5, 5], zeros where nothing is decoded. octaves: (B, M, h, w) log2 of the first scale in steps.
            log2_delta: (B,). where: (h, w) bool, the places of this pass.

        Returns:
            shift in first scales and octaves, (B, M, h, w) each, zeros in channels and places that are not of this pass.
        """
        return self._told(r, octaves / 4, delta_plane(log2_delta, r), where, lambda layer, h: layer(h))

    @torch.no_grad()
    def exact(self, r: Tensor, octaves: Tensor, log2_delta: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """The same in whole numbers: float64 arguments, r in multiples of 2^-10, the others of 2^-16; results of 2^-10."""
        planes = torch.floor(octaves / 4 * UNIT), torch.floor(delta_plane(log2_delta, r) * UNIT)
        return tuple(told / UNIT for told in self._told(r * UNIT, *planes, where, lambda layer, h: exact_conv(h, layer)))

    def _told(self, r: Tensor, octaves: Tensor, plane: Tensor, where: Tensor, conv) -> tuple[Tensor, Tensor]:
        seen, at = torch.cat([r, r.abs()], 1), where.flatten().nonzero().squeeze(1)                 # (B, 2 M, h, w), (n,)
        near = conv(self.near, seen)
        seen, near, octaves, plane = (t.flatten(2).index_select(2, at).unsqueeze(2) for t in (seen, near, octaves, plane))
        h = F.relu(conv(self.mix, torch.cat([seen, near, octaves, plane], 1)))                      # (B, width, 1, n)
        told = conv(self.exit, F.relu(conv(self.hidden, h)))
        told = told + conv(self.own, torch.cat([half[:, self.part] for half in near.chunk(2, 1)], 1))
        whole = told.new_zeros(*told.shape[:2], where.numel()).index_copy(2, at, told.squeeze(2)).unflatten(2, where.shape)
        return tuple(F.pad(half, (0, 0, 0, 0, self.part.start, self.rest)) for half in whole.chunk(2, 1))


class Passes(nn.Module):
    """All passes over y: who is coded when, and with which mean and scale.

    Args:
        N, M: as for ``Context``. count: 1, 2 or 4.
    """

    def __init__(self, N: int, M: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.later = nn.ModuleList(Context(N, M, number, count) for number in range(1, count))

    def walk(
        self, mean: Tensor, octaves: Tensor, log2_delta: Tensor, symbols_at: Callable[[Tensor, Tensor, Tensor], Tensor], *, exact: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Go through the passes: mean, octaves and symbols of all latents, (B, M, h, w) float32 each.

        Args:
            mean, octaves: (B, M, h, w) in steps and log2 of steps, from h_s: those of the first pass. log2_delta: (B,).
            symbols_at: ``symbols_at(places, mean, octaves)`` gives the symbols (B, M, h, w) of the pass that sends the
                places (M, h, w), bool, known by then; what it gives elsewhere does not matter.
            exact: in whole numbers, as encoder and decoder must, or in floats with gradients, as in training.
        """
        first, rows, symbols, seen, shift = (mean, octaves), table_rows(octaves), None, torch.zeros_like(mean), 0.0
        unit = octaves.clamp(*LOG2_SCALES).exp2()                          # what r is counted in
        for number, places in enumerate(coding_order(self.count, *mean.shape[1:])):
            places = places.to(mean.device)
            if number:
                shift, more = self._corrections(self.later[number - 1], seen, first[1], log2_delta, places.any(0), exact)
                mean = torch.where(places, first[0] + shift * unit, mean)
                octaves = torch.where(places, first[1] + more, octaves)
            told = symbols_at(places, mean, octaves)
            symbols = told if symbols is None else torch.where(places, told, symbols)
            if number + 1 < self.count:
                seen = torch.where(places, (relative(symbols, rows) + shift).clamp(-LIMIT, LIMIT).to(seen.dtype), seen).detach()
        return mean, octaves, symbols

    def _corrections(
        self, context: Context, seen: Tensor, octaves: Tensor, log2_delta: Tensor, where: Tensor, exact: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        if exact:
            def part(r: slice, c: slice) -> Tensor:
                window = (t[..., r, c].double() for t in (seen, octaves))
                return torch.cat(context.exact(*window, log2_delta.double(), where[r, c]), 1).float()

            shift, more = tiled(part, *seen.shape[-2:], 1, CONTEXT_TILE).chunk(2, 1)
        else:
            shift, more = context(seen, octaves, log2_delta, where)
        return shift.clamp(-8, 8), more.clamp(-4, 4)


def _parts(passes: int, M: int) -> list[slice]:
    """The channels that are sent together, one pair of passes after the other."""
    if passes == 2:
        return [slice(0, M)]
    loud = max(1, round(LOUD_SHARE * M))
    return [slice(0, loud), slice(loud, M)]


def _channels(part: slice, M: int) -> Tensor:
    numbers = torch.arange(M).view(-1, 1, 1)
    return (numbers >= part.start) & (numbers < part.stop)
