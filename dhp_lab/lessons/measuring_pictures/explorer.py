"""The explorer of the lesson on measuring pictures: a distortion, its strength, a photo, and all measures."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from dhp_lab.data.images import to_pixels
from dhp_lab.lessons.measuring_pictures.distortions import (
    DISTORTIONS,
    SHOWN,
    SIDE,
    distort,
    lesson_photo,
    setting,
)
from dhp_lab.lessons.measuring_pictures.figures import MEASURES, draw_measure, measured
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider
from dhp_lab.notebook.style import (
    GAP,
    LINE,
    enlarged,
    pixel_figure,
    place_axes,
    place_picture,
    place_title,
    style,
)

ZOOM = 2
ABOVE = LINE + 10  # of the pictures, in CSS pixels
CHARTS = 190  # the charts' height with their labels
SIZE = 2 * ZOOM * SIDE + GAP, ABOVE + ZOOM * SIDE + CHARTS
STRENGTHS = 6


def render(*, photo: str, distortion: str, strength: int) -> Rendered:
    """A photo beside its distorted version, and each measure over the distortion's strengths.

    Args:
        photo: one of SHOWN.
        distortion: one of DISTORTIONS.
        strength: 1 (weakest) .. 6.
    """
    found = measured()
    own = DISTORTIONS[distortion]
    value = own.strengths[strength - 1]
    name = f"{distortion}, {setting(value, own.unit)}"
    x_hat, x = distort(lesson_photo(photo), distortion, value)
    figure = pixel_figure(*SIZE)
    for number, (title, picture) in enumerate({"original": x, name: x_hat}.items()):
        left = number * (ZOOM * SIDE + GAP)
        place_picture(figure, enlarged(to_pixels(picture), ZOOM), left, ABOVE)
        place_title(figure, title, left, ABOVE - 7)
    _draw_charts(figure, found, photo, distortion, strength)
    row = next(one for one in found["rows"] if (one["distortion"], one["strength"]) == (distortion, value))
    text = _text(row["photos"][photo], _set_of(found, distortion, value), name)
    alt = f"The photo {photo} beside its version with {name}; five charts below"
    return Rendered(picture_bytes(figure, compress_level=1), alt, text)


def _draw_charts(figure: Figure, found: Mapping, photo: str, distortion: str, strength: int) -> None:
    width = (SIZE[0] - 20) // len(MEASURES)
    with style():
        for number, field in enumerate(MEASURES):
            top = ABOVE + ZOOM * SIDE + 50
            axes = place_axes(figure, 42 + number * width, top, width - 50, CHARTS - 105)
            draw_measure(axes, found, distortion, field, photo=photo, strength=strength)


def _set_of(found: Mapping, distortion: str, value: float) -> Mapping | None:
    """The row of the measures of sets, which exists for one strength of each distortion."""
    rows = [one for one in found["sets"] if (one["distortion"], one["strength"]) == (distortion, value)]
    return rows[0] if rows else None


def _text(pair: Mapping, of_set: Mapping | None, name: str) -> str:
    figures = ", ".join(
        f"{label.removesuffix(', dB')} {pair[field]:.{digits}f}{' dB' if field == 'psnr' else ''}"
        for field, (label, digits, _) in MEASURES.items()
    )
    if of_set is None:
        return f"<p>{name}: {figures}.</p>"
    cells = [
        f"{of_set['fid']:.0f}",
        f"{of_set['kid']:.2f}",
        f"{of_set['precision']:.2f}",
        f"{of_set['recall']:.2f}",
    ]
    table = table_html([["crops of all photos", *cells]], ["as sets", "FID", "KID", "precision", "recall"])
    return f"<p>{name}: {figures}.</p>{table.text}"


def explore() -> Explorer:
    """A photo, a distortion and its strength; LPIPS and DISTS come from the measured results."""
    return Explorer(
        render,
        [
            Dropdown("photo", "photo", SHOWN),
            Dropdown("distortion", "distortion", list(DISTORTIONS)),
            Slider("strength", "strength", 1, STRENGTHS, 1, 3, unit="1: weakest, 6: strongest"),
        ],
        size=SIZE,
    )
