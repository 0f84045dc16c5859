"""The lesson's figures of rounding and coding, and the explorer's pure picture.

| function or class | what it gives                                                                          |
|-------------------|----------------------------------------------------------------------------------------|
| `proxy_figure`    | a density smeared by uniform noise; bits of noise and of rounding against the scale    |
| `bytes_figure`    | bytes of z and y by entropy model                                                      |
| `gain_figure`     | Delta against lambda, and what files cost at steps beside it                           |
| `HyperpriorMaps`  | symbols, scales and bits of a photo for the explorer                                   |

The entropy models that the lesson fits are in ``entropy_models``, the figures of passes and of bins in
``passes_and_bins``, of the whole codec in ``diagram``, of the lapped transform in ``transform_figures``, of
training's objective in ``proxies``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.lapped import BLOCK
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import load_photo
from dhp_lab.metrics.pixels import bits_per_pixel, psnr
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.photo_figures import heat, over_photo, photos_figure
from dhp_lab.notebook.style import BLUE, CHART_DPI, GAP, GREEN, GREY, LINE, ORANGE, SKY, style

COLOURS = (BLUE, ORANGE, GREEN, SKY)
BITS_LOOKS = ((ORANGE, "-"), (BLUE, "-"), (GREEN, "--"))
SCALE_TICKS = (0.125, 0.25, 0.5, 1, 2, 4)
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
    """Left: a density, and the same with additive uniform noise. Right: bits for a latent against the scale.

    Args:
        at: (n,) values in steps.
        density, smeared: (n,) without and with noise.
        shares: probabilities of the whole numbers, drawn as points.
        scales: (k,) in steps.
        bits: (k,) by name, three at most.
    """
    with style():
        figure = Figure(figsize=(10, 3.3), dpi=CHART_DPI, layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(at, density, color=GREY, linestyle="--", label="y")
        left.plot(at, smeared, color=BLUE, label="y + noise")
        left.plot(list(shares), list(shares.values()), "o", color=ORANGE, label="y rounded: probability")
        left.set(title="Density of y with noise", xlabel="value, in steps", ylim=(0, 1.5 * density.max()))
        left.legend(loc="upper right")
        for (name, values), (colour, line) in zip(bits.items(), BITS_LOOKS[: len(bits)], strict=True):
            right.plot(scales, values, color=colour, linestyle=line, label=name)
        right.set(title="Bits for a latent", xlabel="scale, in steps", ylabel="bits")
        right.set(xscale="log", ylim=(0, None))
        right.set_xticks(SCALE_TICKS, [f"{tick:g}" for tick in SCALE_TICKS])
        right.minorticks_off()
        right.legend(loc="upper left")
    return figure


def bytes_figure(rows: Mapping[str, Mapping[str, int]]) -> Figure:
    """Bars of bytes, a row for each name; the sum is written at the bar's end.

    Args:
        rows: bytes of the same parts, four at most, by their names.
    """
    with style():
        figure = Figure(figsize=(9.4, 0.6 + 0.5 * len(rows)), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        parts = list(next(iter(rows.values())))
        start = np.zeros(len(rows))
        for part, colour in zip(parts, (ORANGE, BLUE, GREEN, SKY)[: len(parts)], strict=True):
            sizes = np.array([row[part] for row in rows.values()])
            axes.barh(list(rows), sizes, left=start, color=colour, label=part, height=0.6)
            start += sizes
        for place, total in enumerate(start):
            offset = {"xytext": (5, 0), "textcoords": "offset points"}
            axes.annotate(f"{total:.0f}", (total, place), **offset, va="center")
        axes.set(xlabel="bytes", xlim=(0, 1.12 * start.max()))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower right", ncols=len(parts), handlelength=1)
    return figure


def gain_figure(
    lambdas: np.ndarray,
    deltas: Mapping[str, np.ndarray],
    best: Mapping[float, float],
    steps: Mapping[float, np.ndarray],
    costs: Mapping[float, np.ndarray],
) -> Figure:
    """Left: the step against lambda. Right: the cost of files against their step, over the least.

    Args:
        lambdas: (n,).
        deltas: (n,) steps under two names, the second dashed.
        best: the step measured as the best, by lambda.
        steps: (k,) steps of files in units of the curve's own, by lambda; four lambdas at most.
        costs: (k,) MSE + lambda * bits per pixel of these files over their least, likewise.
    """
    with style():
        figure = Figure(figsize=(10.8, 3.4), dpi=CHART_DPI, layout="constrained")
        left, right = figure.subplots(1, 2)
        for (name, values), (colour, line) in zip(deltas.items(), ((BLUE, "-"), (GREY, "--")), strict=True):
            left.loglog(lambdas, values, color=colour, linestyle=line, label=name)
        left.loglog(list(best), list(best.values()), "o", color=ORANGE, label="best, measured")
        left.set(title="The step for each λ", xlabel="λ", ylabel="Δ")
        left.legend(loc="upper left")
        for rate, colour in zip(costs, COLOURS[: len(costs)], strict=True):
            right.plot(steps[rate], costs[rate], "o-", color=colour, markersize=4, label=f"λ = {rate:g}")
        right.axvline(1, color=GREY, linestyle=":", linewidth=1.2)
        right.set(title="MSE + λ · bits per pixel over the least", xlabel="step, over the codec's own")
        right.set(xscale="log", ylim=(0.98, 1.3), xlim=(0.5, 3.2))
        right.set_xticks([0.5, 1, 2, 3], ["0.5", "1", "2", "3"])
        right.minorticks_off()
        right.legend(loc="upper center")
    return figure


@dataclass(frozen=True)
class CodedPhoto:
    """A photo's file and what was written into it.

    Attributes:
        symbols, scale: (M, h, w) of y, in steps.
        bits: (h, w) estimated bits of y at each place.
        parts: bytes of the file by part.
        x_hat: (1, 3, H, W) decoded without diffusion, on the CPU.
    """

    symbols: np.ndarray
    scale: np.ndarray
    bits: np.ndarray
    parts: dict[str, int]
    x_hat: Tensor


class HyperpriorMaps:
    """A model and photos: each is coded once for each lambda.

    Args:
        model: on any device.
        side: a photo's largest side in pixels, 256 or 512.

    Raises:
        ValueError: another side.
    """

    def __init__(self, model: DiffusionHyperprior, side: int = 2 * SHOWN) -> None:
        if side not in (SHOWN, 2 * SHOWN):
            raise ValueError(f"side must be {SHOWN} or {2 * SHOWN}, got {side}")
        self.model, self.side = model, side
        self.code = lru_cache(maxsize=KEPT)(self._code)

    @torch.no_grad()
    def _code(self, photo: str, lambda_rate: float) -> CodedPhoto:
        model = self.model
        x = load_photo(photo, self.side).to(model.log2_spread.device)
        latents = model.encode(x, [lambda_code(lambda_rate)])
        bits = -model.likelihoods(latents)["y"].log2().sum(1)[0]  # (h, w)
        data = dhp_file.encode(model, x, lambda_rate=lambda_rate)
        file = bitstream.read(data)
        return CodedPhoto(
            symbols=latents.symbols[0].float().cpu().numpy(),
            scale=latents.scale[0].float().cpu().numpy(),
            bits=bits.float().cpu().numpy(),
            parts={"header": bitstream.HEADER_BYTES, "z": len(file.z), "y": len(file.y)},
            x_hat=dhp_file.decode(model, file, steps=0).cpu(),
        )

    def render(self, *, photo: str, lambda_rate: float, channel: int) -> Rendered:
        """The decoded photo; a channel's symbols and the scales they were coded with; the bits of each block.

        Args:
            photo: a name of ``PHOTOS``.
            lambda_rate: 1e-6 .. 1e-1.
            channel: of y, 0 .. M - 1.
        """
        coded, x = self.code(photo, lambda_rate), load_photo(photo, self.side)
        most_bits = max(1.0, float(coded.bits.max()))
        figure = self._figure(coded, channel, most_bits)
        total = sum(coded.parts.values())
        alt = (
            f"{photo} at λ = {lambda_rate:g}: decoded from {total} bytes; symbols and scales of channel "
            f"{channel}; a map of the bits, up to {most_bits:.0f} in a block"
        )
        text = self._table(coded, lambda_rate, x) + self._count(coded.symbols, channel)
        return Rendered(picture_bytes(figure, compress_level=1), alt, text)

    def _figure(self, coded: CodedPhoto, channel: int, most_bits: float) -> Figure:
        symbols, scale = coded.symbols[channel], coded.scale[channel]
        limit = max(1.0, float(np.abs(symbols).max()))
        shown = to_pixels(F.interpolate(coded.x_hat, scale_factor=SHOWN / self.side, mode="area"))
        maps = {
            f"symbols of channel {channel}\n-{limit:g} blue .. {limit:g} red": (
                heat(symbols, -limit, limit, colours="RdBu_r"),
                1.0,
            ),
            f"scale they were coded with\n{SCALE_LOW:g} dark .. {SCALE_HIGH:g} yellow": (
                heat(scale, SCALE_LOW, SCALE_HIGH, log=True),
                1.0,
            ),
            f"bits of y in each block\n0 dark .. {most_bits:.0f} yellow": (
                heat(coded.bits, 0, most_bits, colours="inferno"),
                0.75,
            ),
        }
        block = BLOCK * SHOWN // self.side
        panels = {"decoded, no diffusion": shown}
        for title, (colours, share) in maps.items():
            panels[title] = over_photo(shown, colours, block=block, share=share)
        return photos_figure(panels)

    def _table(self, coded: CodedPhoto, lambda_rate: float, x: Tensor) -> str:
        total = sum(coded.parts.values())
        row = [
            f"{self.model.step_size(lambda_rate):.4f}",
            *map(str, coded.parts.values()),
            str(total),
            f"{bits_per_pixel(total, *x.shape[-2:]):.3f}",
            f"{psnr(coded.x_hat, x).item():.2f}",
        ]
        parts = [f"{name}, bytes" for name in coded.parts]
        return table_html([row], ["Δ", *parts, "file, bytes", "bits per pixel", "PSNR, dB"]).text

    @staticmethod
    def _count(symbols: np.ndarray, channel: int) -> str:
        """How many symbols of the channel are not 0, and how many channels hold one, as a paragraph."""
        chosen = symbols[channel]
        busy = np.count_nonzero(np.abs(symbols).max((1, 2)))
        return (
            f"<p>{np.count_nonzero(chosen)} of {chosen.size} symbols of channel {channel} are not 0; "
            f"{busy} of {len(symbols)} channels hold any symbol that is not.</p>"
        )
