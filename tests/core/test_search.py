"""dhp_lab.core.search: bisection against trying every setting."""

import pytest

from dhp_lab.core.search import largest_within


@pytest.mark.parametrize("sizes", [[10], [1, 1, 25, 25, 26, 100], [10, 25, 100], list(range(64))])
def test_it_is_the_largest_of_all_files_that_fit(sizes):
    low = 5
    files = {low + i: bytes([i % 256]) * size for i, size in enumerate(sizes)}
    for n_bytes in (0, 1, 9, 10, 24, 25, 26, 99, 100, 101):
        fitting = [file for file in files.values() if len(file) <= n_bytes]
        expected = max(map(len, fitting)) if fitting else sizes[0]
        assert len(largest_within(files.__getitem__, low, max(files), n_bytes)) == expected, n_bytes


def test_it_encodes_as_often_as_a_bisection_does():
    tried = []
    largest_within(lambda setting: tried.append(setting) or bytes(setting), 0, 1023, 700)
    assert len(tried) <= 11 and len(set(tried)) == len(tried)
