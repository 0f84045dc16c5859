"""The sliced Wasserstein distance against closed forms."""

import math

import pytest
import torch
from scipy.stats import wasserstein_distance

from dhp_lab.metrics.sliced_wasserstein import sliced_wasserstein


def points(count, seed=0):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_shift_in_the_plane_is_2_over_pi_of_its_length():
    """The mean of |cos| over all directions."""
    a, shift = points(500), torch.tensor([3.0, 4.0])
    assert sliced_wasserstein(a, a + shift, directions=20_000) == pytest.approx(5 * 2 / math.pi, rel=0.01)


def test_round_gaussians_are_as_far_apart_as_their_deviations():
    """(3 - 1) E|N(0, 1)|."""
    found = sliced_wasserstein(points(20_000), 3 * points(20_000, 1))
    assert found == pytest.approx(2 * math.sqrt(2 / math.pi), rel=0.03)


def test_on_a_line_it_is_scipy_s_distance():
    a, b = points(4000)[:, :1], 2 * points(3000, 1)[:, :1] + 1
    assert sliced_wasserstein(a, b, directions=1) == pytest.approx(
        wasserstein_distance(a[:, 0], b[:, 0]), rel=0.01
    )


def test_equal_clouds_have_none_and_small_samples_some():
    a = points(1000)
    assert sliced_wasserstein(a, a.flip(0)) < 1e-12
    assert sliced_wasserstein(points(100, 1), points(100, 2)) > sliced_wasserstein(
        points(9999, 1), points(9999, 2)
    )


def test_errors_name_the_shapes():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(3, 3\)"):
        sliced_wasserstein(torch.zeros(3, 2), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="diverged"):
        sliced_wasserstein(torch.full((3, 2), torch.nan), torch.zeros(3, 2))
