"""Photos, files and maps as matplotlib figures; photos are drawn pixel for pixel.

No figure touches pyplot, so none is kept, shown twice or changed by another. What a figure of photos shows at
96 dots an inch are the values of the array.

| function        | what it gives                                                                 |
|-----------------|-------------------------------------------------------------------------------|
| `photos_figure` | pictures beside each other, or details of them enlarged                       |
| `busiest`       | the rectangle of a photo that has most detail                                 |
| `file_figure`   | the parts of a file as lengths of one bar                                     |
| `heat`          | a map of numbers as colours                                                   |
| `over_photo`    | such colours over a grey version of a photo                                   |
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from dhp_lab.codec.networks.lapped import BLOCK
from dhp_lab.notebook.style import (
    BLUE,
    CHART_DPI,
    GAP,
    GREEN,
    GREY,
    LINE,
    MIN_WIDTH,
    ORANGE,
    SKY,
    enlarged,
    pixel_figure,
    place_picture,
    place_title,
    style,
)

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
PART_COLOURS = (GREY, ORANGE, BLUE, GREEN, SKY)  # of a file


def busiest(pixels: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """The rectangle of a photo in which neighbouring pixels differ most.

    Args:
        pixels: (H, W, 3).
        height, width: of the rectangle, in pixels; less where the photo is smaller.

    Returns:
        Its rows and columns.
    """
    grey = pixels.astype(np.int64).sum(2)
    change = np.zeros_like(grey)
    change[1:] += np.abs(np.diff(grey, axis=0))
    change[:, 1:] += np.abs(np.diff(grey, axis=1))
    rows, cols = min(height, grey.shape[0]), min(width, grey.shape[1])
    corner = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # summed-area table
    sums = corner[rows:, cols:] - corner[:-rows, cols:] - corner[rows:, :-cols] + corner[:-rows, :-cols]
    top, left = map(int, np.unravel_index(sums.argmax(), sums.shape))
    return slice(top, top + rows), slice(left, left + cols)


def photos_figure(pictures: Mapping[str, np.ndarray], *, zoom: int = 1) -> Figure:
    """Pictures beside each other, each pixel as zoom x zoom dots, with titles above them.

    Args:
        pictures: (H, W, 3) uint8 by title; a title may have two lines.
        zoom: 1 or more.

    Raises:
        ValueError: no picture, or one of another kind.
    """
    for title, pixels in pictures.items():
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"{title!r} must be (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    if not pictures:
        raise ValueError("no picture to draw; give at least one")
    columns = [max(MIN_WIDTH, zoom * pixels.shape[1]) for pixels in pictures.values()]
    width = sum(columns) + GAP * (len(columns) - 1)
    above = 10 + LINE * max(title.count("\n") + 1 for title in pictures)
    height = above + zoom * max(pixels.shape[0] for pixels in pictures.values())
    figure = pixel_figure(width, height)
    left = 0
    for (title, pixels), column in zip(pictures.items(), columns, strict=True):
        place_picture(figure, enlarged(pixels, zoom), left, above)
        place_title(figure, title, left, above - 7)
        left += column + GAP
    return figure


def file_figure(parts: Mapping[str, int]) -> Figure:
    """The parts of a file as lengths of one bar.

    Args:
        parts: bytes by name, in their order in the file; five at most.

    Raises:
        ValueError: no part, or a negative one.
    """
    if not parts or min(parts.values()) < 0:
        raise ValueError(f"parts must be numbers of bytes, 0 or more, got {dict(parts)}")
    with style():
        figure = Figure(figsize=(9, 1.9), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        start, total = 0, sum(parts.values())
        for (name, size), colour in zip(parts.items(), PART_COLOURS[: len(parts)], strict=True):
            label = f"{name}: {size} bytes ({size / total:.1%})"
            axes.barh(0, size, left=start, color=colour, edgecolor="white", linewidth=0.5, label=label)
            start += size
        axes.set(xlim=(0, total), ylim=(-0.5, 0.5), yticks=[], xlabel="place in the file, bytes")
        axes.spines["left"].set_visible(False)
        axes.grid(False)
        figure.legend(loc="outside upper left", ncols=len(parts), handlelength=1, handleheight=1)
    return figure


def heat(
    values: np.ndarray, low: float, high: float, *, colours: str = "viridis", log: bool = False
) -> np.ndarray:
    """A map (h, w) as (h, w, 3) uint8 in the colours of one of matplotlib's maps.

    Args:
        values: any numbers; what lies beyond the ends is clipped.
        low, high: the ends of the colours.
        colours: the name of a colour map.
        log: whether the colours are spaced logarithmically.

    Raises:
        ValueError: low is not below high, or not above 0 with ``log``.
    """
    if not low < high or (log and low <= 0):
        raise ValueError(f"low must be below high{', and above 0' if log else ''}; got {low} and {high}")
    if log:
        values = np.log2(np.maximum(values, low))
        low, high = np.log2(low), np.log2(high)
    shade = ((values - low) / (high - low)).clip(0, 1)
    return (matplotlib.colormaps[colours](shade)[..., :3] * 255).round().astype(np.uint8)


def over_photo(
    pixels: np.ndarray, colours: np.ndarray, *, block: int = BLOCK, share: float = 0.65
) -> np.ndarray:
    """Colours laid over a grey version of a photo.

    Args:
        pixels: (H, W, 3) uint8.
        colours: (h, w, 3) uint8, one for each block of pixels.
        block: the side of a block in pixels.
        share: opacity of the colours, 0 .. 1.

    Returns:
        (H, W, 3) uint8.
    """
    H, W = pixels.shape[:2]
    wide = enlarged(colours, block)[:H, :W]
    grey = (pixels @ LUMA)[..., None]
    return (share * wide + (1 - share) * grey).round().astype(np.uint8)
