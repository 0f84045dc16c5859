"""Lesson 04: the methods it compares, its figures, its explorer."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.diffusion.mixture import ISLANDS
from dhp_lab.lessons.few_steps import figures as lesson
from dhp_lab.lessons.few_steps import methods
from dhp_lab.lessons.few_steps.explorer import explore
from dhp_lab.notebook.html import picture_bytes
from dhp_lab.training.islands import SIGMA_MAX, SIGMA_MIN, new_models


def noise(count=40, seed=0):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return new_models(width=8)


# The methods


@pytest.mark.parametrize("spacing", methods.SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_every_spacing_falls_from_the_noise_to_0(spacing, steps):
    schedule = methods.SPACINGS[spacing](steps)
    levels = schedule.sigma(schedule.times(steps))
    assert len(levels) == steps + 1 and levels[0].item() == pytest.approx(SIGMA_MAX)
    assert levels[-1] == 0 and bool((levels.diff() < 0).all())


@pytest.mark.parametrize("method", methods.METHODS)
@pytest.mark.parametrize("steps", [1, 3])
def test_every_method_draws_points_and_counts_what_it_evaluates(models, method, steps):
    calls = []
    hooks = [net.register_forward_hook(lambda *_: calls.append(1)) for net in vars(models).values()]
    drawn = methods.draw(models, method, "Karras, ρ = 7", steps, noise())
    for hook in hooks:
        hook.remove()
    assert drawn.path.shape == (steps + 1, 40, 2) and drawn.levels.shape == (steps + 1,)
    assert bool(drawn.samples.isfinite().all())
    expected = sum(range(1, steps + 1)) if method == methods.CONSISTENCY else drawn.evaluations
    assert len(calls) == expected  # each point of a path of jumps is drawn anew


def test_methods_and_spacings_have_names(models):
    with pytest.raises(ValueError, match="got 'Ralston' and"):
        methods.draw(models, "Ralston", "Karras, ρ = 7", 2, noise())
    with pytest.raises(ValueError, match="and 'none'"):
        methods.draw(models, "DDIM", "none", 2, noise())


def test_the_reference_solution_is_the_limit_of_many_steps():
    eps = noise(100).double()
    twice = methods.karras_levels(2 * methods.REFERENCE_STEPS)
    denoiser = ISLANDS.denoiser(twice)
    finer = methods.last(methods.edm_heun(denoiser, twice, SIGMA_MAX * eps)).x
    assert methods.distances(methods.reference(eps), finer).path < 0.02


def test_distances_are_0_only_from_the_goal():
    goal = ISLANDS.sample(2000, torch.Generator().manual_seed(0))
    same, moved = methods.distances(goal, goal), methods.distances(goal + torch.tensor([3.0, 4.0]), goal)
    assert same.path == 0 and same.cloud < 0.05
    assert moved.path == pytest.approx(5, rel=1e-4) and moved.cloud > 2
    assert ISLANDS.std > SIGMA_MIN


# Figures


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_figures_have_a_panel_for_each_title():
    x = np.array([1.0, 10.0, 100.0])
    grid, times = np.linspace(-2, 2, 7), np.linspace(1, 0, 5)
    line = (times, grid, np.ones((7, 5)), np.zeros((3, 5)))
    curves = {name: {"a": (x, x), "b": (x, 1 / x)} for name in ("one", "two")}
    points = dict.fromkeys(("one", "two"), noise())
    paths = dict.fromkeys(("one", "two"), torch.zeros(4, 3, 2))
    for figure in (
        lesson.curves_figure(curves, xlabel="x", ylabel="y"),
        lesson.curves_figure(curves, xlabel="x", ylabel="y", log="y", steps=True),
        lesson.line_paths_figure({"one": line, "two": line}, "t"),
        lesson.points_figure(points),
        lesson.points_figure(points, paths=paths),
    ):
        assert titles(figure) == ["one", "two"]
        assert Image.open(io.BytesIO(picture_bytes(figure))).size[0] > 300


def test_levels_are_drawn_where_they_are():
    figure = lesson.levels_figure({"one": torch.tensor([2.0, 1.0, 0.0]), "two": torch.tensor([3.0])})
    lines = figure.axes[0].lines
    assert [line.get_xdata().tolist() for line in lines] == [[2, 1], [3]]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["one", "two"]


def made_results(path, rows, **more):
    environment = {"device": "a core", "threads": 1, "date": "today", "versions": {"torch": "2"}}
    found = {"command": "python it.py", "environment": environment, "seeds": 3, "rows": rows, **more}
    path.write_text(json.dumps(found))
    return path


def test_tables_show_means_and_intervals(tmp_path):
    value = {"mean": 0.25, "half": 0.01, "values": []}
    row = {"method": "DDIM", "spacing": "even", "steps": 4, "evaluations": 3, "path": value, "cloud": value}
    file = made_results(
        tmp_path / "a.json", [row, {**row, "steps": 32}], points=9, data=value, exact={**value, "half": None}
    )
    text = lesson.cost_table(file=file).text
    assert "DDIM, even" in text and "0.250 ± 0.010" in text and "python it.py" in text and ">32<" not in text
    row = {"method": "DDIM", "spacing": "even", "steps": 2}
    row |= dict.fromkeys(("frechet_distance", "precision", "recall"), value)
    text = lesson.digit_table(file=made_results(tmp_path / "b.json", [row], samples=9, real=0.5)).text
    assert "0.25 ± 0.01" in text and "0.50" in text and "9 digits" in text


# The explorer


@pytest.mark.parametrize("method", methods.METHODS)
def test_picture_is_pure_and_its_text_says_what_it_shows(method, models, monkeypatch):
    monkeypatch.setattr(lesson, "shipped", lambda: models)
    position = {"method": method, "spacing": "even in log σ", "steps": 2}
    shown = lesson.few_steps_picture(**position)
    assert shown == lesson.few_steps_picture(**position)
    assert Image.open(io.BytesIO(shown.picture)).size == lesson.SIZE
    assert f"{method}, even in log σ, 2 steps" in shown.alt
    assert f">{3 if method == 'Heun' else 2}</td>" in shown.text
    assert ("noise is added again" in shown.text) == (method == methods.CONSISTENCY)


def test_explorer_starts_with_ddim(models, monkeypatch):
    monkeypatch.setattr(lesson, "shipped", lambda: models)
    explorer = explore()
    assert explorer.start == {"method": "DDIM", "spacing": "Karras, ρ = 7", "steps": 4}
    assert 'class="dhp-still"' in explorer.still().text
