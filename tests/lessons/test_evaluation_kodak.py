"""Lesson 11 on Kodak: which curves are compared, their order, what is said of it; and perceptual curves."""

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
from dhp_lab.lessons.evaluation import kodak, perceptual
from dhp_lab.metrics.rd_curves import bd_rate

RATES = [0.1, 0.25, 0.5, 1.0, 2.0]
DECIBELS = [25.0, 28.0, 31.0, 35.0, 39.0]


def scaled(factor):
    """A curve that takes ``factor`` times the bits of ours at every quality."""
    return [rate * factor for rate in RATES], DECIBELS


def point(codec, setting, bpp, psnr, ms_ssim, **more):
    return Point(codec, setting, 1, bpp, 24 / bpp, psnr, ms_ssim, 1.0, 0.0, 0.0, **more)


# what was measured


def test_curves_are_ordered_by_metric_and_ours_is_named():
    points = [
        point("dhp K=1", 0.1, 0.2, 30.0, 0.9),
        point("dhp K=1", 0.01, 0.4, 33.0, 0.99),
        point("JPEG", 5, 0.3, 28.0, 0.8),
    ]
    curves = kodak.codec_curves(points)
    assert curves["PSNR"] == {"ours, K = 1": ([0.2, 0.4], [30.0, 33.0]), "JPEG": ([0.3], [28.0])}
    assert curves["MS-SSIM"]["ours, K = 1"][1] == pytest.approx([10.0, 20.0])
    assert curves["MS-SSIM"]["JPEG"][1] == pytest.approx([-10 * math.log10(0.2)])


def test_results_are_read_as_they_were_written(tmp_path):
    model, pictures = untrained(), [("a.png", load_photo("coffee", 64))]
    report = evaluate(model, pictures, lambda_rates=(1e-2, 1e-3), steps=(0, 1), codecs=("jpeg",))
    (tmp_path / "kodak.json").write_text(to_json(report))
    points, measurements, about = kodak.kodak_results(tmp_path / "kodak.json")
    assert [(p.codec, p.setting, p.pictures) for p in points] == [
        (p.codec, p.setting, 1) for p in report.points
    ]
    assert [p.bpp for p in points] == pytest.approx([p.bpp for p in report.points], rel=1e-5)
    assert [m.n_bytes for m in measurements] == [m.n_bytes for m in report.measurements]
    assert [m.psnr for m in measurements] == pytest.approx([m.psnr for m in report.measurements], rel=1e-5)
    assert about["model_id"] == model.model_id.hex()


def test_the_shipped_results_are_those_of_kodak():
    points, measurements, about = kodak.kodak_results()
    assert {p.pictures for p in points} == {24} and "dhp evaluate" in about["command"]
    assert {kodak.OURS, "JPEG", "WebP", "JPEG 2000"} <= kodak.codec_curves(points)["PSNR"].keys()
    one = next(p for p in points if p.codec == "dhp K=1")
    own = [m.psnr for m in measurements if (m.codec, m.setting) == (one.codec, one.setting)]
    assert np.mean(own) == pytest.approx(one.psnr, abs=1e-3)


def test_codecs_that_were_not_measured_are_named():
    names = [name for name in kodak.KIT_CODECS if name not in ("JPEG", "VVC 4:2:0")]
    points = [point(name, 1, 0.3, 28.0, 0.8) for name in names]
    assert kodak.unmeasured_codecs(points) == "not measured: JPEG, VVC 4:2:0"
    both = [point("JPEG", 1, 0.3, 28.0, 0.8), point("VVC 4:2:0", 1, 0.3, 28.0, 0.8)]
    assert kodak.unmeasured_codecs(points + both) == "" and "AVIF 4:2:0" not in kodak.KIT_CODECS


# what was published, and the order


def test_of_two_published_curves_the_rounded_one_is_taken():
    given = json.loads(kodak.ANCHORS.read_text())
    found = kodak.published_kodak()
    assert found["PSNR"]["mbt2018-mean"] == (
        given["mbt2018-mean-8bit"]["bpp"],
        given["mbt2018-mean-8bit"]["psnr_rgb"],
    )
    assert found["PSNR"]["vtm"][1] == given["vtm"]["psnr_rgb"]
    rounded = {name for name in given if name.endswith("-8bit")}
    assert found["PSNR"].keys() == given.keys() - rounded and len(rounded) == 6
    assert {*kodak.NOT_ROUNDED, *kodak.UNSAID} <= found["PSNR"].keys()


@pytest.fixture
def rows():
    short = (RATES[:2], DECIBELS[:2])
    coded = {"PSNR": {"ours, K = 0": scaled(3), kodak.OURS: scaled(1), "JPEG": scaled(2)}}
    published = {
        "PSNR": {"vtm": scaled(0.5), "jpeg": scaled(4), "short": short, "mbt2018-vbr": scaled(0.8)},
        "MS-SSIM": {"vtm": scaled(0.5)},
    }
    return kodak.standings(coded, published)


def test_curves_are_sorted_by_what_ours_saves(rows):
    assert [row.name for row in rows] == ["jpeg", "JPEG", "mbt2018-vbr", "vtm", "short"]
    assert [row.results["PSNR"].percent for row in rows[:4]] == pytest.approx([-75, -50, 25, 100])
    assert [row.kind for row in rows[:3]] == [kodak.ELSEWHERE, kodak.HERE, kodak.ELSEWHERE]
    assert [row.pictures for row in rows[1:4]] == ["8 bits", "floating point", "8 bits"]
    assert rows[-1].results == {} and "MS-SSIM" not in rows[3].results, "ours has no MS-SSIM here"


def test_the_shipped_order_is_that_of_bd_rate():
    coded, published = kodak.codec_curves(kodak.kodak_results()[0]), kodak.published_kodak()
    found = kodak.standings(coded, published)
    others = [name for name in coded["PSNR"] if not name.startswith("ours")]
    assert sorted(row.name for row in found) == sorted([*others, *published["PSNR"]])
    (one,) = [row for row in found if row.name == "bpg"]
    assert one.results["PSNR"] == bd_rate(published["PSNR"]["bpg"], coded["PSNR"][kodak.OURS])


def test_the_outcome_is_said_as_the_table_has_it(rows):
    said = kodak.outcome(rows)
    assert said == (
        "By PSNR our codec takes fewer bits than 2 of 4 curves, from jpeg (-75 %) to JPEG (-50 %).\n"
        "It takes more than 2: the next one is mbt2018-vbr (+25 %), the best vtm (+100 %)."
    )
    assert kodak.outcome(rows[:2]).endswith("2 of 2 curves, from jpeg (-75 %) to JPEG (-50 %).")
    assert "0 of 2 curves.\nIt takes more than 2" in kodak.outcome(rows[2:])
    assert "0 of 0 curves" in kodak.outcome(rows, metric="MS-SSIM")


def test_the_table_has_every_row(rows):
    text = kodak.standings_table(rows).text
    for words in (
        ">jpeg<",
        ">coded here<",
        ">floating point<",
        ">-75.0 %<",
        ">25.0 .. 39.0 dB<",
        ">100%<",
        ">-<",
    ):
        assert words in text, words
    assert text.count("<tr>") == 1 + len(rows)


# perceptual curves


def test_published_perceptual_curves_are_those_of_the_file():
    curves, source = perceptual.published_perceptual()
    given = json.loads(perceptual.PERCEPTUAL_ANCHORS.read_text())
    assert list(curves) == ["HiFiC", "MS-ILLM", "RDEIC-2", "VTM"] and given["source"] in source
    for name, by_measure in curves.items():
        assert list(by_measure) == ["LPIPS", "DISTS", "PSNR, dB"]
        for title, field in perceptual.MEASURES.items():
            rates, values = by_measure[title]
            assert rates == sorted(rates)
            assert dict(zip(rates, values, strict=True)) == {
                one["bpp"]: one[field] for one in given["curves"][name]
            }


def test_ours_comes_from_where_it_was_measured():
    points = [
        point("dhp K=1", 0.001, 0.4, 31.0, 0.9, lpips=0.125, dists=0.25),
        point("dhp K=1", 0.01, 0.2, 28.0, 0.9, lpips=0.25, dists=None),
        point("dhp K=4", 0.01, 0.2, 27.0, 0.9),
        point("JPEG", 5, 0.3, 28.0, 0.8, lpips=0.5),
    ]
    found = perceptual.our_perceptual(points)
    assert found == {
        "ours, K = 1": {"LPIPS": ([0.2, 0.4], [0.25, 0.125]), "PSNR, dB": ([0.2, 0.4], [28.0, 31.0])}
    }
    row = {"K": 4, "gamma": 0.0, "bpp": 0.2, "psnr": 27.0, "lpips": 0.125, "dists": 0.5}
    rows = [row, row | {"gamma": 0.5}, row | {"K": 1, "gamma": None}]
    both = perceptual.our_perceptual(points, rows)
    assert both["ours, K = 1"] == found["ours, K = 1"] and both["ours, K = 4"]["DISTS"] == ([0.2], [0.5])
    assert perceptual.our_perceptual(points[2:]) == {}


def test_perceptual_curves_are_drawn_as_given():
    curve = ([0.1, 0.3, 0.9], [0.5, 0.25, 0.125])
    figure = perceptual.perceptual_figure(
        {"ours, K = 1": {"LPIPS": curve}, "VTM": {"DISTS": curve}}, widest=0.5
    )
    lpips, dists, psnr = figure.axes
    (line,) = lpips.lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([0.1, 0.3], [0.5, 0.25])
    assert line.get_linewidth() > dists.lines[0].get_linewidth() and not psnr.lines
    assert [axes.get_xlim() for axes in figure.axes] == [(0, 0.5)] * 3
    assert "less is better" in lpips.get_title(loc="left") and "more is better" in psnr.get_title(loc="left")


def test_values_at_a_rate_are_interpolated_in_its_logarithm():
    curve = ([0.4, 0.1], [1.0, 3.0])
    assert perceptual.at_rate(curve, 0.2) == pytest.approx(2.0)
    assert perceptual.at_rate(curve, 0.1) == 3.0 and perceptual.at_rate(curve, 0.4) == 1.0
    assert perceptual.at_rate(curve, 0.09) is perceptual.at_rate(curve, 0.41) is None
    assert perceptual.at_rate(([0.121], [5.0]), 0.12) == 5.0 and perceptual.at_rate(curve, 0.099) == 3.0
    assert perceptual.at_rate(([0.121], [5.0]), 0.118) is None
    text = perceptual.equal_rate_table(
        {"a": {"LPIPS": curve, "PSNR, dB": ([0.3, 0.4], [1.0, 2.0])}}, 0.2
    ).text
    assert ">2.000<" in text and text.count(">-<") == 2 and "at 0.2 bits per pixel" in text
