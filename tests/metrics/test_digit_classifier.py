"""The classifier of digits against scikit-learn's own forward pass, its measures against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPClassifier

from dhp_lab.data.digits import load_digits
from dhp_lab.metrics import digit_classifier as module
from dhp_lab.metrics.digit_classifier import (
    DigitClassifier,
    class_accuracy,
    digit_classifier,
    diversity,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# the classifier


def test_the_classifier_computes_what_scikit_learn_computes(monkeypatch):
    fitted = []
    monkeypatch.setattr(
        module, "MLPClassifier", lambda *a, **k: fitted.append(MLPClassifier(*a, **k)) or fitted[-1]
    )
    digits = load_digits()
    ours = DigitClassifier(digits.train[:200], digits.train_labels[:200], passes=2)
    theirs = fitted[0].predict_proba(digits.test.flatten(1).numpy())
    assert np.abs(ours.logits(digits.test).softmax(1).numpy() - theirs).max() < 1e-5
    assert ours.predict(digits.test).tolist() == theirs.argmax(1).tolist()


@pytest.mark.slow
def test_the_kits_classifier_is_right_for_97_percent_of_the_test_digits():
    digits = load_digits()
    accuracy = class_accuracy(digits.test, digits.test_labels)
    assert (
        accuracy >= 0.97
        and accuracy == (digit_classifier().predict(digits.test) == digits.test_labels).double().mean().item()
    )
    features = digit_classifier().features(digits.test)
    assert features.shape == (360, 32) and bool((features >= 0).all())


def test_it_has_gradients():
    digits = load_digits()
    classifier = DigitClassifier(digits.train[:200], digits.train_labels[:200], passes=2)
    x, step = digits.test[:4].double().requires_grad_(), 1e-6 * draw(4, 1, 8, 8)
    (slope,) = torch.autograd.grad(classifier.logits(x).log_softmax(1)[:, 3].sum(), x)
    with torch.no_grad():
        difference = (classifier.logits(x + step) - classifier.logits(x - step)).double()
        log_p = [classifier.logits(x + sign * step).log_softmax(1)[:, 3].sum() for sign in (1, -1)]
    assert difference.abs().max() > 0 and (slope * step).sum().item() == pytest.approx(
        (log_p[0] - log_p[1]).item() / 2, rel=1e-4
    )


def test_the_accuracy_counts_right_classes():
    class Fixed:
        def predict(self, x):
            return torch.tensor([0, 1, 2, 3])

    labels = torch.tensor([0, 1, 9, 3])
    assert class_accuracy(torch.zeros(4, 1, 8, 8), labels, Fixed()) == 0.75


# the measures


def test_diversity_by_brute_force():
    features, labels = draw(20, 4), torch.tensor([0] * 9 + [1] * 10 + [7])
    means = []
    for first, last in ((0, 9), (9, 19)):
        group = features[first:last].tolist()
        means.append(
            np.mean([math.dist(a, b) for i, a in enumerate(group) for j, b in enumerate(group) if i != j])
        )
    assert diversity(features, labels) == pytest.approx(np.mean(means), rel=1e-12), (
        "a class with one sample does not count"
    )
    assert diversity(features[:1].expand(5, 4), torch.zeros(5).long()) == 0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: diversity(draw(5, 3), torch.arange(4)), r"5 labels are needed, .*\(4,\)"),
        (lambda: diversity(draw(5, 3), torch.arange(5)), "no class has two samples among 5"),
        (
            lambda: class_accuracy(torch.zeros(2, 1, 8, 8), torch.zeros(3)),
            r"2 labels are needed, .*\(3,\)",
        ),
        (
            lambda: DigitClassifier(torch.zeros(20, 1, 8, 8), torch.arange(20) % 9),
            r"each of 0 .. 9 are needed, got \[0, 1, .*8\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pictures_of_another_size_are_refused():
    digits = load_digits()
    classifier = DigitClassifier(digits.train[:200], digits.train_labels[:200], passes=1)
    with pytest.raises(ValueError, match=r"x must be \(B, 1, 8, 8\), got \(2, 1, 8, 9\)"):
        classifier.predict(torch.zeros(2, 1, 8, 9))
