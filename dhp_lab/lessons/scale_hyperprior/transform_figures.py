"""Figures of the lapped transform: its filters, and a row of pixels that was coded with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from dhp_lab.notebook.style import BLUE, CHART_DPI, GREEN, GREY, ORANGE, PURPLE, style

FILTER_LOOKS = (BLUE, ORANGE, GREEN, PURPLE)
ROW_LOOKS = ((GREY, "-", 1.4), (ORANGE, "-", 1.6), (BLUE, "-", 1.6))


def border_jumps(rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared differences of neighbouring pixels (r, c): across the borders of blocks of ``size``, and inside
    of blocks; the first and the last block are left out.
    """
    jumps = np.diff(rows[:, size:-size], axis=1) ** 2
    borders = np.arange(size - 1, jumps.shape[1], size)
    return jumps[:, borders], np.delete(jumps, borders, axis=1)


def lapped_figure(
    basis: np.ndarray, shown: Sequence[int], row: np.ndarray, coded: Mapping[str, np.ndarray]
) -> Figure:
    """Left: filters of a lapped transform. Right: pixels of a row, and the same from coarse coefficients.

    Args:
        basis: (size, 2 size).
        shown: numbers of the filters to draw, four at most.
        row: (n,) pixels.
        coded: (n,) the row as it was decoded, under two names at most.
    """
    size = basis.shape[0]
    with style():
        figure = Figure(figsize=(10.8, 3.6), dpi=CHART_DPI, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        for place, (number, colour) in enumerate(zip(shown, FILTER_LOOKS[: len(shown)], strict=True)):
            left.axhline(-place, color=GREY, linewidth=0.6)
            left.plot(np.arange(2 * size), basis[number] - place, ".-", color=colour, linewidth=1.2)
        left.axvspan(size / 2 - 0.5, 1.5 * size - 0.5, color=GREY, alpha=0.12, linewidth=0)
        left.set_yticks(-np.arange(len(shown)), [f"filter {number}" for number in shown])
        left.set(title="Filters, and the block in grey", xlabel="pixel")
        left.grid(visible=False)
        names = {"pixels": row, **coded}
        for (name, values), (colour, line, width) in zip(names.items(), ROW_LOOKS[: len(names)], strict=True):
            right.plot(np.arange(len(row)), values, line, color=colour, linewidth=width, label=name)
        right.set_xticks(np.arange(0, len(row) + 1, size))
        right.grid(axis="y", visible=False)
        right.set(title="Pixels of a row; lines at the blocks' borders", xlabel="pixel", ylabel="brightness")
        right.legend(loc="best", fontsize=9)
    return figure
