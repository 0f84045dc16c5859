"""A classifier of Fashion-MNIST: it measures samples as ``digit_classifier`` does, on pictures of 28 x 28.

    x --5 x 5, stride 2--> 32 --3 x 3--> 64 --pool, 3 x 3--> 96 --pool--> 3 x 3 --> 64 features --> 10 logits
      28 x 28              14 x 14                           7 x 7

Its weights are shipped, data/checkpoints/fashion-classifier, whose card has the share of the held-out
pictures that it classifies rightly; ``dhp_lab.training.fashion_classifier`` trains it. What it measures is
in ``dhp_lab.metrics.class_measures`` and ``feature_distances``; figures of one classifier compare only with
each other.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from dhp_lab.core.memory import raise_if_of_the_machine
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.core.weights import WEIGHTS, CheckpointError, weights_from_bytes
from dhp_lab.data.fashion import CLASSES, SIDE

NAME = "fashion-classifier"
WIDTHS = (32, 64, 96)
FEATURES = 64


class FashionClassifier(nn.Module):
    """A convolutional network with 64 features before its last layer; with new weights, in training mode."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.body = nn.Sequential(
            nn.Conv2d(1, first, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=1, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(second, third, 3, padding=1, bias=False),
            nn.BatchNorm2d(third),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(third * 3 * 3, FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer; differentiable.

        Args:
            x: (B, 1, 28, 28) pictures in [-1, 1].

        Returns:
            (B, 64), at least 0.

        Raises:
            ValueError: pictures of another shape.
        """
        if x.shape[1:] != (1, SIDE, SIDE):
            raise ValueError(f"x must be (B, 1, {SIDE}, {SIDE}), got {tuple(x.shape)}")
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 10) log-probabilities of the classes, up to a constant for each picture; see ``features``."""
        return self.head(self.features(x))

    def logits(self, x: Tensor) -> Tensor:
        """What calling the network returns."""
        return self(x)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """(B,) the most probable class of each picture, 0 .. 9; arguments and errors as for ``features``."""
        return self(x).argmax(1)


def load_classifier(folder: str | Path) -> FashionClassifier:
    """Read a classifier from its folder; in eval mode, without gradients of its weights.

    Raises:
        CheckpointError: the file is missing, damaged or of another network.
    """
    path = Path(folder) / WEIGHTS
    try:
        tensors = weights_from_bytes(path.read_bytes())
    except OSError as error:
        reason = f"no checkpoint at {folder}: {error.strerror}: {path}"
        raise CheckpointError(f"{reason}; make it by dhp train-lessons --data fashion") from None
    except ValueError as error:
        raise CheckpointError(f"the checkpoint at {folder} is damaged: {error}; fetch it again") from None
    classifier = FashionClassifier()
    try:
        classifier.load_state_dict(tensors)
    except RuntimeError as error:
        raise_if_of_the_machine(error)
        raise CheckpointError(f"the checkpoint at {folder} is no classifier: {error}") from None
    return classifier.eval().requires_grad_(False)


@lru_cache(maxsize=1)
def fashion_classifier() -> FashionClassifier:
    """The shipped classifier, read once in a process; errors as for ``load_classifier``."""
    return load_classifier(CHECKPOINTS / NAME)
