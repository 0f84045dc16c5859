"""A classifier of digits, and what it measures of samples: class accuracy and diversity."""

from __future__ import annotations

from functools import lru_cache

import torch
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from dhp_lab.data.digits import CLASSES, SIDE, load_digits
from dhp_lab.metrics.feature_distances import distances


class DigitClassifier:
    """A perceptron with two hidden layers, fitted by scikit-learn and run by torch: so it has gradients, on
    any device.

    Each pass over the data sees them with fresh noise, which makes up for their small number.

    Args:
        x: (N, 1, 8, 8) pictures in [-1, 1].
        labels: (N,) their classes, 0 .. 9, each at least once.

    Raises:
        ValueError: labels that do not fit.
    """

    def __init__(self, x: Tensor, labels: Tensor, *, passes: int = 80, noise: float = 0.5) -> None:
        if labels.shape != x.shape[:1] or labels.unique().tolist() != list(range(CLASSES)):
            raise ValueError(
                f"{len(x)} labels that hold each of 0 .. {CLASSES - 1} are needed, got {labels.unique().tolist()}"
            )
        known, classes = x.flatten(1).cpu(), labels.cpu().numpy()  # (N, 64)
        fitted = MLPClassifier(
            (128, 32), batch_size=min(128, len(x)), learning_rate_init=2e-3, random_state=0
        )
        generator = torch.Generator().manual_seed(0)
        for _ in range(passes):
            noisy = known + noise * torch.randn(known.shape, generator=generator)
            fitted.partial_fit(noisy.numpy(), classes, classes=range(CLASSES))
        layers = zip(fitted.coefs_, fitted.intercepts_, strict=True)
        self.layers = [
            (torch.from_numpy(weight).float(), torch.from_numpy(bias).float()) for weight, bias in layers
        ]

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


def class_accuracy(samples: Tensor, labels: Tensor, classifier: DigitClassifier | None = None) -> float:
    """The share of samples in which the classifier (this kit's by default) sees the class that was asked for,
    in [0, 1].

    Args:
        samples: (B, 1, 8, 8) pictures.
        labels: (B,) the classes asked for.

    Raises:
        ValueError: another number of labels than of samples.
    """
    if labels.shape != samples.shape[:1]:
        raise ValueError(
            f"{len(samples)} labels are needed, one for each sample, got shape {tuple(labels.shape)}"
        )
    found = (classifier or digit_classifier()).predict(samples)
    return (found == labels.to(found.device)).double().mean().item()


def diversity(features: Tensor, labels: Tensor) -> float:
    """The mean distance between two samples of one class, averaged over the classes that have two; 0 if all
    are alike.

    Args:
        features: (B, d).
        labels: (B,) their classes, as asked for or as predicted.

    Raises:
        ValueError: labels that do not fit, or no class with two samples.
    """
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"{len(features)} labels are needed, one for each sample, got shape {tuple(labels.shape)}"
        )
    groups = [features[labels == label] for label in labels.unique()]
    means = [distances(g, g).sum() / (len(g) * (len(g) - 1)) for g in groups if len(g) > 1]
    if not means:
        raise ValueError(f"no class has two samples among {len(features)}: there is no distance to measure")
    return torch.stack(means).mean().item()
