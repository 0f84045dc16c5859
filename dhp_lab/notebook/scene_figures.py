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
from dhp_lab.notebook.style import CSS_DPI

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
        label: width of the labels in dots; no room is kept for them if they are all empty.

    Raises:
        ValueError: no row, or one that is not made of pictures of that size.
    """
    shapes = [tuple(x.shape) for x in rows.values()]
    if not rows or any(len(shape) != 4 or shape[1] != 3 or shape[1:] != shapes[0][1:] for shape in shapes):
        raise ValueError(f"rows must hold pictures (n, 3, H, W) of one size, got {shapes}")
    tall, wide = (zoom * side + GAP for side in shapes[0][2:])
    left, top = (
        label if any(rows) else 0,
        4 + TITLE * max(title.count("\n") + 1 for title in titles) if titles else 0,
    )
    width, height = left + wide * max(map(len, rows.values())) - GAP, top + tall * len(rows) - GAP
    figure = Figure(figsize=((width + 0.01) / CSS_DPI, (height + 0.01) / CSS_DPI), dpi=CSS_DPI)
    canvas = np.full((height, width, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        middle = left + column * wide + (wide - GAP) / 2
        figure.text(
            middle / width,
            1 - (top - 4) / height,
            title,
            fontsize=9.5,
            ha="center",
            va="bottom",
            linespacing=1.2,
        )
    for row, (name, pictures) in enumerate(rows.items()):
        start = top + row * tall
        for i, picture in enumerate(pictures.cpu()):
            pixels = np.kron(to_pixels(picture[None]), np.ones((zoom, zoom, 1), np.uint8))
            canvas[start : start + tall - GAP, left + i * wide : left + (i + 1) * wide - GAP] = pixels
        figure.text(
            0, 1 - (start + (tall - GAP) / 2) / height, name, fontsize=9.5, va="center", linespacing=1.3
        )
    axes = figure.add_axes([0, 0, 1, 1], zorder=-1)
    axes.imshow(canvas, interpolation="none", aspect="auto")
    axes.set_axis_off()
    return figure


def file_bits(picture: Tensor, format: str, **options: object) -> int:
    """The bits of a file of the picture (1, 3, H, W) in [0, 1]; format and options are Pillow's."""
    file = io.BytesIO()
    Image.fromarray(to_pixels(picture)).save(file, format, **options)
    return 8 * len(file.getvalue())
