"""Lesson 02: its figures show the numbers they are given, its explorer's picture is what the sampler draws, its exercises."""

from __future__ import annotations

import io
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab import checks, explorers
from dhp_lab.checks import CORRECT, NOT_ATTEMPTED, REGISTRY, WRONG, machinery
from dhp_lab.diffusion.ideal import IdealDenoiser
from dhp_lab.diffusion.samplers import ddim, start
from dhp_lab.diffusion.schedules import linear
from dhp_lab.digits import load_digits
from dhp_lab.lessons import ddim as lesson
from dhp_lab.plots import picture_bytes

SCHEDULE = linear(50)


@pytest.fixture(scope="module")
def draws():
    return lesson.DigitDraws(IdealDenoiser(load_digits().train[:40], SCHEDULE), SCHEDULE)


# figures


def test_digits_are_drawn_pixel_for_pixel():
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 4 - 2
    figure = lesson.digits_figure({"one": x, "two": x[:1]}, zoom=4)
    canvas = figure.axes[0].images[0].get_array()
    assert canvas.shape == (2 * 32 + lesson.GAP, 3 * 32 + 2 * lesson.GAP)
    expected = (1 - x[:, 0].clamp(-1, 1).double().numpy()) / 2
    for column in range(3):
        shown = canvas[:32, column * (32 + lesson.GAP) : column * (32 + lesson.GAP) + 32]
        assert np.array_equal(shown, np.kron(expected[column], np.ones((4, 4))))
    below = canvas[32 + lesson.GAP :]
    assert np.array_equal(below[:, :32], np.kron(expected[0], np.ones((4, 4)))) and (below[:, 32:] == 1).all()
    assert [text.get_text() for text in figure.texts] == ["one", "two"]
    width, height = (96 * figure.get_size_inches()).astype(int)
    assert (width, height) == (canvas.shape[1] + lesson.LABEL, canvas.shape[0])


@pytest.mark.parametrize("rows", [{}, {"a": torch.zeros(0, 1, 8, 8)}, {"a": torch.zeros(1, 3, 8, 8)}, {"a": torch.zeros(8, 8)},
                                  {"a": torch.zeros(1, 1, 8, 8), "b": torch.zeros(1, 1, 4, 8)}])  # fmt: skip
def test_other_rows_are_refused(rows):
    with pytest.raises(ValueError, match=re.escape("rows must be (n, 1, H, W)")):
        lesson.digits_figure(rows)


def test_paths_are_drawn_as_given():
    paths = {"η = 0": torch.arange(6.0).view(2, 3), "η = 1": -torch.arange(9.0).view(3, 3)}
    figure = lesson.paths_figure([10.0, 5.0, 0.0], paths)
    for axes, (label, values) in zip(figure.axes, paths.items(), strict=True):
        assert [line.get_xdata().tolist() for line in axes.lines] == [[10.0, 5.0, 0.0]] * len(values)
        assert [line.get_ydata().tolist() for line in axes.lines] == values.tolist()
        assert axes.get_title(loc="left") == label and axes.get_xlabel()
    with pytest.raises(ValueError, match=re.escape("paths must be (runs, 2), got [(2, 3), (3, 3)]")):
        lesson.paths_figure([1.0, 0.0], paths)


def test_quality_curves_are_drawn_as_given():
    figure = lesson.quality_figure({"η = 0": {5: 9.0, 50: 3.0}, "η = 1": {50: 4.0}}, {"real digits": 1.0}, ylabel="distance")
    axes = figure.axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines[:2]] == [[[5, 9], [50, 3]], [[50, 4]]]
    assert list(axes.lines[2].get_ydata()) == [1.0, 1.0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["η = 0", "η = 1", "real digits"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "50"]
    picture_bytes(figure)


def test_errors_are_counted_in_levels():
    a = torch.zeros(2, 1, 8, 8)
    assert lesson.level_error(a - 1, a + 1) == 16
    assert lesson.level_error(a, a + 0.125) == 1


# the explorer


@pytest.mark.parametrize(("steps", "eta"), [(5, 0.0), (20, 0.7)])
def test_the_runs_are_the_samplers(draws, steps, eta):
    x_T, states = draws.runs(steps, eta, 3)
    generator = torch.Generator().manual_seed(3)
    noise = start(SCHEDULE, (lesson.COLUMNS, 1, 8, 8), generator=generator)
    assert torch.equal(x_T, torch.cat([noise, noise]))
    expected = list(ddim(draws.denoiser, SCHEDULE, x_T, count=steps, eta=eta, generator=generator))
    assert [state.t for state in states] == [state.t for state in expected] and states[-1].t == 0
    assert all(torch.equal(a.x, b.x) for a, b in zip(states, expected, strict=True))


def test_both_runs_agree_exactly_if_there_is_no_chance(draws):
    apart = {eta: lesson.level_error(*draws.runs(10, eta, 0)[1][-1].x.chunk(2)) for eta in (0.0, 0.5, 1.0)}
    assert apart[0.0] < 1e-3 < 0.5 < min(apart[0.5], apart[1.0])


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_the_picture_has_its_place_and_says_what_it_shows(draws, steps):
    shown = draws.render(steps=steps, eta=0.5, seed=7)
    with Image.open(io.BytesIO(shown.picture)) as picture:
        assert picture.size == tuple(round(side * 1.5) for side in lesson.SIZE)
    assert f"{steps} steps, η = 0.5, seed 7" in shown.alt
    assert f"asked {steps} times" in shown.text and "t = " in shown.text and shown.text.count("of 16") == 1


def test_the_same_position_gives_the_same_picture_and_leaves_the_global_generator_alone(draws):
    before = torch.get_rng_state()
    first, second = (draws.render(steps=8, eta=1.0, seed=1) for _ in range(2))
    assert first.picture == second.picture
    assert torch.equal(torch.get_rng_state(), before)


def test_every_slider_changes_picture_and_text(draws):
    explorer = explorers.ddim(draws.denoiser, SCHEDULE)
    shown = [(explorer.picture.value, explorer.text.value)]
    for name, value in (("steps", 21), ("eta", 0.1), ("seed", 1)):
        explorer.controls[name].value = value
        shown.append((explorer.picture.value, explorer.text.value))
    assert [a != b and c != d for (a, c), (b, d) in zip(shown, shown[1:])] == [True] * 3
    assert explorer.start == {"steps": 20, "eta": 0.0, "seed": 0} and 'alt="8 noises' in explorer.still().text


# exercises


def slerp(a, b, w):
    cosine = (a * b).sum() / (a.norm() * b.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    if angle < 1e-3:
        return (1 - w) * a + w * b
    return (torch.sin((1 - w) * angle) * a + torch.sin(w * angle) * b) / torch.sin(angle)


def step_up(x_s, eps, alpha_bar_s, alpha_bar_t):
    x0 = (x_s - math.sqrt(1 - alpha_bar_s) * eps) / math.sqrt(alpha_bar_s)
    return math.sqrt(alpha_bar_t) * x0 + math.sqrt(1 - alpha_bar_t) * eps


def fresh_noise(a_t, a_s, eta):
    return eta * math.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))


RIGHT = {
    "noise_kept": lambda a_t, a_s, eta: math.sqrt(1 - fresh_noise(a_t, a_s, eta) ** 2 / (1 - a_s)),
    "step_up": step_up,
    "slerp": slerp,
}

# For each exercise, the mistakes a reader is likely to make: (answer, words that the message must contain).
MISTAKES = {
    "noise_kept": [
        (fresh_noise, "nothing is drawn anew"),
        (lambda a_t, a_s, eta: math.sqrt(1 - a_s - fresh_noise(a_t, a_s, eta) ** 2), "divide by that"),
        (lambda a_t, a_s, eta: 1 - fresh_noise(a_t, a_s, eta) ** 2 / (1 - a_s), "not variances"),
        (lambda a_t, a_s, eta: 1 - eta + eta * 0.5, "eta^2"),
        (lambda a_t, a_s, eta: math.sqrt(1 - 0.75 * eta**2), "measured"),
        (lambda a_t, a_s: 1.0, "TypeError"),
    ],
    "step_up": [
        (lambda x, eps, a_s, a_t: a_t * x + (1 - a_t) * eps, "sqrt(alpha_bar_t)"),
        (lambda x, eps, a_s, a_t: math.sqrt(a_t) * x, "standard deviation sqrt(1 - alpha_bar_t)"),
        (lambda x, eps, a_s, a_t: math.sqrt(a_t) * x + (1 - a_t) * eps, "standard deviation sqrt(1 - alpha_bar_t)"),
        (lambda x, eps, a_s, a_t: math.sqrt(a_t) * x + math.sqrt(1 - a_t) * eps, "x_s holds noise already"),
        (lambda x, eps, a_s, a_t: math.sqrt(a_t / a_s) * x + math.sqrt(1 - a_t / a_s) * eps, "x_s holds noise already"),
        (lambda x, eps, a_s, a_t: step_up(x, eps, a_s, min(a_s, a_t)), "one formula"),
    ],
    "slerp": [
        (lambda a, b, w: (1 - w) * a + w * b, "keeps the length"),
        (lambda a, b, w: ((1 - w) * a + w * b) / ((1 - w) * a + w * b).norm() * a.norm(), "30 degrees"),
        (lambda a, b, w: math.cos(w * math.pi / 2) * a + math.sin(w * math.pi / 2) * b, "60 degrees"),
        (lambda a, b, w: slerp(a, b, w) if a.ndim == 1 else slerp(a.flatten(), b.flatten(), w), "keep the shape"),
        (lambda a, b, w: slerp(a, b, w) if (a != b).any() else a * math.nan, "straight line will do"),
    ],
}  # fmt: skip


def unfinished(*arguments):
    raise NotImplementedError


def test_every_exercise_of_the_lesson_is_proved_here():
    mine = {name for name, check in REGISTRY.items() if check.lesson == 2}
    assert mine == RIGHT.keys() == MISTAKES.keys()
    assert all(getattr(checks, name) is REGISTRY[name] and name in checks.__all__ for name in mine)


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("stub", [lambda *arguments: None, unfinished])
def test_stub_is_not_attempted(name, stub):
    result = REGISTRY[name](stub)
    assert result.status == NOT_ATTEMPTED and REGISTRY[name].task in result.message


@pytest.mark.parametrize(("name", "answer", "words"), [(name, *m) for name, mistakes in MISTAKES.items() for m in mistakes])
def test_mistake_is_explained(name, answer, words):
    result = REGISTRY[name](answer)
    assert result.status == WRONG
    assert words in result.message and "expected: " in result.message


@pytest.mark.parametrize("name", RIGHT)
def test_right_answer_is_correct(name):
    result = REGISTRY[name](RIGHT[name])
    assert result.status == CORRECT, result.message


@pytest.mark.parametrize("name", RIGHT)
def test_every_case_catches_something(name):
    for wrong_at, case in enumerate(REGISTRY[name].cases()):
        calls = iter(range(99))
        result = REGISTRY[name](lambda *arguments: "?" if next(calls) == wrong_at else RIGHT[name](*arguments))
        assert (result.status, case.hint != "") == (WRONG, True)
        ending = f"your function returned '?'\nexpected: {machinery._show(case.expected)}\nHint: {case.hint}"
        assert result.message.endswith(ending)
