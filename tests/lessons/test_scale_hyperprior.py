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

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.networks.context import coding_order
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import PHOTOS, load_photo
from dhp_lab.lessons.scale_hyperprior import figures as lesson
from dhp_lab.lessons.scale_hyperprior import passes_and_bins
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


def test_the_state_is_drawn_in_bits():
    (axes,) = lesson.state_figure([31.0, 33.0, 40.0], [2**31, 2**33, 3 * 2**2000]).axes
    stairs, points = axes.lines
    assert stairs.get_ydata().tolist() == [31.0, 33.0, 40.0]
    assert points.get_ydata().tolist() == [31.0, 33.0, 2002.0]  # too long for a float: its number of bits


def test_bars_are_as_long_as_they_have_bytes():
    (axes,) = lesson.bytes_figure({"one": {"z": 5, "y": 20}, "two": {"z": 0, "y": 40}}).axes
    assert [bar.get_width() for bar in axes.patches] == [5, 0, 20, 40]
    assert [bar.get_x() for bar in axes.patches] == [0, 0, 5, 0]
    assert [text.get_text() for text in axes.texts] == ["25", "40"]


def test_costs_are_drawn_beside_their_least():
    lambdas, asked = np.array([1e-4, 1e-3]), np.array([1e-4, 1e-3, 1e-2])
    costs = {1e-3: np.array([4.0, 2.0, 3.0]), 1e-2: np.array([9.0, 6.0, 3.0])}
    left, right = lesson.gain_figure(lambdas, {"learnt": lambdas * 2, "law": lambdas * 3}, asked, costs).axes
    assert [line.get_ydata().tolist() for line in left.lines] == [
        (lambdas * 2).tolist(),
        (lambdas * 3).tolist(),
    ]
    assert right.lines[0].get_ydata().tolist() == [2.0, 1.0, 1.5] and set(right.lines[1].get_xdata()) == {
        1e-3
    }
    assert right.lines[2].get_ydata().tolist() == [3.0, 2.0, 1.0] and set(right.lines[3].get_xdata()) == {
        1e-2
    }


@pytest.mark.parametrize("passes", [1, 2, 4])
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
