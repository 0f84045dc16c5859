"""Patch-KID: its estimate against brute force and a closed form, its interval, its patches."""

import pytest
import torch
from oracles import normal, seeded
from torchmetrics.image.kid import poly_mmd

from dhp_lab.metrics.patch_distance import (
    cubic_kernel,
    cut_patches,
    kernel_distance_difference,
    paired_kernel_distance,
)


def test_patches_lie_side_by_side_and_the_rest_is_left():
    x = torch.arange(3 * 10 * 13.0).view(1, 3, 10, 13)
    patches = cut_patches(x, side=4)
    assert patches.shape == (6, 3, 4, 4)
    for number, (row, column) in enumerate((r, c) for r in (0, 4) for c in (0, 4, 8)):
        assert torch.equal(patches[number], x[0, :, row : row + 4, column : column + 4])
    assert cut_patches(x, side=11).shape == (0, 3, 11, 11)


def test_of_many_patches_the_same_ones_are_drawn():
    x = torch.rand(1, 3, 40, 40, generator=seeded())
    some = cut_patches(x, side=4, most=7)
    every = cut_patches(x, side=4)
    places = [next(i for i, one in enumerate(every) if torch.equal(one, patch)) for patch in some]
    assert len(every) == 100 and places == sorted(set(places)) and len(places) == 7
    assert torch.equal(cut_patches(x, side=4, most=7), some)
    assert not torch.equal(cut_patches(x, side=4, most=7, seed=1), some)


def test_the_kernel_is_that_of_kid():
    """Gretton's estimate with i = j put back is torchmetrics' KID."""
    x, y = normal(9, 5), normal(9, 5, seed=1)
    kernel = [cubic_kernel(a, b) for a, b in ((x, x), (y, y), (x, y))]
    same = sum(k.sum() - k.diagonal().sum() for k in kernel[:2]) / 72
    assert (same - 2 * kernel[2].mean()).item() == pytest.approx(poly_mmd(x, y).item(), rel=1e-12)


def pictures(lengths, width=6, seed=0, shift=0.0):
    return [normal(n, width, seed=seed + i) + shift for i, n in enumerate(lengths)]


def brute_force(real, fake):
    x, y = torch.cat(real), torch.cat(fake)
    k = lambda a, b: (a @ b / len(a) + 1) ** 3  # noqa: E731 (as short as the formula)
    terms = [
        k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(y[i], x[j])
        for i in range(len(x))
        for j in range(len(x))
        if i != j
    ]
    return (sum(terms) / len(terms)).item()


def test_the_estimate_is_the_mean_over_pairs_of_patches():
    real, fake = pictures((3, 1, 4)), pictures((3, 1, 4), seed=9, shift=0.3)
    found = paired_kernel_distance(real, fake)
    assert found.value == pytest.approx(brute_force(real, fake), rel=1e-6)
    assert found == paired_kernel_distance(real, fake)
    assert paired_kernel_distance(fake, real).value == pytest.approx(found.value, rel=1e-6)


def test_equal_sets_are_at_no_distance():
    real = pictures((5, 6, 7))
    assert paired_kernel_distance(real, [part.clone() for part in real]) == (0, 0, 0)


def test_the_interval_resamples_pictures():
    """Each resample by its definition: lists of pairs of patches, within pictures and of two."""
    real, fake = pictures((3, 2, 4)), pictures((3, 2, 4), seed=9, shift=0.5)
    drawn = torch.randint(3, (50, 3), generator=seeded(4)).tolist()
    owner = [number for number, part in enumerate(real) for _ in range(len(part))]
    x, y = torch.cat(real), torch.cat(fake)
    k = cubic_kernel
    terms = k(x, x) + k(y, y) - k(x, y) - k(y, x)
    values = []
    for one in drawn:
        copies = [(copy, i) for copy, number in enumerate(one) for i in range(9) if owner[i] == number]
        pairs = [(a, i, b, j) for a, i in copies for b, j in copies if i != j]
        within = [terms[i, j] for a, i, b, j in pairs if a == b]
        between = [terms[i, j] for a, i, b, j in pairs if owner[i] != owner[j]]
        if between:  # 3 * 2 + 2 * 1 + 4 * 3 = 20 of the 72 pairs are within a picture
            values.append(20 / 72 * sum(within) / len(within) + 52 / 72 * sum(between) / len(between))
    assert 25 < len(values) < 50
    ends = torch.stack(values).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    found = paired_kernel_distance(real, fake, resamples=50, seed=4)
    assert (found.low, found.high) == pytest.approx(ends.tolist(), rel=1e-5)
    assert found.low <= found.value <= found.high


def test_pictures_of_one_patch_have_an_interval():
    found = paired_kernel_distance(pictures((1,) * 20), pictures((1,) * 20, seed=40, shift=1.0))
    assert found.low < found.value < found.high


def test_one_picture_has_no_interval():
    found = paired_kernel_distance(pictures((8,)), pictures((8,), seed=5))
    assert found.low is None and found.high is None and found.value == found.value


@pytest.mark.parametrize("mean, deviation", [(0.0, 1.0), (0.5, 1.0), (0.2, 1.3)])
def test_it_is_unbiased_though_pairs_are_alike(mean, deviation):
    """Numbers N(0, 1), and mean + deviation times the same: (xy + 1)^3 compares three moments.

    MMD^2 = 3 (m_1 - m'_1)^2 + 3 (m_2 - m'_2)^2 + (m_3 - m'_3)^2, with m_3 = mean^3 + 3 mean deviation^2.
    """
    moments = mean, mean**2 + deviation**2, mean**3 + 3 * mean * deviation**2
    expected = 3 * moments[0] ** 2 + 3 * (moments[1] - 1) ** 2 + moments[2] ** 2
    values = []
    for seed in range(60):
        x = normal(100, 1, seed=seed)
        values.append(paired_kernel_distance([x], [mean + deviation * x]).value)
    values = torch.tensor(values)
    error = values.std() / len(values) ** 0.5
    assert abs(values.mean() - expected) < 4 * error + 1e-9
    if deviation == mean + 1:  # the same numbers: nothing is left to chance
        assert values.abs().max() == 0


def test_what_does_not_fit_is_refused():
    real = pictures((3, 2))
    for fake in (pictures((3, 3)), pictures((3,)), pictures((3, 2), width=5)):
        with pytest.raises(ValueError, match="equally many patches of each picture are needed"):
            paired_kernel_distance(real, fake)
    with pytest.raises(ValueError, match="two at least in all"):
        paired_kernel_distance([real[0][:1]], [real[0][:1]])


def test_the_difference_of_two_distances_is_resampled_together():
    """A way that is worse by the same in every picture has a narrow interval, however wide the distances'."""
    real = pictures((6, 5, 7, 6, 8))
    near, far = ([part + shift for part in real] for shift in (0.4, 0.5))
    found = kernel_distance_difference(real, near, far)
    distances = [paired_kernel_distance(real, one) for one in (near, far)]
    assert found.value == pytest.approx(distances[0].value - distances[1].value)
    assert found.low <= found.value <= found.high < 0
    assert found.high - found.low < max(one.high - one.low for one in distances)
    assert kernel_distance_difference(real, far, far) == (0, 0, 0)
    assert kernel_distance_difference(real[:1], near[:1], far[:1])[1:] == (None, None)
