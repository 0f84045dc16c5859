"""The diffusion hyperprior: figures show their numbers, the explorer shows what the codec decodes, crops are
windows, and measured figures are read as they were written.
"""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from models import picture
from PIL import Image
from realism_codecs import codec, network

from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.denoising.residual_sampling import ResidualSampler
from dhp_lab.codec.denoising.residual_unet import pixel_scale
from dhp_lab.data.photos import load_photo
from dhp_lab.diffusion.schedules import cosine, geometric, linear
from dhp_lab.lessons.diffusion_hyperprior import decoders, walk
from dhp_lab.lessons.diffusion_hyperprior import figures as lesson
from dhp_lab.lessons.diffusion_hyperprior.explorer import explore as explore_diffusion_hyperprior

START = {"photo": "chelsea", "decoder": walk.PIXELS, "lambda_rate": 8e-3, "steps": 2, "gamma": 0.0}


@pytest.fixture(scope="module")
def model():
    return codec(passes=2, dead_zone=0.35)


@pytest.fixture(scope="module")
def shown(model):
    return walk.DecoderWalk(model, {})


# figures


def test_errors_are_drawn_beside_their_gaussian():
    flat = np.linspace(-0.5, 0.5, 8001)
    figure = lesson.errors_figure({"flat": flat, "small": flat / 4})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["flat", "small"]
    for axes, reach in zip(figure.axes, (0.5, 0.125), strict=True):
        at, gauss = axes.lines[0].get_data()
        assert gauss.max() == pytest.approx(math.sqrt(12 / (2 * math.pi)))
        assert at[gauss.argmax()] == pytest.approx(0)
        bars = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axes.patches}
        inside = [height for x, height in bars.items() if abs(x) < reach]
        assert np.allclose(inside, 1 / (2 * reach), rtol=0.02)
        assert all(height == 0 for x, height in bars.items() if abs(x) > reach + 0.03)


def test_noise_levels_stand_at_their_times():
    sigmas = {"low": 0.1, "high": 0.5}
    (axes,) = lesson.schedules_figure({"linear": linear(50), "cosine": cosine(20)}, sigmas, 15).axes
    for number, schedule in enumerate((linear(50), cosine(20))):
        (t, sigma), (times, levels) = (axes.lines[2 * number + i].get_data() for i in (0, 1))
        assert t[-1] == 15 and np.allclose(sigma, schedule.sigma(torch.tensor(t)).numpy())
        assert list(levels) == [0.1, 0.5]
        assert np.allclose(schedule.sigma(torch.tensor(times)).numpy(), levels)
    assert [text.get_text() for text in axes.texts] == ["low", "high"]


def test_calibration_averages_places_of_like_expectation():
    expected = torch.arange(1, 17.0).view(1, 1, 4, 4) / 255
    (axes,) = lesson.calibration_figure({"half": (expected, expected / 2)}).axes
    at, measured = axes.lines[0].get_data()
    pairs = np.arange(1, 17.0).reshape(8, 2)
    assert np.allclose(at, np.sqrt((pairs**2).mean(1)), rtol=1e-5)
    assert np.allclose(measured, at / 2)
    low, high = axes.lines[1].get_data()
    assert np.array_equal(low, high)


def test_white_noise_has_its_variance_at_every_frequency():
    noise = 0.3 * torch.randn(1, 1, 512, 512, generator=torch.Generator().manual_seed(0))
    frequency, power = lesson.spectrum(noise.expand(-1, 3, -1, -1))
    assert np.allclose(frequency, (np.arange(24) + 0.5) / 48)
    assert np.allclose(power[1:], 0.09, rtol=0.15)


@pytest.mark.parametrize("axis", [-1, -2])
def test_a_wave_has_its_power_at_its_frequency(axis):
    wave = torch.cos(2 * math.pi * 0.25 * torch.arange(64.0))
    errors = (wave if axis == -1 else wave[:, None]).expand(1, 3, 64, 64)
    frequency, power = lesson.spectrum(errors)
    assert abs(frequency[power.argmax()] - 0.25) < 1 / 48
    assert power.max() > 1e6 * np.sort(power)[-2]


def test_a_training_is_drawn_in_parts():
    at = np.array([0.1, 0.2])
    left, right = lesson.training_figure([4.0, 2.0] * 20, {"missing": (at, at), "drawn": (at, 2 * at)}).axes
    steps, losses = left.lines[0].get_data()
    assert steps[-1] == 40 and len(steps) == lesson.SMOOTH and np.allclose(losses, 3)
    assert {line.get_label(): line.get_linestyle() for line in right.lines} == {"missing": "--", "drawn": "-"}
    assert np.array_equal(right.lines[1].get_ydata(), 2 * at)
    short, _ = lesson.training_figure([1.0, 2.0], {"missing": (at, at)}).axes
    assert list(short.lines[0].get_ydata()) == [1, 2]


# what the lesson compares


def test_measures_are_of_the_picture_as_a_file_holds_it():
    x = picture(32, 32)
    found = decoders.measures(x, x, {"distance": lambda a, b: (a - b).abs().sum() + 0.5})
    assert found == {"PSNR, dB": "inf", "texture": "1.00", "distance": "0.500"}


def test_white_noise_is_as_strong_as_the_expected_error(model):
    conditions = decoders.decoded_photo(model, picture(128, 128), 1e-2).conditions
    noisy = decoders.with_white_noise(conditions, decoders.noise_like(conditions.picture, 3))
    added = (noisy - conditions.picture) / pixel_scale(conditions.errors)
    drawn = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(3))
    assert (added - drawn).abs().max() < 1e-3


def test_an_untrained_part_draws_white_noise(model):
    """With zero initialisation each estimate is c_skip u: the residual that is drawn is the noise, scaled."""
    conditions = decoders.decoded_photo(model, picture(64, 64), 1e-2).conditions
    sampler = ResidualSampler(network(awake=False), geometric(1000, first=0.16, last=3.0))
    drawn = (sampler.sample(conditions, steps=4) - conditions.picture) / pixel_scale(conditions.errors)
    ratio = drawn / sampler.noise(drawn.shape, 0)
    assert ratio.std() < 1e-3 and 0.3 < ratio.mean() < 1.2


def test_photos_are_cropped_and_decoded_at_one_lambda(model):
    x = picture(150, 70)
    found = decoders.decoded_photo(model, x, 1e-2)
    assert torch.equal(found.x, x[..., :128, :64]) and found.conditions.picture.shape == found.x.shape
    assert found.conditions.log2_delta.item() == pytest.approx(math.log2(model.step_size(1e-2)), abs=1e-3)
    one = model.decompress(**model.compress(found.x, 1e-2), steps=1)["x_hat"]
    assert (found.conditions.picture.clamp(0, 1) - one).abs().mean() < 0.01


def test_crops_are_windows_of_the_photos(model):
    photos = [decoders.decoded_photo(model, picture(128, 192, seed=seed), 1e-2) for seed in (0, 1)]
    batch = decoders.crop_batch(photos, 5, count=3, side=64)
    again = decoders.crop_batch(photos, 5, count=3, side=64)
    assert torch.equal(batch.x, again.x) and batch.x.shape == (3, 3, 64, 64)
    assert not torch.equal(batch.x, decoders.crop_batch(photos, 6, count=3, side=64).x)
    for number, x in enumerate(batch.x):
        places = [
            (photo, row, col)
            for photo in photos
            for row in range(5)
            for col in range(9)
            if torch.equal(photo.x[0, :, 16 * row : 16 * row + 64, 16 * col : 16 * col + 64], x)
        ]
        ((photo, row, col),) = places
        window = photo.conditions.window(slice(row, row + 4), slice(col, col + 4))
        assert torch.equal(batch.conditions.picture[number], window.picture[0])
        assert torch.equal(batch.conditions.errors[number], window.errors[0])


def written(folder, name, found):
    (folder / name).write_text(json.dumps(found))


def test_rows_of_fidelity_are_those_of_the_files(tmp_path):
    def points(factor):
        return [
            {"codec": f"dhp K={k}", "bpp": bpp * (factor if k else 1), "psnr": quality}
            for k in (0, 1)
            for bpp, quality in ((0.1, 25.0), (0.2, 28.0), (0.4, 31.0), (0.8, 34.0))
        ]

    written(tmp_path, "fourth.json", {"about": {"config": {}}, "points": points(0.98)})
    config = {"passes": 14, "dead_zone": 0.35, "trellis": True}
    written(tmp_path, "kodak.json", {"about": {"config": config}, "points": points(0.9)})
    rows = [
        {"anchor": name, "bd_rate": {"percent": p}} for name, p in (("K = 0", -2), ("no denoiser", -0.93))
    ]
    written(tmp_path, "denoiser.json", {"comparisons": rows})
    assert [row[1:] for row in decoders.fidelity_rows(tmp_path)] == [
        ["dead zone 0, passes: 1", "K = 0", "-2.0 %"],
        ["dead zone 0, passes: 1", "no denoiser", "-0.9 %"],
        ["trellis, passes: 14", "K = 0", "-10.0 %"],
    ]


def test_rows_of_realism_have_what_all_have(tmp_path):
    same = {"lambda_rate": 0.01, "bpp": 0.2, "psnr": 28.123, "texture": 0.5, "dists": 0.25}
    rows = [{"decoder": "K = 1", "K": 1, "gamma": None}, {"decoder": "realism", "K": 4, "gamma": 0.0}]
    rows += [{"decoder": "realism", "K": k, "gamma": gamma} for k, gamma in ((4, 0.5), (8, 0.0))]
    controls = [{"decoder": "latent chain", "K": 4, "gamma": None, "lpips": 0.3}]
    controls += [{"decoder": "JPEG", "K": None, "gamma": None}]
    found = {part: [row | same for row in some] for part, some in (("rows", rows), ("controls", controls))}
    written(tmp_path, "realism.json", found)
    header, *lines = decoders.realism_rows(tmp_path / "realism.json")
    assert header == ["λ", "bits per pixel", "decoder", "PSNR", "texture", "DISTS"]
    assert [line[2] for line in lines] == ["K = 1", "realism, K = 4", "latent chain, K = 4", "JPEG"]
    assert lines[0] == ["0.01", "0.200", "K = 1", "28.12", "0.50", "0.250"]


# the explorer's picture


def test_the_walk_starts_at_the_noise_of_rounding_or_at_the_end(model, shown):
    noise = model.step_size(8e-3) / math.sqrt(12) / model.latent_scale
    assert model.noise_schedule.sigma(shown.start_time(8e-3)).item() == pytest.approx(noise, rel=1e-6)
    short = codec(passes=2, dead_zone=0.35)
    short.noise_schedule = geometric(10, first=0.001, last=noise / 2)  # ends below it
    assert walk.DecoderWalk(short, {}).start_time(8e-3) == 10


@pytest.mark.parametrize(("steps", "gamma"), [(0, 0.0), (1, 0.0), (2, 0.0), (4, 0.5)])
def test_what_is_decoded_is_what_the_codec_decodes(model, shown, steps, gamma):
    data = bitstream.read(bytes_of(model))
    expected = model.decompress(data.strings, data.shape, steps=steps, gamma=gamma)["x_hat"]
    found = shown.decode("chelsea", 8e-3, walk.PIXELS, steps, gamma)
    assert (found - expected).abs().max() < 1e-5
    assert shown.held("chelsea", 8e-3).n_bytes == len(bytes_of(model))


def bytes_of(model):
    from dhp_lab.codec import dhp_file

    return dhp_file.encode(model, load_photo("chelsea", walk.SIDE), lambda_rate=8e-3)


def test_without_a_realism_part_the_latents_draw(model, shown):
    plain = codec(passes=2, dead_zone=0.35)
    plain.realism = None
    other = walk.DecoderWalk(plain, {})
    assert other.decoders == [walk.LATENTS, walk.NOISE]
    data = bitstream.read(bytes_of(plain))
    expected = plain.decompress(data.strings, data.shape, steps=3, gamma=0.2)["x_hat"]
    for one in (other, shown):  # the file of a codec does not depend on its realism part
        assert (one.decode("chelsea", 8e-3, walk.LATENTS, 3, 0.2) - expected).abs().max() < 1e-5
    with pytest.raises(ValueError, match="there is no decoder 'near the pixels'; choose one of"):
        other.decode("chelsea", 8e-3, walk.PIXELS, 2, 0.0)


def test_the_picture_has_its_size_and_says_what_it_is(shown):
    found = shown.render(**START)
    assert Image.open(io.BytesIO(found.picture)).size == walk.SIZE
    way = "K = 2, near the pixels, γ = 0"
    decoded = f"A detail of chelsea, and the same decoded with λ = 0.008, {way}"
    assert found.alt == f"{decoded}; the walk down the noise levels"
    assert f"t* = {shown.start_time(8e-3):.2f} of 10" in found.text
    assert f"{shown.held('chelsea', 8e-3).n_bytes} bytes" in found.text
    assert all(f">{row}</td>" in found.text for row in (way, "K = 0", "K = 1"))
    assert shown.render(**START | {"steps": 1}).text.count(">K = 1</td>") == 1


def test_the_walk_is_drawn_at_its_levels(shown):
    figure = lesson.Figure()
    axes = figure.add_subplot()
    shown._draw_residual_walk(axes, 2, 0.1)
    curve, start, dots = axes.lines
    assert list(dots.get_xdata()) == [1000, 500]
    schedule = shown.model.realism_sampler.schedule
    assert np.allclose(dots.get_ydata(), 25.5 * schedule.sigma(torch.tensor([1000, 500])).numpy())
    assert start.get_ydata()[0] == pytest.approx(25.5 * shown.model.realism.start)
    axes = lesson.Figure().add_subplot()
    shown._draw_latent_walk(axes, 8e-3, 3)
    _, start, dots = axes.lines
    assert np.allclose(dots.get_xdata(), shown.start_time(8e-3) * np.array([1, 2 / 3, 1 / 3]))
    model = shown.model
    noise = 255 * model.step_size(8e-3) / math.sqrt(12) * math.sqrt(model.M / 768)
    assert start.get_ydata()[0] == pytest.approx(noise)


@pytest.mark.slow
def test_the_picture_is_pure(shown):
    state = torch.get_rng_state()
    assert shown.render(**START) == shown.render(**START) and torch.equal(state, torch.get_rng_state())


CHANGES = [
    {"photo": "coffee"},
    {"decoder": walk.LATENTS},
    {"decoder": walk.NOISE},
    {"lambda_rate": 1e-3},
    {"steps": 3},
    {"steps": 0},
    {"gamma": 0.1},
]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_control_changes_picture_and_text(shown, change):
    one, other = shown.render(**START), shown.render(**START | change)
    assert one.picture != other.picture and (one.text != other.text or "photo" in change)


@pytest.mark.slow
def test_the_explorer_starts_there(model):
    explorer = explore_diffusion_hyperprior(model)
    assert explorer.position() == START
    explorer.controls["steps"].value = 0
    assert ">K = 0</td>" in explorer.text.value and "near the pixels" not in explorer.text.value
