"""How a notebook shows figures and tables: HTML with alternative text."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dhp_lab.notebook.style import CSS_DPI


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
    """One position of an explorer.

    Attributes:
        picture: the bytes of a PNG.
        alt: its alternative text.
        text: the result as HTML.
    """

    picture: bytes
    alt: str
    text: str


def figure_html(figure: Figure, alt: str, *, quality: int | None = None) -> Html:
    """A figure for a notebook, with its alternative text.

    Args:
        figure: any matplotlib figure; it is shown at 96 pixels an inch whatever its resolution.
        alt: what is to be seen, in a sentence.
        quality: None keeps every pixel (PNG); 1 .. 100 makes a large figure of photos smaller (WebP).

    Raises:
        ValueError: an empty alternative text.
    """
    if not alt.strip():
        raise ValueError("alt is empty; say in a sentence what the figure shows")
    width = round(figure.get_size_inches()[0] * CSS_DPI)
    if quality is None:
        picture = picture_bytes(figure)
    else:
        picture = picture_bytes(figure, "WEBP", quality=quality, method=6)
    return Html(img_tag(picture, alt, "dhp-figure", f"width: {width}px; max-width: 100%; background: white"))


def img_tag(picture: bytes, alt: str, css_class: str, css: str = "max-width: 100%") -> str:
    """An <img> element that holds its picture.

    Args:
        picture: the bytes of a PNG or WebP file.
        alt: alternative text, escaped here.
        css_class, css: the element's class and style.
    """
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
    """Rows of cells as an HTML table.

    Args:
        rows: cells of any kind, shown by ``str`` and escaped.
        header: names of the columns; under a header all but the first column are aligned to the right, as
            numbers are.
    """
    head = f"<thead><tr>{_cells('th', header, bool(header))}</tr></thead>" if header else ""
    body = "".join(f"<tr>{_cells('td', row, bool(header))}</tr>" for row in rows)
    return Html(f"<table>{head}<tbody>{body}</tbody></table>")


def _cells(tag: str, cells: Sequence[object], numbers: bool) -> str:
    """The cells of one row; ``numbers`` aligns all but the first to the right."""
    parts = []
    for place, cell in enumerate(cells):
        side = "right" if numbers and place else "left"
        style = f"padding: 0.2em 0.7em; text-align: {side}"
        parts.append(f'<{tag} style="{style}">{html.escape(str(cell))}</{tag}>')
    return "".join(parts)
