"""Lesson 00: what it quotes of Kodak is what the report holds."""

import json

import pytest

from dhp_lab.codec import DiffusionHyperprior
from dhp_lab.core.paths import RESULTS, default_checkpoint
from dhp_lab.data.photos import PHOTOS
from dhp_lab.lessons.start_here.figures import KODAK, gains_over_no_diffusion
from dhp_lab.metrics.pixels import psnr
from dhp_lab.notebook.photo_codec import BESIDE, PhotoCodec


def test_gains_are_differences_of_the_same_lambda(tmp_path):
    points = [
        {"codec": "dhp K=0", "setting": 0.01, "psnr": 30.0},
        {"codec": "dhp K=4", "setting": 0.01, "psnr": 28.5},
        {"codec": "dhp K=1", "setting": 0.01, "psnr": 30.25},
        {"codec": "JPEG", "setting": 0.01, "psnr": 1.0},
        {"codec": "dhp K=1", "setting": 0.001, "psnr": 34.5},
        {"codec": "dhp K=0", "setting": 0.001, "psnr": 34.0},
        {"codec": "dhp K=4", "setting": 0.001, "psnr": 33.0},
    ]
    file = tmp_path / "kodak.json"
    file.write_text(json.dumps({"points": points}))
    assert gains_over_no_diffusion(file) == {1: [0.25, 0.5], 4: [-1.5, -1.0]}


def test_a_report_without_k_0_is_named(tmp_path):
    file = tmp_path / "kodak.json"
    file.write_text(json.dumps({"points": [{"codec": "dhp K=1", "setting": 0.01, "psnr": 30.0}]}))
    with pytest.raises(ValueError, match="kodak.json: no points of 'dhp K=0'"):
        gains_over_no_diffusion(file)


def test_the_committed_report_has_what_the_lesson_says():
    gains = gains_over_no_diffusion(KODAK)
    assert min(gains[1]) > 0 and max(gains[1]) < 0.01


def test_a_sample_costs_what_the_lesson_says():
    """About a decibel on Kodak, for more of the photo's texture."""
    rows = [row for row in json.loads((RESULTS / "realism.json").read_bytes())["rows"] if not row["gamma"]]
    for rate in {row["lambda_rate"] for row in rows}:
        by_steps = {row["K"]: row for row in rows if row["lambda_rate"] == rate}
        assert 0.7 < by_steps[0]["psnr"] - by_steps[4]["psnr"] < 1.2
        assert by_steps[0]["texture"] + 0.2 < by_steps[4]["texture"] < 1


@pytest.mark.slow
def test_the_photos_are_as_far_apart_as_the_lesson_says():
    """The lesson's list under the explorer, at lambda = 0.003."""
    codec = PhotoCodec(DiffusionHyperprior.from_pretrained(default_checkpoint()), 512)
    gaps = {name: {} for name in BESIDE}
    for photo in PHOTOS:
        x, _ = codec.photo(photo)
        ours = psnr(codec.decode(photo, 3e-3, 1)[0], x).item()
        for name, other in BESIDE.items():
            gaps[name][photo] = ours - psnr(other.decode(codec.beside(name, photo, 3e-3)), x).item()
    nearest, *_, second, furthest = sorted(gaps["JPEG"], key=gaps["JPEG"].get)
    assert nearest == "china" and {second, furthest} == {"astronaut", "chelsea"}
    assert gaps["JPEG"][nearest] > 3 and 1.4 < gaps["JPEG"][second] - gaps["JPEG"][nearest] < 1.8
    assert min(gaps["AVIF"].values()) > 0.5 and max(gaps["AVIF"], key=gaps["AVIF"].get) == "chelsea"
    assert 2 < gaps["AVIF"]["chelsea"] < 2.3 and sorted(gaps["AVIF"].values())[-2] < 1.4
