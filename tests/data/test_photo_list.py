"""Lists of very many photos."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dhp_lab.data.photo_list import PhotoList

NAMES = ["a.png", "below/b c.jpg", "é.png", os.fsdecode(b"\xe9.png"), "line\nbreak.png"]


def test_paths_come_back_as_they_went_in(tmp_path):
    photos = PhotoList(tmp_path, NAMES)
    assert list(photos) == [tmp_path / name for name in NAMES] and len(photos) == 5
    moved = PhotoList.from_bytes("elsewhere", photos.to_bytes())
    assert list(moved) == [Path("elsewhere") / name for name in NAMES]
    with pytest.raises(IndexError):
        photos[5]


def test_an_empty_list_and_bytes_that_are_none():
    assert len(PhotoList("photos", [])) == 0
    for data in (b"", b"a.png"):
        with pytest.raises(ValueError, match="no list of photos"):
            PhotoList.from_bytes("photos", data)


def test_a_million_paths_take_little_memory():
    """Their characters, a byte each, and 8 bytes for each end."""
    count = 1_000_000
    photos = PhotoList("photos", (f"{i:07}.jpg" for i in range(count)))
    assert len(photos.data) + photos.ends.nbytes == count * (12 + 8)
    assert photos[count - 1] == Path("photos/0999999.jpg")
