"""Lesson 06: figures of rounding, coding and what z knows, and the explorer's pure picture.

| function or class   | what it gives                                                                              |
|---------------------|--------------------------------------------------------------------------------------------|
| `proxy_figure`      | a density smeared by uniform noise, and the bits of noise and of rounding against the scale |
| `state_figure`      | how a coder's state grows, symbol by symbol                                                |
| `bytes_figure`      | bytes of z and y by entropy model                                                          |
| `gain_figure`       | Delta against lambda, and what each file costs at a price                                  |
| `heat`, `over_photo`| a map as colours, alone or over a photo                                                    |
| `HyperpriorMaps`    | symbols, scales and bits of a photo for the explorer                                       |

The entropy models that the lesson fits are in ``entropy_models``, the figures of passes and of bins in
``passes_and_bins``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.entropy_coding import encode_latents
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.lapped import BLOCK
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import load_photo
from dhp_lab.metrics.pixels import bits_per_pixel, psnr
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.photo_figures import heat, over_photo, photos_figure
from dhp_lab.notebook.style import (
    BLUE,
    CHART_DPI,
    GAP,
    GREEN,
    GREY,
    LINE,
    ORANGE,
    SKY,
    style,
)

SHOWN = 256  # pixels of a panel's longer side in the explorer
SIZE = 4 * SHOWN + 3 * GAP, 10 + 2 * LINE + SHOWN
SCALE_LOW, SCALE_HIGH = 1 / 8, 16.0  # steps; the ends of the colours of scales
KEPT = 16  # coded photos that a cache holds, 3 MB each


def proxy_figure(
    at: np.ndarray,
    density: np.ndarray,
    smeared: np.ndarray,
    shares: Mapping[int, float],
    scales: Sequence[float],
    bits: Mapping[str, Sequence[float]],
) -> Figure:
    """Left: a density and the same with uniform noise, over the numbers ``at``, and the shares of whole
    numbers as points. Right: bits for a latent by name, against the scale.
    """
    with style():
        figure = Figure(figsize=(10, 3.3), dpi=CHART_DPI, layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(at, density, color=GREY, linestyle="--", label="y")
        left.plot(at, smeared, color=BLUE, label="y + noise")
        left.plot(list(shares), list(shares.values()), "o", color=ORANGE, label="y rounded: probability")
        left.set(title="Density of y with noise", xlabel="value, in steps", ylim=(0, 1.5 * density.max()))
        left.legend(loc="upper right")
        for (name, values), colour, line in zip(bits.items(), (ORANGE, BLUE, GREEN), ("-", "-", "--")):
            right.plot(scales, values, color=colour, linestyle=line, label=name)
        right.set(
            title="Bits for a latent", xlabel="scale, in steps", xscale="log", ylabel="bits", ylim=(0, None)
        )
        right.set_xticks(ticks := [0.125, 0.25, 0.5, 1, 2, 4], [f"{tick:g}" for tick in ticks])
        right.minorticks_off()
        right.legend(loc="upper left")
    return figure


def state_figure(needed: Sequence[float], states: Sequence[int]) -> Figure:
    """Bits of a coder's state after 0, 1, 2, ... symbols, and the bits that the symbols need, added up
    likewise.
    """
    with style():
        figure = Figure(figsize=(8, 3), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        axes.step(range(len(needed)), needed, where="post", color=ORANGE, label="sum of log2(1 / p)")
        held = [float(np.log2(float(state))) if state < 2**1000 else state.bit_length() for state in states]
        axes.plot(range(len(states)), held, "o", color=BLUE, markersize=4, label="log2 of the state")
        axes.set(xlabel="symbols pushed", ylabel="bits", ylim=(0, None), xlim=(-0.5, len(states)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper left")
    return figure


def bytes_figure(rows: Mapping[str, Mapping[str, int]]) -> Figure:
    """Bars of bytes: the parts, by name, of each row; the sum stands at the bar's end."""
    with style():
        figure = Figure(figsize=(9.4, 0.6 + 0.5 * len(rows)), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        parts = list(next(iter(rows.values())))
        start = np.zeros(len(rows))
        for part, colour in zip(parts, (ORANGE, BLUE, GREEN, SKY)):
            sizes = np.array([row[part] for row in rows.values()])
            axes.barh(list(rows), sizes, left=start, color=colour, label=part, height=0.6)
            start += sizes
        for place, total in enumerate(start):
            axes.annotate(
                f"{total:.0f}", (total, place), xytext=(5, 0), textcoords="offset points", va="center"
            )
        axes.set(xlabel="bytes", xlim=(0, 1.12 * start.max()))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower right", ncols=len(parts), handlelength=1)
    return figure


def gain_figure(
    lambdas: np.ndarray,
    deltas: Mapping[str, np.ndarray],
    asked: np.ndarray,
    costs: Mapping[float, np.ndarray],
) -> Figure:
    """Left: steps by name against lambda. Right: for each price, what the files made at the lambdas ``asked``
    cost, as a share of the cheapest of them.
    """
    with style():
        figure = Figure(figsize=(10.8, 3.4), dpi=CHART_DPI, layout="constrained")
        left, right = figure.subplots(1, 2)
        for (name, values), colour, line in zip(deltas.items(), (BLUE, GREY), ("-", "--")):
            left.loglog(lambdas, values, color=colour, linestyle=line, label=name)
        left.set(title="The step for each λ", xlabel="λ", ylabel="Δ")
        left.legend(loc="upper left")
        for (price, values), colour in zip(costs.items(), (BLUE, ORANGE, GREEN, SKY)):
            right.semilogx(
                asked, values / values.min(), "o-", color=colour, markersize=4, label=f"price {price:g}"
            )
            right.axvline(price, color=colour, linestyle=":", linewidth=1.2)
        right.set(
            title="MSE + price · bits per pixel, least = 1",
            xlabel="λ that the file was made with",
            ylim=(0.97, 2),
        )
        figure.legend(*right.get_legend_handles_labels(), loc="outside right upper")
    return figure


@dataclass(frozen=True)
class CodedPhoto:
    """A photo's file and what was written into it: symbols and scales (M, h, w) in steps, bits (h, w) of y."""

    symbols: np.ndarray
    scale: np.ndarray
    bits: np.ndarray
    parts: dict[str, int]
    x_hat: Tensor


class HyperpriorMaps:
    """A model and photos of at most side x side pixels, 256 or 512: each is coded once for each lambda."""

    def __init__(self, model: DiffusionHyperprior, side: int = 2 * SHOWN) -> None:
        if side not in (SHOWN, 2 * SHOWN):
            raise ValueError(f"side must be {SHOWN} or {2 * SHOWN}, got {side}")
        self.model, self.side = model, side
        self.code = lru_cache(maxsize=KEPT)(self._code)

    @torch.no_grad()
    def _code(self, photo: str, lambda_rate: float) -> CodedPhoto:
        model = self.model
        x = load_photo(photo, self.side).to(model.log2_spread.device)
        code, shape = lambda_code(lambda_rate), tuple(x.shape[-2:])
        latents = model.encode(x, [code])
        bits = -model.likelihoods(latents)["y"].log2().sum(1)[0]  # (h, w)
        strings = encode_latents(model, latents, code)
        data = bitstream.write(strings, shape, **model.file_fields)
        y, z = (len(part[0]) for part in strings[:2])
        x_hat = model.decompress(strings, shape, steps=0)["x_hat"].cpu()
        parts = {"header": len(data) - y - z, "z": z, "y": y}
        arrays = (t.float().cpu().numpy() for t in (latents.symbols[0], latents.scale[0], bits))
        return CodedPhoto(*arrays, parts, x_hat)

    def render(self, *, photo: str, lambda_rate: float, channel: int) -> Rendered:
        """The decoded photo; a channel's symbols and the scales they were coded with; the bits of each block."""
        coded, x = self.code(photo, lambda_rate), load_photo(photo, self.side)
        block = BLOCK * SHOWN // self.side
        symbols, scale = coded.symbols[channel], coded.scale[channel]
        limit, most = max(1.0, float(np.abs(symbols).max())), max(1.0, float(coded.bits.max()))
        shown = to_pixels(F.interpolate(coded.x_hat, scale_factor=SHOWN / self.side, mode="area"))

        def panel(colours: np.ndarray, share: float = 1.0) -> np.ndarray:
            return over_photo(shown, colours, block=block, share=share)

        signed, wide = (
            heat(symbols, -limit, limit, colours="RdBu_r"),
            heat(scale, SCALE_LOW, SCALE_HIGH, log=True),
        )
        figure = photos_figure(
            {
                "decoded, no diffusion": shown,
                f"symbols of channel {channel}\n-{limit:g} blue .. {limit:g} red": panel(signed),
                f"scale they were coded with\n{SCALE_LOW:g} dark .. {SCALE_HIGH:g} yellow": panel(wide),
                f"bits of y in each block\n0 dark .. {most:.0f} yellow": panel(
                    heat(coded.bits, 0, most, colours="inferno"), 0.75
                ),
            }
        )
        total, quality = sum(coded.parts.values()), psnr(coded.x_hat, x).item()
        alt = (
            f"{photo} at λ = {lambda_rate:g}: decoded from {total} bytes; symbols and scales of channel {channel}; "
            f"a map of the bits, up to {most:.0f} in a block"
        )
        return Rendered(
            picture_bytes(figure, compress_level=1), alt, self._text(coded, lambda_rate, channel, quality, x)
        )

    def _text(self, coded: CodedPhoto, lambda_rate: float, channel: int, quality: float, x: Tensor) -> str:
        total, symbols = sum(coded.parts.values()), coded.symbols
        row = [
            f"{self.model.step_size(lambda_rate):.4f}",
            *map(str, coded.parts.values()),
            str(total),
            f"{bits_per_pixel(total, *x.shape[-2:]):.3f}",
            f"{quality:.2f}",
        ]
        header = [
            "Δ",
            *(f"{name}, bytes" for name in coded.parts),
            "file, bytes",
            "bits per pixel",
            "PSNR, dB",
        ]
        table = table_html([row], header).text
        busy = np.count_nonzero(np.abs(symbols).max((1, 2)))
        told = f"{np.count_nonzero(symbols[channel])} of {symbols[channel].size} symbols of channel {channel} are not 0"
        return f"{table}<p>{told}; {busy} of {len(symbols)} channels hold any symbol that is not.</p>"
