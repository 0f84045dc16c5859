"""Handwritten digits, and a judge of them: how good, how different and how obedient samples are, measured offline.

The data are scikit-learn's 1797 digits of 8 x 8 pixels with 17 grey levels (E. Alpaydin and C. Kaynak 1998, UCI repository).
A small classifier of ours, trained on them in about a second, plays the part that the Inception network plays for photos;
it is right for 97 to 98 % of the test digits:

| question                                | measured by              | source                                               |
|-----------------------------------------|--------------------------|------------------------------------------------------|
| Are the samples spread as the data are? | ``frechet_distance``     | Heusel et al. 2017, eq. 6 (Dowson & Landau 1982)     |
| Does each of them look like a digit?    | ``precision_recall``     | precision in Kynkäänniemi et al. 2019                |
| Is each kind of digit among them?       | ``precision_recall``     | recall, in the same                                  |
| Do samples of one class differ?         | ``diversity``            | the mean distance of two of them                     |
| Is it the class that was asked for?     | ``share_of_asked_class`` | what the classifier sees                             |

All but the last compare features: the classifier's last hidden layer. Figures of one classifier compare only with each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from sklearn.datasets import load_digits as load_sklearn_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from dhp_lab.feature_distances import distances

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
    """The digits, split at random once and for all, every class in the same share; read from scikit-learn's own files."""
    pixels, labels = load_sklearn_digits(return_X_y=True)
    parts = train_test_split(pixels, labels, test_size=TEST_PICTURES, stratify=labels, random_state=0)
    train, test = (torch.from_numpy(part).float().view(-1, 1, SIDE, SIDE) / 8 - 1 for part in parts[:2])
    return Digits(train, torch.from_numpy(parts[2]), test, torch.from_numpy(parts[3]))


def round_to_levels(x: Tensor) -> Tensor:
    """The nearest of the 17 grey levels -1, -7/8 .. 1 that the data have; any shape."""
    return (8 * (x.clamp(-1, 1) + 1)).round() / 8 - 1


class DigitClassifier:
    """A perceptron with two hidden layers, fitted by scikit-learn and run by torch: so it has gradients, on any device.

    Each pass over the data sees them with fresh noise, which makes up for their small number.

    Args:
        x: (N, 1, 8, 8) pictures in [-1, 1].
        labels: (N,) their classes, 0 .. 9, each at least once.

    Raises:
        ValueError: labels that do not fit.
    """

    def __init__(self, x: Tensor, labels: Tensor, *, passes: int = 80, noise: float = 0.5) -> None:
        if labels.shape != x.shape[:1] or labels.unique().tolist() != list(range(CLASSES)):
            raise ValueError(f"{len(x)} labels that hold each of 0 .. {CLASSES - 1} are needed, got {labels.unique().tolist()}")
        known, classes = x.flatten(1).cpu(), labels.cpu().numpy()                           # (N, 64)
        fitted = MLPClassifier((128, 32), batch_size=min(128, len(x)), learning_rate_init=2e-3, random_state=0)
        generator = torch.Generator().manual_seed(0)
        for _ in range(passes):
            noisy = known + noise * torch.randn(known.shape, generator=generator)
            fitted.partial_fit(noisy.numpy(), classes, classes=range(CLASSES))
        layers = zip(fitted.coefs_, fitted.intercepts_, strict=True)
        self.layers = [(torch.from_numpy(weight).float(), torch.from_numpy(bias).float()) for weight, bias in layers]

    def features(self, x: Tensor) -> Tensor:
        """(B, 32) the last hidden layer, for pictures (B, 1, 8, 8); differentiable.

        Raises:
            ValueError: pictures of another shape.
        """
        if x.shape[1:] != (1, SIDE, SIDE):
            raise ValueError(f"x must be (B, 1, {SIDE}, {SIDE}), got {tuple(x.shape)}")
        h = x.flatten(1)
        for weight, bias in self.layers[:-1]:
            h = (h @ weight.to(h) + bias.to(h)).relu()
        return h

    def logits(self, x: Tensor) -> Tensor:
        """(B, 10) log-probabilities of the classes, up to a constant for each picture; differentiable."""
        weight, bias = self.layers[-1]
        h = self.features(x)
        return h @ weight.to(h) + bias.to(h)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """(B,) the likeliest class of each picture, 0 .. 9."""
        return self.logits(x).argmax(1)


@lru_cache(maxsize=1)
def digit_classifier() -> DigitClassifier:
    """The classifier of this kit, trained on the training digits; made once in a process, in about a second."""
    digits = load_digits()
    return DigitClassifier(digits.train, digits.train_labels)


def share_of_asked_class(samples: Tensor, labels: Tensor, classifier: DigitClassifier | None = None) -> float:
    """The share of samples in which the classifier (this kit's by default) sees the class that was asked for, in [0, 1].

    Args:
        samples: (B, 1, 8, 8) pictures.
        labels: (B,) the classes asked for.

    Raises:
        ValueError: another number of labels than of samples.
    """
    if labels.shape != samples.shape[:1]:
        raise ValueError(f"{len(samples)} labels are needed, one for each sample, got shape {tuple(labels.shape)}")
    found = (classifier or digit_classifier()).predict(samples)
    return (found == labels.to(found.device)).double().mean().item()


def diversity(features: Tensor, labels: Tensor) -> float:
    """The mean distance between two samples of one class, averaged over the classes that have two; 0 if all are alike.

    Args:
        features: (B, d).
        labels: (B,) their classes, as asked for or as predicted.

    Raises:
        ValueError: labels that do not fit, or no class with two samples.
    """
    if labels.shape != features.shape[:1]:
        raise ValueError(f"{len(features)} labels are needed, one for each sample, got shape {tuple(labels.shape)}")
    groups = [features[labels == label] for label in labels.unique()]
    means = [distances(g, g).sum() / (len(g) * (len(g) - 1)) for g in groups if len(g) > 1]
    if not means:
        raise ValueError(f"no class has two samples among {len(features)}: there is no distance to measure")
    return torch.stack(means).mean().item()
