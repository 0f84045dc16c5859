"""The diffusion hyperprior: figures show their numbers, times belong to noise levels, a training's curves are
read back.
"""

from __future__ import annotations

import io
import json
import math
import time
import urllib.request

import numpy as np
import pytest
import torch
from models import woken
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from dhp_lab.codec.bits import bitstream
from dhp_lab.data.photos import load_photo
from dhp_lab.diffusion.schedules import cosine, linear
from dhp_lab.lessons.diffusion_hyperprior import figures as lesson
from dhp_lab.lessons.diffusion_hyperprior import training_board
from dhp_lab.lessons.diffusion_hyperprior.explorer import explore as explore_diffusion_hyperprior

START = {"photo": "chelsea", "schedule": "linear", "lambda_rate": 3e-3, "steps": 4, "gamma": 0.0}


@pytest.fixture(scope="module")
def model():
    return woken(passes=2, dead_zone=0.35)


@pytest.fixture(scope="module")
def times(model):
    return lesson.DiffusionTimes(model)


# figures


def test_errors_are_drawn_beside_their_gaussian():
    flat = np.linspace(-0.5, 0.5, 8001)
    figure = lesson.errors_figure({"flat": flat, "small": flat / 4})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["flat", "small"]
    for axes, reach in zip(figure.axes, (0.5, 0.125), strict=True):
        at, gauss = axes.lines[0].get_data()
        assert gauss.max() == pytest.approx(math.sqrt(12 / (2 * math.pi))) and at[
            gauss.argmax()
        ] == pytest.approx(0)
        bars = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axes.patches}
        assert all(
            height == pytest.approx(1 / (2 * reach), rel=0.02) for x, height in bars.items() if abs(x) < reach
        )
        assert all(height == 0 for x, height in bars.items() if abs(x) > reach + 0.03)


def test_white_noise_has_its_variance_at_every_frequency():
    noise = 0.3 * torch.randn(1, 1, 512, 512, generator=torch.Generator().manual_seed(0)).expand(
        -1, 3, -1, -1
    )
    frequency, power = lesson.spectrum(noise)
    assert np.allclose(frequency, (np.arange(24) + 0.5) / 48)
    assert np.allclose(power[1:], 0.09, rtol=0.15)


@pytest.mark.parametrize("axis", [-1, -2])
def test_a_wave_has_its_power_at_its_frequency(axis):
    wave = torch.cos(2 * math.pi * 0.25 * torch.arange(64.0))
    picture = (wave if axis == -1 else wave[:, None]).expand(1, 3, 64, 64)
    frequency, power = lesson.spectrum(picture)
    assert abs(frequency[power.argmax()] - 0.25) < 1 / 48
    assert power.max() > 1e6 * np.sort(power)[-2]


def test_spectra_and_curves_are_drawn_as_given():
    at = np.array([0.1, 0.2, 0.4])
    panels = {"fine": {"rounding": (at, at**2)}, "coarse": {"rounding": (at, at), "noise": (at, 2 * at)}}
    for axes, (title, lines) in zip(lesson.spectra_figure(panels).axes, panels.items(), strict=True):
        assert axes.get_title(loc="left") == title
        assert [line.get_label() for line in axes.lines] == list(lines)
        assert all(
            np.array_equal(line.get_data(), data)
            for line, data in zip(axes.lines, lines.values(), strict=True)
        )
    (axes,) = lesson.curves_figure(at, {"learnt": at, "formula": 2 * at}, xlabel="λ", ylabel="Δ").axes
    assert {line.get_label(): line.get_linestyle() for line in axes.lines} == {"learnt": "-", "formula": "--"}
    assert axes.get_xscale() == axes.get_yscale() == "log" and np.array_equal(
        axes.lines[1].get_ydata(), 2 * at
    )


@pytest.mark.parametrize(
    ("high", "labels"), [(3.0, {"0.1", "0.2", "0.5", "1", "2"}), (1e4, {"$\\mathdefault{10^{-1}}$"})]
)
def test_a_short_axis_is_labelled_with_plain_numbers(high, labels):
    at = np.geomspace(0.1, high, 20)
    (axes,) = lesson.curves_figure(at, {"learnt": at}, xlabel="λ", ylabel="Δ").axes
    for axis in (axes.xaxis, axes.yaxis):
        assert labels <= {axis.get_major_formatter()(tick) for tick in axis.get_majorticklocs()}


def test_schedules_are_drawn_with_the_band():
    (axes,) = lesson.schedules_figure({"linear": linear(50), "cosine": cosine(20)}, (0.01, 0.5)).axes
    for line, schedule in zip(axes.lines, (linear(50), cosine(20)), strict=True):
        t, sigma = line.get_data()
        assert t[-1] == schedule.steps and np.allclose(sigma, schedule.sigma(torch.tensor(t)).numpy())
    band = axes.patches[0]
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((0.01, 0.5))


# the explorer's picture


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_walk_starts_at_the_noise_of_rounding(model, times, schedule):
    walk = times.times(schedule, 3e-3, 4)
    chain = {"linear": linear, "cosine": cosine}[schedule](model.config.diffusion_steps)
    assert chain.sigma(walk[0]).item() * model.latent_scale == pytest.approx(
        model.step_size(3e-3) / math.sqrt(12), rel=1e-6
    )
    assert np.allclose(walk, walk[0] * np.array([1, 0.75, 0.5, 0.25]))
    assert times.times(schedule, 3e-3, 0) == []


def test_what_is_decoded_is_what_the_codec_decodes(model, times):
    coded = model.compress(load_photo("chelsea", lesson.SIDE), 3e-3)
    file = bitstream.read(times.encode("chelsea", 3e-3))
    assert file.strings == coded["strings"]
    for steps, gamma in ((0, 0.0), (1, 0.0), (4, 0.0), (4, 0.5)):
        expected = model.decompress(file.strings, file.shape, steps=steps, gamma=gamma)["x_hat"]
        assert torch.equal(times.decode("chelsea", 3e-3, "linear", steps, gamma), expected)


def test_the_schedule_matters_only_below_the_start(model, times):
    coarse = 3e-2  # below t = 1 all schedules are interpolated alike: the start must lie above it in both
    assert all(times.times(schedule, coarse, 1)[0] > 1 for schedule in ("linear", "cosine"))
    one, other = (times.decode("chelsea", coarse, schedule, 1, 0.0) for schedule in ("linear", "cosine"))
    assert (one - other).abs().max() < 1e-5
    one, other = (times.decode("chelsea", coarse, schedule, 4, 0.0) for schedule in ("linear", "cosine"))
    assert (one - other).abs().max() > 1e-3
    assert model.noise_schedule.name == "linear"


def test_the_picture_has_its_size_and_says_what_it_is(times):
    shown = times.render(**START)
    assert Image.open(io.BytesIO(shown.picture)).size == lesson.SIZE
    decoded = "A detail of chelsea, and the same decoded with λ = 0.003, K = 4, γ = 0"
    assert shown.alt == f"{decoded}; the walk down the linear schedule"
    walk = ", ".join(f"{time:.2f}" for time in times.times("linear", 3e-3, 4))
    assert f"t* = {times.times('linear', 3e-3, 4)[0]:.2f} of 10" in shown.text and walk in shown.text
    assert f"{len(times.encode('chelsea', 3e-3))} bytes" in shown.text
    assert all(f">{row}</td>" in shown.text for row in ("K = 4, γ = 0", "K = 0", "K = 1"))


def test_the_picture_is_pure(times):
    state = torch.get_rng_state()
    assert times.render(**START) == times.render(**START) and torch.equal(state, torch.get_rng_state())


CHANGES = [
    {"photo": "coffee"},
    {"schedule": "cosine"},
    {"lambda_rate": 1e-3},
    {"steps": 5},
    {"steps": 0},
    {"gamma": 0.1},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_control_changes_picture_and_text(times, change):
    one, other = times.render(**START), times.render(**START | change)
    assert one.picture != other.picture and (one.text != other.text or "photo" in change)


def test_the_explorer_starts_there(model):
    explorer = explore_diffusion_hyperprior(model)
    assert explorer.position() == START
    explorer.controls["steps"].value = 0
    assert "network evaluations at times: none" in explorer.text.value


# what a training wrote


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "tensorboard"
    with SummaryWriter(folder) as board:
        for step in range(5):
            board.add_scalar("train/loss", 1 / (1 + step), 10 * step)
        board.add_scalar("validation/psnr", 30.5, 40)
    return folder


def test_scalars_are_read_back(run):
    found = training_board.scalars(run)
    assert list(found) == ["train/loss", "validation/psnr"]
    steps, values = found["train/loss"]
    assert steps.tolist() == [0, 10, 20, 30, 40] and np.allclose(values, [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])


def test_a_folder_without_events_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no event file of TensorBoard; train with"):
        training_board.scalars(tmp_path)


def test_scalars_are_drawn_as_read(run):
    found = training_board.scalars(run)
    loss, missing = training_board.scalars_figure(
        found, ["train/loss", "train/other"], changes={"denoiser": 20}
    ).axes
    curve, line = loss.lines
    assert np.array_equal(curve.get_ydata(), found["train/loss"][1]) and set(line.get_xdata()) == {20}
    assert loss.texts[0].get_text() == "denoiser" and loss.get_title(loc="left") == "train/loss"
    assert len(missing.lines[0].get_xdata()) == 0


@pytest.mark.slow
def test_tensorboard_serves_the_run(run):
    address = training_board.serve(run)
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address, timeout=30) as page:
        assert b"TensorBoard" in page.read()
        assert page.headers.get("X-Frame-Options") is None
    for _ in range(100):  # it reads the events in a thread of its own
        with urllib.request.urlopen(f"{address}data/plugin/scalars/tags", timeout=30) as page:
            tags = json.load(page)
        if tags:
            break
        time.sleep(0.1)
    assert set(next(iter(tags.values()))) == {"train/loss", "validation/psnr"}
