"""Small grey pictures, drawn pixel for pixel, as all lessons on digits show them: ink on paper.

-1 is white and 1 is black.

| function        | what it gives                                                                          |
|-----------------|----------------------------------------------------------------------------------------|
| `sheet`         | pictures side by side as an array of colours                                           |
| `digits_figure` | rows of them, with labels on the left and titles above                                 |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.notebook.style import fill_figure, pixel_figure

PAPER = np.array([255, 255, 255])
INK = np.array([20, 20, 20])
KNOWN = np.array([186, 220, 245])  # paper of a known pixel
MISSING = np.array([236, 226, 214]), np.array([222, 208, 190])  # stripes of a pixel that is not there
GAP = 6  # CSS pixels between pictures
LABEL = 150  # CSS pixels left of rows
TITLE = 22  # CSS pixels above columns


def sheet(
    pictures: Tensor, per_row: int | None = None, *, known: Tensor | None = None, zoom: int = 1
) -> np.ndarray:
    """Pictures side by side, each pixel a square of zoom x zoom dots.

    Args:
        pictures: (n, 1, H, W); NaN is a pixel that is not there, drawn in stripes; what lies beyond -1 .. 1
            is clipped.
        per_row: pictures in a row, all by default; the rest goes on below.
        known: boolean (H, W): these pixels are drawn on blue paper.
        zoom: 1 or more.

    Returns:
        (rows, columns, 3) uint8.

    Raises:
        ValueError: no picture, or pictures of another shape.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 1 or len(pictures) == 0:
        raise ValueError(f"pictures must be (n, 1, H, W), n >= 1; got {tuple(pictures.shape)}")
    per_row = per_row or len(pictures)
    tall, wide = (zoom * side + GAP for side in pictures.shape[2:])
    rows, columns = -(-len(pictures) // per_row), min(per_row, len(pictures))
    canvas = np.full((rows * tall - GAP, columns * wide - GAP, 3), 255, np.uint8)
    for i, picture in enumerate(pictures[:, 0]):
        top, left = tall * (i // per_row), wide * (i % per_row)
        canvas[top : top + tall - GAP, left : left + wide - GAP] = _coloured(picture, known, zoom)
    return canvas


def digits_figure(
    rows: Mapping[str, Tensor],
    *,
    titles: Sequence[str] = (),
    per_row: int | None = None,
    known: Tensor | None = None,
    zoom: int = 7,
    label: int = LABEL,
) -> Figure:
    """Rows of pictures with labels on their left; each pixel is a square of zoom x zoom dots at 96 dots an
    inch.

    Args:
        rows: pictures by label, as for ``sheet``; a row may be shorter than another.
        titles: above the columns of the first row, if any.
        per_row: pictures side by side; all of a row by default, else it goes on below.
        known, zoom: as for ``sheet``.
        label: width of the labels in dots; no room is kept for them if they are all empty.

    Raises:
        ValueError: no row, or one that is not made of pictures.
    """
    if not rows:
        raise ValueError("there is nothing to draw; give at least one row of pictures")
    sheets = {name: sheet(pictures, per_row, known=known, zoom=zoom) for name, pictures in rows.items()}
    left, top = label if any(rows) else 0, TITLE if titles else 0
    width = left + max(drawn.shape[1] for drawn in sheets.values())
    height = top + sum(len(drawn) + GAP for drawn in sheets.values()) - GAP
    canvas = np.full((height, width, 3), 255, np.uint8)
    figure = pixel_figure(width, height)
    picture_width = next(iter(rows.values())).shape[-1] * zoom
    for column, title in enumerate(titles):
        middle = left + column * (picture_width + GAP) + picture_width / 2
        figure.text(middle / width, 1 - (top - 5) / height, title, fontsize=9.5, ha="center", va="bottom")
    for name, drawn in sheets.items():
        canvas[top : top + len(drawn), left : left + drawn.shape[1]] = drawn
        middle = 1 - (top + len(drawn) / 2) / height
        figure.text(0, middle, name, fontsize=9.5, va="center", linespacing=1.3)
        top += len(drawn) + GAP
    fill_figure(figure, canvas)
    return figure


def _coloured(picture: Tensor, known: Tensor | None, zoom: int) -> np.ndarray:
    """(H, W) as (zoom H, zoom W, 3) uint8."""
    values = picture.detach().cpu().double().clamp(-1, 1).numpy()
    values = np.kron(values, np.ones((zoom, zoom)))[..., None]  # (zoom H, zoom W, 1)
    paper = PAPER
    if known is not None:
        there = np.kron(known.cpu().numpy(), np.ones((zoom, zoom), bool))[..., None]
        paper = np.where(there, KNOWN, PAPER)
    rows, cols = np.indices(values.shape[:2])
    stripes = np.where(((rows + cols) // 4 % 2 == 0)[..., None], *MISSING)
    ink = np.nan_to_num((values + 1) / 2)
    return np.where(np.isnan(values), stripes, paper + ink * (INK - paper)).round().astype(np.uint8)
