"""Paired differences, maps over photos, and the explorer's pure picture.

| function or class | what it gives                                                                    |
|-------------------|----------------------------------------------------------------------------------|
| `paired_figure`   | paired differences with their means and intervals                                |
| `map_pixels`      | a map of lambdas over a grey photo                                               |
| `octaves_of`      | the map that gives an area more bits, or fewer                                   |
| `LambdaMaps`      | the explorer: a photo with a lambda for each block, beside one lambda for all    |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.codec import dhp_file
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import PHOTOS, load_photo
from dhp_lab.lessons.where_next.latent_hooks import (
    MAP_BLOCK,
    decode_with_map,
    encode_with_map,
    middle,
    over_pixels,
    region_psnr,
    smoothness_rank,
)
from dhp_lab.lessons.where_next.reverse_channel import paired_interval
from dhp_lab.metrics.pixels import decibel, ms_ssim, psnr
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.photo_figures import heat, over_photo, photos_figure
from dhp_lab.notebook.style import BLUE, CHART_DPI, GAP, GREY, LINE, ORANGE, style

MIDDLE, SMOOTH = "the middle", "smooth blocks"
AREAS = {MIDDLE: middle, SMOOTH: smoothness_rank}
SIDE = 320  # of the explorer's photos, in pixels: 5 x 5 blocks
SIZE = 3 * SIDE + 2 * GAP, SIDE + 10 + 2 * LINE
MOST = 4  # octaves of lambda that a map may differ by
KEPT = 64  # files and pictures that the caches hold


def map_pixels(x: Tensor, octaves: Tensor) -> np.ndarray:
    """A map over a photo: yellow where lambda is small, dark where it is large.

    Args:
        x: (1, 3, H, W) in [0, 1].
        octaves: (rows, cols), a number for each block of 64 x 64 pixels.

    Returns:
        (H, W, 3) uint8.
    """
    colours = heat(octaves.cpu().numpy(), -MOST, MOST)
    return over_photo(to_pixels(x), colours, block=MAP_BLOCK, share=0.6)


def octaves_of(area: str, x: Tensor, strength: int) -> Tensor:
    """The map (rows, cols), int32, that gives an area of a photo ``strength`` octaves.

    Raises:
        ValueError: another area than those of ``AREAS``.
    """
    if area not in AREAS:
        raise ValueError(f"there is no area {area!r}; choose one of {', '.join(AREAS)}")
    return (strength * AREAS[area](x)).round().int()


def octaves_text(count: int) -> str:
    """A number of octaves in words: "1 octave", "-2 octaves"."""
    return f"{count} octave" if abs(count) == 1 else f"{count} octaves"


def paired_figure(groups: Mapping[str, Sequence[float]], *, xlabel: str) -> Figure:
    """Paired differences by name, each as a tick, with their means and 95 % intervals."""
    with style():
        height = 1.1 + 0.42 * len(groups)
        figure = Figure(figsize=(7.2, height), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=GREY, linestyle="--", linewidth=1.1)
        for place, values in enumerate(groups.values()):
            mean, half = paired_interval(np.asarray(values))
            axes.plot(values, [place] * len(values), "|", color=ORANGE, markersize=13)
            axes.errorbar(mean, place, xerr=half, fmt="o", color=BLUE, capsize=5)
        axes.set_yticks(range(len(groups)), list(groups))
        axes.set(xlabel=xlabel, ylim=(len(groups) - 0.5, -0.5))
    return figure


class LambdaMaps:
    """Photos of at most 320 x 320 pixels through a model, with maps of lambda.

    Each file is written and decoded once. ``encode_mapped`` and ``encode_plain`` give a file's bytes and its
    decoded picture.
    """

    def __init__(self, model: DiffusionHyperprior) -> None:
        self.model = model
        self.photo = lru_cache(len(PHOTOS))(self._photo)
        self.encode_mapped = lru_cache(KEPT)(self._encode_mapped)
        self.encode_plain = lru_cache(KEPT)(self._encode_plain)

    def render(self, *, photo: str, area: str, lambda_rate: float, strength: int) -> Rendered:
        """The map over the photo, the photo decoded with it, and with one lambda in at most as many bytes.

        Args:
            photo: a name of ``PHOTOS``.
            area: a name of ``AREAS``.
            lambda_rate: of the picture, 1e-6 .. 1e-1.
            strength: octaves of lambda for the area, -MOST .. MOST.
        """
        x = self.photo(photo)
        octaves = octaves_of(area, x, strength)
        mapped_size, mapped = self.encode_mapped(photo, area, lambda_rate, strength)
        plain_size, plain = self.encode_plain(photo, mapped_size, lambda_rate)
        limits = f"{octaves.min()} dark .. {octaves.max()} yellow"
        figure = photos_figure(
            {
                f"the map, {limits}\noctaves of λ below the picture's": map_pixels(x, octaves),
                f"a λ for each block\n{mapped_size} bytes": to_pixels(mapped),
                f"one λ\n{plain_size} bytes": to_pixels(plain),
            }
        )
        inside = over_pixels(AREAS[area](x) > 0, x.shape[-2:])  # (H, W)
        rows = [
            ["a λ for each block", mapped_size, *_quality(mapped, x, inside)],
            ["one λ", plain_size, *_quality(plain, x, inside)],
        ]
        header = ["", "bytes", f"PSNR of {area}, dB", "of all else", "of all", "MS-SSIM of all, dB"]
        alt = (
            f"{photo}: a map that gives {area} {octaves_text(strength)} of λ; the photo decoded with it from "
            f"{mapped_size} bytes, and with one λ from {plain_size} bytes"
        )
        text = f"<p>λ = {lambda_rate:g}, {area}: {octaves_text(strength)}</p>{table_html(rows, header).text}"
        return Rendered(picture_bytes(figure, compress_level=1), alt, text)

    def _photo(self, photo: str) -> Tensor:
        return load_photo(photo, SIDE).to(self.model.log2_spread.device)

    def _encode_mapped(self, photo: str, area: str, lambda_rate: float, strength: int) -> tuple[int, Tensor]:
        x = self.photo(photo)
        octaves = octaves_of(area, x, strength)
        data, map_data = encode_with_map(self.model, x, lambda_rate, octaves)
        return len(data) + len(map_data), decode_with_map(self.model, data, map_data)

    def _encode_plain(self, photo: str, n_bytes: int, near_lambda: float) -> tuple[int, Tensor]:
        data = dhp_file.encode_within(self.model, self.photo(photo), n_bytes, near_lambda=near_lambda)
        return len(data), dhp_file.decode(self.model, data)


def _quality(x_hat: Tensor, x: Tensor, inside: Tensor) -> list[str]:
    """PSNR inside, outside and of all, and MS-SSIM, in dB."""
    values = [
        region_psnr(x_hat, x, inside),
        region_psnr(x_hat, x, ~inside),
        psnr(x_hat, x).item(),
        decibel(ms_ssim(x_hat, x).item()),
    ]
    return [f"{value:.2f}" for value in values]
