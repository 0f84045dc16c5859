"""Colours, sizes and the look of all charts."""

from __future__ import annotations

from contextlib import AbstractContextManager

import matplotlib

AMBER, PURPLE = "#E69F00", "#CC79A7"  # the rest of Okabe & Ito's colours

# Okabe & Ito 2008, "Color universal design": told apart whatever the reader's colour vision.
BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#57606a"
CSS_DPI = 96  # a browser's pixels an inch
CHART_DPI = 144  # charts stay sharp on screens with small pixels
GAP, LINE, MIN_WIDTH = 16, 20, 150  # pixels between photos, of a line of their titles, of a column at least


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
