"""The digits against scikit-learn's."""

from __future__ import annotations

import torch
from sklearn import datasets

from dhp_lab.data.digits import load_digits, round_to_levels


def test_both_parts_together_are_the_digits_of_scikit_learn():
    digits = load_digits()
    pixels, labels = datasets.load_digits(return_X_y=True)
    ours = torch.cat([digits.train, digits.test])
    assert (
        ours.dtype == torch.float32 and ours.shape == (1797, 1, 8, 8) and digits.test.shape == (360, 1, 8, 8)
    )
    both = torch.cat([digits.train_labels, digits.test_labels])
    found = sorted(zip((8 * (ours + 1)).flatten(1).tolist(), both.tolist(), strict=True))
    assert found == sorted(zip(pixels.tolist(), labels.tolist(), strict=True))
    assert ours.min() == -1 and ours.max() == 1


def test_the_parts_have_no_picture_in_common_and_all_classes_in_the_same_share():
    digits = load_digits()
    train, test = (
        {bytes(x) for x in (8 * (part + 1)).byte().flatten(1).numpy()} for part in (digits.train, digits.test)
    )
    assert train & test == set()
    shares = [labels.bincount() / len(labels) for labels in (digits.train_labels, digits.test_labels)]
    assert (shares[0] - shares[1]).abs().max() < 1 / 360


def test_rounding_keeps_the_data_and_leaves_17_levels():
    digits = load_digits()
    assert torch.equal(round_to_levels(digits.train), digits.train)
    assert torch.equal(round_to_levels(digits.train + 0.06), digits.train), "1/16 is half a level"
    assert len(round_to_levels(torch.linspace(-3, 3, 999)).unique()) == 17


def test_a_caller_that_changes_its_digits_changes_nobody_elses():
    first = load_digits()
    expected = first.train.clone()
    first.train.mul_(0)
    first.train_labels.fill_(3)
    assert torch.equal(load_digits().train, expected)
    assert len(load_digits().train_labels.unique()) == 10
