"""Digits are drawn pixel for pixel, in their places, whatever stands beside and above them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.notebook import digit_figures as pictures
from dhp_lab.notebook.digit_figures import GAP, INK, KNOWN, LABEL, MISSING, PAPER, TITLE, digits_figure, sheet
from dhp_lab.notebook.html import picture_bytes

RANDOM = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 4 - 2


def drawn(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture_bytes(figure))))


def test_every_pixel_lies_where_it_belongs():
    canvas = sheet(RANDOM, 3, zoom=2)
    assert canvas.shape == (2 * 16 + GAP, 3 * 16 + 2 * GAP, 3) and canvas.dtype == np.uint8
    for i, picture in enumerate(RANDOM[:, 0].clamp(-1, 1).double().numpy()):
        top, left = (16 + GAP) * (i // 3), (16 + GAP) * (i % 3)
        grey = 255 - (picture + 1) / 2 * 235
        shown = canvas[top : top + 16, left : left + 16].astype(int)
        assert np.abs(shown - np.kron(grey, np.ones((2, 2)))[..., None]).max() <= 0.5
    assert (canvas[16 : 16 + GAP] == 255).all() and (canvas[16:, 2 * (16 + GAP) :] == 255).all(), (
        "there is no sixth picture"
    )


def test_all_pictures_stand_in_one_row_by_default():
    assert np.array_equal(sheet(RANDOM), sheet(RANDOM, 5)) and sheet(RANDOM).shape == (8, 5 * 8 + 4 * GAP, 3)
    assert sheet(RANDOM[:2], 5).shape == (8, 16 + GAP, 3)
    assert sheet(torch.zeros(2, 1, 8, 16), zoom=4).shape == (32, 128 + GAP, 3)


def test_known_pixels_are_blue_and_missing_ones_striped():
    x = torch.full((1, 1, 2, 2), -1.0)
    x[..., 1, 1], x[..., 0, 1] = torch.nan, 1.0
    canvas = sheet(x, known=torch.tensor([[True, True], [False, False]]), zoom=8)
    assert (canvas[:8, :8] == KNOWN).all() and (canvas[8:, :8] == PAPER).all()
    assert (canvas[:8, 8:] == INK).all(), "known ink is ink"
    colours = {tuple(colour) for colour in canvas[8:, 8:].reshape(-1, 3).tolist()}
    assert colours == {tuple(colour.tolist()) for colour in MISSING}


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (1, 3, 8, 8), (8, 8), (2, 8, 8)])
def test_what_is_no_row_of_pictures_is_refused(shape):
    for draw in (sheet, lambda x: digits_figure({"a": x})):
        with pytest.raises(
            ValueError, match=r"pictures must be \(n, 1, H, W\), n >= 1; got \(" + str(shape[0])
        ):
            draw(torch.zeros(shape))


def test_no_row_is_refused():
    with pytest.raises(ValueError, match="at least one row"):
        digits_figure({})


def test_a_figure_is_its_sheet():
    assert np.array_equal(drawn(digits_figure({"": RANDOM}, zoom=3)), sheet(RANDOM, zoom=3))


@pytest.mark.parametrize("label", [LABEL, 90])
def test_words_take_no_pixel_of_the_pictures(label):
    known = torch.ones(8, 8, dtype=torch.bool)
    figure = digits_figure(
        {"first": RANDOM, "second": RANDOM[:2]},
        titles=["a", "b", "c"],
        per_row=3,
        known=known,
        zoom=5,
        label=label,
    )
    one, other = sheet(RANDOM, 3, known=known, zoom=5), sheet(RANDOM[:2], 3, known=known, zoom=5)
    canvas = drawn(figure)
    assert canvas.shape == (TITLE + len(one) + GAP + len(other), label + one.shape[1], 3)
    assert np.array_equal(canvas[TITLE : TITLE + len(one), label:], one)
    assert np.array_equal(canvas[-len(other) :, label : label + other.shape[1]], other)
    assert (canvas[-len(other) :, label + other.shape[1] :] == 255).all()
    assert (canvas[:TITLE] != 255).any() and (canvas[:, :label] != 255).any()
    assert [text.get_text() for text in figure.texts] == ["a", "b", "c", "first", "second"]


def test_the_lessons_draw_digits_by_no_other_way():
    from dhp_lab.lessons.conditional import figures as conditional
    from dhp_lab.lessons.ddim import figures as ddim
    from dhp_lab.lessons.ddpm import figures as ddpm

    assert ddpm.sheet is pictures.sheet
    assert ddim.digits_figure is conditional.digits_figure is pictures.digits_figure
