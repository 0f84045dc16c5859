"""Lesson 08: its source is lossless, its tables are CompressAI's, figures and explorer show what they say."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from compressai.entropy_models import GaussianConditional
from PIL import Image
from scipy.stats import entropy, norm

from dhp_lab.codec.bits.rans import rans_decode
from dhp_lab.codec.bits.scales import SCALES
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import load_photo
from dhp_lab.lessons.entropy_coding import figures, quantisers, sources
from dhp_lab.lessons.entropy_coding.explorer import explore

START = {"true_scale": 1.0, "model_scale": 2.0, "precision": 16}


@pytest.fixture(scope="module")
def mismatch():
    return figures.Mismatch()


# the source


def test_the_photo_is_grey_as_pillow_makes_it():
    found = sources.grey_photo("coffee", 64)
    expected = np.asarray(Image.fromarray(to_pixels(load_photo("coffee", 64))).convert("L"))
    assert found.shape == (64, 64) and np.abs(found - expected).max() <= 1


def test_neighbours_are_those_decoded_before():
    pixels = np.arange(12).reshape(3, 4)
    found = sources.neighbours(pixels, outside=99)
    for i in range(3):
        for j in range(4):
            at = {"west": (i, j - 1), "north": (i - 1, j)}
            at |= {"north_west": (i - 1, j - 1), "north_east": (i - 1, j + 1)}
            for name, (row, col) in at.items():
                expected = pixels[row, col] if row >= 0 and 0 <= col < 4 else 99
                assert getattr(found, name)[i, j] == expected


def test_the_median_predictor_is_locos():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7))
    found = sources.median_prediction(pixels)
    west, north, north_west, _ = sources.neighbours(pixels)
    for i, j in np.ndindex(pixels.shape):  # LOCO-I, eq. 1, as it is written there
        a, b, c = west[i, j], north[i, j], north_west[i, j]
        if c >= max(a, b):
            expected = min(a, b)
        elif c <= min(a, b):
            expected = max(a, b)
        else:
            expected = a + b - c
        assert found[i, j] == expected


def test_residuals_give_the_pixels_back():
    pixels = np.random.default_rng(1).integers(0, 256, (11, 13))
    residuals = pixels - sources.median_prediction(pixels)
    assert np.array_equal(sources.from_residuals(residuals), pixels)
    assert np.array_equal(sources.from_residuals(residuals % 256), pixels)


# tables


@pytest.mark.parametrize("precision", [4, 9, 16])
def test_frequencies_fill_the_table(precision):
    p = np.random.default_rng(2).random(16) ** 8
    p[3] = 0.0
    found = sources.frequencies(p, precision)
    assert found.sum() == 2**precision and found.min() >= 1
    if precision == 16:
        assert np.abs(found / 2**16 - p / p.sum()).max() < 20 / 2**16


def test_too_many_symbols_are_refused():
    with pytest.raises(ValueError, match="17 symbols need a precision of 5 bits, got 4"):
        sources.frequencies(np.ones(17), 4)


def test_tables_are_compressais():
    other = GaussianConditional(SCALES)
    other.update_scale_table(SCALES, force=True)
    tables = sources.gaussian_tables()
    assert tables.cdfs == other.quantized_cdf.tolist() and tables.offsets == other.offset.tolist()
    assert sources.table_rows(np.array([0.001, SCALES[0], SCALES[40] * 1.01, 1e9])).tolist() == [0, 0, 40, 72]


def test_symbols_are_coded_with_the_table_of_their_scale():
    symbols = np.random.default_rng(3).normal(0, 3, (5, 7)).round().astype(int)
    scale = np.full((5, 7), 3.0) + np.arange(7)
    rows = torch.from_numpy(sources.table_rows(scale).ravel())
    data = sources.gaussian_bytes(symbols, scale)
    assert rans_decode(data, rows, sources.gaussian_tables()).tolist() == symbols.ravel().tolist()
    bits = -np.log2(norm.cdf((symbols + 0.5) / scale) - norm.cdf((symbols - 0.5) / scale)).sum()
    assert 3 < len(data) - bits / 8 < 9


def test_files_are_as_long_as_pillows():
    pixels = np.arange(256).reshape(16, 16)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    assert sources.file_size(pixels, "PNG") == len(file.getvalue())


# figures


def test_lengths_are_drawn_as_given():
    p, lengths = {-1: 0.25, 0: 0.75}, {"ideal": {-1: 2.0, 0: 0.4}, "Huffman": {-1: 1, 0: 1}}
    left, right = figures.lengths_figure(p, lengths).axes
    assert [bar.get_height() for bar in left.patches] == [0.25, 0.75]
    assert [line.get_ydata().tolist() for line in right.lines] == [[2.0, 0.4], [1, 1]]


def test_the_interval_is_the_messages():
    (axes,) = figures.interval_figure({"a": 0.5, "b": 0.25, "c": 0.25}, "bac").axes
    texts = [text.get_text() for text in axes.texts]
    ends = [float(text) for text in texts if text not in "abc"]
    assert ends == [0, 1, 0.5, 0.75, 0.5, 0.625, 0.59375, 0.625]
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "after 'bac'"


def test_the_state_is_drawn_in_bits():
    (axes,) = figures.state_figure([31.0, 33.0, 40.0], [2**31, 2**33, 3 * 2**2000]).axes
    stairs, points = axes.lines
    assert stairs.get_ydata().tolist() == [31.0, 33.0, 40.0]
    assert points.get_ydata().tolist() == [31.0, 33.0, 2002.0]  # too long for a float: its number of bits


# the explorer's picture


@pytest.mark.parametrize("scale", [0.25, 1.0, 8.0])
def test_the_source_is_a_rounded_normal(scale):
    at = np.arange(-figures.REACH, figures.REACH + 1)
    expected = norm.sf((np.abs(at) - 0.5) / scale) - norm.sf((np.abs(at) + 0.5) / scale)
    assert np.allclose(figures.rounded_normal(scale), expected, rtol=1e-5, atol=1e-300)


def test_costs_are_entropies_and_bytes(mismatch):
    costs = mismatch.costs(1.0, 2.0, 16)
    p, q = figures.rounded_normal(1.0), figures.rounded_normal(2.0)
    assert abs(costs.entropy - entropy(p, base=2)) < 1e-9
    assert abs(costs.cross_entropy - costs.entropy - entropy(p, q, base=2)) < 1e-9
    assert costs.entropy < costs.cross_entropy < costs.table < costs.cross_entropy + 0.01
    assert abs(8 * costs.coded / figures.DRAWN - costs.table) < 0.03 * costs.table
    closed = math.log2(2) + (1 / 4 - 1) / (2 * math.log(2))  # of normal densities, not rounded
    assert abs(costs.cross_entropy - costs.entropy - closed) < 0.05
    coarse = mismatch.costs(1.0, 1.0, 7)
    assert coarse.table > coarse.entropy + 1 and coarse.coded > costs.coded


def test_the_picture_says_what_it_costs(mismatch):
    shown, costs = mismatch.render(**START), mismatch.costs(1.0, 2.0, 16)
    assert Image.open(io.BytesIO(shown.picture)).size == figures.SIZE
    assert f"entropy {costs.entropy:.2f} bits" in shown.alt
    assert f">{costs.coded}<" in shown.text and f">{costs.table:.3f}<" in shown.text
    assert ">over 100<" in mismatch.render(true_scale=4.0, model_scale=0.25, precision=16).text


@pytest.mark.parametrize("change", [{"true_scale": 2.0}, {"model_scale": 0.5}, {"precision": 8}])
def test_every_control_changes_picture_and_text(mismatch, change):
    first, other = mismatch.render(**START), mismatch.render(**START | change)
    assert first == mismatch.render(**START)
    assert first.picture != other.picture and first.text != other.text


def test_the_explorer_starts_there():
    explorer = explore()
    assert explorer.position() == START
    explorer.controls["precision"].value = 9
    assert "model of scale 2" in explorer.picture.value
    assert 'alt="Source of scale 1' in explorer.still().text


# quantisers


def test_rounding_stays_a_decibel_and_a_half_above_the_bound_and_the_trellis_half_of_one():
    """1.53 dB is the gap of rounding at high rates (Gish & Pierce 1968)."""
    found = quantisers.quantiser_gaps((0.5, 1.0, 8.0))
    assert found["rounding"][-1].decibels == pytest.approx(1.53, abs=0.15)
    for rounding, trellis in zip(found["rounding"], found["trellis"], strict=True):
        assert 0.2 < trellis.decibels < rounding.decibels - 0.8


def test_an_entropy_is_scipys():
    symbols = np.random.default_rng(0).integers(-3, 9, 1000)
    counts = np.unique(symbols, return_counts=True)[1]
    assert quantisers.entropy(symbols) == pytest.approx(entropy(counts, base=2))


def test_the_figure_of_gaps_has_a_line_for_each_quantiser_and_one_for_the_bound():
    gaps = quantisers.quantiser_gaps((0.5, 2.0), count=2000)
    axes = figures.gaps_figure(gaps).axes[0]
    assert [line.get_label() for line in axes.lines] == [*gaps, "the bound"]
    assert np.allclose(axes.lines[0].get_ydata(), [gap.decibels for gap in gaps["rounding"]])
