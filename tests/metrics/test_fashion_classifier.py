"""The classifier of Fashion-MNIST: its files, its shapes, and what it reaches."""

from __future__ import annotations

import pytest
import torch

from dhp_lab.core.weights import WEIGHTS, CheckpointError, weights_to_bytes
from dhp_lab.data.fashion import load_fashion
from dhp_lab.metrics.class_measures import class_accuracy
from dhp_lab.metrics.fashion_classifier import FashionClassifier, fashion_classifier, load_classifier


def test_features_are_the_last_hidden_layer(tmp_path):
    classifier = FashionClassifier().eval()
    x = torch.rand(3, 1, 28, 28) * 2 - 1
    features = classifier.features(x)
    assert features.shape == (3, 64) and bool((features >= 0).all())
    expected = features @ classifier.head.weight.T + classifier.head.bias
    assert (classifier.logits(x) - expected).abs().max() < 1e-6
    assert torch.equal(classifier.predict(x), expected.argmax(1))
    with pytest.raises(ValueError, match=r"x must be \(B, 1, 28, 28\), got \(3, 1, 28, 27\)"):
        classifier.predict(x[..., :27])


def test_saved_and_loaded_is_the_same_but_for_half_precision(tmp_path):
    classifier = FashionClassifier().eval()
    (tmp_path / WEIGHTS).write_bytes(weights_to_bytes(classifier))
    assert (tmp_path / WEIGHTS).stat().st_size < 400_000
    loaded = load_classifier(tmp_path)
    x = torch.rand(3, 1, 28, 28) * 2 - 1
    assert (loaded.logits(x) - classifier.logits(x)).abs().max() < 5e-3
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_what_is_no_classifier_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="make it by dhp train-lessons --data fashion"):
        load_classifier(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_classifier(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(weights_to_bytes(torch.nn.Linear(2, 2)))
    with pytest.raises(CheckpointError, match="is no classifier"):
        load_classifier(tmp_path)


@pytest.mark.slow
def test_the_shipped_one_finds_the_classes_that_its_card_states():
    fashion = load_fashion()
    predicted = fashion_classifier().predict(fashion.test)
    right = (predicted == fashion.test_labels).view(10, 200).sum(1)
    assert abs(int(right.sum()) - 1797) <= 3, "rounding differs between processors"
    wanted = {"shirt": 137, "coat": 167, "pullover": 170, "trousers": 199, "ankle boot": 193}
    for name, count in wanted.items():
        assert abs(int(right[fashion.names.index(name)]) - count) <= 2
    shirts = predicted[fashion.test_labels == fashion.names.index("shirt")].bincount(minlength=10)
    for name, count in {"T-shirt": 26, "coat": 17, "pullover": 14}.items():
        assert abs(int(shirts[fashion.names.index(name)]) - count) <= 2
    accuracy = class_accuracy(fashion.test, fashion.test_labels, fashion_classifier())
    assert accuracy == int(right.sum()) / 2000
