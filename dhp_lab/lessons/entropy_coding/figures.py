"""Figures of the lesson on entropy coding, and its explorer's picture.

| function or class  | what it gives                                                                      |
|--------------------|------------------------------------------------------------------------------------|
| `lengths_figure`   | how often each symbol comes, and its code length by several codes                  |
| `interval_figure`  | the interval of an arithmetic coder, symbol by symbol, each one enlarged           |
| `state_figure`     | how the state of an rANS coder grows, symbol by symbol                             |
| `gaps_figure`      | quantisers' distance from the rate-distortion bound, by rate                       |
| `Mismatch`         | the explorer's picture: a source, the table that it is coded with, and the bits    |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dhp_lab.codec.bits.rans import CoderTables, rans_encode
from dhp_lab.lessons.entropy_coding.quantisers import Gap
from dhp_lab.lessons.entropy_coding.sources import PRECISION, frequencies
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.style import AMBER, BLUE, CHART_DPI, GREEN, GREY, ORANGE, PURPLE, SKY, style

LENGTH_LOOKS = ((ORANGE, "-"), (BLUE, "o"), (GREEN, "s"))
PART_COLOURS = (SKY, AMBER, GREEN, PURPLE)
FLOAT_BITS = 1000  # above this many a coder's state may be too large for a float
REACH = 40  # the explorer's symbols are -40 .. 40
DRAWN = 4000  # symbols that the explorer codes
SHOWN = 12  # its charts show the symbols -12 .. 12
SIZE = 1000, 330
SCALE_LOW, SCALE_HIGH = 0.25, 8.0


def lengths_figure(p: Mapping[int, float], lengths: Mapping[str, Mapping[int, float]]) -> Figure:
    """Left: probabilities. Right: code lengths in bits by code, the first one as a line, others as points.

    Args:
        p: probability by symbol.
        lengths: bits by symbol, under three names at most.
    """
    with style():
        figure = Figure(figsize=(10.4, 3.2), dpi=CHART_DPI, layout="constrained")
        left, right = figure.subplots(1, 2)
        left.bar(list(p), list(p.values()), color=GREY, width=0.8)
        left.set(title="How often each symbol comes", xlabel="symbol", ylabel="probability")
        for (name, bits), (colour, look) in zip(lengths.items(), LENGTH_LOOKS[: len(lengths)], strict=True):
            right.plot(list(bits), list(bits.values()), look, color=colour, markersize=3.5, label=name)
        right.set(title="How many bits it gets", xlabel="symbol", ylabel="bits", ylim=(0, None))
        right.legend(loc="upper center")
    return figure


def interval_figure(p: Mapping[str, float], message: str) -> Figure:
    """The interval after each symbol, enlarged to the full width, with the parts of the next symbol.

    Args:
        p: probability by letter, in the order of their parts; four letters at most.
        message: letters of p.
    """
    with style():
        figure = Figure(figsize=(10.4, 0.85 * (len(message) + 1) + 0.3), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        low, width = 0.0, 1.0
        for row, chosen in enumerate([*message, ""]):
            start = 0.0
            for (letter, share), colour in zip(p.items(), PART_COLOURS[: len(p)], strict=True):
                alpha = 0.9 if letter == chosen else 0.3
                axes.barh(-row, share, left=start, height=0.42, color=colour, alpha=alpha, edgecolor="white")
                axes.text(start + share / 2, -row, letter, ha="center", va="center")
                if letter == chosen:
                    ends = (start, start + share)
                start += share
            for place, value in ((0, low), (1, low + width)):
                side = "left" if place == 0 else "right"
                axes.text(place, -row + 0.25, f"{value:.6g}", ha=side, va="bottom", color=GREY, fontsize=9)
            if chosen:
                for end, place in zip(ends, (0, 1), strict=True):
                    axes.plot([end, place], [-row - 0.21, -row - 0.79], color=GREY, linewidth=0.8)
                low, width = low + width * ends[0], width * (ends[1] - ends[0])
        labels = [f"after {message[:n]!r}" if n else "at first" for n in range(len(message) + 1)]
        axes.set_yticks(-np.arange(len(labels)), labels)
        axes.set(xlim=(0, 1), xticks=[], ylim=(-len(message) - 0.35, 0.55))
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


def state_figure(needed: Sequence[float], states: Sequence[int]) -> Figure:
    """The state of an rANS coder against the ideal code length.

    Args:
        needed: bits that the first 0, 1, 2, ... symbols need together.
        states: the coder's state after as many.
    """
    held = [float(np.log2(float(s))) if s < 2**FLOAT_BITS else s.bit_length() for s in states]
    with style():
        figure = Figure(figsize=(8, 3), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        axes.step(range(len(needed)), needed, where="post", color=ORANGE, label="ideal code length")
        axes.plot(range(len(states)), held, "o", color=BLUE, markersize=4, label="log2 of the state")
        axes.set(xlabel="symbols pushed", ylabel="bits", ylim=(0, None), xlim=(-0.5, len(states)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper left")
    return figure


def rounded_normal(scale: float) -> np.ndarray:
    """Probabilities (2 REACH + 1,) of a rounded normal number between -REACH and REACH."""
    size = torch.arange(-REACH, REACH + 1, dtype=torch.float64).abs()
    near, far = ((size + side) / (scale * math.sqrt(2)) for side in (-0.5, 0.5))
    p = (torch.erfc(near) - torch.erfc(far)).numpy() / 2  # in the upper tail, where small numbers keep digits
    return p / p.sum()


def gaps_figure(gaps: Mapping[str, Sequence[Gap]]) -> Figure:
    """How far quantisers stay from the rate-distortion bound, in dB over their rate; three at most."""
    with style():
        figure = Figure(figsize=(8, 3.3), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for (name, points), colour, look in zip(gaps.items(), (ORANGE, GREY, BLUE), "o^s", strict=False):
            rates, decibels = zip(*points, strict=True)
            axes.plot(rates, decibels, look + "-", color=colour, markersize=5, label=name)
        axes.axhline(0, color=GREEN, linewidth=1.2, label="the bound")
        axes.set(xlabel="bits a number", ylabel="dB above the bound", ylim=(-0.15, None), xlim=(0, None))
        axes.legend(loc="upper right")
    return figure


@dataclass(frozen=True)
class Costs:
    """What symbols of one source cost by the table of another, in bits a symbol but for ``coded``.

    Attributes:
        entropy: of the source.
        cross_entropy: with the model's own probabilities.
        table: with its table of whole frequencies.
        coded: bytes of DRAWN symbols.
    """

    entropy: float
    cross_entropy: float
    table: float
    coded: int


class Mismatch:
    """Symbols from a normal source, coded with the table of a normal model of another scale."""

    def __init__(self) -> None:
        self.costs = lru_cache(maxsize=256)(self._costs)

    def _costs(self, true_scale: float, model_scale: float, precision: int) -> Costs:
        p, q = rounded_normal(true_scale), rounded_normal(model_scale)
        table = frequencies(q, precision)
        seen = p > 0
        with np.errstate(divide="ignore"):
            model_bits = np.minimum(-np.log2(q), 1e4)  # a probability may be too small for a float
        table_bits = precision - np.log2(table)
        return Costs(
            entropy=float(-(p[seen] * np.log2(p[seen])).sum()),
            cross_entropy=float((p * model_bits).sum()),
            table=float((p * table_bits).sum()),
            coded=len(self._coded(p, table, precision)),
        )

    @staticmethod
    def _coded(p: np.ndarray, table: np.ndarray, precision: int) -> bytes:
        """DRAWN symbols, always the same for a p, by CompressAI's coder."""
        uniform = np.random.default_rng(0).random(DRAWN)
        symbols = np.searchsorted(p.cumsum(), uniform).clip(max=len(p) - 1)
        scaled = table * 2 ** (PRECISION - precision)
        sums = [0, *scaled.cumsum().tolist(), 2**PRECISION]  # an empty part for what lies beyond the table
        tables = CoderTables([sums], [len(sums)], [0])
        rows = torch.zeros(DRAWN, dtype=torch.int32)
        return rans_encode(torch.from_numpy(symbols.astype(np.int32)), rows, tables)

    def render(self, *, true_scale: float, model_scale: float, precision: int) -> Rendered:
        """The source and the model, and bits a symbol against the model's scale.

        Args:
            true_scale, model_scale: 0.25 .. 8, standard deviations before rounding.
            precision: 7 .. 16, the table's frequencies add up to 2^precision.
        """
        costs = self.costs(true_scale, model_scale, precision)
        figure = self._figure(true_scale, model_scale, precision, costs)
        more = 100 * (costs.table / costs.entropy - 1)
        alt = (
            f"Source of scale {true_scale:g} and model of scale {model_scale:g}: entropy {costs.entropy:.2f} "
            f"bits, with the table {costs.table:.2f} bits a symbol, {more:.0f} % more"
        )
        row = [
            f"{costs.entropy:.3f}",
            f"{costs.cross_entropy:.3f}" if costs.cross_entropy < 100 else "over 100",
            f"{costs.table:.3f}",
            f"{more:+.1f} %",
            f"{DRAWN * costs.entropy / 8:.0f}",
            costs.coded,
        ]
        header = ["entropy, bits", "cross-entropy, bits", "by the table, bits", "overhead"]
        header += [f"entropy of {DRAWN} symbols, bytes", "coded, bytes"]
        return Rendered(picture_bytes(figure), alt, table_html([row], header).text)

    def _figure(self, true_scale: float, model_scale: float, precision: int, costs: Costs) -> Figure:
        shown = slice(REACH - SHOWN, REACH + SHOWN + 1)
        at = np.arange(-SHOWN, SHOWN + 1)
        with style():
            size = SIZE[0] / 96, SIZE[1] / 96
            figure = Figure(figsize=size, dpi=96, layout="constrained")
            left, right = figure.subplots(1, 2)
            left.bar(at, rounded_normal(true_scale)[shown], color=GREY, width=0.8, label="source p")
            table = frequencies(rounded_normal(model_scale), precision) / 2**precision
            left.plot(at, table[shown], "o-", color=ORANGE, markersize=4, linewidth=1, label="table q")
            left.set(title="Source and table", xlabel="symbol", ylabel="probability", ylim=(0, 1))
            left.legend(loc="upper right")
            scales = np.geomspace(SCALE_LOW, SCALE_HIGH, 31)
            curve = [self._table_cost(true_scale, scale, precision) for scale in scales]
            right.plot(scales, curve, color=ORANGE, label="by the table of each model")
            right.axhline(costs.entropy, color=GREY, linestyle="--", label="entropy of the source")
            right.plot([model_scale], [costs.table], "o", color=BLUE, markersize=8, label="this model")
            right.set(title="Bits a symbol", xlabel="scale of the model", xscale="log")
            top = max(8.0, math.ceil(costs.table + 1))
            right.set(ylim=(0, top), ylabel="bits")
            right.set_xticks([0.25, 0.5, 1, 2, 4, 8], ["0.25", "0.5", "1", "2", "4", "8"])
            right.minorticks_off()
            right.legend(loc="upper right")
        return figure

    @staticmethod
    def _table_cost(true_scale: float, model_scale: float, precision: int) -> float:
        table = frequencies(rounded_normal(model_scale), precision)
        return float((rounded_normal(true_scale) * (precision - np.log2(table))).sum())
