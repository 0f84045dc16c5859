"""Lesson 11: its figures show what they are given, savings average to BD-rate, failures are refused, the
explorer is true.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from models import untrained

from dhp_lab.data.photos import load_photo
from dhp_lab.evaluation.evaluate import evaluate
from dhp_lab.evaluation.measurements import Point
from dhp_lab.evaluation.report import to_json
from dhp_lab.lessons.evaluation import benchmark_tables
from dhp_lab.lessons.evaluation import figures as lesson
from dhp_lab.metrics.rd_curves import bd_rate

SIDE = 64
ANCHOR = ([0.1, 0.25, 0.5, 1.0, 2.0], [25.0, 28.0, 31.0, 35.0, 39.0])
HALF = ([0.06, 0.125, 0.25, 0.5, 1.1], [26.0, 28.0, 31.0, 35.0, 40.0])
PLACE = {"device": "a <machine>", "threads": 2, "versions": {"torch": "2.13"}, "date": "2026-11-21"}


@pytest.fixture(scope="module")
def model():
    return untrained()


# curves and figures


def point(codec, setting, bpp, psnr, ms_ssim):
    return Point(codec, setting, 1, bpp, 24 / bpp, psnr, ms_ssim, 1.0, 0.0, 0.0)


def test_curves_are_ordered_by_metric_and_ours_is_named():
    points = [
        point("dhp K=1", 0.1, 0.2, 30.0, 0.9),
        point("dhp K=1", 0.01, 0.4, 33.0, 0.99),
        point("JPEG", 5, 0.3, 28.0, 0.8),
    ]
    curves = lesson.codec_curves(points)
    assert curves["PSNR"] == {"ours, K = 1": ([0.2, 0.4], [30.0, 33.0]), "JPEG": ([0.3], [28.0])}
    assert curves["MS-SSIM"]["ours, K = 1"][1] == pytest.approx([10.0, 20.0])
    assert curves["MS-SSIM"]["JPEG"][1] == pytest.approx([-10 * math.log10(0.2)])


def test_results_are_read_as_they_were_written(model, tmp_path):
    report = evaluate(
        model,
        [("a.png", load_photo("coffee", SIDE))],
        lambda_rates=(1e-2, 1e-3),
        steps=(0, 1),
        codecs=("jpeg",),
    )
    (tmp_path / "kodak.json").write_text(to_json(report))
    points, measurements, about = benchmark_tables.kodak_results(tmp_path / "kodak.json")
    assert [(p.codec, p.setting, p.pictures) for p in points] == [
        (p.codec, p.setting, 1) for p in report.points
    ]
    assert [p.bpp for p in points] == pytest.approx([p.bpp for p in report.points], rel=1e-5)
    assert [m.n_bytes for m in measurements] == [m.n_bytes for m in report.measurements]
    assert [m.psnr for m in measurements] == pytest.approx([m.psnr for m in report.measurements], rel=1e-5)
    assert about["model_id"] == model.model_id.hex()


def test_the_shipped_results_are_those_of_kodak():
    points, measurements, about = benchmark_tables.kodak_results()
    assert {p.pictures for p in points} == {24} and "dhp evaluate" in about["command"]
    assert {"ours, K = 0", "ours, K = 1", "JPEG", "WebP", "JPEG 2000", "AVIF"} <= lesson.codec_curves(points)[
        "PSNR"
    ].keys()
    one = next(p for p in points if p.codec == "dhp K=1")
    own = [m.psnr for m in measurements if (m.codec, m.setting) == (one.codec, one.setting)]
    assert np.mean(own) == pytest.approx(one.psnr, abs=1e-3)


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


def test_lines_are_drawn_as_given():
    panels = {"PSNR": {"a": [30.0, 31.0], "b": [28.0, 29.0]}, "texture": {"a": [0.5, 0.6], "b": [0.7, 0.8]}}
    figure = lesson.lines_figure([0, 16], panels, xlabel="K")
    for axes, (title, lines) in zip(figure.axes, panels.items(), strict=True):
        assert axes.get_title(loc="left") == title
        assert {line.get_label(): line.get_ydata().tolist() for line in axes.lines} == lines
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "16"]


def test_the_trade_is_drawn_as_given():
    paths = {"a": ([1.0, 0.8, 0.6], [26.0, 28.0, 29.0])}
    (axes,) = lesson.trade_figure(paths, [0.0, 0.5, 1.0]).axes
    assert (axes.lines[0].get_xdata().tolist(), axes.lines[0].get_ydata().tolist()) == paths["a"]
    assert {text.get_text(): text.xy for text in axes.texts} == {"γ = 0": (1.0, 26.0), "γ = 1": (0.6, 29.0)}


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


def test_without_drawn_pictures_there_are_no_gammas(tmp_path):
    file = realism(tmp_path, patch_kid=0.5)
    found = json.loads(file.read_text())
    assert ">patch-KID<" in benchmark_tables.measured_trade(file).text
    file.write_text(json.dumps(found | {"rows": found["rows"][:1]}))
    assert "Not measured yet" in benchmark_tables.measured_gammas(file).text


def test_gammas_are_drawn_as_measured(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        benchmark_tables,
        "trade_figure",
        lambda *given, draw=benchmark_tables.trade_figure: drawn.append(given) or draw(*given),
    )
    text = benchmark_tables.measured_gammas(realism(tmp_path)).text
    assert drawn == [
        ({"λ = 0.01": ([1.0, 0.5], [27.0, 30.0]), "λ = 0.002": ([0.75, 0.625], [31.0, 33.0])}, [0.0, 1.0])
    ]
    assert 'alt="Mean PSNR against mean texture for K = 4, a line for each λ, from γ = 0 to γ = 1"' in text
    assert "2 photos, K = 4" in text and "python &lt;it&gt;" in text


def test_z_alone_is_shown_as_measured(tmp_path):
    def row(transmit, k, psnr, **more):
        return {
            "lambda_rate": 0.01,
            "transmit": transmit,
            "K": k,
            "bpp": 0.015625,
            "psnr": psnr,
            "texture": 0.5,
            **more,
        }

    files = [
        {"lambda_rate": rate, "fits": {"z+y": fits, "shrunk": 2}, "pictures": [{}, {}]}
        for rate, fits in ((0.01, 0), (0.003, 1))
    ]
    found = {
        "command": "python <it>",
        "environment": PLACE,
        "pictures": ["a", "b"],
        "files": files,
        "rows": [row("z", 16, 14.0, ms_ssim=0.25), row("z+y", 1, 24.0), row("shrunk", 1, 20.0)],
    }
    (tmp_path / "z_only.json").write_text(json.dumps(found))
    text = benchmark_tables.measured_z_only(tmp_path / "z_only.json").text
    for words in (
        ">z alone<",
        ">z + y, at most as many bytes<",
        ">14.00<",
        ">24.00<",
        ">z + y of a shrunk photo<",
        ">0.0156<",
        "of the 2 photos, not shrunk: 0 at λ = 0.01, 1 at λ = 0.003.",
    ):
        assert words in text, words
    assert "MS-SSIM" not in text, "not every row has it"


def test_what_was_not_measured_says_how_to(tmp_path):
    for show, script in (
        (benchmark_tables.measured_trade, "realism"),
        (benchmark_tables.measured_gammas, "realism"),
        (benchmark_tables.measured_z_only, "z_only"),
    ):
        text = show(tmp_path / "none.json").text
        assert f"Not measured yet: <code>python benchmarks/{script}.py</code> writes none.json" in text
