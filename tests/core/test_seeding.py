"""The seed holds inside the block alone, whatever happens there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dhp_lab.core.seeding import temporary_seed


def test_weights_follow_the_seed_and_the_global_generator_does_not():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with temporary_seed(1):
        first = nn.Linear(4, 4)
    with temporary_seed(1):
        second = nn.Linear(4, 4)
    with temporary_seed(2):
        third = nn.Linear(4, 4)
    assert torch.equal(first.weight, second.weight) and not torch.equal(first.weight, third.weight)
    assert torch.equal(torch.rand(3), expected)


def test_the_state_comes_back_after_an_error_too():
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), temporary_seed(0):
        torch.rand(1) / (1 // 0)
    assert torch.equal(torch.get_rng_state(), state)
