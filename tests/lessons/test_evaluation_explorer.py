"""The explorer of the lesson on evaluation: errors, curves and sizes are the codecs' own."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from models import untrained
from PIL import Image

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits import bitstream
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import load_photo
from dhp_lab.evaluation import classical
from dhp_lab.lessons.evaluation import measured_photo
from dhp_lab.lessons.evaluation.explorer import explore as explore_evaluation
from dhp_lab.metrics.pixels import psnr

SIDE = 64
START = {"photo": "coffee", "lambda_rate": 5e-3, "effort": 0, "steps": 4, "gamma": 0.0, "seed": 0}


@pytest.fixture(scope="module")
def model():
    return untrained()


@pytest.fixture(scope="module")
def photos(model):
    return measured_photo.MeasuredPhoto(model, SIDE)


# the explorer's picture


def panel(image, number):
    """One panel of the explorer's picture, numbered from the upper left."""
    row, column = divmod(number, 3)
    left, bottom = column * (SIDE + measured_photo.GAP), (row + 1) * (SIDE + measured_photo.TITLE)
    return image[bottom - SIDE : bottom, left : left + SIDE]


def test_errors_are_drawn_eight_times_and_inverted():
    x = torch.zeros(1, 3, 1, 4)
    x_hat = x.clone()
    x_hat[0, :, 0, 1], x_hat[0, 0, 0, 2], x_hat[0, :, 0, 3] = 3 / 255, 30 / 255, 1.0
    assert measured_photo.error_map(x_hat, x)[0, :, 0].tolist() == [255, 255 - 24, 255 - 80, 0]
    assert measured_photo.error_map(x, x_hat).tolist() == measured_photo.error_map(x_hat, x).tolist()


def test_every_panel_shows_what_its_title_says(photos, model):
    shown = photos.render(**START)
    image = np.asarray(Image.open(io.BytesIO(shown.picture)).convert("RGB"))
    assert image.shape[1::-1] == measured_photo.picture_size(SIDE)
    x, (data, _) = load_photo("coffee", SIDE), photos.files.encode("coffee", 5e-3)
    jpeg = photos.files.beside("JPEG", "coffee", 5e-3)
    file = bitstream.read(data)
    ours = model.decompress(file.strings, file.shape, steps=4, gamma=0.0, seed=0)["x_hat"]
    theirs = classical.JPEG.decode(jpeg)
    wanted = {
        0: to_pixels(x),
        1: to_pixels(ours),
        2: to_pixels(theirs),
        4: measured_photo.error_map(ours, x),
        5: measured_photo.error_map(theirs, x),
    }
    assert [
        number for number, pixels in wanted.items() if not np.array_equal(panel(image, number), pixels)
    ] == []
    for words in (
        f">{len(data)}<",
        f">{len(jpeg)}<",
        f"{psnr(ours, x).item():.2f}",
        f"{psnr(theirs, x).item():.2f}",
        "K = 4, γ = 0, seed 0",
    ):
        assert words in shown.text, words
    assert shown.alt.startswith(
        f"coffee and its errors: ours in {len(data)} bytes (λ = 0.005, K = 4, γ = 0, seed 0), JPEG in"
    )


def test_the_curves_are_measured(photos, model):
    curves = photos.curves("coffee")
    x = load_photo("coffee", SIDE)
    data = dhp_file.encode(model, x, lambda_rate=measured_photo.CURVE_RATES[2])
    rates, qualities = curves["ours, K = 1"]
    assert rates[2] == 8 * len(data) / SIDE**2 and qualities[2] == pytest.approx(
        psnr(dhp_file.decode(model, data), x).item()
    )
    assert rates == sorted(rates) and len(curves["JPEG"][0]) == len(classical.JPEG.settings)


def test_the_picture_is_pure(photos):
    state = torch.get_rng_state()
    first = photos.render(**START)
    photos.decode.cache_clear(), photos.curves.cache_clear(), photos.files.files.cache_clear()
    assert photos.render(**START) == first and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "change",
    [{"photo": "rocket"}, {"lambda_rate": 1e-3}, {"effort": 2}, {"steps": 1}, {"gamma": 0.5}, {"seed": 1}],
)
def test_every_control_changes_picture_and_text(photos, change):
    before, after = photos.render(**START), photos.render(**START | change)
    assert before.picture != after.picture and before.text != after.text


def test_gamma_and_seed_are_named_where_they_count(photos):
    alike = [
        photos.render(**START | {"steps": 1, "gamma": gamma, "seed": seed})
        for gamma, seed in ((0.0, 0), (1.0, 5))
    ]
    assert alike[0].picture == alike[1].picture and "count from K = 2 on" in alike[0].text
    assert "count from" not in photos.render(**START).text


def test_the_explorer_starts_there(model):
    explorer = explore_evaluation(model, side=SIDE)
    assert explorer.position() == START
    explorer.controls["gamma"].value = 0.3
    assert "γ = 0.3" in explorer.text.value and 'alt="coffee and its errors' in explorer.picture.value
