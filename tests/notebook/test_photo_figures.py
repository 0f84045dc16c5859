"""dhp_lab.notebook.photo_figures: photos pixel for pixel, bars and points where the numbers are, alternative
texts always.
"""

import base64
import io
import math
import re

import matplotlib
import numpy as np
import pytest
import skimage.data
from PIL import Image

from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import PHOTOS, load_photo
from dhp_lab.lessons.start_here import figures
from dhp_lab.notebook import html, style
from dhp_lab.notebook import photo_figures as plots


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def drawn(figure):
    return np.asarray(Image.open(io.BytesIO(html.picture_bytes(figure))))


def holds(canvas, picture, left):
    """Whether the picture stands in the canvas, its left edge at this column, its lower edge at the bottom or
    above.
    """
    rows, cols = picture.shape[:2]
    part = canvas[:, left : left + cols]
    return any(np.array_equal(part[top : top + rows], picture) for top in range(len(canvas) - rows + 1))


@pytest.mark.parametrize("zoom", [1, 3])
def test_photos_are_drawn_pixel_for_pixel(zoom):
    wide, tall = noise(60, 181), noise(97, 170, seed=1)
    canvas = drawn(plots.photos_figure({"wide": wide, "tall": tall}, zoom=zoom))
    large = [np.kron(p, np.ones((zoom, zoom, 1), np.uint8)) for p in (wide, tall)]
    assert holds(canvas, large[0], 0)
    assert holds(canvas, large[1], 181 * zoom + style.GAP)
    assert canvas.shape[1] == (181 + 170) * zoom + style.GAP


def test_titles_stand_above_the_photos_and_take_no_pixel_of_them():
    photo = noise(40, 200)
    one = drawn(plots.photos_figure({"a": photo}))
    two = drawn(plots.photos_figure({"a\nb": photo}))
    assert len(two) - len(one) == style.LINE
    for canvas in (one, two):
        assert np.array_equal(canvas[-40:], photo)
        assert (canvas[:-40] != 255).any(), "there is no title"


@pytest.mark.parametrize(
    "pixels", [noise(20, 20).astype(float), noise(20, 20)[..., 0], noise(20, 20)[..., :2]]
)
def test_photos_of_another_kind_are_refused(pixels):
    with pytest.raises(ValueError, match=re.escape("'cat' must be (H, W, 3) uint8")):
        plots.photos_figure({"cat": pixels})


def test_no_photo_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        plots.photos_figure({})


def test_figure_html_holds_every_pixel_and_the_alt_text():
    photo = noise(30, 160)
    figure = plots.photos_figure({"a": photo})
    shown = html.figure_html(figure, 'A "noisy" cat < a dog')._repr_html_()
    assert 'alt="A &quot;noisy&quot; cat &lt; a dog"' in shown
    assert "width: 160px" in shown
    data = base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", shown)[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)))[-30:], photo)


def test_figure_html_shrinks_with_a_quality_and_keeps_its_size():
    figure = plots.photos_figure({"a": to_pixels(load_photo("coffee", 256))})
    exact, small = (
        html.figure_html(figure, "A cup of coffee", quality=quality).text for quality in (None, 80)
    )
    assert len(small) < len(exact) / 3
    with Image.open(
        io.BytesIO(base64.b64decode(re.search(r"data:image/webp;base64,([^\"]+)", small)[1]))
    ) as image:
        assert (image.format, image.width) == ("WEBP", 256)


@pytest.mark.parametrize("alt", ["", "  "])
def test_an_empty_alt_text_is_refused(alt):
    with pytest.raises(ValueError, match="alt is empty"):
        html.figure_html(plots.file_figure({"z": 1}), alt)


def test_what_a_notebook_stores_beside_the_html_is_short():
    assert len(repr(html.Html("x" * 100_000))) < 60


def test_table_html():
    text = html.table_html([["K = 0", 31.5], ["a<b", "-"]], ["", "PSNR"]).text
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    assert [re.findall(r">([^<]*)</t[dh]>", row) for row in rows] == [
        ["", "PSNR"],
        ["K = 0", "31.5"],
        ["a&lt;b", "-"],
    ]
    assert [re.findall("align: ([a-z]+)", row) for row in rows] == [["left", "right"]] * 3
    assert "right" not in html.table_html([["torch", "2.13"]]).text


@pytest.mark.parametrize("name", PHOTOS)
def test_photos_come_with_the_libraries(name):
    x = load_photo(name, 200)
    assert x.shape == (1, 3, 200, 200)
    assert 0 <= x.min() < 0.3 and 0.7 < x.max() <= 1


def test_a_photo_is_the_middle_of_the_file():
    assert np.array_equal(to_pixels(load_photo("astronaut", 100)), skimage.data.astronaut()[206:306, 206:306])
    assert np.array_equal(to_pixels(load_photo("chelsea", 400)), skimage.data.chelsea()[:, 25:425])


def test_an_unknown_photo_is_refused():
    with pytest.raises(ValueError, match="no photo 'lena'; choose one of astronaut"):
        load_photo("lena")


@pytest.mark.parametrize(
    ("height", "width", "size"), [(23, 31, (7, 9)), (12, 9, (20, 20)), (10, 30, (12, 5)), (16, 16, (1, 1))]
)
def test_busiest_against_brute_force(height, width, size):
    pixels = noise(height, width)
    grey = pixels.astype(int).sum(2)
    change = np.zeros_like(grey)
    for i in range(height):
        for j in range(width):
            change[i, j] += abs(grey[i, j] - grey[i - 1, j]) if i else 0
            change[i, j] += abs(grey[i, j] - grey[i, j - 1]) if j else 0
    rows, cols = min(size[0], height), min(size[1], width)
    sums = {
        (i, j): change[i : i + rows, j : j + cols].sum()
        for i in range(height - rows + 1)
        for j in range(width - cols + 1)
    }
    top, left = max(sums, key=sums.get)
    assert plots.busiest(pixels, *size) == (slice(top, top + rows), slice(left, left + cols))


def test_file_figure_has_a_bar_of_each_parts_length():
    figure = plots.file_figure({"header": 48, "z": 336, "y": 3456})
    bars = [(bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches]
    assert bars == [(0, 48), (48, 336), (384, 3456)]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["header: 48 bytes (1.2%)", "z: 336 bytes (8.8%)", "y: 3456 bytes (90.0%)"]


@pytest.mark.parametrize("parts", [{}, {"z": -1}])
def test_impossible_parts_are_refused(parts):
    with pytest.raises(ValueError, match="parts must be numbers of bytes"):
        plots.file_figure(parts)


def test_noise_level_figure_shows_the_numbers_it_is_given():
    delta, sigma = 0.3, 0.3 / math.sqrt(12)
    lambdas, times = np.geomspace(1e-5, 1e-2, 20), np.linspace(0, 50, 101)
    errors = np.random.default_rng(0).uniform(-delta / 2, delta / 2, 50_000)
    figure = figures.noise_level_figure(
        lambdas=lambdas,
        deltas=5 * np.sqrt(lambdas),
        errors=errors,
        times=times,
        sigmas=times**2 / 100,
        chosen=(3.6e-3, delta, 4.0, 0.16),
    )
    step, noise_panel, clock = figure.axes
    assert np.array_equal(step.lines[0].get_xydata(), np.c_[lambdas, 5 * np.sqrt(lambdas)])
    assert step.lines[-1].get_xydata().tolist() == [[3.6e-3, delta]]
    assert clock.lines[-1].get_xydata().tolist() == [[4.0, 0.16]]
    heights = np.array([bar.get_height() for bar in noise_panel.patches])
    middles = np.array([bar.get_x() + bar.get_width() / 2 for bar in noise_panel.patches])
    inside = np.abs(middles) < delta / 2
    assert np.abs(heights[inside] * delta - 1).max() < 0.12, "even errors fill the step, at density 1/Delta"
    assert inside.sum() == 24 and not heights[~inside].any(), "there is room for those of a trellis"
    at, gauss = noise_panel.lines[0].get_xydata().T
    assert abs(np.trapz(gauss, at) - 1) < 1e-3
    assert abs(math.sqrt(np.trapz(gauss * at**2, at)) - sigma) < 1e-3 * sigma
    assert all(axes.get_xlabel() and axes.get_ylabel() and axes.get_title(loc="left") for axes in figure.axes)


def test_the_look_does_not_leak_into_other_figures():
    keys = [key for key in matplotlib.rcParams if key != "backend"]  # asking for the backend would choose one
    before = {key: matplotlib.rcParams[key] for key in keys}
    plots.file_figure({"z": 1})
    assert {key: matplotlib.rcParams[key] for key in keys} == before


def test_heat_reaches_from_end_to_end():
    found = plots.heat(np.array([[-9.0, 0.0], [0.5, 9.0]]), 0.0, 1.0, colours="gray")
    assert found[..., 0].tolist() == [[0, 0], [128, 255]] and found.dtype == np.uint8
    found = plots.heat(np.array([[0.0, 0.5, 2.0, 8.0]]), 0.5, 8.0, colours="gray", log=True)
    assert found[..., 0].tolist() == [[0, 0, 128, 255]]
    for low, high, log in ((1.0, 1.0, False), (0.0, 1.0, True)):
        with pytest.raises(ValueError, match=f"got {low} and {high}"):
            plots.heat(np.zeros((1, 1)), low, high, log=log)


def test_colours_lie_on_their_blocks():
    pixels = np.full((20, 36, 3), 100, np.uint8)
    colours = np.zeros((2, 3, 3), np.uint8)
    colours[1, 2] = 200
    found = plots.over_photo(pixels, colours, share=0.5)
    assert found.shape == pixels.shape and (found[:16] == 50).all() and (found[16:, :32] == 50).all()
    assert (found[16:, 32:] == 150).all()
    assert np.array_equal(
        plots.over_photo(pixels, colours, block=12, share=1)[12:, 24:], np.full((8, 12, 3), 200)
    )


def test_places_in_a_figure_are_css_pixels():
    figure = style.pixel_figure(90, 70)
    one, other = noise(20, 30), noise(10, 12, seed=1)
    style.place_picture(figure, one, 5, 7)
    style.place_picture(figure, style.enlarged(other, 3), 50, 33)
    canvas = drawn(figure)
    assert canvas.shape == (70, 90, 3)
    assert np.array_equal(canvas[7:27, 5:35], one)
    assert np.array_equal(canvas[33:63, 50:86], np.kron(other, np.ones((3, 3, 1), np.uint8)))
    box = style.place_axes(figure, 10, 40, 20, 25).get_position()
    assert (box.x0, box.y1, box.width, box.height) == pytest.approx((10 / 90, 30 / 70, 20 / 90, 25 / 70))
