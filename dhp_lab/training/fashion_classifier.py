"""The training of Fashion-MNIST's classifier: cross-entropy on pictures that are shifted and mirrored."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from dhp_lab.core.seeding import temporary_seed
from dhp_lab.metrics.fashion_classifier import FashionClassifier
from dhp_lab.training.optimisation import optimizer_step

STEPS, BATCH, LR = 2400, 64, 2e-3  # 15 passes over 10 000 pictures
SHIFT = 2  # pixels, the largest


def train_classifier(
    x: Tensor,
    labels: Tensor,
    *,
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> FashionClassifier:
    """Train a classifier, on the device of the pictures; in eval mode, without gradients of its weights.

    Args:
        x: (N, 1, 28, 28) pictures in [-1, 1].
        labels: (N,) their classes, 0 .. 9.
        steps: of 64 pictures, drawn anew at each.
        seed: of the first weights, batches, shifts, mirrorings and dropout.
        progress: ``progress(step, loss)``, called after each step.

    Raises:
        ValueError: labels that do not fit, or a loss that is not finite.
    """
    if labels.shape != x.shape[:1]:
        raise ValueError(f"{len(x)} labels are needed, got shape {tuple(labels.shape)}")
    generator = torch.Generator().manual_seed(seed)
    with temporary_seed(seed):
        classifier = FashionClassifier().to(x.device, memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=LR, weight_decay=1e-3)
        for step in range(1, steps + 1):
            chosen = torch.randint(len(x), (BATCH,), generator=generator)
            loss = cross_entropy(
                classifier(augmented(x[chosen], generator)), labels[chosen].to(x.device), label_smoothing=0.05
            )
            optimizer_step(loss, classifier, optimizer, lr=LR, step=step, steps=steps)
            if progress is not None:
                progress(step, loss.item())
    return classifier.eval().requires_grad_(False)


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, C, H, W), shifted by up to 2 pixels each way, with black coming in; half are mirrored."""
    size = x.shape[-1]
    shifts = torch.randint(2 * SHIFT + 1, (2, len(x), 1), generator=generator)
    mirrored = torch.rand(len(x), 1, generator=generator) < 0.5
    places = torch.arange(size)
    columns = torch.where(mirrored, places.flip(0), places) + shifts[0]  # (B, W)
    rows = torch.arange(x.shape[-2]) + shifts[1]  # (B, H)
    padded = pad(x, [SHIFT] * 4, value=-1.0)
    batch = torch.arange(len(x))[:, None, None]
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
