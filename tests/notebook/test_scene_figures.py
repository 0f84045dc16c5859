"""dhp_lab.notebook.scene_figures: colour pictures pixel for pixel in their places, and the bits of a file."""

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.data.scenes import batch
from dhp_lab.notebook.digit_figures import GAP
from dhp_lab.notebook.scene_figures import file_bits, scenes_figure
from dhp_lab.notebook.style import CSS_DPI


@pytest.fixture(scope="module")
def scenes():
    return batch(6, seed=3)


def test_pictures_are_drawn_pixel_for_pixel(scenes):
    x = (scenes[0] * 255).round() / 255
    figure = scenes_figure({"one": x[:3], "two": x[3:5]}, titles=["a\nb", "c", "d"], zoom=2, label=100)
    image = np.asarray(figure.axes[0].images[0].get_array())
    high, wide = image.shape[:2]
    assert (round(figure.get_size_inches()[1] * CSS_DPI), round(figure.get_size_inches()[0] * CSS_DPI)) == (
        high,
        wide,
    )
    top = high - 2 * 128 - GAP
    for row, column, i in ((0, 0, 0), (0, 2, 2), (1, 1, 4)):
        start, left = top + row * (128 + GAP), 100 + column * (128 + GAP)
        shown = image[start : start + 128 : 2, left + 1 : left + 128 : 2]
        assert np.array_equal(shown, (x[i] * 255).round().byte().permute(1, 2, 0).numpy())
    assert [text.get_text() for text in figure.texts] == ["a\nb", "c", "d", "one", "two"]
    assert (image[top + 128 + GAP :, 100 + 2 * (128 + GAP) :] == 255).all()  # the second row is shorter


def test_without_labels_or_titles_no_room_is_kept(scenes):
    image = scenes_figure({"": scenes[0][:2]}).axes[0].images[0].get_array()
    assert image.shape == (64, 128 + GAP, 3)


@pytest.mark.parametrize(
    "rows", [{}, {"a": torch.zeros(1, 3, 8, 8), "b": torch.zeros(1, 3, 4, 4)}, {"a": torch.zeros(1, 1, 8, 8)}]
)
def test_pictures_must_fit(rows):
    with pytest.raises(ValueError, match="rows must hold pictures"):
        scenes_figure(rows)


def test_file_bits_are_those_of_the_file(scenes, tmp_path):
    Image.fromarray((scenes[0][0] * 255).round().byte().permute(1, 2, 0).numpy()).save(
        tmp_path / "x.png", optimize=True
    )
    assert file_bits(scenes[0][:1], "PNG", optimize=True) == 8 * (tmp_path / "x.png").stat().st_size
