"""Figures of the order in which latents are coded, and of the bins that they are rounded in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dhp_lab.notebook.style import BLUE, CHART_DPI, GREY, ORANGE, SKY, style

# of the passes at black and at white places, pair by pair; letters on them stay readable
SHADES = "#dbe9f4", "#a9cce6", "#fbe3d3", "#f2b892", "#dff0e3", "#a8d8b9", "#f3e3ef", "#dcb3d0"
FILE_LOOKS = ((GREY, "o--"), (ORANGE, "o-"))
REACH = 3.2  # steps to either side of a mean that the picture of bins shows


def order_figure(order: Sequence[np.ndarray], channels: Mapping[str, int]) -> Figure:
    """The number of the pass that codes each latent of some channels.

    Args:
        order: for each pass the latents that it codes, bool (M, rows, cols).
        channels: the channels to show by name.
    """
    with style():
        figure = Figure(figsize=(2.7 * len(channels), 2.9), dpi=CHART_DPI, layout="constrained")
        panels = figure.subplots(1, len(channels), squeeze=False)[0]
        for axes, (name, channel) in zip(panels, channels.items(), strict=True):
            passes = np.argmax([places[channel] for places in order], 0)  # (rows, cols)
            for (row, col), number in np.ndenumerate(passes):
                axes.fill_between(
                    [col, col + 1], -row, -row - 1, color=SHADES[number % len(SHADES)], edgecolor="white"
                )
                axes.text(col + 0.5, -row - 0.5, str(number + 1), ha="center", va="center")
            axes.set(title=name, aspect="equal", xlim=(0, passes.shape[1]), ylim=(-passes.shape[0], 0))
            axes.set_axis_off()
    return figure


def bins_figure(
    widths: Mapping[float, float], files: Mapping[str, Sequence[tuple[int, float]]], zones: Sequence[float]
) -> Figure:
    """Left: normal densities and the bins that they are rounded in. Right: PSNR against bytes.

    Args:
        widths: the width of a bin by the scale, both in steps.
        files: bytes and PSNR of files under two names.
        zones: the dead zones of the second name's files, which are labelled with them.
    """
    with style():
        figure = Figure(figsize=(10.8, 3.6), dpi=CHART_DPI, layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_bins(left, widths)
        for (name, points), (colour, line) in zip(files.items(), FILE_LOOKS, strict=True):
            sizes, qualities = zip(*points, strict=True)
            right.plot(sizes, qualities, line, color=colour, markersize=4, label=name)
        for zone, point in zip(zones, points, strict=True):
            offset = {"xytext": (-4, 6), "textcoords": "offset points"}
            right.annotate(f"{zone:g}", point, **offset, ha="right", color=ORANGE)
        right.set(title="Two ways to save bytes", xlabel="bytes of the file", ylabel="PSNR, dB")
        right.legend(loc="lower right")
    return figure


def _draw_bins(axes: Axes, widths: Mapping[float, float]) -> None:
    """A row for each scale: its density, plain bins dotted, bins with a dead zone of 1, decoded values."""
    edges, decoded = np.arange(-3, 3) + 0.5, np.arange(-3, 4)
    at = np.linspace(-REACH, REACH, 321)
    for row, (scale, width) in enumerate(widths.items()):
        density = 0.8 * np.exp(-((at / scale) ** 2) / 2)
        axes.fill_between(at, -row, density - row, color=SKY, alpha=0.4, linewidth=0)
        axes.vlines(edges, -row, 0.8 - row, color=GREY, linestyle=":", linewidth=1.2)
        axes.vlines(width * edges, -row, 0.8 - row, color=ORANGE)
        axes.plot(decoded, np.full(len(decoded), -row), "o", color=BLUE, markersize=4, clip_on=False)
    axes.set(
        title="Bins: with a dead zone of 1, and plain (dotted)",
        xlabel="y without its mean, in steps; points: decoded as",
        xlim=(-REACH, REACH),
        yticks=0.35 - np.arange(len(widths)),
        yticklabels=[f"scale {scale:g}" for scale in widths],
    )
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
