"""Lesson 01: figures show the arrays they are given, the explorer's picture and text are true."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.data.digits import load_digits
from dhp_lab.diffusion.ideal import IdealDenoiser
from dhp_lab.diffusion.process import noise_like, q_sample
from dhp_lab.diffusion.schedules import cosine, linear
from dhp_lab.lessons.ddpm import figures as ddpm
from dhp_lab.lessons.ddpm.explorer import explore as explore_ddpm
from dhp_lab.lessons.ddpm.shipped_run import shipped_run
from dhp_lab.notebook.style import CSS_DPI

T = 100
TIMES = np.arange(1, T + 1)


def axes_of(figure):
    return figure.get_axes()


# Charts


def test_schedules_are_drawn_as_they_are():
    tables = {chain.name: chain.alpha_bar(torch.arange(T + 1)).numpy() for chain in (linear(T), cosine(T))}
    share, ratio = axes_of(ddpm.schedules_figure(tables))
    for i, chain in enumerate((linear(T), cosine(T))):
        line, curve = share.lines[i], ratio.lines[i]
        assert np.array_equal(line.get_ydata(), tables[chain.name]) and line.get_label() == chain.name
        assert np.allclose(curve.get_ydata(), chain.snr(torch.arange(1, T + 1)).numpy(), rtol=1e-6)
    assert ratio.lines[-1].get_ydata() == [1, 1]


def test_posterior_fills_the_last_density():
    at = np.linspace(0, 1, 5)
    (axes,) = axes_of(ddpm.posterior_figure(at, {"a": at, "b": at**2}, x0=0.5))
    filled = axes.collections[0].get_paths()[0].vertices
    assert filled[:, 1].max() == 1 and {0.25, 0.0625} <= set(filled[:, 1])
    assert [line.get_label() for line in axes.lines] == ["a", "b", "the clean value $x_0$"]


def test_loss_curve_runs_through_the_means():
    losses = list(np.random.default_rng(0).random(200))
    (axes,) = axes_of(ddpm.loss_figure(losses))
    each, mean = axes.lines
    assert np.array_equal(each.get_ydata(), losses)
    assert mean.get_ydata()[-1] == pytest.approx(np.mean(losses[-5:])) and mean.get_xdata()[-1] == 200


def test_a_short_run_has_a_loss_curve_too():
    assert axes_of(ddpm.loss_figure([1.0, 0.5]))[0].lines[1].get_ydata() == [0.75]


def test_a_longer_run_stands_beside_it():
    axes = axes_of(ddpm.loss_figure([1.0, 0.5], [0.7, 0.4, 0.3], every=20))[0]
    assert axes.lines[2].get_xydata().tolist() == [[20, 0.7], [40, 0.4], [60, 0.3]]


def test_class_figure_shows_percent_and_bits():
    right, information = axes_of(ddpm.class_figure([100, 500], [0.9, 0.25], [3.0, 0.5]))
    assert right.lines[0].get_xydata().tolist() == [[100, 90], [500, 25]]
    assert information.lines[0].get_xydata().tolist() == [[100, 3], [500, 0.5]]
    assert right.lines[1].get_ydata() == [10, 10]


def test_the_shipped_run_is_what_the_benchmark_wrote(tmp_path):
    level = " ".join(str(i % 17) for i in range(64))
    place = {"date": "2026-01-02", "device": "a", "threads": 1, "versions": {"torch": "2.0"}}
    row = {"name": "real digits", "frechet_distances": [1.0, 2.0, 3.0], "nearest": 0.25, "digits": [level]}
    found = {"command": "python a.py", "environment": place, "samples": 360, "loss_every": 20}
    file = tmp_path / "found.json"
    file.write_text(
        json.dumps(found | {"loss": [0.5, 0.25], "rows": [row, row | {"name": "after 1", "digits": []}]})
    )
    run = shipped_run(file)
    one = run.rows["real digits"]
    assert (one.distance, one.deviation, one.nearest) == (2.0, 1.0, 0.25)
    assert one.digits.shape == (1, 1, 8, 8) and run.rows["after 1"].digits.shape == (0, 1, 8, 8)
    assert (8 * (one.digits.flatten() + 1)).tolist() == [i % 17 for i in range(64)]
    assert list(run.rows) == ["after 1", "real digits"]
    assert (run.losses, run.every, run.size) == ([0.5, 0.25], 20, 360) and "python a.py" in run.source


def test_errors_come_in_pairs_of_one_colour():
    errors = {name: np.full(T, 0.1) for name in ("a", "b", "c", "d")}
    (axes,) = axes_of(ddpm.errors_figure(TIMES, errors, np.full(T, 0.2)))
    colours = [line.get_color() for line in axes.lines[:4]]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert [line.get_linestyle() for line in axes.lines[:4]] == ["-", "--", "-", "--"]
    assert np.array_equal(axes.lines[4].get_ydata(), np.full(T, 0.2))


def test_bound_shows_error_weight_and_bits():
    parts = [np.geomspace(1, 10**-i, T) for i in (1, 2, 3)]
    for axes, part in zip(axes_of(ddpm.bound_figure(TIMES, *parts)), parts, strict=True):
        assert np.array_equal(axes.lines[0].get_ydata(), part)


# The explorer


@pytest.fixture(scope="module")
def view():
    """An explorer whose network is the ideal denoiser itself: both estimates must agree."""
    return ddpm.NoisyDigit(IdealDenoiser(load_digits().train, linear(T)), linear(T))


def test_the_picture_is_pure_and_has_its_size(view):
    position = {"schedule": "cosine", "digit": "7", "t": 30, "seed": 2}
    first = view.render(**position)
    torch.rand(5)
    assert view.render(**position) == first
    width, height = Image.open(io.BytesIO(first.picture)).size
    assert (width / height, width) == pytest.approx(
        (ddpm.SIZE[0] / ddpm.SIZE[1], 1.5 * ddpm.SIZE[0]), rel=0.01
    )
    for name, value in (("schedule", "linear"), ("digit", "3"), ("t", 31), ("seed", 3)):
        assert view.render(**position | {name: value}).picture != first.picture


def test_the_text_has_the_schedules_numbers(view):
    shown = view.render(schedule="cosine", digit="7", t=30, seed=2)
    chain = cosine(T)
    for value in (chain.alpha_bar(30), chain.sigma(30), chain.snr(30)):
        assert f">{value.item():.4g}<" in shown.text
    assert "A 7" in shown.alt and "t = 30" in shown.alt and "cosine" in shown.alt


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("t", [1, 40, 90])
def test_a_network_is_evaluated_at_the_time_of_equal_noise(view, schedule, t):
    chain, x0 = view.schedules[schedule], view.digits["4"]
    x_t = q_sample(chain, x0, t, noise_like(x0, torch.Generator().manual_seed(0)))
    assert (view.predicted_x0(chain, x_t, t) - view.ideal[schedule].x0(x_t, t)).abs().max() < 1e-4


def test_a_state_beyond_the_networks_noise_is_taken_as_pure_noise(view):
    """The cosine schedule ends noisier than the linear one; no signal can be seen in either."""
    chain, x0 = view.schedules["cosine"], view.digits["4"]
    assert chain.sigma(T) > 3 * view.trained_on.sigma(T)
    x_t = q_sample(chain, x0, T, noise_like(x0, torch.Generator().manual_seed(0)))
    assert (view.predicted_x0(chain, x_t, T) - view.ideal["cosine"].x0(x_t, T)).abs().max() < 0.05
    view.render(schedule="cosine", digit="4", t=T, seed=0)


def test_each_digit_shows_its_class(view):
    digits = load_digits()
    for name, picture in view.digits.items():
        same = (digits.test == picture).flatten(1).all(1)
        assert digits.test_labels[same].tolist() == [int(name)]


def test_the_sliders_of_lesson_01():
    explorer = explore_ddpm(lambda x, t: torch.zeros_like(x), linear(T))
    assert explorer.position() == {"schedule": "linear", "digit": "3", "t": T // 5, "seed": 0}
    before = explorer.picture.value, explorer.text.value
    for name, value in (("schedule", "cosine"), ("digit", "8"), ("t", 55), ("seed", 4)):
        explorer.controls[name].value = value
        after = explorer.picture.value, explorer.text.value
        assert after[0] != before[0] and after[1] != before[1]
        before = after
    assert f"aspect-ratio: {ddpm.SIZE[0]}/{ddpm.SIZE[1]}" in explorer.frame and CSS_DPI == 96
