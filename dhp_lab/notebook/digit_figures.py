"""Small grey pictures, drawn pixel for pixel, as all lessons on digits show them: ink on paper, -1 white and
1 black.

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

from dhp_lab.notebook.style import CSS_DPI

PAPER, INK, KNOWN = (
    np.array([255, 255, 255]),
    np.array([20, 20, 20]),
    np.array([186, 220, 245]),
)  # colours of pixels
MISSING = (
    np.array([236, 226, 214]),
    np.array([222, 208, 190]),
)  # the two of a pixel that is not there, in stripes
GAP, LABEL, TITLE = 6, 150, 22  # CSS pixels between pictures, left of rows, above them


def sheet(
    pictures: Tensor, per_row: int | None = None, *, known: Tensor | None = None, zoom: int = 1
) -> np.ndarray:
    """Pictures side by side, each pixel a square of zoom x zoom dots.

    Args:
        pictures: (n, 1, H, W); NaN is a pixel that is not there, drawn in stripes; what lies beyond -1 .. 1
            is clipped.
        per_row: pictures in a row, all by default; the rest goes on below.
        known: boolean (H, W): these pixels are drawn on blue paper.

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
        rows: pictures by label, and ``known``, as for ``sheet``; a row may be shorter than another.
        titles: above the columns of the first row, if any.
        per_row: pictures side by side; all of a row by default, else it goes on below.
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
    figure = Figure(figsize=((width + 0.01) / CSS_DPI, (height + 0.01) / CSS_DPI), dpi=CSS_DPI)
    for column, title in enumerate(titles):
        wide = next(iter(rows.values())).shape[-1] * zoom
        middle = left + column * (wide + GAP) + wide / 2
        figure.text(middle / width, 1 - (top - 5) / height, title, fontsize=9.5, ha="center", va="bottom")
    for name, drawn in sheets.items():
        canvas[top : top + len(drawn), left : left + drawn.shape[1]] = drawn
        figure.text(0, 1 - (top + len(drawn) / 2) / height, name, fontsize=9.5, va="center", linespacing=1.3)
        top += len(drawn) + GAP
    axes = figure.add_axes([0, 0, 1, 1], zorder=-1)
    axes.imshow(canvas, interpolation="none", aspect="auto")
    axes.set_axis_off()
    return figure


def _coloured(picture: Tensor, known: Tensor | None, zoom: int) -> np.ndarray:
    """(H, W) as (zoom H, zoom W, 3) uint8."""
    values = np.kron(picture.detach().cpu().double().clamp(-1, 1).numpy(), np.ones((zoom, zoom)))[..., None]
    paper = PAPER
    if known is not None:
        paper = np.where(np.kron(known.cpu().numpy(), np.ones((zoom, zoom), bool))[..., None], KNOWN, PAPER)
    rows, cols = np.indices(values.shape[:2])
    stripes = np.where(((rows + cols) // 4 % 2 == 0)[..., None], *MISSING)
    ink = np.nan_to_num((values + 1) / 2)
    return np.where(np.isnan(values), stripes, paper + ink * (INK - paper)).round().astype(np.uint8)
