"""The lesson's figures: rate-distortion curves, BD-rate drawn, steps and gamma as a trade.

| function           | what it gives                                                                  |
|--------------------|--------------------------------------------------------------------------------|
| `codec_curves`     | curves by metric and codec, from an evaluation's points                        |
| `curves_figure`    | rate-distortion curves, a panel for each set                                   |
| `savings`          | bits more or less at each quality: what BD-rate is the mean of                 |
| `savings_figure`   | two curves with what lies between them, and the savings against the quality    |
| `lines_figure`     | measures against one number, such as K                                         |
| `trade_figure`     | PSNR against texture along gamma                                               |

The tables of what benchmarks have measured are in ``benchmark_tables``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator
from scipy.interpolate import PchipInterpolator

from dhp_lab.evaluation.measurements import Point
from dhp_lab.evaluation.report import curves_of
from dhp_lab.metrics.rd_curves import Curve
from dhp_lab.notebook.style import AMBER, BLUE, CHART_DPI, GREEN, GREY, ORANGE, PURPLE, SKY, style

LOOKS = ((BLUE, "o"), (SKY, "s"), (PURPLE, "^"), (AMBER, "D"), (GREEN, "v"), (GREY, "P"), (ORANGE, "X"))
OURS = ("ours, K = 1", "ours, K = 0")  # have the first looks in every panel


def codec_curves(points: Sequence[Point]) -> dict[str, dict[str, Curve]]:
    """Curves by metric ("PSNR", "MS-SSIM", both in dB), then by codec; our codec is called "ours, K = 1"."""
    found: dict[str, dict[str, Curve]] = {}
    for codec, curves in curves_of(points).items():
        for metric, curve in curves.items():
            found.setdefault(metric, {})[codec.replace("dhp K=", "ours, K = ")] = curve
    return found


def curves_figure(panels: Mapping[str, Mapping[str, Curve]], *, ylabel: str, widest: float = 2.0) -> Figure:
    """Rate-distortion curves, a panel for each title; names that begin with "ours" are drawn thicker.

    Args:
        panels: (bits per pixel, dB) by title and name.
        ylabel: the quality.
        widest: the largest rate to show.
    """
    with style():
        figure = Figure(figsize=(5.1 * len(panels), 4.1), dpi=CHART_DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, curves) in zip(row, panels.items(), strict=True):
            _draw_curves(axes, curves)
            low, high = _range_of(curves, widest)
            margin = 0.05 * (high - low)
            axes.set(title=title, xlabel="bits per pixel", ylabel=ylabel, xlim=(0, widest))
            axes.set_ylim(low - margin, high + margin)
            axes.legend(loc="lower right", fontsize=8.5)
    return figure


def _draw_curves(axes: Axes, curves: Mapping[str, Curve]) -> None:
    looks = _looks(curves)
    for name, curve in curves.items():
        colour, marker = looks[name]
        width = 2.4 if name.startswith("ours") else 1.3
        axes.plot(*curve, color=colour, marker=marker, markersize=4.5, linewidth=width, label=name)


def _range_of(curves: Mapping[str, Curve], widest: float) -> tuple[float, float]:
    """The least and the greatest quality of the points whose rate is at most ``widest``."""
    points = [point for curve in curves.values() for point in zip(*curve, strict=True)]
    qualities = [quality for rate, quality in points if rate <= widest]
    return min(qualities), max(qualities)


def _looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker by name; those of ``OURS`` are the same in every panel."""
    names = list(names)
    looks = {name: LOOKS[place] for place, name in enumerate(OURS) if name in names}
    free = cycle([look for look in LOOKS if look not in looks.values()])
    return {name: looks[name] if name in looks else next(free) for name in names}


def _log_rate(curve: Curve) -> PchipInterpolator:
    """The logarithm of a curve's rate as a function of its quality (piecewise cubic, as BD-rate has it)."""
    rates, qualities = (np.asarray(part) for part in curve)
    order = np.argsort(qualities)
    return PchipInterpolator(qualities[order], np.log(rates[order]))


def savings(anchor: Curve, test: Curve, count: int = 201) -> tuple[np.ndarray, np.ndarray]:
    """The bits of ``test`` more (+) or less (-) than of ``anchor`` at equal quality.

    Returns:
        (count,) qualities in dB that both curves reach, and (count,) differences in %.
    """
    before, after = _log_rate(anchor), _log_rate(test)
    low, high = max(before.x[0], after.x[0]), min(before.x[-1], after.x[-1])
    at = np.linspace(low, high, count)
    return at, 100 * np.expm1(after(at) - before(at))


def savings_figure(anchors: Mapping[str, Curve], test: Curve, *, name: str) -> Figure:
    """On the left the first anchor and the test curve, and what lies between them; on the right all savings.

    Args:
        anchors: (bits per pixel, dB) by name.
        test: the curve that they are compared with, called ``name``.
    """
    with style():
        figure = Figure(figsize=(10.2, 3.7), dpi=CHART_DPI, layout="constrained")
        left, right = figure.subplots(1, 2)
        first, anchor = next(iter(anchors.items()))
        for label, curve, colour in ((name, test, BLUE), (first, anchor, AMBER)):
            left.semilogx(*curve, "o-", color=colour, label=label, markersize=4.5)
        at, percent = savings(anchor, test)
        rate = np.exp(_log_rate(anchor)(at))
        left.fill_betweenx(at, rate, rate * (1 + percent / 100), color=SKY, alpha=0.35, linewidth=0)
        left.set(title="equal quality, other rates", xlabel="bits per pixel, logarithmic", ylabel="PSNR, dB")
        left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        left.xaxis.set_minor_locator(NullLocator())
        left.legend(loc="lower right")
        looks = islice(cycle(LOOKS[3:]), len(anchors))
        for (label, curve), (colour, _) in zip(anchors.items(), looks, strict=True):
            right.plot(*savings(curve, test), color=colour, label=label)
        right.axhline(0, color=GREY, linewidth=1)
        right.set(title=f"bits of {name}, more or less than", xlabel="PSNR, dB", ylabel="%")
        right.legend(loc="best", fontsize=8.5)
    return figure


def lines_figure(
    at: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[float]]], *, xlabel: str
) -> Figure:
    """Measures against one number.

    Args:
        at: (n,) its values, drawn at equal distances.
        panels: (n,) by title and name.
    """
    with style():
        figure = Figure(figsize=(3.5 * len(panels), 3.0), dpi=CHART_DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, lines) in zip(row, panels.items(), strict=True):
            looks = islice(cycle(LOOKS), len(lines))
            for (name, values), (colour, marker) in zip(lines.items(), looks, strict=True):
                axes.plot(range(len(at)), values, color=colour, marker=marker, label=name)
            axes.set(title=title, xlabel=xlabel)
            axes.set_xticks(range(len(at)), [f"{value:g}" for value in at])
        row[0].legend(loc="best", fontsize=8.5)
    return figure


def trade_figure(
    paths: Mapping[str, tuple[Sequence[float], Sequence[float]]], gammas: Sequence[float]
) -> Figure:
    """PSNR against texture from the sample to the posterior mean.

    Args:
        paths: (n,) textures and (n,) PSNRs in dB by name.
        gammas: (n,); the first and the last are written beside their points.
    """
    ends = {0, len(gammas) - 1}
    with style():
        figure = Figure(figsize=(6.8, 3.9), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        looks = islice(cycle(LOOKS), len(paths))
        for (name, (textures, qualities)), (colour, marker) in zip(paths.items(), looks, strict=True):
            axes.plot(textures, qualities, color=colour, marker=marker, label=name)
            for i in ends:
                offset = {"xytext": (7, 4), "textcoords": "offset points"}
                place = textures[i], qualities[i]
                axes.annotate(f"γ = {gammas[i]:g}", place, **offset, fontsize=8.5, color=colour)
        axes.axvline(1, color=GREY, linestyle="--", linewidth=1.2, label="the original's texture")
        axes.margins(x=0.14, y=0.1)
        axes.set(xlabel="texture, 1 = as much as the original", ylabel="PSNR, dB")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    return figure
