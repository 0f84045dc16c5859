"""Lesson 11: its figures show what they are given, savings average to BD-rate, tables what was measured."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from dhp_lab.lessons.evaluation import benchmark_tables, checks
from dhp_lab.lessons.evaluation import figures as lesson
from dhp_lab.metrics.rd_curves import bd_rate

ANCHOR = ([0.1, 0.25, 0.5, 1.0, 2.0], [25.0, 28.0, 31.0, 35.0, 39.0])
HALF = ([0.06, 0.125, 0.25, 0.5, 1.1], [26.0, 28.0, 31.0, 35.0, 40.0])
PLACE = {"device": "a <machine>", "threads": 2, "versions": {"torch": "2.13"}, "date": "2026-11-21"}


def test_curves_are_drawn_as_given():
    figure = lesson.curves_figure(
        {"left": {"ours": ANCHOR, "JPEG": HALF}, "right": {"JPEG": HALF}}, ylabel="dB", widest=1.0
    )
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["ours", "JPEG"] and left.get_title(
        loc="left"
    ) == "left"
    assert (left.lines[0].get_xdata().tolist(), left.lines[0].get_ydata().tolist()) == ANCHOR
    assert left.lines[0].get_linewidth() > left.lines[1].get_linewidth() and left.get_xlim() == (0, 1.0)
    low, high = left.get_ylim()
    assert low < 25 and 35 < high < 39, "what lies beyond the widest rate makes no room"
    assert (right.lines[0].get_xdata().tolist(), right.get_ylabel()) == (HALF[0], "dB")


def test_no_curve_is_left_out_and_ours_keep_their_colour():
    many = {f"codec {i}": ANCHOR for i in range(9)}
    one, two = lesson.curves_figure(
        {"a": many | {"ours, K = 1": HALF}, "b": {"ours, K = 1": HALF}}, ylabel="dB"
    ).axes
    assert len(one.lines) == 10 and one.lines[-1].get_color() == two.lines[0].get_color()
    assert one.lines[-1].get_color() not in [line.get_color() for line in one.lines[:-1]]


def test_half_the_bits_are_half_at_each_quality():
    at, percent = lesson.savings(ANCHOR, ([rate / 2 for rate in ANCHOR[0]], ANCHOR[1]), count=11)
    assert (at[0], at[-1]) == (25.0, 39.0) and percent == pytest.approx(-50.0, abs=1e-9)


def test_savings_average_to_the_bd_rate():
    at, percent = lesson.savings(ANCHOR, HALF, count=20_001)
    assert (at[0], at[-1]) == (26.0, 39.0)
    mean = (
        np.trapezoid(np.log1p(percent / 100), at)
        if hasattr(np, "trapezoid")
        else np.trapz(np.log1p(percent / 100), at)
    )
    assert 100 * math.expm1(mean / (39.0 - 26.0)) == pytest.approx(bd_rate(ANCHOR, HALF).percent, abs=1e-3)


def test_savings_are_drawn_for_every_anchor():
    left, right = lesson.savings_figure({"JPEG": ANCHOR, "itself": HALF}, HALF, name="test").axes
    assert [line.get_label() for line in left.lines] == ["test", "JPEG"] and left.get_xscale() == "log"
    drawn = {line.get_label(): line.get_ydata() for line in right.lines[:2]}
    assert (
        np.array_equal(drawn["JPEG"], lesson.savings(ANCHOR, HALF)[1])
        and np.abs(drawn["itself"]).max() < 1e-9
    )


def test_speed_is_shown_as_measured(tmp_path):
    def one(megapixels, seconds, peak):
        jobs = {
            job: {"seconds": seconds, "peak_memory_mb": peak, "idle_memory_mb": 500.0}
            for job in ("encode", "decode")
        }
        return {"megapixels": megapixels, **jobs}

    photo = {"encode_seconds": [9.0, 0.125, 0.1], "decode_seconds": {"0": [0.25], "16": [1.5]}}
    found = {
        "command": "python <it>",
        "environment": PLACE,
        "lambda_rate": 1e-3,
        "photo_768x512": photo,
        "sizes": [one(1.0, [0.5], 812.4), one(12.0, [4.0, 6.0, 5.0], 2000.0)],
    }
    (tmp_path / "speed.json").write_text(json.dumps(found))
    text = benchmark_tables.measured_speed(tmp_path / "speed.json").text
    for words in (
        ">0.125<",
        "decode, K = 16",
        ">1.500<",
        ">0.50<",
        ">812<",
        ">5.00<",
        ">2000<",
        "500 MB are Python",
        "python &lt;it&gt;",
        "a &lt;machine&gt;",
        "2 threads",
        "λ = 0.001",
    ):
        assert words in text, words
    assert "codec_speed.py" in benchmark_tables.measured_speed().text


def realism(tmp_path, **rows_of):
    """A file as benchmarks/realism.py writes it; its rows from (lambda, K, gamma, PSNR, texture)."""
    note = "LPIPS: not measured, a.pth is missing; lay https://b.org/a.pth into <here>"
    rows = [
        {
            "lambda_rate": rate,
            "K": k,
            "gamma": gamma,
            "bpp": 0.25,
            "psnr": quality,
            "ms_ssim": 0.9,
            "texture": texture,
            **rows_of,
        }
        for rate, k, gamma, quality, texture in (
            (0.01, 1, None, 30.0, 0.5),
            (0.01, 4, 0.0, 27.0, 1.0),
            (0.01, 4, 1.0, 30.0, 0.5),
            (0.01, 16, 0.0, 26.0, 1.25),
            (0.01, 16, 1.0, 30.0, 0.5),
            (0.002, 4, 0.0, 31.0, 0.75),
            (0.002, 4, 1.0, 33.0, 0.625),
        )
    ]
    found = {
        "command": "python <it>",
        "environment": PLACE,
        "pictures": ["a", "b"],
        "notes": [note],
        "rows": rows,
    }
    (tmp_path / "realism.json").write_text(json.dumps(found))
    return tmp_path / "realism.json"


def test_the_trade_is_shown_as_measured(tmp_path):
    text = benchmark_tables.measured_trade(realism(tmp_path)).text
    for words in (
        ">27.00<",
        ">26.00<",
        ">31.00<",
        ">0.9000<",
        "2 photos",
        "python &lt;it&gt;",
        "a.pth is missing; lay https://b.org/a.pth into &lt;here&gt;<",
    ):
        assert words in text, words
    assert text.count(">30.00<") == 1 and ">33.00<" not in text, "K = 1 and the samples, no blends"
    assert "FID" not in text and "DISTS" not in text
    assert ">DISTS<" in benchmark_tables.measured_trade(realism(tmp_path, dists=0.125)).text


def test_effort_is_shown_as_measured(tmp_path, monkeypatch):
    drawn = []
    draw = benchmark_tables.effort_figure
    monkeypatch.setattr(benchmark_tables, "effort_figure", lambda lines: drawn.append(lines) or draw(lines))

    def row(effort, seconds, **gains):
        found = {"effort": effort, "pictures": 7, "seconds": seconds, "peak_memory_mb": 644.4}
        own = {k.removeprefix("K"): {"percent": percent} for k, percent in gains.items()}
        return found | {"environment": PLACE, "model_id": "a<b", "gains": own}

    rows = [row(0, [0.5, 0.25, 9.0]), row(3, [2.0], K0=-4.25, K1=-3.5)]
    found = {"command": "python <it>", "K": [0, 1], "lambdas": [0.01], "rows": rows}
    (tmp_path / "effort.json").write_text(json.dumps(found))
    text = benchmark_tables.measured_effort(tmp_path / "effort.json").text
    words = (
        ">0.50<",
        ">2.00<",
        ">-4.2 %<",
        ">-3.5 %<",
        ">-<",
        ">644<",
        "7 pictures, model a&lt;b",
        "2 threads",
    )
    for word in words:
        assert word in text, word
    assert drawn == [{"K = 0": [(0, 0.5, 0.0), (3, 2.0, -4.25)], "K = 1": [(0, 0.5, 0.0), (3, 2.0, -3.5)]}]
    assert "effort.py" in benchmark_tables.measured_effort().text


def test_the_least_error_is_that_of_all_choices():
    n_bytes, mses = np.random.default_rng(0).integers(1, 50, (2, 4, 3))
    found = {}
    for chosen in itertools.product(range(3), repeat=4):
        size, error = (values[range(4), chosen].sum() for values in (n_bytes, mses))
        found.setdefault(size, []).append(error)
    sizes = sorted(found)
    for budget in (sizes[0], sizes[5], sizes[20] + 0.5, sizes[-1]):
        wanted = min(min(errors) for size, errors in found.items() if size <= budget) / 4
        assert checks.least_error(n_bytes, mses, budget) == wanted


def test_effort_is_drawn_as_given():
    (axes,) = lesson.effort_figure({"K = 1": [(0, 0.5, 0.0), (3, 2.0, -4.0)]}).axes
    (line,) = axes.lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([0.5, 2.0], [0.0, -4.0])
    assert {text.get_text(): tuple(text.xy) for text in axes.texts} == {"0": (0.5, 0.0), "3": (2.0, -4.0)}


@pytest.mark.parametrize(
    ("show", "script"),
    [(benchmark_tables.measured_trade, "realism"), (benchmark_tables.measured_effort, "effort")],
)
def test_what_was_not_measured_says_how_to(tmp_path, show, script):
    text = show(tmp_path / "none.json").text
    assert f"Not measured yet: <code>python benchmarks/{script}.py</code> writes none.json" in text
