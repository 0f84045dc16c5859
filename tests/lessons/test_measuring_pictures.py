"""The lesson on measuring pictures: distortions, the toy plane, figures that show what was measured."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.lessons.measuring_pictures import distortions, figures, plane
from dhp_lab.lessons.measuring_pictures import explorer as lesson_explorer
from dhp_lab.lessons.measuring_pictures.encoder_measures import (
    WordPredictor,
    encoder_features,
    encoder_layers,
)
from dhp_lab.metrics.pixels import psnr

PLACE = {"device": "a <machine>", "threads": 2, "versions": {"torch": "2.13"}, "date": "2026-12-01"}
PAIR = {"psnr": 30.04, "ms_ssim": 0.91234, "texture": 1.5, "lpips": 0.25, "dists": 0.125}


@pytest.fixture(scope="module")
def photo():
    return distortions.lesson_photo("chelsea")


# distortions


@pytest.mark.parametrize("name", distortions.DISTORTIONS)
def test_strengths_rise(name, photo):
    """Error grows with the strength; shapes, range and 8 bits are kept."""
    found = []
    for strength in distortions.DISTORTIONS[name].strengths:
        x_hat, x = distortions.distort(photo, name, strength)
        assert x_hat.shape == x.shape == (1, 3, distortions.SIDE, distortions.SIDE)
        assert torch.equal((255 * x_hat).round() / 255, x_hat)
        found.append(psnr(x_hat, x).item())
    assert found == sorted(found, reverse=True)


def test_noise_has_its_deviation_and_a_shift_its_pixels(photo):
    grey = torch.full((1, 3, 300, 300), 0.5)
    x_hat, x = distortions.distort(grey, "white noise", 8)
    assert (255 * (x_hat - x)).std().item() == pytest.approx(math.sqrt(64 + 1 / 12), rel=0.01)
    x_hat, x = distortions.distort(photo, "shift", 3)
    assert torch.equal(x_hat[..., 3:], x[..., :-3])
    assert torch.equal(
        distortions.distort(photo, "white noise", 8)[0], distortions.distort(photo, "white noise", 8)[0]
    )


def test_blur_is_a_gaussian_convolution():
    point = torch.zeros(1, 1, 65, 65)
    point[..., 32, 32] = 1.0
    spread = distortions.DISTORTIONS["blur"].apply(point, 2.0)[0, 0]
    at = torch.arange(65) - 32.0
    assert spread.sum().item() == pytest.approx(1.0, rel=1e-5)
    assert (spread.sum(0) * at.square()).sum().item() == pytest.approx(4.0, rel=0.03)


def test_a_strength_for_a_psnr(photo):
    strength = distortions.at_psnr(photo, "white noise", 28.0)
    assert strength == pytest.approx(255 * 10 ** (-28 / 20), rel=0.02)
    quality = distortions.at_psnr(photo, "JPEG", 30.0)
    errors = [abs(psnr(*distortions.distort(photo, "JPEG", quality + d)).item() - 30) for d in (-1, 0, 1)]
    assert min(errors) == errors[1] and isinstance(quality, int)


def test_bad_input_is_named(photo):
    with pytest.raises(ValueError, match="there is no distortion 'fog'"):
        distortions.distort(photo, "fog", 1)
    with pytest.raises(ValueError, match="32 x 40"):
        distortions.distort(torch.zeros(1, 3, 32, 40), "blur", 1)
    with pytest.raises(ValueError, match="equally many"):
        plane.wasserstein(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match="one size"):
        figures.versions_figure({"a": torch.zeros(1, 3, 4, 4), "b": torch.zeros(1, 3, 5, 5)})


@pytest.mark.parametrize(
    "strength, unit, text",
    [
        (10, "quality", "quality 10"),
        (1, "pixels", "1 pixel"),
        (0.4, "pixels", "0.4 pixels"),
        (2, "grey levels", "2 grey levels"),
    ],
)
def test_strengths_in_words(strength, unit, text):
    assert distortions.setting(strength, unit) == text


# the plane


def test_gaussian_plane_is_the_closed_form():
    """D* = 1 - s^2, W* = 1 - s; DDIM is y -> a y and lies on the bound, exactly; its end is s y."""
    sigma, s = 0.8, 1 / math.sqrt(1.64)
    y = torch.linspace(-3, 3, 101, dtype=torch.float64)
    assert torch.allclose(plane.decode(y, sigma, 1, plane.GAUSSIAN), s**2 * y)
    assert torch.allclose(plane.decode(y, sigma, 2000, plane.GAUSSIAN), s * y, atol=2e-3)
    for steps in (1, 2, 5, 50):
        a = (plane.decode(y, sigma, steps, plane.GAUSSIAN) / y)[0].item()
        distortion, perception = (1 - a) ** 2 + (a * sigma) ** 2, abs(1 - a / s)
        least = plane.bound(torch.tensor(perception, dtype=torch.float64), 1 - s**2, 1 - s).item()
        assert distortion == pytest.approx(least, rel=1e-9)
    assert plane.bound(torch.tensor(1.0), 0.4, 0.2).item() == pytest.approx(0.4)


def test_ancestral_sampling_draws_from_the_posterior():
    """Given y, many steps end at N(s^2 y, 1 - s^2)."""
    y = torch.full((20_000,), 1.5, dtype=torch.float64)
    x = plane.decode(y, 0.8, 200, plane.GAUSSIAN, eta=1.0)
    assert x.mean().item() == pytest.approx(1.5 / 1.64, abs=0.02)
    assert x.var().item() == pytest.approx(1 - 1 / 1.64, rel=0.04)


def test_posterior_mean_of_islands_is_the_integral():
    y, sigma = torch.tensor([-0.7, 0.1, 1.4], dtype=torch.float64), 0.8
    at = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    prior = sum(torch.exp(-((at - mean) ** 2) / (2 * 0.25**2)) for mean in (-1, 1))
    weights = prior * torch.exp(-((y[:, None] - at) ** 2) / (2 * sigma**2))
    mean = (weights * at).sum(1) / weights.sum(1)
    assert torch.allclose(plane.ISLANDS.posterior_mean(y, sigma), mean, atol=1e-9)
    drawn = plane.ISLANDS.draw(40_000, torch.Generator().manual_seed(0))
    assert drawn.var().item() == pytest.approx(1 + 0.25**2, rel=0.02)


def test_wasserstein_of_gaussians():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 200_000, generator=generator, dtype=torch.float64)
    assert plane.wasserstein(a, 3 + 2 * b) == pytest.approx(math.sqrt(9 + 1), rel=0.01)


# the small relatives of LPIPS and CLIP


def test_the_encoders_layers_and_features(small_latent_diffusion):
    vae = small_latent_diffusion.vae
    layers = encoder_layers(vae, torch.rand(2, 3, 64, 64))
    assert [layer.shape[-1] for layer in layers] == sorted(
        (layer.shape[-1] for layer in layers), reverse=True
    )
    last = layers[-1].flatten(2)
    x = torch.rand(3, 3, 64, 64)
    features = encoder_features(vae, x)
    last = encoder_layers(vae, x)[-1].flatten(2)
    assert torch.allclose(features, torch.cat([last.mean(2), last.std(2)], 1))


def test_a_word_predictor_is_blind_to_order(small_latent_diffusion):
    predictor = WordPredictor(small_latent_diffusion.vae, count=24)
    said = ["a red circle left of a blue square", "a blue square left of a red circle"]
    _, words = predictor(torch.rand(2, 3, 64, 64), said)
    assert torch.equal(words[0], words[1])
    assert predictor.words("a red circle").sum() == 3


# figures and tables


def made_up(photos=("chelsea", "astronaut")):
    rows, sets = [], [{"distortion": "none", "strength": 0, "unit": ""}]
    for name, one in distortions.DISTORTIONS.items():
        for place, strength in enumerate(one.strengths):
            facts = {"distortion": name, "strength": strength, "unit": one.unit}
            rows.append(facts | {"photos": {photo: PAIR | {"psnr": 40.0 - place} for photo in photos}})
        sets.append({"distortion": name, "strength": one.strengths[3], "unit": one.unit})
    sets = [
        row | {"fid": 123.4, "kid": 0.5, "kid_error": 0.1, "precision": 0.9, "recall": 0.8} for row in sets
    ]
    equal = [{"distortion": "shift", "strength": 1, "unit": "pixels"} | PAIR]
    facts = {
        "command": "python <it>",
        "environment": PLACE,
        "photos": list(photos),
        "crops": 500,
        "blocks": 10,
    }
    return facts | {"rows": rows, "sets": sets, "equal_psnr": equal}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "measures.json"
    path.write_text(json.dumps(made_up()))
    return path


def test_tables_show_what_was_measured(file):
    text = figures.equal_psnr_table(file).text
    for words in (
        "chelsea",
        "shift, 1 pixel",
        ">30.0<",
        ">0.912<",
        ">1.50<",
        ">0.250<",
        ">0.125<",
        "python &lt;it&gt;",
    ):
        assert words in text, words
    text = figures.sets_table(file).text
    for words in (
        "500 crops",
        ">nothing<",
        "blur, 1.3 pixels",
        ">37.0<",
        ">123<",
        ">0.50 ± 0.23<",
        ">0.90<",
        ">0.80<",
    ):
        assert words in text, words


def test_a_measure_is_drawn_for_each_photo(file):
    figure = figures.strength_figure("blur", file=file)
    assert len(figure.axes) == len(figures.MEASURES)
    lines = figure.axes[0].lines
    assert len(lines) == 3 and lines[-1].get_ydata().tolist() == [40, 39, 38, 37, 36, 35]
    assert figure.axes[0].get_xlabel() == "pixels"


def test_versions_are_drawn_pixel_for_pixel():
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    figure = figures.versions_figure({"a": x, "b\nc": x, "d": x}, columns=2, zoom=2)
    pixels = figure.axes[0].images[0].get_array()
    assert pixels.shape == (16, 16, 3) and np.array_equal(
        pixels[::2, ::2], figure.axes[2].images[0].get_array()[1::2, 1::2]
    )
    assert [text.get_text() for text in figure.texts] == ["a", "b\nc", "d"]


def test_sizes_and_their_prediction_are_drawn():
    rows = [(50, 2.0, 0.1), (100, 1.0, 0.05)]
    left, right = figures.size_figure({"FID": rows, "KID": rows}, {"FID": np.array([2.0, 1.0])}).axes
    assert left.containers[0].lines[0].get_ydata().tolist() == [2.0, 1.0]
    assert len(left.lines) == len(right.lines) + 1


def test_manifolds_count_what_lies_inside():
    real = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]])
    samples = torch.cat([real[:4] + 0.01, torch.tensor([[9.0, 9.0]])])
    left, right = figures.manifold_figure(real, samples).axes
    assert len(left.patches) == len(right.patches) == 5
    assert (
        left.collections[0].get_label() == "inside: 80%"
        and right.collections[0].get_label() == "inside: 100%"
    )


def test_decoders_are_drawn_in_the_plane():
    edge = figures.bound_of(0.4, 0.2)
    assert edge[0][0].item() == pytest.approx(0.44) and edge[0][-1].item() == pytest.approx(0.4)
    (axes,) = figures.plane_figure(
        {"p": edge}, {"p": {"DDIM": {"K = 1": (0.4, 0.2), "K = 2": (0.5, 0.1)}}}
    ).axes
    assert axes.lines[1].get_xdata().tolist() == [0.4, 0.5] and axes.lines[1].get_ydata().tolist() == [
        0.2,
        0.1,
    ]


# the explorer


@pytest.fixture
def render(monkeypatch):
    monkeypatch.setattr(lesson_explorer, "measured", made_up)
    return lesson_explorer.render


START = {"photo": "chelsea", "distortion": "blur", "strength": 4}


def test_the_explorer_shows_both_pictures_and_all_measures(render, photo):
    shown = render(**START)
    image = np.asarray(Image.open(io.BytesIO(shown.picture)))
    assert image.shape[1::-1] == lesson_explorer.SIZE
    x_hat, x = distortions.distort(photo, "blur", 1.3)
    top, side = lesson_explorer.ABOVE, 2 * distortions.SIDE
    for left, picture in ((0, x), (side + figures.GAP, x_hat)):
        pixels = image[top : top + side : 2, left : left + side : 2]
        assert np.array_equal(pixels, (255 * picture[0]).round().byte().permute(1, 2, 0).numpy())
    for words in ("blur, 1.3 pixels", "PSNR 37.0 dB", "LPIPS 0.250", "DISTS 0.125", "as sets", ">123<"):
        assert words in shown.text, words
    assert "as sets" not in render(**START | {"strength": 1}).text
    assert "chelsea" in shown.alt and render(**START) == shown


@pytest.mark.parametrize("change", [{"photo": "astronaut"}, {"distortion": "JPEG"}, {"strength": 5}])
def test_every_control_changes_the_picture(render, change):
    assert render(**START | change).picture != render(**START).picture


def test_the_explorer_starts_at_its_still_picture():
    explorer = lesson_explorer.explore()
    assert explorer.position() == {"photo": "chelsea", "distortion": "white noise", "strength": 3}
