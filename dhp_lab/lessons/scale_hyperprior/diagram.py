"""The block diagram of the codec, drawn on a white ground so that it can be read in a dark theme too."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from dhp_lab.notebook.style import AMBER, BLUE, CHART_DPI, GREEN, GREY, SKY, style

INK = "#24292f"
KINDS = {  # colour of the boxes
    "network": SKY,
    "rounding": AMBER,
    "coder": GREEN,
}
BOXES = {  # centre, width, text, kind
    "g_a": (2.3, 3.0, 1.3, "$g_a$", "network"),
    "round_y": (5.1, 3.0, 1.7, "round\n$(y/\\Delta - \\mu)$", "rounding"),
    "code_y": (8.1, 3.0, 1.5, "rANS,\ny's tables", "coder"),
    "bytes_y": (10.5, 3.0, 1.3, "bytes\nof y", "file"),
    "decode_y": (12.9, 3.0, 1.5, "rANS", "coder"),
    "add": (15.3, 3.0, 1.7, "$\\Delta\\,(q + \\mu)$", "rounding"),
    "g_s": (18.0, 3.0, 1.3, "$g_s$", "network"),
    "h_a": (2.3, 0.0, 1.3, "$h_a$", "network"),
    "round_z": (5.1, 0.0, 1.3, "round", "rounding"),
    "code_z": (8.1, 0.0, 1.5, "rANS,\nz's tables", "coder"),
    "bytes_z": (10.5, 0.0, 1.3, "bytes\nof z", "file"),
    "decode_z": (12.9, 0.0, 1.5, "rANS", "coder"),
    "h_s": (15.3, 0.0, 1.3, "$h_s$", "network"),
    "context": (10.5, 1.5, 2.9, "context model: $\\mu$, $s$", "network"),
    "gain": (5.1, 4.7, 2.3, "gain $\\Delta(\\lambda)$", "rounding"),
}
HEIGHT = 0.95
ARROWS = [  # from, to, label
    ("g_a", "round_y", "y"),
    ("round_y", "code_y", "q"),
    ("code_y", "bytes_y", ""),
    ("bytes_y", "decode_y", ""),
    ("decode_y", "add", "q"),
    ("add", "g_s", "$\\hat y$"),
    ("h_a", "round_z", "z"),
    ("round_z", "code_z", "$\\hat z$"),
    ("code_z", "bytes_z", ""),
    ("bytes_z", "decode_z", ""),
    ("decode_z", "h_s", "$\\hat z$"),
]


def codec_diagram() -> Figure:
    """From picture to bytes and back: transforms, rounding, entropy coder, hyperprior and context model."""
    with style():
        figure = Figure(figsize=(10.8, 3.9), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for name in BOXES:
            _draw_box(axes, name)
        for start, end, label in ARROWS:
            _draw_flow(axes, start, end, label)
        _arrow(axes, [(0.6, 3.0), (1.65, 3.0)], "x")
        _arrow(axes, [(18.65, 3.0), (19.7, 3.0)], "$\\hat x$")
        _arrow(axes, [(3.35, 3.0), (3.35, 1.2), (2.3, 1.2), (2.3, 0.5)])  # y to h_a
        _arrow(axes, [(5.1, 4.2), (5.1, 3.5)])
        _arrow(axes, [(6.25, 4.7), (15.3, 4.7), (15.3, 3.5)], "$\\Delta$")
        _arrow(axes, [(15.3, 0.5), (15.3, 1.3), (11.97, 1.3)], "from $\\hat z$", above=False)
        _arrow(axes, [(9.05, 1.65), (5.1, 1.65), (5.1, 2.5)], "$\\mu$")
        _arrow(axes, [(9.5, 2.0), (9.5, 2.2), (8.1, 2.2), (8.1, 2.5)], "$s$")
        _arrow(axes, [(11.97, 1.65), (15.3, 1.65), (15.3, 2.5)], "$\\mu$")
        _arrow(axes, [(11.5, 2.0), (11.5, 2.2), (12.6, 2.2), (12.6, 2.5)], "$s$")
        _arrow(axes, [(13.4, 2.5), (13.4, 1.85), (11.97, 1.85)])  # decoded latents to the context model
        for text, place, side in (("encoder", 0.6, "left"), ("decoder", 19.7, "right")):
            axes.text(place, 4.7, text, ha=side, va="center", color=GREY, fontsize=11)
        axes.set(xlim=(0.4, 19.9), ylim=(-0.65, 5.3))
        axes.set_axis_off()
    return figure


def _draw_box(axes: Axes, name: str) -> None:
    x, y, width, text, kind = BOXES[name]
    colour = KINDS.get(kind, "white")
    box = FancyBboxPatch(
        (x - width / 2, y - HEIGHT / 2),
        width,
        HEIGHT,
        boxstyle="round,pad=0.02,rounding_size=0.12",
        facecolor=colour,
        edgecolor=INK,
        alpha=0.55 if kind in KINDS else 1,
        linewidth=1.2,
    )
    axes.add_patch(box)
    axes.text(x, y, text, ha="center", va="center", color=INK, fontsize=10)


def _draw_flow(axes: Axes, start: str, end: str, label: str) -> None:
    """An arrow from the right side of a box to the left side of another."""
    x0, y, width0, *_ = BOXES[start]
    x1, _, width1, *_ = BOXES[end]
    _arrow(axes, [(x0 + width0 / 2 + 0.03, y), (x1 - width1 / 2 - 0.03, y)], label)


def _arrow(axes: Axes, points: list[tuple[float, float]], label: str = "", above: bool = True) -> None:
    """A line through points with a head at its end, and a label at the middle of its longest level part."""
    xs, ys = zip(*points, strict=True)
    axes.plot(xs[:-1] + (xs[-1],), ys, color=INK, linewidth=1.2, solid_joinstyle="round")
    (x0, y0), (x1, y1) = points[-2:]
    head = {"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0, "linewidth": 1.2}
    axes.annotate("", (x1, y1), (x0, y0), arrowprops=head)
    if label:
        level = [(a, b) for a, b in zip(points, points[1:], strict=False) if a[1] == b[1]]
        (a, y), (b, _) = max(level, key=lambda pair: abs(pair[0][0] - pair[1][0]))
        place = {"y": y + (0.1 if above else -0.1), "va": "bottom" if above else "top"}
        axes.text((a + b) / 2, s=label, ha="center", color=BLUE, fontsize=10, **place)
