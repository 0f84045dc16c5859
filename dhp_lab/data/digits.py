"""Handwritten digits: the smallest pictures on which a diffusion model can be trained in minutes on a CPU.

The data are scikit-learn's 1797 digits of 8 x 8 pixels with 17 grey levels (E. Alpaydin and C. Kaynak 1998,
UCI repository). ``dhp_lab.metrics.digit_classifier`` measures samples of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from sklearn.datasets import load_digits as load_sklearn_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

LEVELS = 17  # grey levels, evenly spaced from -1 to 1
CLASSES = 10
SIDE = 8  # pixels
TEST_PICTURES = 360


@dataclass(frozen=True)
class Digits:
    """Pictures and their classes, in two parts that have none in common.

    Attributes:
        train: (1437, 1, 8, 8) float32 in [-1, 1].
        test: (360, 1, 8, 8), likewise.
        train_labels, test_labels: (1437,) and (360,) whole numbers, 0 .. 9.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def load_digits() -> Digits:
    """The digits of scikit-learn, in a fixed stratified split; tensors of the caller's own at each call."""
    train, train_labels, test, test_labels = (part.clone() for part in _split_digits())
    return Digits(train, train_labels, test, test_labels)


@lru_cache(maxsize=1)
def _split_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training pictures and labels, test pictures and labels; read once, never handed out."""
    pixels, labels = load_sklearn_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        pixels, labels, test_size=TEST_PICTURES, stratify=labels, random_state=0
    )
    return (
        _to_pictures(train),
        torch.from_numpy(train_labels),
        _to_pictures(test),
        torch.from_numpy(test_labels),
    )


def _to_pictures(pixels: np.ndarray) -> Tensor:
    """(N, 64) whole numbers 0 .. 16 -> (N, 1, 8, 8) float32 in [-1, 1]."""
    return torch.from_numpy(pixels).float().view(-1, 1, SIDE, SIDE) / 8 - 1


def round_to_levels(x: Tensor) -> Tensor:
    """The nearest of the 17 grey levels -1, -7/8 .. 1 that the data have; any shape."""
    return (8 * (x.clamp(-1, 1) + 1)).round() / 8 - 1
