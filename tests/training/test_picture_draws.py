"""Random numbers by picture: what they depend on, and their distributions."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest

from dhp_lab.training.picture_draws import PictureDraws, normal_noise, uniform_noise

CPU = torch.device("cpu")


def test_a_pictures_numbers_depend_on_seed_and_number_alone():
    draws, again, other = (PictureDraws(seed, CPU) for seed in (5, 5, 6))
    draws.begin(10)
    whole = [draws.rand((4, 3)), draws.randn((4, 2, 2))]
    for first in (12, 10):
        again.begin(first)
        halves = [again.rand((2, 3)), again.randn((2, 2, 2))]
        assert all(torch.equal(a[first - 10 : first - 8], b) for a, b in zip(whole, halves, strict=True))
    other.begin(10)
    assert not torch.equal(other.rand((4, 3)), whole[0])
    assert len({row[0].item() for row in whole[0]}) == 4


def test_pictures_go_on_where_the_last_batch_ended():
    draws, again = PictureDraws(0, CPU), PictureDraws(0, CPU)
    draws.begin()
    draws.rand((3, 1))
    draws.begin()
    again.begin(3)
    assert torch.equal(draws.rand((2, 5)), again.rand((2, 5)))


@pytest.mark.parametrize(
    "noise, law", [(normal_noise, ("norm", (0, 1))), (uniform_noise, ("uniform", (-0.5, 1)))]
)
def test_noise_has_its_distribution_within_a_picture_and_across_pictures(noise, law):
    """Kolmogorov and Smirnov's test, of numbers within one picture and of the first of each picture."""
    name, arguments = law
    one = noise(torch.empty(1, 4000), PictureDraws(0, CPU))[0]
    many = noise(torch.empty(4000, 1), PictureDraws(1, CPU))[:, 0]
    for values in (one, many):
        assert kstest(values.double().numpy(), name, arguments).pvalue > 1e-3
