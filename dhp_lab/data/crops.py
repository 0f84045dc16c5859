"""Endless reproducible crops of a folder of photos, for training."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dhp_lab.data.images import load_image, to_pixels, to_tensor
from dhp_lab.data.listing import JPEG_SUFFIXES, ImageError

log = logging.getLogger(__name__)

SHRINK_PROBABILITY = 0.7  # of a crop to be taken larger than its size, and shrunk
LARGEST_SHRINK = 1.5  # of photos without block artefacts
LARGEST_JPEG_SHRINK = 2.0
FLIP_PROBABILITY = 0.5


class PhotoCrops:
    """Random square crops of photos kept in memory as uint8; batch number s is always the same for one seed.

    Most crops are shrunk by a random factor, of up to 2 for JPEG photos, which removes their block artefacts;
    half of all are mirrored.

    Args:
        files: picture files; broken ones and those smaller than the crop are skipped with a warning that
            names them.
        size: side of the crops in pixels.
        seed: of the crops' stream.

    Raises:
        ImageError: no usable photo is left.
        OSError: the disk's own trouble. OutOfMemory: the memory does not suffice.
    """

    def __init__(self, files: list[Path], size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.photos: list[np.ndarray] = []
        self.is_jpeg: list[bool] = []
        for path in files:
            try:
                x, notes = load_image(path)
            except ImageError as error:
                log.warning("skipped %s", error)
                continue
            for note in notes:
                log.info("%s: %s", path, note)
            pixels = to_pixels(x)
            height, width = pixels.shape[:2]
            if min(height, width) < size:
                log.warning("skipped %s: %d x %d is smaller than the crop of %d", path, width, height, size)
                continue
            self.photos.append(pixels)
            self.is_jpeg.append(path.suffix.lower() in JPEG_SUFFIXES)
        if not self.photos:
            raise ImageError(f"none of the {len(files)} files is a photo of at least {size} x {size} pixels")

    def __len__(self) -> int:
        return len(self.photos)

    def hold_out(self, every: int) -> PhotoCrops:
        """Move photos 0, every, 2 every .. to a validation set of their own, whose seed is 0.

        A single photo stays in both.
        """
        held_out = copy.copy(self)
        held_out.photos = self.photos[::every]
        held_out.is_jpeg = self.is_jpeg[::every]
        held_out.seed = 0
        if len(self) > 1:
            self.photos = [photo for i, photo in enumerate(self.photos) if i % every]
            self.is_jpeg = [jpeg for i, jpeg in enumerate(self.is_jpeg) if i % every]
        return held_out

    def batch(self, number: int, count: int) -> Tensor:
        """Batch ``number`` >= 0 of the stream: ``count`` crops.

        Returns:
            (count, 3, size, size) float32 in [0, 1].
        """
        random = np.random.default_rng([self.seed, number])
        return torch.cat([self._crop(random) for _ in range(count)])

    def _crop(self, random: np.random.Generator) -> Tensor:
        index = int(random.integers(len(self.photos)))
        photo = self.photos[index]
        height, width = photo.shape[:2]
        largest = LARGEST_JPEG_SHRINK if self.is_jpeg[index] else LARGEST_SHRINK
        largest = min(largest, min(height, width) / self.size)
        side = self.size
        if random.random() < SHRINK_PROBABILITY:
            side = round(self.size * float(random.uniform(1, largest)))
        top = int(random.integers(height - side + 1))
        left = int(random.integers(width - side + 1))
        crop = to_tensor(photo[top : top + side, left : left + side])
        if side != self.size:
            crop = F.interpolate(crop, size=(self.size, self.size), mode="bicubic", antialias=True)
            crop = crop.clamp(0, 1)
        return crop.flip(-1) if random.random() < FLIP_PROBABILITY else crop


@contextmanager
def prefetching() -> Iterator[ThreadPoolExecutor]:
    """One thread that prefetches the next batch on one core, while the caller trains on the others.

    A second team of OpenMP's threads would spin beside the first: on two cores a step took a quarter longer.

    Yields:
        The executor of that thread.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as executor:
            yield executor
    finally:
        torch.set_num_threads(threads)  # for threads that begin later
