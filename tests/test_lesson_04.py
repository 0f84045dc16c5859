"""Lesson 04: its figures show the numbers they are given, its explorer's picture is what the samplers draw, its exercises."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab import checks, explorers
from dhp_lab.checks import CORRECT, NOT_ATTEMPTED, REGISTRY, WRONG, machinery
from dhp_lab.diffusion.ideal import IdealDenoiser
from dhp_lab.diffusion.schedules import linear
from dhp_lab.digits import CLASSES, digit_classifier, load_digits
from dhp_lab.lessons import conditional as lesson
from dhp_lab.plots import picture_bytes

SCHEDULE = linear(50)
PITCH = 4 * 8 + lesson.BETWEEN                  # of digits drawn with zoom = 4
START = {"label": "3", "scale": 3.0, "known": lesson.NOTHING, "digit": "8", "seed": 0}


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return lesson.GuidedDigits(IdealDenoiser(data.train[:200], SCHEDULE, data.train_labels[:200]), SCHEDULE)


def drawn(figure) -> np.ndarray:
    """(H, W, 3) the digits of a figure, without its words."""
    return np.asarray(figure.axes[0].images[0].get_array())


# figures


def test_digits_are_drawn_pixel_for_pixel():
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 4 - 2
    figure = lesson.digits_figure({"one": x, "two": x[:1]}, titles=["a", "b", "c"], zoom=4)
    canvas = drawn(figure)
    assert canvas.shape == (lesson.TITLE + 2 * PITCH - lesson.BETWEEN, lesson.LABEL + 3 * PITCH - lesson.BETWEEN, 3)
    grey = 255 - (x[:, 0].clamp(-1, 1).double().numpy() + 1) / 2 * 235
    for column in range(3):
        left = lesson.LABEL + column * PITCH
        shown = canvas[lesson.TITLE : lesson.TITLE + 32, left : left + 32]
        assert np.abs(shown - np.kron(grey[column], np.ones((4, 4)))[..., None]).max() <= 0.5
    below = canvas[lesson.TITLE + PITCH :]
    assert np.array_equal(below[:, lesson.LABEL :][:, :32], canvas[lesson.TITLE :][:32, lesson.LABEL :][:, :32])
    assert (below[:, lesson.LABEL + 32 :] == 255).all() and (canvas[:, : lesson.LABEL] == 255).all()
    assert [text.get_text() for text in figure.texts] == ["one", "two", "a", "b", "c"]
    assert tuple((96 * figure.get_size_inches()).astype(int)) == canvas.shape[1::-1]
    assert Image.open(io.BytesIO(picture_bytes(figure))).size == canvas.shape[1::-1]


def test_known_pixels_are_blue_and_missing_ones_striped():
    x = torch.full((1, 1, 2, 2), -1.0)
    x[..., 1, 1], x[..., 0, 1] = torch.nan, 1.0
    canvas = drawn(lesson.digits_figure({"": x}, known=torch.tensor([[True, True], [False, False]]), zoom=8))[:, lesson.LABEL :]
    assert (canvas[:8, :8] == lesson.KNOWN).all()                                   # known paper
    assert (canvas[:8, 8:] == lesson.INK).all()                                     # known ink is ink
    assert (canvas[8:, :8] == lesson.PAPER).all()
    colours = {tuple(colour) for colour in canvas[8:, 8:].reshape(-1, 3).tolist()}
    assert colours == {tuple(colour.tolist()) for colour in lesson.MISSING}


def test_pictures_of_other_sizes_are_drawn_too():
    canvas = drawn(lesson.digits_figure({"wide": torch.zeros(2, 1, 8, 16)}, zoom=4))
    assert canvas.shape == (32, lesson.LABEL + 2 * 64 + lesson.BETWEEN, 3)


@pytest.mark.parametrize("rows", [{}, {"a": torch.zeros(0, 1, 8, 8)}, {"a": torch.zeros(1, 3, 8, 8)}, {"a": torch.zeros(8, 8)},
                                  {"a": torch.zeros(1, 1, 8, 8), "b": torch.zeros(1, 1, 4, 8)}])  # fmt: skip
def test_other_rows_are_refused(rows):
    with pytest.raises(ValueError, match=re.escape("rows must be (n, 1, H, W)")):
        lesson.digits_figure(rows)


def test_densities_are_drawn_as_given():
    at = np.linspace(0, 1, 5)
    densities = {"all": at, "w = 1": at**2, "w = 3": at**3}
    (axes,) = lesson.densities_figure(at, densities, xlabel="x").axes
    assert {line.get_label(): line.get_ydata().tolist() for line in axes.lines} == {k: v.tolist() for k, v in densities.items()}
    assert axes.get_xlabel() == "x" and [line.get_linestyle() for line in axes.lines] == ["--", "-", "-"]


def test_the_trade_is_drawn_as_given():
    measures = {"as asked": [0.5, 0.9, 1.0], "diversity": [4.0, 3.0, 2.0]}
    figure = lesson.trade_figure([1, 3, 15], measures, {"as asked": 0.97, "diversity": 5.0})
    for axes, (name, values) in zip(figure.axes, measures.items(), strict=True):
        curve, real = axes.lines
        assert axes.get_title(loc="left") == name and curve.get_ydata().tolist() == values
        assert set(real.get_ydata()) == {{"as asked": 0.97, "diversity": 5.0}[name]}
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "3", "15"]
        assert axes.get_ylim()[1] > 5.0 or name == "as asked"


def test_walks_are_drawn_as_given():
    walks = {"down": [3.0, 2.0, 0.0], "and up": [3.0, 1.0, 2.0, 0.0]}
    figure = lesson.walk_figure(walks)
    for axes, (name, times) in zip(figure.axes, walks.items(), strict=True):
        assert axes.get_title(loc="left") == name and axes.lines[0].get_ydata().tolist() == times


def test_the_masks_are_what_their_names_say():
    found = lesson.masks()
    assert {name: int(mask.sum()) for name, mask in found.items()} == {
        "upper half": 32, "left half": 32, "every second pixel": 32, "frame": 40, "middle (outpainting)": 16,
    }  # fmt: skip
    assert all(mask.shape == (8, 8) and mask.dtype == torch.bool for mask in found.values())
    assert found["upper half"][0].all() and found["left half"][:, 0].all() and not found["upper half"][7].any()
    assert not found["middle (outpainting)"][0].any() and found["frame"][0].all()
    chess = found["every second pixel"]
    assert bool((chess[1:] ^ chess[:-1]).all()) and bool((chess[:, 1:] ^ chess[:, :-1]).all())


# the explorer's picture


def test_what_is_asked_for_is_drawn(digits):
    """The ideal denoiser gives back data of the class asked for, and those the classifier knows."""
    (*_, end), mask = digits.draw("3", 1.0, lesson.NOTHING, "8", 0)
    assert mask is None and end.t == 0 and end.x.shape == (16, 1, 8, 8)
    assert (digit_classifier().predict(end.x) == 3).double().mean() >= 0.9
    (*_, end), _ = digits.draw(lesson.ANY, 3.0, lesson.NOTHING, "8", 0)
    assert len(digit_classifier().predict(end.x).unique()) > 3


@pytest.mark.parametrize("known", lesson.masks())
def test_known_pixels_are_kept(digits, known):
    states, mask = digits.draw("9", 2.0, known, "8", 1)
    assert torch.equal(mask, lesson.masks()[known])
    picture = digits.digits["8"]
    assert torch.equal(states[-1].x[:, :, mask], picture.expand(16, 1, 8, 8)[:, :, mask])
    assert "differ by 0 from" in digits.render(label="9", scale=2.0, known=known, digit="8", seed=1).text


def test_the_picture_is_that_of_the_samples(digits):
    shown = digits.render(**START)
    (*_, end), _ = digits.draw("3", 3.0, lesson.NOTHING, "8", 0)
    image = np.asarray(Image.open(io.BytesIO(shown.picture)).convert("RGB"))
    assert image.shape == (lesson.SIZE[1], lesson.SIZE[0], 3)
    missing = torch.full((1, 1, 8, 8), torch.nan)
    rows = {"what is known": missing, "samples": end.x[:8], "more samples": end.x[8:]}
    expected = drawn(lesson.digits_figure(rows, zoom=lesson.ZOOM))
    assert np.array_equal(image[:, lesson.LABEL :], expected[:, lesson.LABEL :])
    assert shown.alt == "16 samples, asked for: 3, guidance scale 3; seed 0"
    seen = digit_classifier().predict(end.x)
    assert " ".join(map(str, seen.tolist())) in shown.text and f"{(seen == 3).double().mean().item():.0%}" in shown.text


def test_the_picture_is_pure(digits):
    state = torch.get_rng_state()
    first, again = digits.render(**START), digits.render(**START)
    assert first == again and torch.equal(state, torch.get_rng_state())
    other = START | {"known": "frame"}
    assert digits.render(**other) == digits.render(**other) != first
    assert "around known pixels (frame) of the digit 8" in digits.render(**other).alt


@pytest.mark.parametrize("change", [{"label": "5"}, {"scale": 0.0}, {"known": "left half"}, {"seed": 1}, {"label": lesson.ANY}])
def test_every_control_changes_the_picture(digits, change):
    assert digits.render(**START).picture != digits.render(**START | change).picture


def test_the_digit_matters_where_pixels_are_known(digits):
    around = START | {"known": "upper half"}
    assert digits.render(**around).picture != digits.render(**around | {"digit": "1"}).picture
    assert digits.render(**START).picture == digits.render(**START | {"digit": "1"}).picture


def test_the_explorer_starts_there(digits):
    explorer = explorers.conditional(digits.network, SCHEDULE)
    assert explorer.position() == START
    assert set(explorer.controls["known"].options) == {lesson.NOTHING, *lesson.masks()}
    assert explorer.controls["label"].options == (*map(str, range(CLASSES)), lesson.ANY)
    explorer.controls["known"].value = "upper half"
    assert "32 of 64 pixels are known" in explorer.text.value
    assert 'alt="16 samples, asked for: 3' in explorer.still().text


# exercises


def my_implied_gradient(eps, eps_null, s, sigma):
    return (eps_null - eps) / (s * sigma)


def my_sharpened(m, v, m0, v0, w):
    precision = w / v + (1 - w) / v0
    return (w * m / v + (1 - w) * m0 / v0) / precision, 1 / precision


RIGHT = {
    "drop_labels": lambda labels, u, p, null: np.where(u < p, null, labels),
    "implied_gradient": my_implied_gradient,
    "sharpened": my_sharpened,
}

# For each exercise, the mistakes a reader is likely to make: (answer, words that the message must contain).
MISTAKES = {
    "drop_labels": [
        (lambda labels, u, p, null: np.where(u <= p, null, labels), "0.1 itself is not"),
        (lambda labels, u, p, null: np.where(u > p, null, labels), "below 0.1"),
        (lambda labels, u, p, null: np.where(u < p, 10, labels), "not class 0"),
        (lambda labels, u, p, null: np.where((u < p) & (labels < 7), null, labels), "below p"),
        (lambda labels, u, p, null: labels[u >= p], "expected: "),
        (lambda labels, u, p, null: null if u < p else labels, "ValueError"),
        (lambda labels, u, p, null: np.where(u < (p or 0.1), null, labels), "no label is dropped"),
    ],
    "implied_gradient": [
        (lambda eps, eps_null, s, sigma: (eps - eps_null) / (s * sigma), "difference of the two scores"),
        (lambda eps, eps_null, s, sigma: eps_null / (s * sigma), "difference of the two scores"),
        (lambda eps, eps_null, s, sigma: s * sigma * (eps_null - eps), "both the scale and the noise"),
        (lambda eps, eps_null, s, sigma: (eps_null - eps) / sigma, "both the scale and the noise"),
        (lambda eps, eps_null, s, sigma: round((eps_null - eps) / (s * sigma)), "two classes of one number"),
    ],
    "sharpened": [
        (lambda m, v, m0, v0, w: (w * m + (1 - w) * m0, v / w), "precision"),
        (lambda m, v, m0, v0, w: (m, v), "w times the precision"),
        (lambda m, v, m0, v0, w: (m, my_sharpened(m, v, m0, v0, w)[1]), "weighted by precisions"),
        (lambda m, v, m0, v0, w: (w * m + (1 - w) * m0, my_sharpened(m, v, m0, v0, w)[1]), "weighted by precisions"),
        (lambda m, v, m0, v0, w: (my_sharpened(m, v, m0, v0, w)[0], my_sharpened(m, v, m0, v0, w)[1] ** 0.5), "precision"),
        (lambda m, v, m0, v0, w: my_sharpened(m, v, m0, v0, min(w, 5)), "measured on a fine grid"),
        (lambda m, v, m0, v0, w: (v0 / v, 1.0) if w == 1 else my_sharpened(m, v, m0, v0, w), "the class as it is"),
    ],
}  # fmt: skip


def unfinished(*arguments):
    raise NotImplementedError


def test_every_exercise_of_the_lesson_is_proved_here():
    mine = {name for name, check in REGISTRY.items() if check.lesson == 4}
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
        assert result.message.endswith(f"your function returned '?'\nexpected: {machinery._show(case.expected)}\nHint: {case.hint}")
