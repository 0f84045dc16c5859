"""What a classifier measures of samples that have classes: how many have the right one, and how they differ.

| question                             | measured by        |
|--------------------------------------|--------------------|
| Do samples have their class?         | ``class_accuracy`` |
| Do those of one class differ?        | ``diversity``      |

``digit_classifier`` and ``fashion_classifier`` are the classifiers of this kit.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, stack

from dhp_lab.metrics.feature_distances import distances


class Classifier(Protocol):
    """A network that assigns one of several classes to each picture."""

    def features(self, x: Tensor) -> Tensor:
        """(B, d): the last hidden layer, for pictures (B, C, H, W)."""

    def predict(self, x: Tensor) -> Tensor:
        """(B,): the most probable class of each picture."""


def class_accuracy(samples: Tensor, labels: Tensor, classifier: Classifier) -> float:
    """The share of samples that the classifier assigns to their class, in [0, 1].

    Args:
        samples: (B, C, H, W) pictures.
        labels: (B,) the classes that they were sampled for.

    Raises:
        ValueError: another number of labels than of samples.
    """
    _check(samples, labels)
    found = classifier.predict(samples)
    return (found == labels.to(found.device)).double().mean().item()


def diversity(features: Tensor, labels: Tensor) -> float:
    """The mean distance between two samples of one class, averaged over the classes that have two.

    Args:
        features: (B, d) of the samples.
        labels: (B,) their classes, given or predicted.

    Returns:
        At least 0; 0 if all samples of each class are equal.

    Raises:
        ValueError: labels that do not fit, or no class with two samples.
    """
    _check(features, labels)
    groups = [features[labels == label] for label in labels.unique()]
    groups = [group for group in groups if len(group) > 1]
    means = [distances(group, group).sum() / (len(group) * (len(group) - 1)) for group in groups]
    if not means:
        raise ValueError(f"no class has two samples among {len(features)}: there is no distance to measure")
    return stack(means).mean().item()


def _check(samples: Tensor, labels: Tensor) -> None:
    if labels.shape != samples.shape[:1]:
        raise ValueError(
            f"{len(samples)} labels are needed, one for each sample, got shape {tuple(labels.shape)}"
        )
