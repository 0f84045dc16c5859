"""A list of very many photos: one run of bytes with the places of its ends, about 60 MB for a million."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

END = b"\0"  # the one byte that no path holds


class PhotoList(Sequence[Path]):
    """Photos of one folder, in a fixed order.

    Lists of Python's own take a quarter of a gigabyte for a million paths, and are copied whole into each
    process that reads ahead.

    Args:
        folder: the folder. names: paths inside it.
    """

    def __init__(self, folder: str | Path, names: Iterable[str]) -> None:
        self._set(Path(folder), b"".join(os.fsencode(name) + END for name in names))

    def _set(self, folder: Path, data: bytes) -> None:
        self.folder, self.data = folder, data
        self.ends = np.flatnonzero(np.frombuffer(data, np.uint8) == END[0])

    def __len__(self) -> int:
        """The number of photos."""
        return len(self.ends)

    def __getitem__(self, index: int) -> Path:
        """The path of photo ``index`` >= 0, the folder's included."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = int(self.ends[index - 1]) + 1 if index else 0
        return self.folder / os.fsdecode(self.data[start : int(self.ends[index])])

    def to_bytes(self) -> bytes:
        """The names alone, each ended by a zero byte, as of `find -print0`."""
        return self.data

    @classmethod
    def from_bytes(cls, folder: str | Path, data: bytes) -> PhotoList:
        """The inverse of ``to_bytes``, for a folder that may lie elsewhere by now.

        Raises:
            ValueError: the bytes are no such list.
        """
        if data[-1:] != END:
            raise ValueError(f"{len(data)} bytes that are no list of photos: they do not end in a zero byte")
        photos = cls.__new__(cls)
        photos._set(Path(folder), data)
        return photos
