"""Reverse channel coding: samples of the right distribution, the search, code lengths, by oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dhp_lab.lessons.where_next import reverse_channel


def test_an_interval_is_scipys():
    values = np.random.default_rng(0).normal(1, 2, size=7)
    mean, half = reverse_channel.paired_interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert mean - half == pytest.approx(low) and mean + half == pytest.approx(high)


@pytest.mark.parametrize(("mean", "std"), [([0.7], 0.5), ([-0.4, 1.1], 0.3)])
def test_the_divergence_is_the_integral(mean, std):
    grid = np.linspace(-8, 8, 20_001)
    expected = 0.0
    for m in mean:  # independent numbers: the divergences add up
        log_ratio = -0.5 * ((grid - m) / std) ** 2 - math.log(std) + 0.5 * grid**2
        density = np.exp(-0.5 * ((grid - m) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        expected += (density * log_ratio).sum() * (grid[1] - grid[0]) / math.log(2)
    assert reverse_channel.kl_bits(np.array(mean), std) == pytest.approx(expected, abs=1e-6)


def test_the_search_stops_at_the_winner_of_many_candidates():
    for seed in range(20):
        mean, std = np.array([0.9, -0.3]), 0.4
        shared, time, scores = np.random.default_rng(seed), 0.0, []
        for _ in range(1000):
            time += shared.exponential()
            z = shared.normal(size=2)
            ratio = stats.norm.pdf(z, mean, std).prod() / stats.norm.pdf(z).prod()
            scores.append(time / ratio)
        assert reverse_channel.encode_sample(mean, std, seed) == 1 + int(np.argmin(scores))


def test_samples_have_their_distribution_and_their_code_length():
    means = reverse_channel.targets(1, 0.5, 300, seed=0)
    numbers = [reverse_channel.encode_sample(mean, 0.5, seed) for seed, mean in enumerate(means)]
    z = np.array([reverse_channel.decode_sample(number, 1, seed) for seed, number in enumerate(numbers)])
    assert stats.kstest(((z - means) / 0.5).ravel(), "norm").pvalue > 0.01
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01  # on average over the targets: the prior
    divergence = np.mean([reverse_channel.kl_bits(mean, 0.5) for mean in means])
    assert np.log2(numbers).mean() < divergence + reverse_channel.LOG_INDEX_BITS
    bits = np.mean([reverse_channel.zipf_bits(number, 1.0) for number in numbers])
    assert 1 < bits < 1 + 1 + 4


def test_zipfs_probabilities_sum_to_1():
    lengths = np.array([reverse_channel.zipf_bits(i, 0.1) for i in range(1, 20_000)])
    assert 0.995 < (2.0**-lengths).sum() < 1
