"""The mixture of two Gaussians against SciPy's, and its tables against its likelihoods."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from dhp_lab.codec.bits.rans import coder_tables, rans_decode, rans_encode
from dhp_lab.codec.bits.scales import LEVELS, SCALES
from dhp_lab.codec.networks.scale_mixture import ScaleMixtureConditional


@pytest.fixture(scope="module")
def tables() -> ScaleMixtureConditional:
    model = ScaleMixtureConditional(SCALES, scale_bound=SCALES[0])
    model.update()
    return model


def mass(q, scale):
    """Of the bin of a whole number."""
    low, high = (np.abs(q) - 0.5) / scale, (np.abs(q) + 0.5) / scale
    return sum(w * (norm.sf(low / s) - norm.sf(high / s)) for w, s in ((0.8, 0.8), (0.2, 1.5)))


def test_the_likelihood_is_that_of_the_mixture(tables):
    q = torch.arange(-6, 7).float()
    for scale in (0.125, 0.6, 1.0, 4.0, 50.0):
        found = tables._likelihood(q, torch.full_like(q, scale))
        assert np.allclose(found, mass(q.numpy(), scale), atol=1e-7)


def test_the_gradient_is_that_of_finite_differences(tables):
    scale = torch.tensor([0.3, 1.0, 7.0], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([1.0, 0.0, 5.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: tables._likelihood(q, s), scale)


def test_the_tables_are_the_likelihoods_in_units_of_2_to_minus_16(tables):
    found = coder_tables(tables)
    for row in (8, LEVELS // 2, LEVELS - 1):
        cdf, offset = np.array(found.cdfs[row][: found.lengths[row]]), found.offsets[row]
        q = np.arange(offset, -offset + 1)
        assert np.abs(np.diff(cdf)[: len(q)] / 2**16 - mass(q, SCALES[row])).max() < 4 * len(q) / 2**16 + 1e-4
        assert mass(np.arange(-offset + 1, -offset + 2000), SCALES[row]).sum() < 1e-9, "what is escaped"


def test_numbers_drawn_from_the_mixture_take_its_entropy(tables):
    generator = torch.Generator().manual_seed(0)
    n, row = 40000, LEVELS // 2
    width = torch.where(torch.rand(n, generator=generator) < 0.8, 0.8, 1.5)
    symbols = (SCALES[row] * width * torch.randn(n, generator=generator)).round().int()
    indexes = torch.full((n,), row, dtype=torch.int32)
    data = rans_encode(symbols, indexes, coder_tables(tables))
    q = np.arange(-200, 201)
    entropy = -(mass(q, SCALES[row]) * np.log2(mass(q, SCALES[row]) + 1e-300)).sum()
    assert 8 * len(data) / n == pytest.approx(entropy, rel=0.01)
    assert torch.equal(rans_decode(data, indexes, coder_tables(tables)), symbols)
