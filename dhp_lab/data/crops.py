"""Endless reproducible crops of a folder of photos, for training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dhp_lab.data.images import to_tensor
from dhp_lab.data.listing import ImageError
from dhp_lab.data.photo_cache import CACHE_GB, Photo, PhotoCache

SHRINK_PROBABILITY = 0.7  # of a crop to be taken larger than its size, and shrunk
LARGEST_SHRINK = 1.5  # of photos without block artefacts
LARGEST_JPEG_SHRINK = 2.0
FLIP_PROBABILITY = 0.5
MOST_TRIES = 100  # photos in a row that are unusable, before there is no crop
ORDER = 2  # the last word of the seed of an epoch's order; crops have none, drawings 1


class PhotoCrops:
    """Random square crops of photos, read when they are needed; crop n is always the same for one seed.

    Each epoch takes one crop of each photo, in an order of its own. Most crops are shrunk by a random factor,
    of up to 2 for JPEG photos, which removes their block artefacts; half of all are mirrored.

    A photo that cannot be used (it is broken, gone, or smaller than the crop) is named in one warning, and
    the next one in the epoch's order takes its place: which one depends on the files alone, so that a
    resumed training repeats an unbroken one.

    Args:
        files: picture files; a ``PhotoList`` where there are very many.
        size: side of the crops in pixels.
        seed: of the crops' stream.
        cache_gb: gigabytes of photos that are kept in memory, once read.

    Raises:
        ImageError: there are no files.
    """

    def __init__(self, files: Sequence[Path], size: int, seed: int, *, cache_gb: float = CACHE_GB) -> None:
        if not len(files):
            raise ImageError(f"none of the 0 files is a photo of at least {size} x {size} pixels")
        self.size = size
        self.seed = seed
        self.places = np.arange(len(files))  # in the list, of the photos to draw from
        self.cache = PhotoCache(files, size, cache_gb)
        self._order: tuple[int, np.ndarray] = (-1, self.places)

    def __len__(self) -> int:
        """The number of photos, usable or not."""
        return len(self.places)

    def hold_out(self, every: int) -> PhotoCrops:
        """Move photos 0, every, 2 every .. to a validation set of their own, whose seed is 0.

        A single photo stays in both.
        """
        held_out = copy.copy(self)
        held_out.places = self.places[::every]
        held_out.seed = 0
        if len(self) > 1:
            self.places = np.delete(self.places, slice(None, None, every))
        for crops in (self, held_out):
            crops._order = (-1, crops.places)
        return held_out

    def batch(self, number: int, count: int) -> Tensor:
        """Batch ``number`` >= 0 of ``count`` crops each: crops number * count .. of the stream.

        So `batch(s, 2 B)` is `batch(2 s, B)` and `batch(2 s + 1, B)`: several processes share a batch.

        Returns:
            (count, 3, size, size) float32 in [0, 1].

        Raises:
            ImageError: MOST_TRIES photos in a row, or all of them, cannot be used.
            OSError: the disk's own trouble. OutOfMemory: the memory does not suffice.
        """
        return torch.cat([self.crop(number * count + i) for i in range(count)])

    def crop(self, number: int) -> Tensor:
        """Crop ``number`` >= 0 of the stream, (1, 3, size, size). Errors as for ``batch``."""
        random, photo = np.random.default_rng([self.seed, number]), self._photo(number)
        height, width = photo.pixels.shape[:2]
        largest = LARGEST_JPEG_SHRINK if photo.is_jpeg else LARGEST_SHRINK
        largest = min(largest, min(height, width) / self.size)
        side = self.size
        if random.random() < SHRINK_PROBABILITY:
            side = round(self.size * float(random.uniform(1, largest)))
        top = int(random.integers(height - side + 1))
        left = int(random.integers(width - side + 1))
        crop = to_tensor(photo.pixels[top : top + side, left : left + side])
        if side != self.size:
            crop = F.interpolate(crop, size=(self.size, self.size), mode="bicubic", antialias=True)
            crop = crop.clamp(0, 1)
        return crop.flip(-1) if random.random() < FLIP_PROBABILITY else crop

    def _photo(self, number: int) -> Photo:
        """The photo of crop ``number``: the first usable one from its place in the epoch's order on."""
        epoch, place = divmod(number, len(self))
        if self._order[0] != epoch:
            random = np.random.default_rng([self.seed, epoch, ORDER])
            self._order = epoch, random.permutation(self.places)
        order = self._order[1]
        tries = min(MOST_TRIES, len(order))
        for i in range(tries):
            index = int(order[(place + i) % len(order)])
            photo = self.cache.get(index)
            if photo is not None:
                return photo
        all_or_some = f"the {tries} files" if tries == len(order) else f"{tries} files in a row"
        raise ImageError(
            f"none of {all_or_some} is a photo of at least {self.size} x {self.size} pixels, "
            f"{self.cache.files[index]} the last of them"
        )
