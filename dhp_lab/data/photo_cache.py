"""Photos that are read when they are needed, and kept as far as a limit of memory allows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dhp_lab.data.images import load_image, to_pixels
from dhp_lab.data.listing import JPEG_SUFFIXES, ImageError

log = logging.getLogger(__name__)

CACHE_GB = 4.0


class Photo(NamedTuple):
    """A photo to take crops of.

    Attributes:
        pixels: (H, W, 3) uint8. is_jpeg: whether it may hold block artefacts.
    """

    pixels: np.ndarray
    is_jpeg: bool


class PhotoCache:
    """The photos of a list, each read when it is first needed.

    Photos are kept until ``gigabytes`` are full, and from then on those beyond are read each time: a training
    goes through all of them in turn, so that what was read last is needed last.

    Args:
        files: the photos.
        least_side: pixels; photos with a smaller side are unusable.
        gigabytes: of pixels that are kept.
    """

    def __init__(self, files: Sequence[Path], least_side: int, gigabytes: float = CACHE_GB) -> None:
        self.files, self.least_side = files, least_side
        self.room = int(gigabytes * 1e9)  # bytes
        self.photos: dict[int, Photo] = {}
        self.unusable: set[int] = set()
        self.noted: set[int] = set()  # photos of which the log says how they were converted

    def get(self, index: int) -> Photo | None:
        """A photo by its place in the list; None where it is gone, damaged, closed or too small, of which one
        warning tells.

        Raises:
            OSError: the disk's own trouble; other photos would fare no better. OutOfMemory.
        """
        if index in self.unusable:
            return None
        if index in self.photos:
            return self.photos[index]
        try:
            photo = self._read(index)
        except ImageError as error:
            log.warning("skipped %s", error)
        except PermissionError as error:
            log.warning("skipped %s: %s", error.filename, error.strerror)
        else:
            if photo.pixels.nbytes <= self.room:
                self.room -= photo.pixels.nbytes
                self.photos[index] = photo
            return photo
        self.unusable.add(index)
        return None

    def _read(self, index: int) -> Photo:
        path = self.files[index]
        x, notes = load_image(path)
        if notes and index not in self.noted:
            self.noted.add(index)
            log.info("%s: %s", path, "; ".join(notes))
        pixels = to_pixels(x)
        height, width = pixels.shape[:2]
        if min(height, width) < self.least_side:
            raise ImageError(f"{path}: {width} x {height} is smaller than the crop of {self.least_side}")
        return Photo(pixels, path.suffix.lower() in JPEG_SUFFIXES)
