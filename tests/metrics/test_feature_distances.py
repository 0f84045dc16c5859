"""Distances of features against closed forms, brute force, torchmetrics and torch-fidelity."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import largest, normal
from scipy.linalg import sqrtm
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from dhp_lab.metrics import feature_distances
from dhp_lab.metrics.feature_distances import distances, frechet_distance, kernel_distance, precision_recall


class Through(torch.nn.Module):
    """A network that hands its input on."""

    num_features = 6

    def forward(self, x):
        return x


def clouds():
    return normal(40, 6) @ normal(6, 6, seed=1), normal(50, 6, seed=2) @ normal(6, 6, seed=3) + 0.5


def test_frechet_distance_is_that_of_torchmetrics():
    a, b = clouds()
    theirs = FrechetInceptionDistance(Through())
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert frechet_distance(a, b) == pytest.approx(theirs.compute().item(), rel=1e-9)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_frechet_distance_of_clouds_with_known_moments():
    """Means 3 apart, deviations 1 and 2 on one axis, 5 and 1 on the other: 9 + (1 - 2)^2 + (5 - 1)^2."""
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double() * math.sqrt(
        3 / 4
    )  # unit covariance
    a, b = square * torch.tensor([1.0, 5.0]), square * torch.tensor([2.0, 1.0]) + torch.tensor([3.0, 0.0])
    assert frechet_distance(a, b) == pytest.approx(9 + 1 + 16, abs=1e-12)


def test_frechet_distance_by_the_matrix_square_root():
    a, b = normal(200, 6) @ normal(6, 6, seed=1), normal(300, 6, seed=2) @ normal(6, 6, seed=3) + 0.5
    cov_a, cov_b = (np.cov(x.numpy(), rowvar=False) for x in (a, b))
    gap = (a.mean(0) - b.mean(0)).square().sum().item()
    expected = gap + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_a_cloud_to_itself_is_nothing_even_where_it_is_flat():
    flat = torch.cat([normal(50, 3), torch.zeros(50, 4)], 1)
    assert abs(frechet_distance(flat, flat)) < 1e-6 and frechet_distance(flat, flat + 2) == pytest.approx(
        7 * 4, abs=1e-6
    )
    assert frechet_distance(normal(9, 1), normal(9, 1) + 3) == pytest.approx(9, abs=1e-12)


def test_kernel_distance_is_that_of_torchmetrics_and_of_a_double_loop():
    a, b = (cloud[:40] for cloud in clouds())
    theirs = KernelInceptionDistance(Through(), subsets=2, subset_size=40)
    theirs.update(a, real=True)
    theirs.update(b, real=False)

    def kernel(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / 6 + 1) ** 3

    def same(c):
        return sum(kernel(x, y) for i, x in enumerate(c) for j, y in enumerate(c) if i != j) / (40 * 39)

    a_, b_ = a.tolist(), b.tolist()
    loops = same(a_) + same(b_) - 2 * sum(kernel(x, y) for x in a_ for y in b_) / 40**2
    found = kernel_distance(a, b, subsets=2, subset_size=40)
    assert found == pytest.approx((loops, 0), rel=1e-9, abs=1e-9)
    assert found[0] == pytest.approx(theirs.compute()[0].item(), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0, 0.5])
def test_kernel_distance_of_normal_numbers(shift):
    """In one dimension the kernel is the product of (1, sqrt 3 x, sqrt 3 x^2, x^3), so the distance is that
    of their means.

    With no shift and C their covariance, a subset of n deviates by 2 |C| (1 / n (n - 1) + 1 / n^2)^(1/2),
    |C|^2 = 324. All subsets together are as many as the features they are drawn from, so what is linear in
    these deviates in the mean at most as 2 / subsets of that in one, and what is not by less (Hoeffding's
    decomposition).
    """
    n, subsets = 100, 600
    a, b = normal(n * subsets, 1), normal(n * subsets, 1, seed=1) + shift
    mean, deviation = kernel_distance(a, b, subsets=subsets, subset_size=n)
    expected = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2
    error = 4 * deviation * math.sqrt(2 / subsets)
    assert abs(mean - expected) < error
    if not shift:
        assert deviation == pytest.approx(2 * math.sqrt(324 * (1 / n / (n - 1) + 1 / n**2)), rel=0.3)
        biased = 2 * (3 + 6 + 15) / n  # twice the trace of C, over n
        assert error < biased / 3, "with each feature beside itself it would be seen"


def test_kernel_distance_depends_on_its_seed_alone():
    a, b = clouds()
    state = torch.get_rng_state()
    first, other = (kernel_distance(a, b, subsets=3, subset_size=20, seed=seed) for seed in (0, 1))
    assert first != other and torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    assert kernel_distance(a, b, subsets=3, subset_size=20) == first
    torch.set_rng_state(state)


@pytest.mark.parametrize("neighbours", [1, 3, 9])
def test_precision_and_recall_are_those_of_torch_fidelity(neighbours):
    real, samples = clouds()
    options = {"prc_neighborhood": neighbours, "prc_batch_size": 99, "save_cpu_ram": False, "verbose": False}
    theirs = prc_features_to_metric(samples, real, **options)
    assert precision_recall(real, samples, neighbours=neighbours) == pytest.approx(
        (theirs["precision"], theirs["recall"])
    )


def test_precision_and_recall_do_not_depend_on_the_rows_held_at_once(monkeypatch):
    real, samples = clouds()
    expected = precision_recall(real, samples)
    monkeypatch.setattr(feature_distances, "ROWS", 7)
    assert 0 < expected[0] < 1 and precision_recall(real, samples) == expected


def test_precision_and_recall_separate_a_lost_kind_from_noise():
    kinds = torch.cat([normal(200, 2), normal(200, 2, seed=1) + 30])
    again = torch.cat([normal(200, 2, seed=2), normal(200, 2, seed=3) + 30])
    fair, lost = precision_recall(kinds, again), precision_recall(kinds, again[:200])
    noisy = precision_recall(kinds, again + 4 * normal(400, 2, seed=4))
    assert min(fair) > 0.9 and lost[0] > 0.9 and lost[1] < 0.52 and noisy[0] < 0.6


@pytest.mark.parametrize("neighbours", [1, 3])
def test_precision_and_recall_by_brute_force(neighbours):
    real, samples = normal(30, 2).tolist(), (1.3 * normal(25, 2, seed=1) + 0.5).tolist()

    def share(cloud, points):
        radii = [sorted(math.dist(a, b) for b in cloud)[neighbours] for a in cloud]
        return sum(
            any(math.dist(p, c) <= r for c, r in zip(cloud, radii, strict=True)) for p in points
        ) / len(points)

    found = precision_recall(torch.tensor(real), torch.tensor(samples), neighbours=neighbours)
    assert found == pytest.approx((share(real, samples), share(samples, real)))


def test_precision_and_recall_separate_fidelity_from_variety():
    """Data in two places: samples at one of them are all good, and miss half; samples everywhere miss
    nothing.
    """
    real = torch.cat([normal(60, 2), normal(60, 2, seed=1) + 20])
    narrow, wide = (
        precision_recall(real, normal(80, 2, seed=2) / 4),
        precision_recall(real, 10 + 15 * normal(2000, 2, seed=3)),
    )
    assert narrow[0] > 0.9 and 0.05 < narrow[1] <= 0.5 and wide[0] < 0.2 and wide[1] > 0.9
    assert precision_recall(real, real) == (1, 1)


def test_distances_by_brute_force():
    a, b = normal(7, 3), normal(5, 3, seed=1)
    expected = torch.tensor([[math.dist(x, y) for y in b.tolist()] for x in a.tolist()], dtype=torch.float64)
    assert largest(distances(a, b) - expected) < 1e-12
    assert torch.equal(distances(a, a).diagonal(), torch.zeros(7).double())


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: frechet_distance(normal(5, 3), normal(5, 4)),
            r"at least 2 features of one width .*\(5, 3\) and \(5, 4\)",
        ),
        (lambda: frechet_distance(normal(1, 3), normal(5, 3)), r"got \(1, 3\)"),
        (lambda: frechet_distance(normal(5, 3), normal(5, 3) / 0), "features must be finite"),
        (
            lambda: precision_recall(normal(5, 3), normal(9, 3), neighbours=5),
            "neighbours must lie in 1 .. 4, got 5",
        ),
        (lambda: precision_recall(normal(5, 3), normal(9, 3), neighbours=0), "got 0"),
        (
            lambda: kernel_distance(normal(5, 3), normal(5, 4)),
            r"at least 2 features of one width .*\(5, 3\) and \(5, 4\)",
        ),
        (
            lambda: kernel_distance(normal(5, 3), normal(9, 3)),
            "subset_size lie in 2 .. 5, .* got 100 and 1000",
        ),
        (
            lambda: kernel_distance(normal(5, 3), normal(9, 3), subsets=0, subset_size=5),
            "subsets must be at least 1 .* got 0 and 5",
        ),
        (lambda: kernel_distance(normal(5, 3), normal(9, 3), subset_size=1), "got 100 and 1"),
        (lambda: kernel_distance(normal(5, 3), normal(9, 3) / 0, subset_size=3), "features must be finite"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
