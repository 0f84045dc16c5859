"""Arrays in, matplotlib figures out, and how a notebook shows them with alternative text.

No figure touches pyplot, so none is kept, shown twice or changed by another. Photos are drawn pixel for pixel: what a
figure of them shows at 96 dots an inch are the values of the array.

| function              | what it gives                                                           |
|-----------------------|-------------------------------------------------------------------------|
| `photos_figure`       | pictures beside each other, or details of them enlarged                 |
| `file_figure`         | the parts of a file as lengths of one bar                               |
| `noise_level_figure`  | lambda -> Delta -> sigma_q -> t*, one panel for each arrow              |
| `figure_html`         | a figure as HTML, `table_html` rows as HTML                             |
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator
from PIL import Image


# Okabe & Ito 2008, "Color universal design": told apart whatever the reader's colour vision.
BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#57606a"
CSS_DPI = 96                  # a browser's pixels an inch
CHART_DPI = 144               # charts stay sharp on screens with small pixels
GAP, LINE, MIN_WIDTH = 16, 20, 150               # pixels between photos, of a line of their titles, of a column at least


def style() -> AbstractContextManager:
    """The look of all charts, as a context in which axes are made."""
    return matplotlib.rc_context({
        "font.size": 10, "axes.titlesize": 11, "axes.titlelocation": "left", "axes.titlepad": 8,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
        "axes.edgecolor": GREY, "axes.labelcolor": "#24292f", "xtick.color": GREY, "ytick.color": GREY,
        "grid.color": "#d0d7de", "grid.linewidth": 0.6, "lines.linewidth": 2, "legend.frameon": False,
    })  # fmt: skip


@dataclass(frozen=True, repr=False)
class Html:
    """HTML that a notebook shows when it is a cell's last value or is given to `display`."""

    text: str

    def __repr__(self) -> str:
        return f"<HTML of {len(self.text)} characters>"

    def _repr_html_(self) -> str:
        return self.text


@dataclass(frozen=True)
class Rendered:
    """One position: `picture`, the bytes of a PNG; `alt`, what is to be seen; `text`, the result as HTML."""

    picture: bytes
    alt: str
    text: str


def figure_html(figure: Figure, alt: str, *, quality: int | None = None) -> Html:
    """A figure for a notebook, with its alternative text.

    Args:
        figure: any matplotlib figure; it is shown at 96 pixels an inch whatever its resolution.
        alt: what is to be seen, in a sentence.
        quality: None keeps every pixel; 1 .. 100 makes a large figure of photos smaller (WebP).

    Raises:
        ValueError: an empty alternative text.
    """
    if not alt.strip():
        raise ValueError("alt is empty; say in a sentence what the figure shows")
    width = round(figure.get_size_inches()[0] * CSS_DPI)
    picture = picture_bytes(figure) if quality is None else picture_bytes(figure, "WEBP", quality=quality, method=6)
    return Html(img_tag(picture, alt, "dhp-figure", f"width: {width}px; max-width: 100%; background: white"))


def img_tag(picture: bytes, alt: str, css_class: str, css: str = "max-width: 100%") -> str:
    """An <img> element that carries its picture, the bytes of a PNG or WebP file, in itself."""
    kind = "png" if picture.startswith(b"\x89PNG") else "webp"
    source = f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
    return f'<img class="{css_class}" alt="{html.escape(alt)}" style="{css}" src="{source}">'


def picture_bytes(figure: Figure, format: str = "PNG", **options: object) -> bytes:
    """The figure as a file of one of Pillow's formats; the options are Pillow's."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    file = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(file, format, **options)
    return file.getvalue()


def table_html(rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> Html:
    """Rows of cells as an HTML table; under a header all but the first column stand to the right, as numbers do."""

    def line(tag: str, cells: Sequence[object]) -> str:
        styles = [f"padding: 0.2em 0.7em; text-align: {'right' if header and i else 'left'}" for i in range(len(cells))]
        return "".join(f'<{tag} style="{s}">{html.escape(str(c))}</{tag}>' for s, c in zip(styles, cells))

    head = f"<thead><tr>{line('th', header)}</tr></thead>" if header else ""
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return Html(f"<table>{head}<tbody>{body}</tbody></table>")


def busiest(pixels: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the height x width rectangle, or less, in which neighbours differ most; pixels (H, W, 3)."""
    grey = pixels.astype(np.int64).sum(2)
    change = np.zeros_like(grey)
    change[1:] += np.abs(np.diff(grey, axis=0))
    change[:, 1:] += np.abs(np.diff(grey, axis=1))
    rows, cols = min(height, grey.shape[0]), min(width, grey.shape[1])
    corner = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))              # sums of all above and to the left
    sums = corner[rows:, cols:] - corner[:-rows, cols:] - corner[rows:, :-cols] + corner[:-rows, :-cols]
    top, left = map(int, np.unravel_index(sums.argmax(), sums.shape))
    return slice(top, top + rows), slice(left, left + cols)


def photos_figure(pictures: Mapping[str, np.ndarray], *, zoom: int = 1) -> Figure:
    """Pictures beside each other, each pixel as zoom x zoom dots, with titles above them.

    Args:
        pictures: (H, W, 3) uint8 by title; a title may have two lines.
        zoom: 1 or more.

    Raises:
        ValueError: no picture, or one of another kind.
    """
    for title, pixels in pictures.items():
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"{title!r} must be (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    if not pictures:
        raise ValueError("no picture to draw; give at least one")
    columns = [max(MIN_WIDTH, zoom * pixels.shape[1]) for pixels in pictures.values()]
    width = sum(columns) + GAP * (len(columns) - 1)
    above = 10 + LINE * max(title.count("\n") + 1 for title in pictures)
    height = above + zoom * max(pixels.shape[0] for pixels in pictures.values())
    figure = Figure(figsize=((width + 0.01) / CSS_DPI, (height + 0.01) / CSS_DPI), dpi=CSS_DPI)
    left = 0
    for (title, pixels), column in zip(pictures.items(), columns):
        rows, cols = (zoom * side for side in pixels.shape[:2])
        axes = figure.add_axes([left / width, (height - above - rows) / height, cols / width, rows / height])
        axes.imshow(np.repeat(np.repeat(pixels, zoom, 0), zoom, 1), interpolation="none", aspect="auto")
        axes.set_axis_off()
        figure.text(left / width, (height - above + 7) / height, title, fontsize=11, va="bottom", linespacing=1.3)
        left += column + GAP
    return figure


def file_figure(parts: Mapping[str, int]) -> Figure:
    """The parts of a file, bytes by name in their order, as lengths of one bar.

    Raises:
        ValueError: no part, or a negative one.
    """
    if not parts or min(parts.values()) < 0:
        raise ValueError(f"parts must be numbers of bytes, 0 or more, got {dict(parts)}")
    with style():
        figure = Figure(figsize=(9, 1.9), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        start, total = 0, sum(parts.values())
        for (name, size), colour in zip(parts.items(), (GREY, ORANGE, BLUE, GREEN, SKY)):
            label = f"{name}: {size} bytes ({size / total:.1%})"
            axes.barh(0, size, left=start, color=colour, edgecolor="white", linewidth=0.5, label=label)
            start += size
        axes.set(xlim=(0, total), ylim=(-0.5, 0.5), yticks=[], xlabel="place in the file, bytes")
        axes.spines["left"].set_visible(False)
        axes.grid(False)
        figure.legend(loc="outside upper left", ncols=len(parts), handlelength=1, handleheight=1)
    return figure


def noise_level_figure(
    *, lambdas: np.ndarray, deltas: np.ndarray, errors: np.ndarray, times: np.ndarray, sigmas: np.ndarray,
    chosen: tuple[float, float, float, float],
) -> Figure:  # fmt: skip
    """lambda -> Delta -> sigma_q -> t*, a panel for each arrow.

    Args:
        lambdas, deltas: (n,) the gain curve, both above 0.
        errors: (k,) rounding errors, in units of Delta's.
        times, sigmas: (m,) the noise schedule.
        chosen: lambda, Delta, t* and the schedule's sigma there.
    """
    lambda_rate, delta, time, sigma = chosen
    with style():
        figure = Figure(figsize=(10.4, 3.3), dpi=CHART_DPI, layout="constrained")
        step, noise, clock = figure.subplots(1, 3)
        step.loglog(lambdas, deltas, color=BLUE)
        step.set(title="1. λ sets the step Δ", xlabel="λ, what a bit costs", ylabel="quantisation step Δ")
        step.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        step.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        step.yaxis.set_minor_locator(NullLocator())
        _point_out(step, lambda_rate, delta, f"Δ = {delta:.3f}")
        _error_panel(noise, errors, delta)
        inside = sigmas > 0
        clock.semilogy(times[inside], sigmas[inside], color=BLUE)
        clock.set(title="3. The noise sets the time t*", xlabel="diffusion time t", ylabel="noise level σ(t), latents = 1")
        _point_out(clock, time, sigma, f"t* = {time:.2f}")
    return figure


def _error_panel(axes: Axes, errors: np.ndarray, delta: float) -> None:
    """The rounding errors as a histogram, and the Gaussian that has their theoretical standard deviation."""
    sigma = delta / math.sqrt(12)
    at = np.linspace(-4 * sigma, 4 * sigma, 200)
    axes.hist(errors, bins=np.linspace(-delta / 2, delta / 2, 26), density=True, color=SKY, label="measured error")
    gauss = np.exp(-(at**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    axes.plot(at, gauss, color=ORANGE, label=f"Gaussian, σ$_q$ = {sigma:.3f}")
    axes.set(title="2. The step sets the noise σ$_q$", xlabel="rounding error of a latent", ylabel="how often (density)")
    axes.set_ylim(top=1.55 * axes.get_ylim()[1])
    axes.legend(loc="upper left", handlelength=1.2)


def _point_out(axes: Axes, x: float, y: float, label: str) -> None:
    """Mark a point of a curve and lead the eye from it to both axes."""
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    axes.plot([x, x, left], [bottom, y, y], color=ORANGE, linewidth=1.2, linestyle="--")
    axes.plot(x, y, "o", color=ORANGE, markersize=8)
    axes.annotate(label, (x, y), xytext=(10, -14), textcoords="offset points", color=ORANGE, fontweight="bold")
    axes.set(xlim=(left, None), ylim=(bottom, None))
