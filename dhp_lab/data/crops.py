"""Endless reproducible crops of a folder of photos, for training."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dhp_lab.data.images import ImageError, load_image, log, to_pixels, to_tensor


class PhotoCrops:
    """Random square crops of photos kept in memory as uint8; batch number s is always the same for one seed.

    JPEG photos are shrunk by a random factor of up to 2 where they are large enough, which removes their
    block artefacts.

    Args:
        files: picture files; broken ones and those smaller than the crop are skipped with a warning that
            names them.
        size: side of the crops in pixels.
        seed: of the crops' stream.

    Raises:
        ImageError: no usable photo is left.
    """

    def __init__(self, files: list[Path], size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.photos: list[np.ndarray] = []
        self.shrinkable: list[bool] = []
        for path in files:
            try:
                pixels = to_pixels(load_image(path)[0])
            except ImageError as error:
                log.warning("skipped %s", error)
                continue
            if min(pixels.shape[:2]) < size:
                log.warning(
                    "skipped %s: %d x %d is smaller than the crop of %d",
                    path,
                    pixels.shape[1],
                    pixels.shape[0],
                    size,
                )
                continue
            self.photos.append(pixels)
            self.shrinkable.append(path.suffix.lower() in (".jpg", ".jpeg"))
        if not self.photos:
            raise ImageError(f"none of the {len(files)} files is a photo of at least {size} x {size} pixels")

    def __len__(self) -> int:
        return len(self.photos)

    def hold_out(self, every: int) -> PhotoCrops:
        """Take every n-th photo out of this set and return them as a set of their own; a single photo stays
        in both.
        """
        held = copy.copy(self)
        held.photos, held.shrinkable, held.seed = self.photos[::every], self.shrinkable[::every], 0
        if len(self) > 1:
            self.photos = [p for i, p in enumerate(self.photos) if i % every]
            self.shrinkable = [s for i, s in enumerate(self.shrinkable) if i % every]
        return held

    def batch(self, number: int, count: int) -> Tensor:
        """Batch ``number`` >= 0 of the stream: (count, 3, size, size) float32 in [0, 1]."""
        random = np.random.default_rng([self.seed, number])
        return torch.cat([self._crop(random) for _ in range(count)])

    def _crop(self, random: np.random.Generator) -> Tensor:
        index = int(random.integers(len(self.photos)))
        photo = self.photos[index]
        limit = min(2.0 if self.shrinkable[index] else 1.5, min(photo.shape[:2]) / self.size)
        side = round(self.size * float(random.uniform(1, limit))) if random.random() < 0.7 else self.size
        top, left = (int(random.integers(edge - side + 1)) for edge in photo.shape[:2])
        patch = to_tensor(photo[top : top + side, left : left + side])
        if side != self.size:
            patch = F.interpolate(patch, size=(self.size, self.size), mode="bicubic", antialias=True).clamp(
                0, 1
            )
        return patch.flip(-1) if random.random() < 0.5 else patch


@contextmanager
def prefetching() -> Iterator[ThreadPoolExecutor]:
    """One thread that makes the next batch on one core, while the caller trains on the others.

    A second team of OpenMP's threads would spin beside the first: on two cores a step took a quarter longer.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as reader:
            yield reader
    finally:
        torch.set_num_threads(threads)  # for threads that begin later
