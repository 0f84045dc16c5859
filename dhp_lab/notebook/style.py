"""Colours, sizes and the look of all charts, and figures that are laid out in CSS pixels."""

from __future__ import annotations

from contextlib import AbstractContextManager

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito 2008, "Color universal design": distinct whatever the reader's colour vision.
BLUE, ORANGE, GREEN, SKY = "#0072B2", "#D55E00", "#009E73", "#56B4E9"
AMBER, PURPLE = "#E69F00", "#CC79A7"
GREY = "#57606a"

CSS_DPI = 96  # a browser's pixels an inch
CHART_DPI = 144  # charts stay sharp on screens with small pixels
GAP = 16  # CSS pixels between photos
LINE = 20  # CSS pixels of a line of their titles
MIN_WIDTH = 150  # CSS pixels of a column at least


def style() -> AbstractContextManager:
    """The look of all charts, as a context in which axes are made."""
    return matplotlib.rc_context(
        {
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.titlepad": 8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.edgecolor": GREY,
            "axes.labelcolor": "#24292f",
            "xtick.color": GREY,
            "ytick.color": GREY,
            "grid.color": "#d0d7de",
            "grid.linewidth": 0.6,
            "lines.linewidth": 2,
            "legend.frameon": False,
        }
    )


def pixel_figure(width: int, height: int, *, dpi: int = CSS_DPI, layout: str | None = None) -> Figure:
    """An empty figure of width x height CSS pixels.

    Args:
        dpi: dots an inch; at ``CSS_DPI`` a dot is a CSS pixel.
        layout: matplotlib's layout engine; None leaves every axes where it is placed.
    """
    size = (width + 0.01) / CSS_DPI, (height + 0.01) / CSS_DPI  # matplotlib rounds dots down
    return Figure(figsize=size, dpi=dpi, layout=layout)


def place_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes of width x height CSS pixels whose upper left corner is at (left, top), from the figure's."""
    across, down = _size(figure)
    return figure.add_axes([left / across, (down - top - height) / down, width / across, height / down])


def place_picture(figure: Figure, pixels: np.ndarray, left: float, top: float) -> Axes:
    """Draw pixels (rows, cols, 3), uint8, one for one, the upper left corner at (left, top) in CSS pixels."""
    rows, cols = pixels.shape[:2]
    axes = place_axes(figure, left, top, cols, rows)
    axes.imshow(pixels, interpolation="none", aspect="auto")
    axes.set_axis_off()
    return axes


def fill_figure(figure: Figure, pixels: np.ndarray) -> None:
    """Draw pixels of the figure's own size as its ground, below its texts."""
    axes = figure.add_axes([0, 0, 1, 1], zorder=-1)
    axes.imshow(pixels, interpolation="none", aspect="auto")
    axes.set_axis_off()


def place_title(figure: Figure, title: str, left: float, bottom: float, *, size: float = 11) -> None:
    """Write a title of one or more lines that ends ``bottom`` CSS pixels below the figure's upper edge."""
    across, down = _size(figure)
    x, y = left / across, (down - bottom) / down
    figure.text(x, y, title, fontsize=size, va="bottom", linespacing=1.3)


def enlarged(pixels: np.ndarray, zoom: int) -> np.ndarray:
    """(rows, cols, 3) -> (zoom rows, zoom cols, 3): each pixel as zoom x zoom dots."""
    return np.repeat(np.repeat(pixels, zoom, axis=0), zoom, axis=1)


def _size(figure: Figure) -> tuple[int, int]:
    """Width and height in CSS pixels."""
    width, height = figure.get_size_inches()
    return round(width * CSS_DPI), round(height * CSS_DPI)
