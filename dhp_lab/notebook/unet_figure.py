"""The U-Net of ``diffusion.networks`` as a drawing: what each box holds is read from its configuration.

x_t -> level 0 -----------------------> level 0 -> eps
          \\-> level 1 --------> level 1 -/
                 \\-> middle -/
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from dhp_lab.diffusion.networks import UNetConfig
from dhp_lab.notebook.style import AMBER, BLUE, CHART_DPI, GREEN, GREY, ORANGE, PURPLE, style

STEP = 2.0  # from one box to the next, in the units of the drawing
BOX = 1.6, 0.72  # width and height
DROP = 1.25  # from one level to the next
INCHES = 0.8  # of a unit
INK = "#24292f"


def unet_figure(config: UNetConfig, side: int) -> Figure:
    """Draw a U-Net: a box for the blocks of each level on the way down and up, with width and resolution.

    Args:
        config: its shape.
        side: of the pictures, in pixels, a multiple of 2 ** (levels - 1).

    Raises:
        ValueError: a side that cannot be halved as often as there are levels below the first.
    """
    levels = len(config.channels)
    if side < 1 or side % 2 ** (levels - 1):
        raise ValueError(f"side must be a multiple of {2 ** (levels - 1)} for {levels} levels, got {side}")
    columns, bottom = 2 * levels + 3, -DROP * levels
    depth = bottom - (1.3 if config.context_dim else 0.75)
    with style():
        figure = Figure(figsize=(INCHES * (columns * STEP - 0.2), INCHES * (1.75 - depth)), dpi=CHART_DPI)
        axes = figure.add_axes([0, 0, 1, 1])
        axes.set(xlim=(-0.9, columns * STEP - 1.1), ylim=(depth, 1.75), aspect="equal")
        axes.set_axis_off()
        places = _draw_levels(axes, config, side)
        _draw_condition(axes, config, places)
    return figure


def _draw_levels(axes: Axes, config: UNetConfig, side: int) -> list[tuple[float, float, bool]]:
    """All boxes and the arrows of the signal; returns (x, y, attends) of each box that holds blocks."""
    levels, ends = len(config.channels), 2 * len(config.channels) + 2
    places = []
    for level, width in enumerate(config.channels):
        y, sides = -DROP * level, side // 2**level
        attends = level in config.attention_levels
        left, right = STEP * (level + 1), STEP * (ends - 1 - level)
        for x in (left, right):
            _block(axes, x, y, config.blocks, f"{width} × {sides} × {sides}", attends)
            places.append((x, y, attends))
        _arrow(axes, (left + BOX[0] / 2, y), (right - BOX[0] / 2, y), GREEN, "--")
        middle = (left + right) / 2
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        axes.text(middle, y, "skip", color=GREEN, ha="center", va="center", fontsize=9, bbox=ground)
        if level + 1 < levels:
            _slope(axes, left, y, down=True)
            _slope(axes, right, y, down=False)
    middle, y = STEP * (levels + 1), -DROP * levels
    _arrow(axes, (middle - STEP, y + DROP - BOX[1] / 2), (middle - BOX[0] / 2, y), INK, bend=0.25)
    _arrow(axes, (middle + BOX[0] / 2, y), (middle + STEP, y + DROP - BOX[1] / 2), INK, bend=0.25)
    last = side // 2 ** (levels - 1)
    _block(axes, middle, y, 1, f"{config.channels[-1]} × {last} × {last}", True)
    places.append((middle, y, True))
    for x, name in ((0, "state $x_t$"), (STEP * ends, r"noise estimate $\hat\varepsilon$")):
        _box(axes, x, 0, f"{name}\n{config.in_channels} × {side} × {side}", GREY, "#f6f8fa")
    _arrow(axes, (BOX[0] / 2, 0), (STEP - BOX[0] / 2, 0), INK)
    _arrow(axes, (STEP * (ends - 1) + BOX[0] / 2, 0), (STEP * ends - BOX[0] / 2, 0), INK)
    return places


def _draw_condition(axes: Axes, config: UNetConfig, places: list[tuple[float, float, bool]]) -> None:
    """Time (and label) above, with a line into each block; the context's tokens below."""
    right = STEP * (2 * len(config.channels) + 1)
    label = " + class label" if config.classes else ""
    text = f"time t → sines and cosines → two layers{label} → embedding of {4 * config.channels[0]} numbers: "
    axes.text((STEP + right) / 2, 1.42, text + "scale and shift in each block", ha="center", color=ORANGE)
    axes.plot([STEP, right], [1.25, 1.25], color=ORANGE, linewidth=1.5)
    for x, y, _ in places:
        axes.plot([x, x], [1.25, y + BOX[1] / 2], color=ORANGE, linewidth=1, linestyle=":", zorder=0)
    if not config.context_dim:
        return
    floor = min(y for _, y, _ in places) - 0.85
    attending = [(x, y) for x, y, attends in places if attends]
    axes.plot([min(x for x, _ in attending), max(x for x, _ in attending)], [floor] * 2, color=PURPLE)
    for x, y in attending:
        axes.plot([x, x], [floor, y - BOX[1] / 2], color=PURPLE, linewidth=1, linestyle=":", zorder=0)
    words = f"context: tokens of {config.context_dim} numbers → cross-attention"
    axes.text((STEP + right) / 2, floor - 0.3, words, ha="center", color=PURPLE)


def _block(axes: Axes, x: float, y: float, count: int, shape: str, attends: bool) -> None:
    name = "block" if count == 1 else f"{count} blocks"
    if attends:
        _box(axes, x, y, f"{name}, attention\n{shape}", AMBER, "#fff4d6")
    else:
        _box(axes, x, y, f"{name}\n{shape}", BLUE, "#e3f0fa")


def _box(axes: Axes, x: float, y: float, text: str, edge: str, face: str) -> None:
    corner = x - BOX[0] / 2, y - BOX[1] / 2
    box = FancyBboxPatch(
        corner, *BOX, boxstyle="round,pad=0,rounding_size=0.08", edgecolor=edge, facecolor=face
    )
    axes.add_patch(box)
    axes.text(x, y, text, ha="center", va="center", fontsize=8.5, linespacing=1.35, color=INK)


def _slope(axes: Axes, x: float, y: float, *, down: bool) -> None:
    """The arrow between a level and the one below it, on the way down or up."""
    upper, lower = (x, y - BOX[1] / 2), (x + (STEP if down else -STEP), y - DROP)
    lower = lower[0] - (BOX[0] / 2 if down else -BOX[0] / 2), lower[1]
    _arrow(axes, *((upper, lower) if down else (lower, upper)), INK, bend=0.25)
    name, side = ("halve", "right") if down else ("double", "left")
    axes.text(x + (-0.12 if down else 0.12), y - 0.66, name, ha=side, va="center", fontsize=8.5, color=GREY)


def _arrow(
    axes: Axes,
    begin: tuple[float, float],
    end: tuple[float, float],
    colour: str,
    line: str = "-",
    *,
    bend: float = 0.0,
) -> None:
    shape = {
        "arrowstyle": "-|>",
        "color": colour,
        "linestyle": line,
        "linewidth": 1.4,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    shape["connectionstyle"] = f"arc3,rad={bend}"
    axes.annotate("", end, begin, arrowprops=shape)
