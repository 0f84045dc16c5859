"""dhp_lab.core.search: bisection and interpolation against trying every setting."""

import pytest

from dhp_lab.core.search import largest_within, largest_within_near


@pytest.mark.parametrize("sizes", [[10], [1, 1, 25, 25, 26, 100], [10, 25, 100], list(range(64))])
def test_it_is_the_largest_of_all_files_that_fit(sizes):
    low, high = 5, 4 + len(sizes)
    files = {low + i: bytes([i % 256]) * size for i, size in enumerate(sizes)}
    for n_bytes in (0, 1, 9, 10, 24, 25, 26, 99, 100, 101):
        fitting = [file for file in files.values() if len(file) <= n_bytes]
        expected = max(map(len, fitting)) if fitting else sizes[0]
        assert len(largest_within(files.__getitem__, low, high, n_bytes)) == expected, n_bytes
        for start in files:
            found = largest_within_near(files.__getitem__, low, high, n_bytes, start=start, step=2)
            assert len(found) == expected, (n_bytes, start)


def test_it_encodes_as_often_as_a_bisection_does():
    tried = []
    largest_within(lambda setting: tried.append(setting) or bytes(setting), 0, 1023, 700)
    assert len(tried) <= 11 and len(set(tried)) == len(tried)


@pytest.mark.parametrize("start", [0, 100, 170, 180, 425])
def test_near_the_setting_half_as_many_files_are_enough(start):
    tried = []

    def encode(setting):
        tried.append(setting)
        return bytes(round(200 * 2 ** (setting / 64 + setting**2 / 1e5)))

    found = largest_within_near(encode, 0, 425, 1600, start=start, step=32)
    count, setting = len(tried), tried[[len(encode(s)) for s in list(tried)].index(len(found))]
    assert len(found) <= 1600 < len(encode(setting + 1))
    assert len(set(tried[:count])) == count and count <= 5 + abs(start - setting) / 32


def test_sizes_that_follow_no_curve_cost_no_more_than_a_bisection_beyond_the_first_tries():
    tried = []
    sizes = [10] * 1000 + [10**6] * 24
    found = largest_within_near(lambda n: tried.append(n) or bytes(sizes[n]), 0, 1023, 11, start=0, step=512)
    assert len(found) == 10 and len(tried) <= 6 + 11 + 3
