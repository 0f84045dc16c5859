"""The measures of pictures: crops are independent or even, and a block's error bar is that of a mean."""

import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def measures(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import picture_measures

    return picture_measures


def test_crops_are_drawn_from_all_photos(measures):
    photos = {str(level): torch.full((1, 3, 70, 80), level / 10) for level in range(5)}
    levels = [(10 * measures.crops(photos, 50, 0, even=even)[:, 0, 0, 0]).round() for even in (True, False)]
    assert [levels[0].tolist().count(level) for level in range(5)] == [10] * 5
    assert sorted(levels[1].unique().tolist()) == [0, 1, 2, 3, 4]
    assert torch.equal(measures.crops(photos, 3, 1), measures.crops(photos, 3, 1))


def test_the_error_of_equal_distributions_covers_zero(measures):
    a, b = torch.randn(2, 400, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = measures.blocked(a, b)
    assert abs(found["kid"]) < 3 * found["kid_error"] < 1
    assert measures.blocked(a, b + 1)["kid"] > 10 * found["kid_error"]


def test_equal_sets_of_several_sizes(measures):
    pool = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    rows = measures.sample_size(pool, 3, 0)
    assert [row["count"] for row in rows] == [50, 100] and rows[0]["fid"] > rows[1]["fid"] > 0
