r"""The context model: latents that are already decoded correct the prediction of those that come next.

y is coded in groups. The first group is coded with the mean and scale that h_s predicts; for each later one a
network sees all that is decoded, and corrects both (He et al. 2021, "Checkerboard context model", across
places; Minnen & Singh 2020, "Channel-wise autoregressive entropy models", across channels; He et al. 2022,
"ELIC", for both together):

    mean' = mean + scale * shift,     log2(scale') = log2(scale) + change

| passes | which latents, pass by pass                                                                |
|--------|--------------------------------------------------------------------------------------------|
| 1      | all of them                                                                                |
| 2      | the black places of a checkerboard; the white ones                                         |
| 4      | the first channels, of largest variance, at black places, at white ones; the others alike  |
| 14     | seven groups of channels, likewise                                                         |

A decoded latent is seen as r = (y/Delta - mean)/scale, limited to 5. Encoder and decoder must agree on the
scale to the last bit, so the network is evaluated in fixed point (``exact``), and so is r, with a table of
1/scale. With 14 passes a network is evaluated only at places where h_s predicts for one of the pass's
channels a scale within an octave of those that are coded: elsewhere nothing will be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.bits.scales import LOG2_SCALE_MIN, LOG2_SCALES, SCALES, scale_indexes
from dhp_lab.codec.networks.exact import ACTIVATION_BITS, ExactNetwork, exact_sum, to_fixed_point
from dhp_lab.codec.networks.layers import scaled_log2_delta, widths, zero_init

GROUP_ENDS = {
    1: (1.0,),
    2: (1.0,),
    4: (0.15, 1.0),
    14: (0.01, 0.03, 0.07, 0.17, 0.33, 0.58, 1.0),
}  # of channels
ALL_SCALES = (
    4  # up to so many passes a network sees the scales of all channels, else those up to its group's end
)
ACTIVE = LOG2_SCALE_MIN - 1.0  # log2 of the scale that makes a place worth evaluating
LIMIT = 5.0  # of |r|
SHIFT_LIMIT, CHANGE_LIMIT = 8.0, 4.0  # of the corrections, in scales and in octaves
AT_ONCE = 2048  # places whose surroundings are looked at together: float64 takes twice the memory
UNIT = 2**ACTIVATION_BITS
# of the table's scales
INVERSE = torch.tensor([round(UNIT / scale) for scale in SCALES], dtype=torch.float64)


class Gaussian(NamedTuple):
    """What the entropy coder assumes of latents: mean in quantiser steps, and log2 of the scale in steps."""

    mean: Tensor
    log2_scale: Tensor


@dataclass(frozen=True)
class LatentGroup:
    """The latents that are coded in one pass: some channels at some places.

    Attributes:
        number: of the pass, from 0.
        channels: of y.
        places: (n,) in rising order, of the h w places counted row by row.
    """

    number: int
    channels: slice
    places: Tensor

    def gather(self, whole: Tensor) -> Tensor:
        """Those of (B, M, h, w): a list of places, (B, n, C)."""
        return _at_places(whole[:, self.channels], self.places)

    def scatter(self, whole: Tensor, values: Tensor) -> None:
        """Write (B, n, C) to their places in (B, M, h, w), which lies in channels_last order."""
        rows = whole.permute(0, 2, 3, 1)  # (B, h, w, M)
        flat = rows.view(len(rows), -1, rows.shape[-1])  # (B, h w, M)
        flat[:, :, self.channels].index_copy_(1, self.places, values)

    def scatter_all(self, wholes: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """``scatter`` of several tensors at once."""
        for whole, part in zip(wholes, values, strict=True):
            self.scatter(whole, part)


def coding_order(passes: int, M: int, rows: int, cols: int) -> list[LatentGroup]:
    """What each pass codes of latents (M, rows, cols); every latent is in exactly one group.

    Args:
        passes: as in ``CodecConfig``. M: channels, at least one for each group.
    """
    if passes == 1:
        return [LatentGroup(0, slice(0, M), torch.arange(rows * cols))]
    black = ((torch.arange(rows).view(-1, 1) + torch.arange(cols)) % 2 == 0).flatten()  # (rows cols,)
    places = [mask.nonzero().squeeze(1) for mask in (black, ~black)]
    order = product(channel_groups(passes, M), places)
    return [LatentGroup(number, channels, where) for number, (channels, where) in enumerate(order)]


def channel_groups(passes: int, M: int) -> list[slice]:
    """The channels that are coded together, a pair of passes for each group."""
    groups, start = [], 0
    for share in GROUP_ENDS[passes]:
        stop = max(start + 1, round(share * M))
        groups.append(slice(start, stop))
        start = stop
    return groups


def normalised_symbols(symbols: Tensor, indexes: Tensor) -> Tensor:
    """Symbols in units of the scale that h_s predicts, limited to 5; the same on every device.

    Args:
        symbols: whole numbers or halves, any shape. indexes: rows of the probability table for those scales,
            likewise.

    Returns:
        float64, whole multiples of 2^-10, of halves of 2^-11, with the symbols' gradient.
    """
    fixed = symbols.double() * INVERSE.to(symbols.device)[indexes.long()]
    return fixed.clamp(-LIMIT * UNIT, LIMIT * UNIT) / UNIT


class ContextNetwork(ExactNetwork):
    """The network of one later pass; its zero initialisation corrects nothing.

        r, |r| of decoded latents --3 x 3, each channel alone--> near --.
        r, |r|, log2(scale) of all channels, log2(Delta) ---------------+--1 x 1, 3 layers--> shift, change

    Args:
        N: width. M: channels of y. number: which pass of how many, 1 .. passes - 1; the first is 0.
    """

    def __init__(self, N: int, M: int, number: int, passes: int) -> None:
        super().__init__()
        self.channels = channel_groups(passes, M)[number // 2]
        at_white_places = number % 2 == 1
        # channels of which something is decoded: at white places those of the group itself, at the black ones
        self.decoded = self.channels.stop if at_white_places else self.channels.start
        self.scales = M if passes <= ALL_SCALES else self.channels.stop
        width, count, seen = widths(N)[1], self.channels.stop - self.channels.start, 2 * self.decoded
        self.near = nn.Conv2d(seen, seen, 3, padding=1, groups=seen)
        self.mix = nn.Conv2d(2 * seen + self.scales + 1, width, 1)
        self.hidden = nn.Conv2d(width, width, 1)
        self.exit = zero_init(nn.Conv2d(width, 2 * count, 1))
        # a short way from a channel's own neighbours to its correction
        self.own = (
            zero_init(nn.Conv2d(2 * count, 2 * count, 1, groups=2 * count)) if at_white_places else None
        )

    def forward(self, r: Tensor, log2_scale: Tensor, log2_delta: Tensor, group: LatentGroup) -> Gaussian:
        """The float network that training sees.

        Args:
            r: (B, M, h, w) in [-5, 5], zeros where nothing is decoded.
            log2_scale: (B, M, h, w) that h_s predicts, in steps.
            log2_delta: (B,). group: the pass's channels, and all its places or some of them.

        Returns:
            shift in scales and change in octaves, (B, n, C) each.
        """
        decoded = r[:, : self.decoded]
        both = torch.cat([decoded, decoded.abs()], 1)  # (B, 2 D, h, w)
        near = _at_places(self.near(both), group.places)  # (B, n, 2 D)
        scales = _at_places(log2_scale[:, : self.scales], group.places) / 4
        h = torch.cat([_at_places(both, group.places), near, scales, _plane(log2_delta, scales)], 2)
        h = F.relu(_linear(h, self.mix))
        h = F.relu(_linear(h, self.hidden))
        corrections = _linear(h, self.exit)  # (B, n, 2 C)
        if self.own is not None:
            corrections = corrections + self._own_neighbours(near) * self.own.weight.flatten() + self.own.bias
        return Gaussian(*corrections.chunk(2, 2))

    @torch.no_grad()
    def exact(self, r: Tensor, log2_scale: Tensor, log2_delta: Tensor, group: LatentGroup) -> Gaussian:
        """The same in fixed point: the same numbers on every device.

        Args:
            r: in multiples of 2^-11, rounded to 2^-10. log2_scale, log2_delta: of 2^-16.
            group: as for ``forward``.

        Returns:
            float64 multiples of 2^-10, (B, n, C) each.
        """
        few = [
            LatentGroup(group.number, group.channels, places) for places in _strips(group.places, r.shape[-1])
        ]
        parts = [self._exact_part(r, log2_scale, log2_delta, part) for part in few]
        return Gaussian(*(torch.cat(values, 1) / UNIT for values in zip(*parts, strict=True)))

    def _exact_part(
        self, r: Tensor, log2_scale: Tensor, log2_delta: Tensor, group: LatentGroup
    ) -> list[Tensor]:
        window = _windows(r[:, : self.decoded], group.places)
        taps = (window(row, col) for row, col in product(range(3), range(3)))
        near = exact_sum(taps, self.exact_weights(self.near))  # (B, n, 2 D)
        scales = _at_places(log2_scale[:, : self.scales], group.places) / 4
        plane = to_fixed_point(_plane(log2_delta, scales))
        h = torch.cat([window(1, 1), near, to_fixed_point(scales), plane], 2)
        h = F.relu(exact_sum([h], self.exact_weights(self.mix)))
        h = F.relu(exact_sum([h], self.exact_weights(self.hidden)))
        corrections = exact_sum([h], self.exact_weights(self.exit))
        if self.own is not None:
            own = exact_sum([self._own_neighbours(near)], self.exact_weights(self.own))
            corrections = corrections + own
        return corrections.chunk(2, 2)

    def _own_neighbours(self, near: Tensor) -> Tensor:
        """(B, n, 2 C): of ``near``, what the group's own channels give, from r and from |r|."""
        return torch.cat([half[:, :, self.channels] for half in near.chunk(2, 2)], 2)


class ContextModel(nn.Module):
    """The order of the passes over y, and what each is coded with.

    Encoder, decoder and training walk the same loop:

        seen = context.nothing_seen(first)
        for group in context.groups(first):
            gaussian, shift = context.predict(group, first, seen, log2_delta, exact=True)
            symbols = ...                       # round the latents, or read the stream
            context.observe(group, first, seen, symbols, shift)

    Args:
        N, M: as for ``ContextNetwork``. count: number of passes, as in ``CodecConfig``.
    """

    def __init__(self, N: int, M: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.networks = nn.ModuleList(ContextNetwork(N, M, number, count) for number in range(1, count))

    def groups(self, first: Gaussian) -> list[LatentGroup]:
        """The passes over the latents that ``first`` predicts; a single latent has no white place."""
        device, (M, rows, cols) = first.mean.device, first.mean.shape[1:]
        order = coding_order(self.count, M, rows, cols)
        return [
            LatentGroup(group.number, group.channels, group.places.to(device))
            for group in order
            if len(group.places)
        ]

    def nothing_seen(self, first: Gaussian) -> Tensor:
        """(B, M, h, w) zeros in channels_last order, for ``observe`` to fill in."""
        return torch.zeros_like(first.mean, memory_format=torch.channels_last)

    def predict(
        self, group: LatentGroup, first: Gaussian, seen: Tensor, log2_delta: Tensor, *, exact: bool
    ) -> tuple[Gaussian, Tensor]:
        """Mean and scale that a group is coded with.

        Args:
            group: one of ``groups``.
            first: (B, M, h, w) each, what h_s predicts.
            seen: (B, M, h, w), what ``observe`` has filled in of earlier groups.
            log2_delta: (B,).
            exact: in fixed point, as encoder and decoder must, or in floats with gradients, as in training.

        Returns:
            mean and log2(scale) (B, n, C) in steps, and the shift (B, n, C) in scales of the first
            prediction.
        """
        mean, log2_scale = group.gather(first.mean), group.gather(first.log2_scale)
        if group.number == 0:
            return Gaussian(mean, log2_scale), torch.zeros_like(mean)
        shift, change = self._corrections(group, first, seen, log2_delta, exact)
        shift = shift.to(mean.dtype).clamp(-SHIFT_LIMIT, SHIFT_LIMIT)
        change = change.to(mean.dtype).clamp(-CHANGE_LIMIT, CHANGE_LIMIT)
        scale = log2_scale.double().clamp(*LOG2_SCALES).exp2().to(mean.dtype)
        return Gaussian(mean + shift * scale, log2_scale + change), shift

    def _corrections(
        self, group: LatentGroup, first: Gaussian, seen: Tensor, log2_delta: Tensor, exact: bool
    ) -> Gaussian:
        """What the pass's network makes of the places that are worth it, and zeros: (B, n, C) each."""
        network = self.networks[group.number - 1]
        evaluate = network.exact if exact else network
        if self.count <= ALL_SCALES:
            return evaluate(seen, first.log2_scale, log2_delta, group)
        active = group.gather(first.log2_scale.detach()).amax(2, keepdim=True) >= ACTIVE  # (B, n, 1)
        rows = active.any(0).squeeze(1).nonzero().squeeze(1)  # of some picture of the batch
        if not len(rows):
            nothing = torch.zeros_like(group.gather(first.mean))
            return Gaussian(nothing, nothing)
        few = LatentGroup(group.number, group.channels, group.places[rows])
        parts = evaluate(seen, first.log2_scale, log2_delta, few)
        shape = (*active.shape[:2], parts.mean.shape[2])
        return Gaussian(
            *(part.new_zeros(shape).index_copy(1, rows, part * active[:, rows]) for part in parts)
        )

    def observe(
        self, group: LatentGroup, first: Gaussian, seen: Tensor, symbols: Tensor, shift: Tensor
    ) -> None:
        """Fill a decoded group's r into ``seen``: symbols (B, n, C), and the shift that ``predict`` gave."""
        if group.number + 1 < self.count:
            r = normalised_symbols(symbols, scale_indexes(group.gather(first.log2_scale))) + shift.detach()
            group.scatter(seen, r.clamp(-LIMIT, LIMIT).to(seen.dtype))


def _at_places(whole: Tensor, places: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, n, C)."""
    return whole.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, places)


def _strips(places: Tensor, cols: int) -> tuple[Tensor, ...]:
    """The places in parts that lie within as many rows as have AT_ONCE places, or within a single one."""
    strip = places // (max(1, AT_ONCE // cols) * cols)
    return places.split(strip.unique_consecutive(return_counts=True)[1].tolist())


def _plane(log2_delta: Tensor, like: Tensor) -> Tensor:
    """(B, n, 1): log2(Delta) as one more input of each place."""
    return scaled_log2_delta(log2_delta.to(like)).view(-1, 1, 1).expand(-1, like.shape[1], 1)


def _linear(h: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1 x 1 convolution on lists of places, (B, n, in) -> (B, n, out)."""
    return F.linear(h, conv.weight.flatten(1), conv.bias)


def _windows(r: Tensor, places: Tensor) -> Callable[[int, int], Tensor]:
    """What a tap (row, column) of a 3 x 3 kernel lies on at some places of r (B, C, h, w).

    Returns:
        a function of the tap: r and |r| in fixed point, (B, n, 2 C). Only rows near the places are converted.
    """
    rows, cols = r.shape[-2:]
    top, bottom = int(places[0]) // cols, int(places[-1]) // cols
    near = r[:, :, max(0, top - 1) : bottom + 2].permute(0, 2, 3, 1)  # (B, rows nearby, w, C)
    both = torch.cat([near, near.abs()], 3)
    padded = F.pad(both, (0, 0, 1, 1, int(top == 0), int(bottom == rows - 1)))
    grid = to_fixed_point(padded.flatten(1, 2))  # (B, (bottom - top + 3) (w + 2), 2 C)
    corner = places + 2 * (places // cols) - top * (cols + 2)  # the tap (0, 0) of each place
    return lambda row, col: grid.index_select(1, corner + row * (cols + 2) + col)
