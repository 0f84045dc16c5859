"""Paired differences: the mean, and a bootstrap's interval against the normal one."""

import math

import pytest
from oracles import normal

from dhp_lab.metrics.paired import mean_difference


def test_the_interval_of_many_pictures_is_that_of_the_normal_distribution():
    pictures, gain = 10 * normal(400), 0.3 + 0.5 * normal(400, seed=1)
    found = mean_difference((pictures + gain).tolist(), pictures.tolist())
    assert found.value == pytest.approx(gain.double().mean().item(), abs=1e-5)
    half = 1.96 * gain.std(correction=0).item() / math.sqrt(400)
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)


def test_what_all_pictures_share_cancels_out():
    assert mean_difference([1.0, 50.0, 7.0], [0.0, 49.0, 6.0]) == (1, 1, 1)
    assert mean_difference([3.0], [1.0]) == (2, None, None)
    a, b = [1.0, 2.0, 4.0], [0.5, 3.0, 1.0]
    there, back = mean_difference(a, b, seed=3), mean_difference(b, a, seed=3)
    assert there == mean_difference(a, b, seed=3)
    assert back == pytest.approx((-there.value, -there.high, -there.low))


@pytest.mark.parametrize("a, b", [([], []), ([1.0], [1.0, 2.0])])
def test_pictures_that_do_not_pair(a, b):
    with pytest.raises(ValueError, match=f"a figure of each picture, got {len(a)} and {len(b)}"):
        mean_difference(a, b)
