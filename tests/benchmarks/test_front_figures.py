"""benchmarks/front_figures.py: the charts of README.md, from results and published curves."""

import importlib
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from dhp_lab.evaluation.measurements import Point

CURVE = [(0.1, 27.0), (0.3, 31.0), (0.7, 35.0), (1.4, 39.0)]
ROW = {"lambda_rate": 0.01, "gamma": None, "psnr": 27.0, "ms_ssim": 0.9, "texture": 0.8}


@pytest.fixture
def script(monkeypatch):
    """A benchmark as a module."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).resolve().parents[2] / "benchmarks"), *sys.path])
    return importlib.import_module


def write_results(folder, *, with_lpips):
    points = [
        Point(codec, 0.01, 24, bpp, 24 / bpp, psnr, 0.9, 1.0, 0.0, 0.0)
        for codec in ("dhp K=0", "WebP", "JPEG 2000")
        for bpp, psnr in CURVE
    ]
    rows = {"points": [asdict(point) for point in points], "measurements": [], "about": {}}
    (folder / "kodak.json").write_text(json.dumps(rows))
    measured = {"lpips": 0.2, "dists": 0.2} if with_lpips else {}
    rows = [ROW | measured | {"K": k, "bpp": bpp} for k in (0, 2, 8) for bpp in (0.1, 0.3)]
    (folder / "realism.json").write_text(json.dumps({"rows": rows}))


def words_of(path):
    """The comments that matplotlib leaves beside each text of an SVG."""
    return set(re.findall(r"<!-- (.*?) -->", path.read_text()))


def test_both_charts_name_their_curves(script, tmp_path, capsys):
    write_results(tmp_path, with_lpips=True)
    script("front_figures").main(["--results", str(tmp_path), "--folder", str(tmp_path / "made")])
    written = capsys.readouterr().out.split()
    assert written == [str(tmp_path / "made" / f"{name}.svg") for name in ("rate_distortion", "rate_realism")]
    distortion, realism = (
        words_of(tmp_path / "made" / f"{name}.svg") for name in ("rate_distortion", "rate_realism")
    )
    assert {"ours, K = 0", "WebP", "scale hyperprior (2018)", "bits per pixel"} <= distortion
    assert {"ours, K = 0", "ours, K = 2", "HiFiC", "MS-ILLM"} <= realism
    assert "JPEG 2000" not in distortion and "ours, K = 8" not in realism


def test_the_same_results_make_the_same_bytes(script, tmp_path):
    write_results(tmp_path, with_lpips=True)
    made = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        script("front_figures").main(["--results", str(tmp_path), "--folder", str(folder)])
        made.append([(folder / f"{name}.svg").read_bytes() for name in ("rate_distortion", "rate_realism")])
    assert made[0] == made[1]


def test_realism_that_was_not_measured_is_left_out_with_a_line(script, tmp_path, capsys):
    write_results(tmp_path, with_lpips=False)
    script("front_figures").main(["--results", str(tmp_path), "--folder", str(tmp_path)])
    assert "rate_realism.svg: not drawn, realism.json has no LPIPS" in capsys.readouterr().out
    assert not (tmp_path / "rate_realism.svg").exists()


def test_without_an_evaluation_the_file_is_named(script, tmp_path):
    with pytest.raises(FileNotFoundError, match="kodak.json"):
        script("front_figures").main(["--results", str(tmp_path), "--folder", str(tmp_path)])
