"""Lesson 10: the losses of trainings, maps over photos, and the explorer's pure picture.

| function or class | what it gives                                                                    |
|-------------------|----------------------------------------------------------------------------------|
| `losses_figure`   | losses by name against the step                                                  |
| `map_pixels`      | a map of lambdas over a grey photo                                               |
| `LambdaMaps`      | the explorer: a photo with a lambda for each block, beside one lambda for all    |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import PHOTOS, load_photo
from dhp_lab.lessons.where_next.between import (
    MAP_BLOCK,
    smoothness_rank,
    decode_with_map,
    encode_with_map,
    encode_within,
    middle,
    over_pixels,
    region_psnr,
)
from dhp_lab.metrics.pixels import decibel, ms_ssim, psnr
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.photo_figures import heat, over_photo, photos_figure
from dhp_lab.notebook.style import BLUE, CHART_DPI, GAP, GREEN, LINE, ORANGE, SKY, style

MIDDLE, CALM = "the middle", "calm blocks"
AREAS = {MIDDLE: middle, CALM: smoothness_rank}
SIDE = 320  # of the explorer's photos, in pixels: 5 x 5 blocks
SIZE = 3 * SIDE + 2 * GAP, SIDE + 10 + 2 * LINE
MOST = 4  # octaves of lambda that a map may differ by
KEPT = 64  # files and pictures that the caches hold


def losses_figure(losses: Mapping[str, Sequence[float]], *, ylabel: str) -> Figure:
    """Losses by name, one at each step, on a logarithmic axis."""
    with style():
        figure = Figure(figsize=(7.2, 2.9), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for (name, values), colour, line in zip(
            losses.items(), (BLUE, ORANGE, SKY, GREEN), ("-", "--", "-", "--")
        ):
            axes.semilogy(
                np.arange(1, len(values) + 1), values, color=colour, linestyle=line, linewidth=1.4, label=name
            )
        axes.set(xlabel="step", ylabel=ylabel)
        figure.legend(loc="outside right upper", fontsize=9)
    return figure


def map_pixels(x: Tensor, octaves: Tensor) -> np.ndarray:
    """A map (rows, cols) in octaves over a photo (1, 3, H, W): yellow where lambda is small, dark where it is
    large; uint8.
    """
    return over_photo(to_pixels(x), heat(octaves.cpu().numpy(), -MOST, MOST), block=MAP_BLOCK, share=0.6)


def octaves_of(area: str, x: Tensor, strength: int) -> Tensor:
    """The map that gives an area ``strength`` octaves: whole numbers (rows, cols).

    Raises:
        ValueError: another area than those of ``AREAS``.
    """
    if area not in AREAS:
        raise ValueError(f"there is no area {area!r}; choose one of {', '.join(AREAS)}")
    return (strength * AREAS[area](x)).round().int()


class LambdaMaps:
    """Photos of at most 320 x 320 pixels through a model, with maps of lambda: each file is written and
    decoded once.
    """

    def __init__(self, model: DiffusionHyperprior) -> None:
        self.model = model
        self.photo, self.code, self.plain = (
            lru_cache(len(PHOTOS))(self._photo),
            lru_cache(KEPT)(self._code),
            lru_cache(KEPT)(self._plain),
        )

    def render(self, *, photo: str, area: str, lambda_rate: float, strength: int) -> Rendered:
        """The map over the photo, the photo decoded with it, and with one lambda at as many bytes; PSNR in
        and out of the area.
        """
        x, octaves = self.photo(photo), octaves_of(area, self.photo(photo), strength)
        size, ours = self.code(photo, area, lambda_rate, strength)
        plain_size, plain = self.plain(photo, size)
        chosen = over_pixels(AREAS[area](x) > 0, x.shape[-2:])
        rows = [
            [name, n_bytes, *_quality(x_hat, x, chosen)]
            for name, n_bytes, x_hat in (("a λ for each block", size, ours), ("one λ", plain_size, plain))
        ]
        figure = photos_figure(
            {
                f"the map, {octaves.min()} dark .. {octaves.max()} yellow\noctaves of λ below the picture's": map_pixels(
                    x, octaves
                ),
                f"a λ for each block\n{size} bytes": to_pixels(ours),
                f"one λ\n{plain_size} bytes": to_pixels(plain),
            }
        )
        alt = (
            f"{photo}: a map that gives {area} {strength} octaves of λ; the photo decoded with it from {size} bytes, "
            f"and with one λ from {plain_size} bytes"
        )
        table = table_html(
            rows, ["", "bytes", f"PSNR of {area}, dB", "of all else", "of all", "MS-SSIM of all, dB"]
        ).text
        return Rendered(
            picture_bytes(figure, compress_level=1),
            alt,
            f"<p>λ = {lambda_rate:g}, {area}: {strength} octaves</p>{table}",
        )

    def _photo(self, photo: str) -> Tensor:
        return load_photo(photo, SIDE).to(self.model.log2_spread.device)

    def _code(self, photo: str, area: str, lambda_rate: float, strength: int) -> tuple[int, Tensor]:
        x = self.photo(photo)
        data, map_data = encode_with_map(self.model, x, lambda_rate, octaves_of(area, x, strength))
        return len(data) + len(map_data), decode_with_map(self.model, data, map_data)

    def _plain(self, photo: str, n_bytes: int) -> tuple[int, Tensor]:
        data = encode_within(self.model, self.photo(photo), n_bytes)
        file = bitstream.read(data)
        return len(data), self.model.decompress(file.strings, file.shape, steps=1)["x_hat"]


def _quality(x_hat: Tensor, x: Tensor, chosen: torch.Tensor) -> list[str]:
    parts = region_psnr(x_hat, x, chosen), region_psnr(x_hat, x, ~chosen), psnr(x_hat, x).item()
    return [*(f"{part:.2f}" for part in parts), f"{decibel(ms_ssim(x_hat, x).item()):.2f}"]
