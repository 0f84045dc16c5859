"""Reproducible crops of photos, and the thread that prefetches them."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.data.crops import PhotoCrops, prefetching
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


def test_broken_and_small_photos_are_skipped_with_their_names(files, tmp_path, caplog):
    (tmp_path / "broken.png").write_bytes(files[0].read_bytes()[:200])
    Image.fromarray(random_pixels(40, 300)).save(tmp_path / "low.png")
    with caplog.at_level(logging.WARNING, "dhp_lab.data.crops"):
        crops = PhotoCrops([files[0], tmp_path / "broken.png", tmp_path / "low.png", files[1]], 48, seed=0)
    assert len(crops) == 2 and [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert f"skipped {tmp_path / 'broken.png'}: " in caplog.messages[0]
    assert caplog.messages[1] == f"skipped {tmp_path / 'low.png'}: 300 x 40 is smaller than the crop of 48"


def test_no_usable_photo_is_an_error(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match="none of the 1 files is a photo of at least 48 x 48 pixels"):
        PhotoCrops([tmp_path / "broken.png"], 48, seed=0)
    with pytest.raises(ImageError, match="none of the 0 files"):
        PhotoCrops([], 48, seed=0)


def test_held_out_photos_are_not_drawn(files):
    crops = PhotoCrops(files, 32, seed=0)
    held = crops.hold_out(3)
    assert (len(held), len(crops)) == (2, 2)
    assert set(numbers(held.batch(0, 50))) == {0, 3} and set(numbers(crops.batch(0, 50))) == {1, 2}


def test_a_single_photo_stays_in_both_sets(files):
    crops = PhotoCrops(files[:1], 32, seed=0)
    assert (len(crops.hold_out(8)), len(crops)) == (1, 1)


def test_prefetching_takes_one_core_and_leaves_the_others_their_number(
    request: pytest.FixtureRequest,
) -> None:
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    before = 3
    torch.set_num_threads(before)
    with prefetching() as executor:
        assert executor.submit(torch.get_num_threads).result() == 1 and torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == torch.get_num_threads() == before
