"""The lesson on guidance: figures show the numbers they are given, the explorer what the samplers draw."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.data.digits import CLASSES, load_digits
from dhp_lab.diffusion.ideal import IdealDenoiser
from dhp_lab.diffusion.schedules import linear
from dhp_lab.lessons.conditional import figures as lesson
from dhp_lab.lessons.conditional.explorer import explore as explore_conditional
from dhp_lab.metrics.digit_classifier import digit_classifier
from dhp_lab.training.digit_denoiser import load_denoiser

SCHEDULE = linear(50)
START = {"label": "3", "scale": 3.0, "known": lesson.NOTHING, "digit": "8", "seed": 0}


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return lesson.GuidedDigits(IdealDenoiser(data.train[:200], SCHEDULE, data.train_labels[:200]), SCHEDULE)


# figures


def test_densities_are_drawn_as_given():
    at = np.linspace(0, 1, 5)
    densities = {"all": at, "w = 1": at**2, "w = 3": at**3}
    (axes,) = lesson.densities_figure(at, densities, xlabel="x").axes
    assert {line.get_label(): line.get_ydata().tolist() for line in axes.lines} == {
        k: v.tolist() for k, v in densities.items()
    }
    assert axes.get_xlabel() == "x" and [line.get_linestyle() for line in axes.lines] == ["--", "-", "-"]


def test_the_trade_is_drawn_as_given():
    measures = {
        "accuracy": ([0.5, 0.9, 1.0], [0.1, 0.0, 0.2]),
        "diversity": ([4.0, 3.0, 2.0], [0.5, 0.5, 0.5]),
    }
    real = {"accuracy": 0.97, "diversity": 5.0}
    figure = lesson.trade_figure([1, 3, 15], measures, real)
    for axes, (name, (values, deviations)) in zip(figure.axes, measures.items(), strict=True):
        (bars,) = axes.containers
        curve, _, (lengths,) = bars
        assert axes.get_title(loc="left") == name and curve.get_ydata().tolist() == values
        ends = [segment[1, 1] - segment[0, 1] for segment in lengths.get_segments()]
        assert ends == pytest.approx([2 * deviation for deviation in deviations])
        assert real[name] in axes.lines[-1].get_ydata()
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "3", "15"]
        assert axes.get_ylim()[1] > 5.0 or name == "accuracy"


def test_lines_are_drawn_as_given():
    panels = {"one": {"a": [1.0, 2.0], "b": [3.0, 4.0]}, "two": {"c": [5.0, 6.0]}}
    figure = lesson.lines_figure([10, 20], panels, xlabel="t", log="two")
    for axes, (name, curves) in zip(figure.axes, panels.items(), strict=True):
        assert axes.get_title(loc="left") == name and axes.get_xlabel() == "t"
        assert {line.get_label(): line.get_ydata().tolist() for line in axes.lines} == curves
        assert axes.get_yscale() == ("log" if name == "two" else "linear")


def test_the_guidance_field_has_arrows_and_points():
    field = np.zeros((3, 3, 2))
    field[2, 0] = [-3.0, 4.0]  # at the upper left corner
    points = np.array([[0.5, 0.5], [1.0, -1.0]])
    (axes,) = lesson.guidance_field({"w = 2": (field, points)}, np.ones((4, 4)), reach=1.0).axes
    scatter, arrows = axes.collections
    assert axes.get_title(loc="left") == "w = 2" and scatter.get_offsets().tolist() == points.tolist()
    assert arrows.get_offsets()[6].tolist() == [-1, 1]
    assert (arrows.U[6], arrows.V[6]) == pytest.approx((-0.6, 0.8)) and not arrows.U[:6].any()


def test_the_masks_are_what_their_names_say():
    found = lesson.masks()
    assert {name: int(mask.sum()) for name, mask in found.items()} == {
        "upper half": 32,
        "left half": 32,
        "every second pixel": 32,
        "frame": 40,
        "middle (outpainting)": 16,
    }
    assert all(mask.shape == (8, 8) and mask.dtype == torch.bool for mask in found.values())
    assert (
        found["upper half"][0].all() and found["left half"][:, 0].all() and not found["upper half"][7].any()
    )
    assert not found["middle (outpainting)"][0].any() and found["frame"][0].all()
    chess = found["every second pixel"]
    assert bool((chess[1:] ^ chess[:-1]).all()) and bool((chess[:, 1:] ^ chess[:, :-1]).all())


# the explorer's picture


def test_the_class_that_guides_is_drawn(digits):
    """The ideal denoiser gives back data of the given class, and those that the classifier was trained on."""
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
    expected = np.asarray(lesson.digits_figure(rows, zoom=lesson.ZOOM).axes[0].images[0].get_array())
    assert np.array_equal(image[:, lesson.LABEL :], expected[:, lesson.LABEL :])
    assert shown.alt == "16 samples of class 3, guidance scale 3; seed 0"
    seen = digit_classifier().predict(end.x)
    assert (
        " ".join(map(str, seen.tolist())) in shown.text
        and f"{(seen == 3).double().mean().item():.0%}" in shown.text
    )


def test_the_picture_is_pure(digits):
    state = torch.get_rng_state()
    first, again = digits.render(**START), digits.render(**START)
    assert first == again and torch.equal(state, torch.get_rng_state())
    other = START | {"known": "frame"}
    assert digits.render(**other) == digits.render(**other) != first
    assert "around known pixels (frame) of the digit 8" in digits.render(**other).alt


@pytest.mark.parametrize(
    "change", [{"label": "5"}, {"scale": 0.0}, {"known": "left half"}, {"seed": 1}, {"label": lesson.ANY}]
)
def test_every_control_changes_the_picture(digits, change):
    assert digits.render(**START).picture != digits.render(**START | change).picture


def test_the_digit_matters_where_pixels_are_known(digits):
    around = START | {"known": "upper half"}
    assert digits.render(**around).picture != digits.render(**around | {"digit": "1"}).picture
    assert digits.render(**START).picture == digits.render(**START | {"digit": "1"}).picture


def test_the_explorer_starts_there(digits):
    explorer = explore_conditional(digits.network, SCHEDULE)
    assert explorer.position() == START
    assert set(explorer.controls["known"].options) == {lesson.NOTHING, *lesson.masks()}
    assert explorer.controls["label"].options == (*map(str, range(CLASSES)), lesson.ANY)
    explorer.controls["known"].value = "upper half"
    assert "32 of 64 pixels are known" in explorer.text.value
    assert 'alt="16 samples of class 3' in explorer.still().text


@pytest.mark.slow
def test_the_explorer_shows_what_the_lesson_tells():
    """The folded answers quote it; another processor may round the last digit otherwise."""
    network, config = load_denoiser("digits-conditional")
    shipped = lesson.GuidedDigits(network, config.noise_schedule())

    def shown(**change):
        return re.findall(r">([\d %.]+)</td>", shipped.render(**START | change).text)

    quoted = {0.0: ("0%", 15.6), 3.0: ("100%", 4.2), 15.0: ("100%", 6.2)}
    for scale, (accuracy, diversity) in quoted.items():
        _, found_accuracy, found_diversity = shown(scale=scale)
        assert found_accuracy == accuracy and float(found_diversity) == pytest.approx(diversity, abs=0.11)
    assert shown(label="1", known="frame", digit="0")[1] == "100%"
    for known, diversity in (("every second pixel", 3.6), ("upper half", 6.9)):
        assert float(shown(label=lesson.ANY, known=known)[-1]) == pytest.approx(diversity, abs=0.11)
