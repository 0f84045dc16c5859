"""Padding to multiples and cropping back, against numpy's own padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dhp_lab.core.tensors import crop_to, pad_to_multiple


@pytest.mark.parametrize(
    ("height", "width", "multiple"),
    [(1, 1, 8), (1, 15, 2), (7, 5, 4), (8, 8, 8), (9, 8, 8), (16, 15, 1)],
)
def test_padding_is_numpys_and_cropping_takes_it_off(height, width, multiple):
    x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    padded = pad_to_multiple(x, multiple)
    rows = next(n for n in range(multiple) if (height + n) % multiple == 0)
    columns = next(n for n in range(multiple) if (width + n) % multiple == 0)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, rows), (0, columns)), mode="edge")
    assert np.array_equal(padded.numpy(), expected)
    assert torch.equal(crop_to(padded, (height, width)), x)


def test_nothing_is_copied_where_nothing_is_missing():
    x = torch.rand(1, 1, 16, 8)
    assert pad_to_multiple(x, 8) is x
    assert crop_to(x, (4, 4)).data_ptr() == x.data_ptr()


def test_the_gradient_of_a_repeated_pixel_is_the_sum_of_its_copies():
    x = torch.ones(1, 1, 3, 3, requires_grad=True)
    pad_to_multiple(x, 4).sum().backward()
    assert x.grad.squeeze().tolist() == [[1, 1, 2], [1, 1, 2], [2, 2, 4]]


def test_wrong_sizes_are_refused():
    x = torch.rand(1, 1, 4, 4)
    with pytest.raises(ValueError, match="multiple must be at least 1, got 0"):
        pad_to_multiple(x, 0)
    with pytest.raises(ValueError, match="a picture of 4 x 4 cannot be cropped to 5 x 4"):
        crop_to(x, (5, 4))
