"""Lesson 00: what it quotes of Kodak is what the report holds."""

import json

import pytest

from dhp_lab.lessons.start_here.figures import KODAK, gains_over_no_diffusion


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
    assert min(gains[1]) > 0 and max(gains[1]) < 0.1
    assert min(gains[4]) > -3 and max(gains[4]) < -1
