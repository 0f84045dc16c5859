"""The fit of the trellis's tables: what it finds of levels whose distribution is known."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dhp_lab.codec.networks.trellis_tables import HALF_ZEROS, level_probabilities


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).resolve().parents[2] / "benchmarks"), *sys.path])
    return importlib.import_module("trellis_tables")


@torch.no_grad()
def test_its_probabilities_are_those_of_the_tables(script):
    found = script.Fit()()
    for row in (0, 13, 40, 72):
        for quantiser in (0, 1):
            p = level_probabilities(row, quantiser, 30).double()
            folded = torch.cat([p[30:31], 2 * p[31:]])
            assert torch.allclose(found[quantiser, row, :31], folded.clamp(min=2.0**-17), atol=3e-3)


def test_it_finds_the_constants_again(script):
    """Counts as the tables have them, a start elsewhere; at the least scale there are hardly but zeros."""
    fit, goal = script.Fit(), script.Fit()
    counts = 1000 * goal().detach()
    with torch.no_grad():
        fit.log_half_zeros += 0.2
        fit.mixture += 0.05
    bits = [fit.improve(counts) for _ in range(3)]
    zeros = np.array(script.constants(fit)["HALF_ZEROS"])
    assert np.abs(zeros - HALF_ZEROS)[:, 1:5].max() < 0.03
    assert bits[-1] == pytest.approx(script.entropy(counts), abs=2e-3)
