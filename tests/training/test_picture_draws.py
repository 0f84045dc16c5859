"""Random numbers by picture: what they depend on, and their distributions."""

from __future__ import annotations

import pytest
import torch
from models import picture, woken
from scipy.stats import kstest

from dhp_lab.training.codec_objective import STAGES, CodecObjective
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


# what the losses draw


@pytest.mark.parametrize("transmit", ["z+y", "z"])
@pytest.mark.parametrize("stage", STAGES)
def test_pictures_draw_the_same_whatever_batch_they_are_in(in_float32, stage, transmit):
    """Four pictures at once, or two and two, in any order: the loss of four is the mean of the two halves.

    Up to rounding to float32, 2^-24, of some hundred numbers that are added up in another order.
    """
    task, x = CodecObjective(woken(transmit=transmit).train(), None, seed=3), picture(64, 64, count=4)
    whole = task(x, stage, first=8)
    second, first = task(x[2:], stage, first=10), task(x[:2], stage, first=8)
    for name in whole.keys() - {"gain in dB"}:  # a logarithm of the mean
        expected = (first[name] + second[name]).item() / 2
        assert whole[name].item() == pytest.approx(expected, rel=1e-5, abs=1e-6), name
    assert first["loss"].item() != task(x[:2], stage, first=10)["loss"].item()


def test_batches_without_numbers_follow_each_other():
    task, x = CodecObjective(woken().train(), None), picture(64, 64, count=2)
    found = [task(x, "codec")["loss"].item() for _ in range(3)]
    assert found == [task(x, "codec", first=first)["loss"].item() for first in (0, 2, 4)]
    assert len(set(found)) == 3


def test_what_is_drawn_leaves_torchs_own_generator_alone():
    task, before = CodecObjective(woken().train(), None), torch.get_rng_state()
    for stage in STAGES:
        task(picture(64, 64, count=2), stage)
    assert torch.equal(torch.get_rng_state(), before)
