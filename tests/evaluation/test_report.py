"""Averages of measurements, and what they are compared with."""

import itertools
import json

import pytest

from dhp_lab.evaluation import report
from dhp_lab.evaluation.measurements import Measurement, average
from dhp_lab.metrics.pixels import decibel
from dhp_lab.metrics.rd_curves import bd_rate


def test_average_keeps_codecs_and_settings_apart():
    def row(codec, n_bytes, time):
        return Measurement(codec, 1, "p", 10, 20, n_bytes, 30.0, None, 1.0, time, time)

    first, second = average([row("a", 100, 1.0), row("b", 50, 1.0), row("a", 200, 2.0), row("a", 600, 9.0)])
    assert (first.codec, first.bpp, first.encode_seconds, first.ms_ssim) == ("a", 12.0, 2.0, None)
    assert (second.codec, second.bpp, second.pictures) == ("b", 2.0, 1)


def test_published_curves_join_only_for_kodak():
    def row(number, height=512):
        name = f"kodim{number:02d}.png"
        return Measurement("dhp K=0", 1.0, name, height, 768, 9, 30.0, 0.9, 1.0, 0.1, 0.1)

    kodak = [row(number) for number in range(1, 25)]
    assert report.is_kodak(kodak)
    assert not report.is_kodak(kodak[:23])
    assert not report.is_kodak([*kodak[:23], row(24, 256)])
    names = {one.anchor for one in report.make_report({}, kodak, []).comparisons}
    assert {"jpeg (published)", "vtm (published)", "mbt2018-mean (published)"} <= names


def test_published_anchors_are_ordered_as_the_papers_say():
    """The newer codec saves bits: JPEG, scale hyperprior (Balle 2018), mean-scale (Minnen 2018), VTM."""
    curves = report.published_curves()
    names = ["jpeg", "bmshj2018-hyperprior", "mbt2018-mean", "vtm"]
    for older, newer in itertools.pairwise(names):
        found = bd_rate(curves[f"{older} (published)"]["PSNR"], curves[f"{newer} (published)"]["PSNR"])
        assert found.percent < -5
    sources = json.loads(report.ANCHORS.read_text())
    assert all("github.com/" in entry["source"] for entry in sources.values())


def test_decibel_of_the_means_not_mean_of_the_decibels():
    def row(similarity):
        return Measurement("c", 1.0, "p", 200, 200, 9, 30.0, similarity, 1.0, 0.1, 0.1)

    (curve,) = report.curves_of(average([row(0.9), row(0.99)])).values()
    assert curve["MS-SSIM"][1] == [pytest.approx(decibel(0.945))]
