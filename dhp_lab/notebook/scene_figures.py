"""Captioned scenes as figures, and the size of one as a file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from dhp_lab.data.images import to_pixels
from dhp_lab.notebook.digit_figures import GAP, LABEL
from dhp_lab.notebook.style import enlarged, fill_figure, pixel_figure

TITLE = 17  # CSS pixels for a line of titles


def scenes_figure(
    rows: Mapping[str, Tensor],
    *,
    titles: Sequence[str] = (),
    zoom: int = 1,
    label: int = LABEL,
) -> Figure:
    """Rows of colour pictures with labels on their left; each pixel is a square of zoom x zoom dots at 96
    dots an inch.

    Args:
        rows: (n, 3, H, W) in [0, 1] by label, one H and W for all; a row may be shorter than another.
        titles: above the columns; each may have several lines.
        zoom: 1 or more.
        label: width of the labels in dots; no room is kept for them if they are all empty.

    Raises:
        ValueError: no row, or one that is not made of pictures of that size.
    """
    shapes = [tuple(pictures.shape) for pictures in rows.values()]
    if not rows or any(len(shape) != 4 or shape[1] != 3 or shape[1:] != shapes[0][1:] for shape in shapes):
        raise ValueError(f"rows must hold pictures (n, 3, H, W) of one size, got {shapes}")
    tall, wide = (zoom * side + GAP for side in shapes[0][2:])  # of a picture and the gap behind it
    left = label if any(rows) else 0
    top = 4 + TITLE * max(title.count("\n") + 1 for title in titles) if titles else 0
    width = left + wide * max(len(pictures) for pictures in rows.values()) - GAP
    height = top + tall * len(rows) - GAP
    figure = pixel_figure(width, height)
    canvas = np.full((height, width, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        middle = left + column * wide + (wide - GAP) / 2
        _write(figure, title, middle / width, 1 - (top - 4) / height, ha="center", va="bottom")
    for row, (name, pictures) in enumerate(rows.items()):
        start = top + row * tall
        _write(figure, name, 0, 1 - (start + (tall - GAP) / 2) / height, va="center")
        for column, picture in enumerate(pictures.cpu()):
            across = left + column * wide
            place = slice(start, start + tall - GAP), slice(across, across + wide - GAP)
            canvas[place] = enlarged(to_pixels(picture[None]), zoom)
    fill_figure(figure, canvas)
    return figure


def _write(figure: Figure, text: str, x: float, y: float, **place: str) -> None:
    figure.text(x, y, text, fontsize=9.5, linespacing=1.3, **place)


def file_bits(picture: Tensor, format: str, **options: object) -> int:
    """The bits of a file of the picture (1, 3, H, W) in [0, 1]; format and options are Pillow's."""
    file = io.BytesIO()
    Image.fromarray(to_pixels(picture)).save(file, format, **options)
    return 8 * len(file.getvalue())
