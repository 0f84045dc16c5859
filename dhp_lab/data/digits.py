"""Handwritten digits, and a judge of them: how good, how different and how obedient samples are, measured
offline.

The data are scikit-learn's 1797 digits of 8 x 8 pixels with 17 grey levels (E. Alpaydin and C. Kaynak 1998,
UCI repository). A small classifier of ours, trained on them in about a second, plays the part that the
Inception network plays for photos; it is right for 97 to 98 % of the test digits:

| question                                | measured by              | source                                               |
|-----------------------------------------|--------------------------|------------------------------------------------------|
| Are the samples spread as the data are? | ``frechet_distance``     | Heusel et al. 2017, eq. 6 (Dowson & Landau 1982)     |
| Does each of them look like a digit?    | ``precision_recall``     | precision in Kynkäänniemi et al. 2019                |
| Is each kind of digit among them?       | ``precision_recall``     | recall, in the same                                  |
| Do samples of one class differ?         | ``diversity``            | the mean distance of two of them                     |
| Is it the class that was asked for?     | ``share_of_asked_class`` | what the classifier sees                             |

All but the last compare features: the classifier's last hidden layer. Figures of one classifier compare only
with each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from sklearn.datasets import load_digits as load_sklearn_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

LEVELS, CLASSES, SIDE = 17, 10, 8
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


@lru_cache(maxsize=1)
def load_digits() -> Digits:
    """The digits, split at random once and for all, every class in the same share; read from scikit-learn's
    own files.
    """
    pixels, labels = load_sklearn_digits(return_X_y=True)
    parts = train_test_split(pixels, labels, test_size=TEST_PICTURES, stratify=labels, random_state=0)
    train, test = (torch.from_numpy(part).float().view(-1, 1, SIDE, SIDE) / 8 - 1 for part in parts[:2])
    return Digits(train, torch.from_numpy(parts[2]), test, torch.from_numpy(parts[3]))


def round_to_levels(x: Tensor) -> Tensor:
    """The nearest of the 17 grey levels -1, -7/8 .. 1 that the data have; any shape."""
    return (8 * (x.clamp(-1, 1) + 1)).round() / 8 - 1
