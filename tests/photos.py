"""A real photo that several tests share."""

from __future__ import annotations

import skimage
import torch
from torch import Tensor


def photo(height: int = 176, width: int = 192, shift: int = 0) -> Tensor:
    """A piece of an 8-bit photo, (1, 3, height, width) in [0, 1]."""
    pixels = skimage.data.astronaut()[shift : shift + height, shift : shift + width]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
