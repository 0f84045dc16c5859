"""Pictures from streams: the same as from files, and no more is read than a picture can need."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.data import images
from dhp_lab.data.images import ImageError, load_image, read_image


def test_a_stream_is_read_as_its_file_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    from_file = load_image(tmp_path / "a.png")
    x, notes = read_image(io.BytesIO((tmp_path / "a.png").read_bytes()), "a pipe")
    assert torch.equal(x, from_file[0]) and notes == from_file[1] != []
    with pytest.raises(ImageError, match="^a pipe: 32 x 24 pixels, the limit is 0.0005 megapixels"):
        read_image(io.BytesIO((tmp_path / "a.png").read_bytes()), "a pipe", max_megapixels=0.0005)
    with pytest.raises(ImageError, match="^a pipe: not a picture that Pillow can read: it is empty$"):
        read_image(io.BytesIO(), "a pipe")


def test_of_an_endless_stream_no_more_is_read_than_a_picture_needs(monkeypatch):
    """A plain picture of the largest size still goes through: 16 bytes a pixel, and what describes it."""
    monkeypatch.setattr(images, "MAX_PROFILE", 500)
    stream = io.BytesIO(bytes(100_000))
    with pytest.raises(ImageError, match="^a pipe: more than 16500 bytes, which no picture of 0.001 mega"):
        read_image(stream, "a pipe", max_megapixels=0.001)
    assert stream.tell() == 16_501
    largest = Image.fromarray(np.random.default_rng(0).random((25, 40), np.float32))  # 4 bytes a pixel
    largest.save(stream := io.BytesIO(), format="tiff")
    assert read_image(io.BytesIO(stream.getvalue()), "a pipe", max_megapixels=0.001)[0].shape[2:] == (25, 40)


def test_a_fault_of_a_stream_names_it():
    class Broken(io.RawIOBase):
        def read(self, count=-1):
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error") as caught:
        read_image(Broken(), "a pipe")
    assert caught.value.filename == "a pipe"
