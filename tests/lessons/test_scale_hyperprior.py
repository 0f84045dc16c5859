"""Lesson 06: figures show what they are given, entropy models code what they say, the explorer shows the
codec's numbers.
"""

from __future__ import annotations

import io
import math
from collections import Counter

import numpy as np
import pytest
import torch
from compressai import ans
from models import M, picture, woken
from PIL import Image
from scipy.stats import norm

from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.networks.context import coding_order
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import PHOTOS, load_photo
from dhp_lab.lessons.scale_hyperprior import entropy_models, passes_and_bins
from dhp_lab.lessons.scale_hyperprior import figures as lesson
from dhp_lab.lessons.scale_hyperprior.explorer import explore as explore_scale_hyperprior

START = {"photo": "astronaut", "lambda_rate": 1e-3, "channel": 1}
CHANNELS = 6


@pytest.fixture(scope="module")
def model():
    return woken(passes=4, dead_zone=0.35)


@pytest.fixture(scope="module")
def maps(model):
    return lesson.HyperpriorMaps(model, 256)


@pytest.fixture(scope="module")
def latents():
    """Three sets of latents whose channels have other widths, wide where a hidden map says so."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.0]).view(1, CHANNELS, 1, 1)
    found = []
    for _ in range(3):
        busy = (
            torch.rand(1, 1, 5, 6, generator=generator)
            .round()
            .repeat_interleave(4, 2)
            .repeat_interleave(4, 3)
        )
        found.append(torch.randn(1, CHANNELS, 20, 24, generator=generator) * spread * (0.05 + busy))
    return found


def small(latents, *, with_mean: bool, steps: int = 0) -> entropy_models.SmallHyperprior:
    spread = torch.cat([y.transpose(0, 1).flatten(1) for y in latents], 1).square().mean(1).sqrt()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hyper = entropy_models.SmallHyperprior(spread, with_mean=with_mean, N=4, width=8)
        torch.nn.init.normal_(hyper.h_s[-1].weight, std=0.1)  # not silent, so that z counts
    if steps:
        return entropy_models.fit(hyper, latents, steps=steps, count=4)
    hyper.eval().update()
    return hyper


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


def test_heat_reaches_from_end_to_end():
    found = lesson.heat(np.array([[-9.0, 0.0], [0.5, 9.0]]), 0.0, 1.0, colours="gray")
    assert found[..., 0].tolist() == [[0, 0], [128, 255]] and found.dtype == np.uint8
    found = lesson.heat(np.array([[0.0, 0.5, 2.0, 8.0]]), 0.5, 8.0, colours="gray", log=True)
    assert found[..., 0].tolist() == [[0, 0, 128, 255]]
    for low, high, log in ((1.0, 1.0, False), (0.0, 1.0, True)):
        with pytest.raises(ValueError, match=f"got {low} and {high}"):
            lesson.heat(np.zeros((1, 1)), low, high, log=log)


def test_colours_lie_on_their_blocks():
    pixels = np.full((20, 36, 3), 100, np.uint8)
    colours = np.zeros((2, 3, 3), np.uint8)
    colours[1, 2] = 200
    found = lesson.over_photo(pixels, colours, share=0.5)
    assert found.shape == pixels.shape and (found[:16] == 50).all() and (found[16:, :32] == 50).all()
    assert (found[16:, 32:] == 150).all()
    assert np.array_equal(
        lesson.over_photo(pixels, colours, block=12, share=1)[12:, 24:], np.full((8, 12, 3), 200)
    )


# entropy models


def test_latents_are_the_encoders(model):
    x = picture(50, 40)
    with torch.no_grad():
        latents = model.encode(x, [lambda_code(1e-3)])
    found = entropy_models.latents_in_steps(model, x, 1e-3)
    assert (found - latents.y / model.step_size(1e-3)).abs().max() < 1e-4
    decoded = entropy_models.picture(model, latents.symbols + latents.mean, 1e-3, (50, 40))
    coded = model.compress(x, lambda_rate=1e-3)
    assert (decoded - model.decompress(coded["strings"], coded["shape"], steps=0)["x_hat"]).abs().max() < 1e-4


def test_a_picture_is_turned_four_ways():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    found = [view[0, 0].tolist() for view in entropy_models.turned(x)]
    assert found == [
        [[0, 1, 2], [3, 4, 5]],
        [[2, 1, 0], [5, 4, 3]],
        [[0, 3], [1, 4], [2, 5]],
        [[3, 0], [4, 1], [5, 2]],
    ]


def test_the_factorised_prior_counts(latents):
    prior = entropy_models.FactorisedPrior(latents[:2])
    for channel in range(CHANNELS):
        seen = Counter(int(v) for y in latents[:2] for v in y[0, channel].round().flatten())
        low = prior.lows[channel]
        assert {low + i: n for i, n in enumerate(prior.counts[channel]) if n} == seen
        assert (
            len(prior.tables[channel]) == len(prior.counts[channel]) + 2
            and prior.tables[channel][-1] == 2**16
        )
        assert min(np.diff(prior.tables[channel])) > 0


def test_the_factorised_prior_codes_what_it_says(latents):
    prior, y = entropy_models.FactorisedPrior(latents[:2]), latents[2]
    coded = prior.encode(y)
    assert coded.z == b"" and torch.equal(coded.y_hat, y.round())
    rows = [channel for channel in range(CHANNELS) for _ in range(y[0, 0].numel())]
    lengths = [len(table) for table in prior.tables]
    found = ans.RansDecoder().decode_with_indexes(
        coded.y + bytes(64), rows, prior.tables, lengths, prior.lows.tolist()
    )
    assert found == y.round().int().flatten().tolist()
    bits = escaped = 0
    for value, row in zip(found, rows, strict=True):
        table, place = prior.tables[row], value - prior.lows[row]
        in_table = 0 <= place < len(table) - 2
        place, escaped = place if in_table else len(table) - 2, escaped + (not in_table)
        bits += 16 - math.log2(table[place + 1] - table[place])
    assert -1 < len(coded.y) - bits / 8 < 9 + 4 * escaped


@pytest.mark.parametrize("with_mean", [False, True])
def test_bits_are_those_of_normal_densities(latents, with_mean):
    hyper, y = small(latents, with_mean=with_mean), latents[0]
    with torch.no_grad():
        z_hat, p_z = hyper.bottleneck(hyper.analyse(y))
        mean, scale = (t.double().numpy() for t in hyper.predict(z_hat, y.shape[-2:]))
        y_bits, z_bits = hyper.bits(y)
    assert (np.abs(mean).max() > 0) == with_mean and scale.shape == tuple(y.shape)
    symbols, wide = np.round(y.numpy() - mean), np.maximum(scale, 1 / 8)
    p = norm.cdf((0.5 - np.abs(symbols)) / wide) - norm.cdf((-0.5 - np.abs(symbols)) / wide)
    assert abs(y_bits.item() / -np.log2(np.maximum(p, 1e-9)).sum() - 1) < 1e-3
    assert abs(z_bits.item() + p_z.log2().sum().item()) < 1e-3


@pytest.mark.parametrize("with_mean", [False, True])
def test_the_bytes_hold_the_latents(latents, with_mean):
    hyper, y = small(latents, with_mean=with_mean, steps=20), latents[0]
    coded = hyper.encode(y)
    with torch.no_grad():
        mean, scale = hyper.predict(hyper.bottleneck(hyper.analyse(y), training=False)[0], y.shape[-2:])
        y_bits, z_bits = (bits.item() for bits in hyper.bits(y))
    sent = scale > 0.14
    assert (coded.y_hat - mean - (y - mean).round())[sent].abs().max() < 1e-4
    assert torch.equal(coded.y_hat[scale < 0.12], mean[scale < 0.12])
    assert abs(len(coded.y) - y_bits / 8) < 16 + 0.02 * y_bits / 8  # tables have 8 scales an octave
    assert abs(len(coded.z) - z_bits / 8) < 12 + 0.02 * z_bits / 8


def test_scale_alone_does_not_see_the_sign(latents):
    hyper, other = small(latents, with_mean=False), small(latents, with_mean=True)
    assert torch.equal(hyper.analyse(latents[0]), hyper.analyse(-latents[0]))
    assert not torch.equal(other.analyse(latents[0]), other.analyse(-latents[0]))
    assert hyper.analyse(latents[0][..., :17, :22]).shape == (1, 4, 5, 6)


def test_fitting_saves_bits_and_leaves_chance_alone(latents):
    state, seen = torch.get_rng_state(), []
    hyper = small(latents, with_mean=False)
    before = sum(b.item() for b in hyper.bits(latents[2]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fitted = entropy_models.fit(
            hyper, latents[:2], steps=60, count=4, progress=lambda step, bits: seen.append(bits)
        )
    assert torch.equal(state, torch.get_rng_state()) and not fitted.training
    assert len(seen) == 60 and np.mean(seen[-10:]) < np.mean(seen[:10])
    assert sum(b.item() for b in fitted.bits(latents[2])) < before  # latents that it has not seen
    again = small(latents, with_mean=False, steps=3).state_dict()
    assert all(
        torch.equal(value, again[name])
        for name, value in small(latents, with_mean=False, steps=3).state_dict().items()
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
    assert sum(coded.parts.values()) == len(
        bitstream.write(file["strings"], file["shape"], **model.file_fields)
    )
    assert torch.equal(coded.x_hat, model.decompress(file["strings"], file["shape"], steps=0)["x_hat"])
    estimate = -model.likelihoods(latents)["y"].log2().sum().item()
    assert abs(coded.bits.sum() / estimate - 1) < 1e-4 and coded.bits.shape == coded.symbols.shape[1:]


def test_the_picture_is_made_of_them(maps):
    shown, coded = maps.render(**START), maps.code("astronaut", 1e-3)
    image = np.asarray(Image.open(io.BytesIO(shown.picture)).convert("RGB"))
    assert image.shape == (lesson.SIZE[1], lesson.SIZE[0], 3)
    panel = lambda i: image[-256:, i * (256 + lesson.GAP) :][:, :256]  # noqa: E731
    assert np.array_equal(panel(0), to_pixels(coded.x_hat))
    scales = lesson.heat(coded.scale[1], lesson.SCALE_LOW, lesson.SCALE_HIGH, log=True)
    assert np.array_equal(panel(2)[8::16, 8::16], scales)
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
