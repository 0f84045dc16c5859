"""The benchmark of Fashion-MNIST: intervals and distances by other ways, and the count of evaluations."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace

import pytest
import torch
from scipy.stats import binomtest

from dhp_lab.core.paths import ROOT
from dhp_lab.data.fashion import Fashion
from dhp_lab.diffusion.networks import UNet, UNetConfig
from dhp_lab.metrics.fashion_classifier import FashionClassifier
from dhp_lab.training.fashion_models import FASHION

TINY = UNetConfig(channels=(8, 8), attention_levels=(), heads=2, classes=10, patch=2)


@pytest.fixture
def script(monkeypatch):
    """The benchmark with new networks, twenty pictures and a new classifier."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    module = importlib.import_module("fashion_samplers")
    network = UNet(TINY)
    monkeypatch.setattr(module, "load_denoiser", lambda name: (network, replace(FASHION[name], network=TINY)))
    classifier = FashionClassifier().eval().requires_grad_(False)
    monkeypatch.setattr(module, "fashion_classifier", lambda: classifier)
    pictures = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fashion = Fashion(pictures, torch.arange(20) % 10, pictures, torch.arange(20) % 10)
    monkeypatch.setattr(module, "load_fashion", lambda: fashion)
    monkeypatch.setattr(module, "NEIGHBOURS", 20)
    monkeypatch.setattr(module, "RESAMPLES", 5)
    monkeypatch.setattr(module, "identity", lambda name: "00")
    module.network = network
    return module


@pytest.mark.parametrize("right", [0, 9, 10])
def test_wilsons_interval_is_that_of_scipy(script, right):
    expected = binomtest(right, 10).proportion_ci(0.95, "wilson")
    assert script.wilson(right / 10, 10) == pytest.approx([expected.low, expected.high], abs=1e-4)


def test_the_nearest_picture_by_brute_force(script):
    x, train = torch.rand(7, 1, 28, 28), torch.rand(9, 1, 28, 28)
    least = [min((a - b).square().mean().sqrt().item() for b in train) for a in x]
    assert script.nearest(x, train) == pytest.approx(sum(least) / 7, rel=1e-4)
    assert script.nearest(train[:3], train) < 1e-3


@pytest.mark.slow
def test_every_setting_draws_with_as_many_evaluations_as_it_states(script):
    fashion, counted = script.load_fashion(), []
    script.network.register_forward_hook(lambda module, given, out: counted.append(len(out)))
    for setting in script.SETTINGS:
        if setting.steps > 5:
            setting = replace(setting, steps=3)
        counted.clear()
        x, labels, _ = script.drawn(setting, fashion, 10, 0)
        assert x.shape == (10, 1, 28, 28) and labels.tolist() == list(range(10))
        evaluated = sum(counted) / 10
        if setting.network == "ideal denoiser":
            assert evaluated == 0 and script.nearest(x, fashion.train) < 1e-2, "it draws what it was given"
        else:
            assert evaluated == script.evaluations(setting), setting


def test_its_table_has_a_row_for_each_setting(script, tmp_path):
    settings = [setting for setting in script.SETTINGS if setting.network == "fashion-distilled"]
    output = tmp_path / "found.json"
    script.main(["--samples", "20", "--networks", "fashion-distilled", "--output", str(output)])
    text = output.with_suffix(".md").read_text("utf-8")
    assert text.count("| fashion-distilled |") == len(settings) == 3 and "| held out |" in text
