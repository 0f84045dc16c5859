r"""Later coding passes: what latents that are already decoded tell of those that come next.

y is sent in parts. The first is coded with the mean and scale that h_s gives; for each later one a network
looks at all that is decoded, and corrects both (He et al. 2021, "Checkerboard context model"; Minnen & Singh
2020, for channels):

    mean' = mean + scale * shift,     scale' = scale * 2^octaves

| passes | which latents, pass by pass                                                            |
|--------|----------------------------------------------------------------------------------------|
| 1      | all of them                                                                            |
| 2      | the black places of a checkerboard; the white ones                                     |
| 4      | the first, loudest channels at black places, at white ones; the other channels likewise |

It sees each decoded latent as r = (y/Delta - mean)/scale, cut off at 5. The encoder and every decoder must
agree on the scale to the last bit, so it is evaluated in whole numbers, as h_s is (``transforms``); so is r,
with a table for 1/scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.bits.scales import LOG2_SCALES, SCALES, scale_indexes
from dhp_lab.codec.networks.exact import (
    ACTIVATION_BITS,
    ACTIVATION_LIMIT,
    exact_sum,
    weighted_sum,
)
from dhp_lab.codec.networks.layers import zero_init, widths

PASSES = (1, 2, 4)
LOUD_SHARE = 0.15  # of the channels are coded first where there are four passes
LIMIT = 5.0  # of |r|
AT_ONCE = 2048  # places that are worked out together: float64 takes twice the memory
UNIT = 2**ACTIVATION_BITS
INVERSE = torch.tensor(
    [round(UNIT / scale) for scale in SCALES], dtype=torch.float64
)  # of the table's scales


@dataclass(frozen=True)
class LatentGroup:
    """The latents that one pass sends: some channels at some places.

    Attributes:
        channels: of y. places: (n,) in rising order, of the h w places counted row by row.
    """

    channels: slice
    places: Tensor

    def take(self, whole: Tensor) -> Tensor:
        """Those of (B, M, h, w): a list of places, (B, n, C)."""
        return whole.permute(0, 2, 3, 1).flatten(1, 2)[:, :, self.channels].index_select(1, self.places)

    def put(self, whole: Tensor, values: Tensor) -> None:
        """The way back, into a tensor (B, M, h, w) in channels_last memory order."""
        rows = whole.permute(0, 2, 3, 1)
        rows.view(len(rows), -1, rows.shape[-1])[:, :, self.channels].index_copy_(1, self.places, values)


def coding_order(passes: int, M: int, rows: int, cols: int) -> list[LatentGroup]:
    """What each pass sends of latents (M, rows, cols); every latent is in exactly one part.

    Args:
        passes: 1, 2 or 4. M: channels, at least 2 for four passes.
    """
    if passes == 1:
        return [LatentGroup(slice(0, M), torch.arange(rows * cols))]
    black = ((torch.arange(rows).view(-1, 1) + torch.arange(cols)) % 2 == 0).flatten()  # (rows cols,)
    return [
        LatentGroup(channels, places.nonzero().squeeze(1))
        for channels in _channels(passes, M)
        for places in (black, ~black)
    ]


def normalised_symbols(symbols: Tensor, indexes: Tensor) -> Tensor:
    """Symbols in units of their first scale, cut off at 5: float64, whole multiples of 2^-10, the same on
    every device.

    Args:
        symbols: whole numbers, any shape. indexes: rows of the probability table that the first pass's scales
            gave, likewise.
    """
    steps = symbols.detach().double() * INVERSE.to(symbols.device)[indexes.long()]
    return steps.clamp(-LIMIT * UNIT, LIMIT * UNIT) / UNIT


class ContextNetwork(nn.Module):
    """The network of one later pass; until it is trained it corrects nothing.

    Args:
        N: width. M: channels of y. number: which pass of how many, 1 .. passes - 1; the first is 0.
    """

    def __init__(self, N: int, M: int, number: int, passes: int) -> None:
        super().__init__()
        self.channels = _channels(passes, M)[number // 2]
        self.decoded = (
            self.channels.stop if number % 2 else self.channels.start
        )  # so many channels are known in part
        width, count = widths(N)[1], self.channels.stop - self.channels.start
        self.near = nn.Conv2d(
            2 * self.decoded, 2 * self.decoded, 3, groups=2 * self.decoded
        )  # each one's own neighbours
        self.mix = nn.Conv2d(4 * self.decoded + M + 1, width, 1)
        self.hidden = nn.Conv2d(width, width, 1)
        self.exit = zero_init(nn.Conv2d(width, 2 * count, 1))
        self.own = zero_init(nn.Conv2d(2 * count, 2 * count, 1, groups=2 * count)) if number % 2 else None

    def forward(
        self, r: Tensor, log2_scale: Tensor, log2_delta: Tensor, part: LatentGroup
    ) -> tuple[Tensor, Tensor]:
        """The float network that training sees.

        Args:
            r: (B, M, h, w) in [-5, 5], zeros where nothing is decoded. octaves: (B, M, h, w) log2 of the
                first scale in steps.
            log2_delta: (B,). part: the pass's channels, and all its places or some of them.

        Returns:
            shift in first scales and octaves, (B, n, C) each.
        """

        def layer(windows: Iterable[Tensor], conv: nn.Conv2d) -> Tensor:
            return weighted_sum(windows, conv.weight, conv.bias)

        return self._told(r, log2_scale, log2_delta, part, lambda t: t, layer)

    @torch.no_grad()
    def exact(
        self, r: Tensor, log2_scale: Tensor, log2_delta: Tensor, part: LatentGroup
    ) -> tuple[Tensor, Tensor]:
        """The same in whole numbers: r in multiples of 2^-10, octaves and log2_delta of 2^-16; float64
        results of 2^-10.
        """

        def whole(t: Tensor) -> Tensor:
            return t.double().mul_(UNIT).floor_().clamp_(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)

        some = (LatentGroup(part.channels, places) for places in part.places.split(AT_ONCE))
        told = [self._told(r, log2_scale, log2_delta, few, whole, exact_sum) for few in some]
        return tuple(torch.cat(parts, 1) / UNIT for parts in zip(*told))

    def _told(
        self,
        r: Tensor,
        log2_scale: Tensor,
        log2_delta: Tensor,
        part: LatentGroup,
        number: Callable,
        layer: Callable,
    ) -> list[Tensor]:
        window = _windows(r[:, : self.decoded], part.places, number)
        near = layer((window(*tap) for tap in product(range(3), range(3))), self.near)
        around = LatentGroup(slice(None), part.places).take(log2_scale) / 4
        plane = ((log2_delta.to(around) + 3.5) / 4).view(-1, 1, 1).expand(-1, len(part.places), 1)
        h = torch.cat([window(1, 1), near, number(around), number(plane)], 2)
        told = layer([F.relu(layer([F.relu(layer([h], self.mix))], self.hidden))], self.exit)
        if self.own is not None:
            told = told + layer(
                [torch.cat([half[:, :, self.channels] for half in near.chunk(2, 2)], 2)], self.own
            )
        return told.chunk(2, 2)


class ContextModel(nn.Module):
    """All passes over y: who is coded when, and with which mean and scale.

    Args:
        N, M: as for ``ContextNetwork``. count: 1, 2 or 4.
    """

    def __init__(self, N: int, M: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.later = nn.ModuleList(ContextNetwork(N, M, number, count) for number in range(1, count))

    def run_passes(
        self,
        mean: Tensor,
        log2_scale: Tensor,
        log2_delta: Tensor,
        symbols_at: Callable[[LatentGroup, Tensor, Tensor], Tensor],
        *,
        exact: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Go through the passes: mean, octaves and symbols of all latents, (B, M, h, w) float32 each.

        Args:
            mean, octaves: (B, M, h, w) in steps and log2 of steps, from h_s: those of the first pass.
                log2_delta: (B,).
            symbols_at: ``symbols_at(part, mean, octaves)`` gives the symbols that a pass sends, (B, n, C), of
                mean and octaves likewise.
            exact: in whole numbers, as encoder and decoder must, or in floats with gradients, as in training.
        """
        first = [t.contiguous(memory_format=torch.channels_last) for t in (mean, log2_scale)]
        found, seen = [torch.empty_like(first[0]) for _ in range(3)], torch.zeros_like(first[0])
        for number, part in enumerate(coding_order(self.count, *mean.shape[1:])):
            if len(part.places) == 0:  # a single latent has no white place
                continue
            part, shift = LatentGroup(part.channels, part.places.to(mean.device)), 0.0
            mean, log2_scale = (part.take(t) for t in first)
            if number:
                context = self.later[number - 1]
                told = (context.exact if exact else context)(seen, first[1], log2_delta, part)
                shift, more = (
                    t.to(mean.dtype).clamp(-limit, limit) for t, limit in zip(told, (8, 4), strict=True)
                )
                unit = log2_scale.double().clamp(*LOG2_SCALES).exp2().to(mean.dtype)  # that r is counted in
                mean = mean + shift * unit
                log2_scale = log2_scale + more
            symbols = symbols_at(part, mean, log2_scale)
            for whole, values in zip(found, (mean, log2_scale, symbols), strict=True):
                part.put(whole, values)
            if number + 1 < self.count:
                r = normalised_symbols(symbols, scale_indexes(part.take(first[1]))) + shift
                part.put(seen, r.detach().clamp(-LIMIT, LIMIT).to(seen.dtype))
        return tuple(found)


def _windows(r: Tensor, places: Tensor, number: Callable[[Tensor], Tensor]) -> Callable[[int, int], Tensor]:
    """What a tap (row, column) of a 3 x 3 kernel lies on at some places of r (B, C, h, w): ``number`` of r
    and |r|, (B, n, 2 C).
    """
    (rows, cols), (top, bottom) = r.shape[-2:], (int(places[i]) // r.shape[-1] for i in (0, -1))
    near = r[:, :, max(0, top - 1) : bottom + 2].permute(0, 2, 3, 1)
    padded = F.pad(torch.cat([near, near.abs()], 3), (0, 0, 1, 1, int(top == 0), int(bottom == rows - 1)))
    grid = number(padded.flatten(1, 2))  # (B, (rows from top - 1 to bottom + 1) (w + 2), 2 C)
    corner = places + 2 * (places // cols) - top * (cols + 2)
    return lambda i, j: grid.index_select(1, corner + i * (cols + 2) + j)


def _channels(passes: int, M: int) -> list[slice]:
    """The channels that are sent together, one pair of passes after the other."""
    if passes == 2:
        return [slice(0, M)]
    loud = max(1, round(LOUD_SHARE * M))
    return [slice(0, loud), slice(loud, M)]
