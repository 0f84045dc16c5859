"""Lesson 09: figures show what they are given, entropy models code what they say, the explorer shows the
codec's numbers.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from models import M, woken
from PIL import Image
from scipy.stats import norm

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.networks.context import coding_order
from dhp_lab.codec.networks.layers import round_through
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import PHOTOS, load_photo
from dhp_lab.lessons.scale_hyperprior import diagram, passes_and_bins, proxies, transform_figures
from dhp_lab.lessons.scale_hyperprior import figures as lesson
from dhp_lab.lessons.scale_hyperprior.explorer import explore as explore_scale_hyperprior

START = {"photo": "astronaut", "lambda_rate": 1e-3, "channel": 1}


@pytest.fixture(scope="module")
def model():
    return woken(passes=4, dead_zone=0.35)


@pytest.fixture(scope="module")
def maps(model):
    return lesson.HyperpriorMaps(model, 256)


# figures


def test_the_proxy_is_drawn_as_given():
    at, shares = np.linspace(-1, 1, 5), {-1: 0.2, 0: 0.6, 1: 0.2}
    figure = lesson.proxy_figure(
        at, at**2, at**4, shares, [0.5, 1.0], {"rounded": [1.0, 2.0], "with noise": [1.5, 2.5]}
    )
    left, right = figure.axes
    assert [line.get_ydata().tolist() for line in left.lines] == [
        (at**2).tolist(),
        (at**4).tolist(),
        [0.2, 0.6, 0.2],
    ]
    assert left.lines[2].get_xdata().tolist() == [-1, 0, 1]
    found = {line.get_label(): line.get_ydata().tolist() for line in right.lines}
    assert found == {"rounded": [1.0, 2.0], "with noise": [1.5, 2.5]}


def test_bars_are_as_long_as_they_have_bytes():
    (axes,) = lesson.bytes_figure({"one": {"z": 5, "y": 20}, "two": {"z": 0, "y": 40}}).axes
    assert [bar.get_width() for bar in axes.patches] == [5, 0, 20, 40]
    assert [bar.get_x() for bar in axes.patches] == [0, 0, 5, 0]
    assert [text.get_text() for text in axes.texts] == ["25", "40"]


def test_steps_are_drawn_as_given():
    lambdas, best = np.array([1e-4, 1e-3]), {1e-3: 0.5, 1e-2: 0.7}
    steps = {1e-3: np.array([0.5, 1.0, 2.0]), 1e-2: np.array([0.7, 1.4])}
    costs = {1e-3: np.array([1.5, 1.0, 1.25]), 1e-2: np.array([1.0, 1.1])}
    deltas = {"codec": lambdas * 2, "law": lambdas * 3}
    left, right = lesson.gain_figure(lambdas, deltas, best, steps, costs).axes
    drawn = [line.get_ydata() for line in left.lines]
    assert [np.ravel(values).tolist() for values in drawn] == [
        (lambdas * 2).tolist(),
        (lambdas * 3).tolist(),
        [0.5, 0.7],
    ]
    found = {line.get_label(): line.get_xydata().tolist() for line in right.lines[:2]}
    assert found == {
        "λ = 0.001": [[0.5, 1.5], [1.0, 1.0], [2.0, 1.25]],
        "λ = 0.01": [[0.7, 1.0], [1.4, 1.1]],
    }
    assert set(right.lines[2].get_xdata()) == {1}


@pytest.mark.parametrize("passes", [1, 2, 4, 14])
def test_each_place_shows_its_pass(passes):
    order = []
    for part in coding_order(passes, 20, 3, 5):
        whole = torch.zeros(1, 20, 3, 5).contiguous(memory_format=torch.channels_last)
        part.scatter(whole, torch.ones_like(part.gather(whole)))
        order.append(whole[0].bool())
    loud, other = passes_and_bins.order_figure(
        [places.numpy() for places in order], {"loud": 0, "other": 19}
    ).axes
    for axes, channel in ((loud, 0), (other, 19)):
        found = {
            (round(-y - 0.5), round(x - 0.5)): int(text.get_text())
            for text in axes.texts
            for x, y in [text.get_position()]
        }
        assert found == {
            (i, j): n + 1 for n, places in enumerate(order) for i, j in places[channel].nonzero().tolist()
        }
    assert loud.get_title(loc="left") == "loud" and len(found) == 15


def test_bins_are_as_wide_as_they_are():
    plain, zoned = [(900, 30.0), (600, 28.0)], [(900, 30.0), (800, 29.6), (700, 29.0)]
    left, right = passes_and_bins.bins_figure(
        {2.0: 1.02, 0.5: 1.25}, {"step": plain, "zone": zoned}, (0, 0.5, 1)
    ).axes
    ticks = [
        [segment[0][0] for segment in lines.get_segments()]
        for lines in left.collections
        if hasattr(lines, "get_segments")
    ]
    half = np.arange(-2.5, 3)
    assert np.allclose(ticks, [half, 1.02 * half, half, 1.25 * half]) and len(ticks) == 4
    assert [label.get_text() for label in left.get_yticklabels()] == ["scale 2", "scale 0.5"]
    found = {line.get_label(): list(zip(*map(list, line.get_data()), strict=True)) for line in right.lines}
    assert found == {"step": plain, "zone": zoned}
    assert {text.get_text(): text.xy for text in right.texts} == dict(
        zip(("0", "0.5", "1"), zoned, strict=True)
    )


# the block diagram, the lapped transform, and the proxies


def test_every_box_of_the_diagram_is_drawn_inside_it():
    (axes,) = diagram.codec_diagram().axes
    texts = {text.get_text() for text in axes.texts}
    assert {text for *_, text, _ in diagram.BOXES.values()} <= texts
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    for x, y, width, *_ in diagram.BOXES.values():
        assert x0 < x - width / 2 and x + width / 2 < x1 and y0 < y - diagram.HEIGHT / 2 < y1
    boxes = list(diagram.BOXES.values())
    for i, (x, y, width, *_) in enumerate(boxes):
        for other_x, other_y, other_width, *_ in boxes[i + 1 :]:
            apart = abs(x - other_x) > (width + other_width) / 2, abs(y - other_y) > diagram.HEIGHT
            assert any(apart)


def test_jumps_are_those_at_borders():
    rows = np.zeros((2, 20))
    rows[:, 8:] = 3.0  # a step at the border of blocks of 4
    rows[:, 10:] += 1.0  # and one inside
    at_borders, inside = transform_figures.border_jumps(rows, 4)
    assert at_borders.shape == (2, 2) and inside.shape == (2, 9)
    assert at_borders.tolist() == [[9, 0]] * 2 and sorted(inside[0]) == [0] * 8 + [1]


def test_filters_and_rows_are_drawn_as_given():
    basis, row = np.arange(8.0).reshape(2, 4), np.arange(6.0)
    figure = transform_figures.lapped_figure(basis, (1,), row, {"DCT": row + 1, "lapped": row + 2})
    left, right = figure.axes
    assert basis[1].tolist() in [np.ravel(line.get_ydata()).tolist() for line in left.lines]
    found = {line.get_label(): line.get_ydata().tolist() for line in right.lines}
    assert found == {"pixels": row.tolist(), "DCT": (row + 1).tolist(), "lapped": (row + 2).tolist()}


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_costs_of_a_normal_latent_are_measured(scale):
    draws = np.random.default_rng(0)
    v = draws.normal(0, scale, 400_000)
    place = int(np.argmin(np.abs(proxies.LOG2_SCALES - np.log2(scale))))
    found = {name: values[place] for name, values in proxies.normal_costs().items()}
    assert abs(found["error"] - ((v - np.rint(v)) ** 2).mean()) < 1e-3
    noise = draws.uniform(-0.5, 0.5, v.shape)
    for name, values in (("rounded", np.rint(v)), ("noisy", v + noise)):
        p = norm.sf((np.abs(values) - 0.5) / scale) - norm.sf((np.abs(values) + 0.5) / scale)
        assert abs(found[name] + np.log2(p).mean()) < 0.01
    assert np.allclose(
        proxies.normal_bits(np.array([-2.0, 2.0]), 1.0), -np.log2(norm.cdf(2.5) - norm.cdf(1.5))
    )


def test_fine_steps_are_best_at_the_formula_by_all_objectives():
    spread, rate = np.full(50, 3.0), 1e-3  # latents eight units wide: all steps are fine
    law = np.log2(np.sqrt(18 / np.log(2) * rate))
    steps = law + np.arange(-1, 1.01, 1 / 16)
    curves = proxies.objectives(spread, steps, rate)
    assert curves.keys() == {proxies.ROUNDING, proxies.NOISE, proxies.THROUGH}
    for values in curves.values():
        assert abs(steps[values.argmin()] - law) < 0.1
    exact = 50 * (4.0**steps / 36 + rate * (np.log2(np.sqrt(2 * np.pi * np.e)) + 3 - steps))
    assert np.allclose(curves[proxies.ROUNDING], exact, rtol=1e-3)
    assert np.allclose(curves[proxies.NOISE], exact, rtol=1e-3)
    figure = proxies.objectives_figure(2 ** (steps - law), curves)
    assert len(figure.axes[0].lines) == 6


def test_straight_through_has_the_gradient_of_autograd():
    """Its slope in log2(Delta), from rounding with the gradient of the identity, against the curve's."""
    spread, at = np.array([-1.0, 0.0, 0.5]), np.arange(-1.0, 2.01, 1 / 64)
    curve = proxies.objectives(spread, at, 1e-9)[proxies.THROUGH]
    middle = len(at) // 2
    slope = (curve[middle + 1] - curve[middle - 1]) * 32
    log2_delta = torch.tensor(at[middle], requires_grad=True)
    y = torch.randn(3, 200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = y * torch.from_numpy(2.0**spread)[:, None]
    delta = log2_delta.exp2()
    loss = (y - delta * round_through(y / delta)).square().mean(1).sum() / 3
    (expected,) = torch.autograd.grad(loss, log2_delta)
    assert abs(slope / expected.item() - 1) < 0.02


# the explorer's picture


def test_the_maps_are_the_codecs(maps, model):
    coded, x = maps.code("china", 1e-3), load_photo("china", 256)
    with torch.no_grad():
        latents = model.encode(x, [lambda_code(1e-3)])
    file = model.compress(x, lambda_rate=1e-3)
    assert np.array_equal(coded.symbols, latents.symbols[0].numpy()) and np.array_equal(
        coded.scale, latents.scale[0].numpy()
    )
    assert coded.parts["y"] == len(file["strings"][0][0]) and coded.parts["z"] == len(file["strings"][1][0])
    assert sum(coded.parts.values()) == len(dhp_file.encode(model, x, lambda_rate=1e-3))
    assert torch.equal(coded.x_hat, model.decompress(file["strings"], file["shape"], steps=0)["x_hat"])
    estimate = -model.likelihoods(latents)["y"].log2().sum().item()
    assert abs(coded.bits.sum() / estimate - 1) < 1e-4 and coded.bits.shape == coded.symbols.shape[1:]


def test_the_picture_is_made_of_them(maps):
    shown, coded = maps.render(**START), maps.code("astronaut", 1e-3)
    image = np.asarray(Image.open(io.BytesIO(shown.picture)).convert("RGB"))
    assert image.shape == (lesson.SIZE[1], lesson.SIZE[0], 3)
    panel = [image[-256:, i * (256 + lesson.GAP) :][:, :256] for i in range(4)]
    assert np.array_equal(panel[0], to_pixels(coded.x_hat))
    scales = lesson.heat(coded.scale[1], lesson.SCALE_LOW, lesson.SCALE_HIGH, log=True)
    assert np.array_equal(panel[2][8::16, 8::16], scales)
    total = sum(coded.parts.values())
    assert (
        shown.alt.startswith(f"astronaut at λ = 0.001: decoded from {total} bytes")
        and f">{total}<" in shown.text
    )
    assert f"{np.count_nonzero(coded.symbols[1])} of 256 symbols of channel 1 are not 0" in shown.text


def test_the_picture_is_pure(maps):
    state = torch.get_rng_state()
    assert maps.render(**START) == maps.render(**START) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("change", [{"photo": "coffee"}, {"lambda_rate": 1e-2}, {"channel": 0}])
def test_every_control_changes_picture_and_text(maps, change):
    first, other = maps.render(**START), maps.render(**START | change)
    assert first.picture != other.picture and first.text != other.text


def test_sides_are_those_that_fit(model):
    with pytest.raises(ValueError, match="side must be 256 or 512, got 300"):
        lesson.HyperpriorMaps(model, 300)


def test_the_explorer_starts_there(model):
    explorer = explore_scale_hyperprior(model, side=256)
    assert explorer.position() == START and explorer.controls["channel"].max == M - 1
    assert explorer.controls["photo"].options == PHOTOS
    explorer.controls["channel"].value = 3
    assert "symbols of channel 3" in explorer.text.value and "channel 3" in explorer.picture.value
    assert 'alt="astronaut at λ = 0.001' in explorer.still().text
