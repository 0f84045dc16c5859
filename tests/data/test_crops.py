"""Reproducible crops of photos: which ones, what of them, and how much memory they take."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.data.crops import PhotoCrops
from dhp_lab.data.images import ImageError, to_tensor


def random_pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Four photos, two of them JPEG; each has its number in its red channel."""
    paths = [tmp_path / name for name in ("0.png", "1.png", "2.jpg", "3.jpg")]
    for i, path in enumerate(paths):
        pixels = random_pixels(80 + 8 * i, 120, seed=i)
        pixels[..., 0] = 60 * i
        Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return paths


def numbers(batch: torch.Tensor) -> list[int]:
    """Which photo each crop of a batch comes from."""
    return (batch[:, 0].mean((1, 2)) * 255 / 60).round().int().tolist()


def test_a_batch_depends_on_seed_and_number_alone(files):
    crops, again, other = (PhotoCrops(files, 48, seed=seed) for seed in (7, 7, 8))
    first = [crops.batch(number, 3) for number in range(4)]
    assert all(torch.equal(again.batch(number, 3), first[number]) for number in (3, 0, 2, 1))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], other.batch(0, 3))
    assert first[0].shape == (3, 3, 48, 48) and first[0].dtype == torch.float32
    assert all(batch.min() >= 0 and batch.max() <= 1 for batch in first)


def test_batches_leave_the_global_random_states_alone(files):
    crops = PhotoCrops(files, 48, seed=0)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    crops.batch(0, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_every_photo_is_drawn_about_as_often(files):
    drawn = np.bincount(numbers(PhotoCrops(files, 32, seed=0).batch(0, 800)), minlength=4)
    assert np.abs(drawn - 200).max() < 5 * np.sqrt(800 * 0.25 * 0.75)


def test_unscaled_crops_are_pieces_of_the_photo_or_of_its_mirror_image(tmp_path):
    """A photo as large as the crop cannot be shrunk: what comes is the photo, each way round in about half
    the draws.
    """
    Image.fromarray(random_pixels(32, 32)).save(tmp_path / "a.png")
    batch = PhotoCrops([tmp_path / "a.png"], 32, seed=0).batch(0, 60)
    whole = to_tensor(random_pixels(32, 32))[0]
    straight = sum(torch.equal(crop, whole) for crop in batch)
    assert straight + sum(torch.equal(crop, whole.flip(-1)) for crop in batch) == 60 and 15 < straight < 45


@pytest.mark.parametrize("suffix, limit", [(".jpg", 2.0), (".png", 1.5)])
def test_photos_are_shrunk_by_no_more_than_their_kind_allows(tmp_path, suffix, limit):
    """A ramp of one grey level a pixel: the slope of a crop is the factor."""
    ramp = np.arange(200, dtype=np.uint8)[None, :, None].repeat(200, 0).repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / f"ramp{suffix}", **({"quality": 100} if suffix == ".jpg" else {}))
    batch = PhotoCrops([tmp_path / f"ramp{suffix}"], 64, seed=0).batch(0, 100) * 255
    slopes = (batch[..., 56] - batch[..., 8]).mean((1, 2)).abs() / 48
    assert slopes.min() > 0.97 and limit - 0.1 < slopes.max() < limit + 0.03
    assert 0.1 < (slopes < 1.02).float().mean() < 0.5, "three draws in ten keep the photo's own scale"


def test_an_epoch_takes_each_photo_once_in_an_order_of_its_own(files):
    crops = PhotoCrops(files, 32, seed=0)
    epochs = [tuple(numbers(crops.batch(number, 4))) for number in range(20)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs) and len(set(epochs)) > 10


def test_processes_share_a_batch(files):
    """Two batches of two are one of four, and no photo is read by two of four processes in an epoch."""
    crops, again = PhotoCrops(files, 48, seed=3), PhotoCrops(files, 48, seed=3)
    for step in (5, 0):
        shares = [again.batch(2 * step + rank, 2) for rank in range(2)]
        assert torch.equal(crops.batch(step, 4), torch.cat(shares))


@pytest.fixture
def unusable(files, tmp_path) -> list[Path]:
    """Two good photos, and after each of them one that is broken, too small, or gone."""
    (tmp_path / "broken.png").write_bytes(files[0].read_bytes()[:200])
    Image.fromarray(random_pixels(40, 300)).save(tmp_path / "low.png")
    return [files[0], tmp_path / "broken.png", tmp_path / "low.png", files[1], tmp_path / "gone.png"]


def test_unusable_photos_are_named_once_and_others_take_their_place(unusable, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "dhp_lab.data"):
        crops = PhotoCrops(unusable, 48, seed=0)
        batches = [crops.batch(number, 5) for number in range(6)]
    assert set(numbers(torch.cat(batches))) == {0, 1}
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    low = f"skipped {tmp_path / 'low.png'}: 300 x 40 is smaller than the crop of 48"
    assert low in caplog.messages and f"skipped {tmp_path / 'gone.png'}: no such file" in caplog.messages
    assert any(line.startswith(f"skipped {tmp_path / 'broken.png'}: ") for line in caplog.messages)
    again = PhotoCrops(unusable, 48, seed=0)  # as a resumed training: it has not seen the earlier batches
    assert torch.equal(again.batch(5, 5), batches[5])


def test_a_photo_without_permission_is_skipped_and_a_failing_disk_is_an_error(files, monkeypatch, caplog):
    read = Path.read_bytes

    def fail(number):
        def failing(path):
            if path == files[2]:
                raise OSError(number, os.strerror(number), str(path))
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", failing)

    fail(errno.EACCES)
    PhotoCrops(files, 48, seed=0).batch(0, 4)
    assert caplog.messages == [f"skipped {files[2]}: Permission denied"]
    fail(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        PhotoCrops(files, 48, seed=0).batch(0, 4)


def test_no_usable_photo_is_an_error(tmp_path, monkeypatch, caplog):
    names = [tmp_path / f"{number}.png" for number in range(5)]
    with pytest.raises(ImageError, match="none of the 5 files is a photo of at least 48 x 48 pixels"):
        PhotoCrops(names, 48, seed=0).batch(0, 1)
    monkeypatch.setattr("dhp_lab.data.crops.MOST_TRIES", 3)
    caplog.clear()
    with pytest.raises(ImageError, match=r"none of 3 files in a row is a photo .*, .*/\d\.png the last"):
        PhotoCrops(names, 48, seed=0).batch(0, 1)
    assert len(caplog.messages) == 3
    with pytest.raises(ImageError, match="none of the 0 files"):
        PhotoCrops([], 48, seed=0)


def test_photos_are_read_when_they_are_needed_and_kept_within_the_limit(files, monkeypatch):
    """Photos of 80 .. 104 x 120 pixels take 29 .. 37 kB: two fit into 70 kB, in the order of reading."""
    opened = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (opened.append(path.name), read(path))[1])
    crops = PhotoCrops(files, 32, seed=0, cache_gb=70e-6)
    assert not opened
    first = crops.batch(0, 4)
    assert sorted(opened) == sorted(path.name for path in files)
    kept = opened[:2]
    crops.batch(1, 4)
    assert sorted(opened[4:]) == sorted({path.name for path in files} - set(kept))
    assert sum(photo.pixels.nbytes for photo in crops.cache.photos.values()) <= 70e3
    assert torch.equal(PhotoCrops(files, 32, seed=0, cache_gb=0).batch(0, 4), first)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_photos(tmp_path):
    """Crops of 200 and of 1400 photos of 0.3 MB, 60 and 430 MB in all, in a process each, of which the cache
    may keep 20 MB: what the peaks differ by is the allocator's.
    """
    Image.fromarray(random_pixels(300, 340)).save(tmp_path / "photo.jpg")
    peaks = []
    for count in (200, 1400):
        (tmp_path / str(count)).mkdir()
        for number in range(count):
            os.link(tmp_path / "photo.jpg", tmp_path / str(count) / f"{number}.jpg")
        command = [sys.executable, "-c", PEAK, str(tmp_path / str(count))]
        peaks.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] - peaks[0] < 60, peaks


PEAK = """
import resource, sys
from pathlib import Path
from dhp_lab.data.crops import PhotoCrops
from dhp_lab.data.listing import list_names
from dhp_lab.data.photo_list import PhotoList
crops = PhotoCrops(PhotoList(sys.argv[1], list_names(sys.argv[1])), 64, seed=0, cache_gb=0.02)
for number in range(len(crops) // 8):
    crops.batch(number, 8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_held_out_photos_are_not_drawn(files):
    crops = PhotoCrops(files, 32, seed=0)
    held = crops.hold_out(3)
    assert (len(held), len(crops)) == (2, 2)
    assert set(numbers(held.batch(0, 50))) == {0, 3} and set(numbers(crops.batch(0, 50))) == {1, 2}


def test_a_single_photo_stays_in_both_sets(files):
    crops = PhotoCrops(files[:1], 32, seed=0)
    assert (len(crops.hold_out(8)), len(crops)) == (1, 1)
