"""Fashion-MNIST: real pictures, still small enough to train a diffusion model on a CPU.

Shipped are 12 000 of the 70 000 grey pictures of 28 x 28 pixels (H. Xiao, K. Rasul and R. Vollgraf 2017,
"Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms", MIT licence), 1 200 of
each class: one PNG in data/fashion_mnist/, beside the script that made it. A picture's class is its row.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dhp_lab.core.paths import ROOT

NAMES = (
    "T-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
"""What each class shows; the authors say "T-shirt/top" and "Trouser" for the first two."""
CLASSES = len(NAMES)
SIDE = 28  # pixels
LEVELS = 256  # grey levels, evenly spaced from -1 to 1
HALF = (LEVELS - 1) / 2  # grey levels to a step of 1
TRAIN, TEST = 10_000, 2_000  # pictures
COLUMNS = 100  # pictures in a row of the PNG
ROWS = (TRAIN + TEST) // COLUMNS
FILE = ROOT / "data" / "fashion_mnist" / "pictures.png"
SHA256 = "b41abf230c30457a923dbbadd0c3146c54d685cdeaef8435c1dea73329a8632a"  # of its pixels


class FashionError(ValueError):
    """The shipped pictures are missing or damaged; the message names the file and the remedy."""


@dataclass(frozen=True)
class Fashion:
    """Pictures and their classes, in two parts: of the official training file, and of the official test file.

    Attributes:
        train: (10000, 1, 28, 28) float32 in [-1, 1], 1 000 of each class, class by class.
        test: (2000, 1, 28, 28), likewise, 200 of each class.
        train_labels, test_labels: (10000,) and (2000,) whole numbers, 0 .. 9; ``names`` has their meaning.
        names: of the classes.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    names: tuple[str, ...] = NAMES


def load_fashion() -> Fashion:
    """The shipped pictures of Fashion-MNIST; tensors of the caller's own at each call.

    Raises:
        FashionError: the file is missing or damaged.
    """
    pixels = _read_pixels(FILE)
    pictures = torch.from_numpy(pixels).float()[:, None] / HALF - 1  # (12000, 1, 28, 28)
    train, test = pictures.split([TRAIN, TEST])
    labels = torch.arange(CLASSES)
    return Fashion(
        train.clone(),
        labels.repeat_interleave(TRAIN // CLASSES),
        test.clone(),
        labels.repeat_interleave(TEST // CLASSES),
    )


@lru_cache(maxsize=1)
def _read_pixels(path: Path) -> np.ndarray:
    """(12000, 28, 28) uint8, row by row of the PNG, checked; read once, never handed out."""
    remedy = "take it from the repository again (git checkout data/fashion_mnist)"
    try:
        with Image.open(path) as image:
            fits = image.mode == "L" and image.size == (COLUMNS * SIDE, ROWS * SIDE)
            data = image.tobytes() if fits else b""
    except FileNotFoundError:
        raise FashionError(f"the pictures of Fashion-MNIST are not at {path}: {remedy}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise FashionError(f"{path} cannot be read: {error}; {remedy}") from None
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise FashionError(f"{path} does not hold the pictures that belong here: {remedy}")
    sheet = np.frombuffer(data, np.uint8).reshape(ROWS, SIDE, COLUMNS, SIDE)
    return np.ascontiguousarray(sheet.swapaxes(1, 2)).reshape(-1, SIDE, SIDE)


def round_to_levels(x: Tensor) -> Tensor:
    """The nearest of the 256 grey levels from -1 to 1 that the data have; any shape."""
    return (HALF * (x.clamp(-1, 1) + 1)).round() / HALF - 1
