"""Pictures from files of every kind and condition, and files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, PngImagePlugin

from dhp_lab.core.memory import OutOfMemory
from dhp_lab.data import colour, images
from dhp_lab.data.images import (
    ImageError,
    load_image,
    load_pictures,
    lossless_bytes,
    save_image,
    to_pixels,
    to_tensor,
)

RED, GREEN = (255, 0, 0), (0, 255, 0)


def random_pixels(height: int = 24, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def loaded(path: Path) -> tuple[np.ndarray, str]:
    """A file's pixels as uint8 and its notes as one text."""
    x, notes = load_image(path)
    assert x.dtype == torch.float32 and x.shape[:2] == (1, 3) and x.min() >= 0 and x.max() <= 1
    return to_pixels(x), "; ".join(notes)


# kinds of pictures


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".TIFF", ".webp"])
def test_plain_rgb_is_read_as_it_is_and_without_a_note(tmp_path, suffix):
    pixels, path = random_pixels(), tmp_path / f"photo{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    x, notes = load_image(path)
    assert notes == [] and x.shape == (1, 3, 24, 32)
    assert torch.equal(x[0], torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)


@pytest.mark.parametrize("path_type", [str, Path])
def test_a_path_may_be_text(tmp_path, path_type):
    path = tmp_path / "a.png"
    Image.fromarray(random_pixels()).save(path)
    assert np.array_equal(loaded(path_type(path))[0], random_pixels())


def test_grey_becomes_three_equal_channels(tmp_path):
    grey = random_pixels()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    pixels, notes = loaded(tmp_path / "grey.png")
    assert (
        np.array_equal(pixels, np.repeat(grey[..., None], 3, 2))
        and notes == "grey picture (mode L) coded as RGB"
    )


def test_black_and_white(tmp_path):
    bits = random_pixels()[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "fax.png")
    pixels, notes = loaded(tmp_path / "fax.png")
    assert np.array_equal(pixels[..., 0], 255 * bits) and notes == "grey picture (mode 1) coded as RGB"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    wide = np.random.default_rng(0).integers(0, 65536, (24, 32), dtype=np.uint16)
    Image.fromarray(wide).save(tmp_path / f"deep{suffix}")
    pixels, notes = loaded(tmp_path / f"deep{suffix}")
    assert np.abs(pixels[..., 0] - wide / 257).max() <= 0.5 + 1e-9 and "grey picture (mode I;16)" in notes


def test_floats_up_to_one_fill_the_range(tmp_path):
    values = np.random.default_rng(0).random((24, 32), dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "float.tif")
    pixels, notes = loaded(tmp_path / "float.tif")
    assert np.abs(pixels[..., 0] - 255 * values).max() <= 0.5 + 1e-4 and "mode F" in notes


def test_transparency_is_drawn_on_white(tmp_path):
    pixels = random_pixels(channels=4)
    pixels[:8, :, 3], pixels[8:16, :, 3], pixels[16:, :, 3] = 0, 255, 128
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    found, notes = loaded(tmp_path / "clear.png")
    share = pixels[..., 3:] / 255
    assert np.abs(found - (share * pixels[..., :3] + (1 - share) * 255)).max() <= 1
    assert np.all(found[:8] == 255) and np.array_equal(found[8:16], pixels[8:16, :, :3])
    assert notes == "transparency dropped: drawn on white"


def test_grey_with_transparency(tmp_path):
    Image.fromarray(random_pixels(channels=2)).save(tmp_path / "la.png")
    notes = loaded(tmp_path / "la.png")[1]
    assert "grey picture (mode LA)" in notes and "drawn on white" in notes


@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_is_looked_up(tmp_path, transparent):
    picture = Image.new("P", (32, 24), 1)
    picture.putpalette([*RED, *GREEN])
    picture.paste(0, (0, 0, 16, 24))
    picture.save(tmp_path / "palette.png", **({"transparency": 0} if transparent else {}))
    pixels, notes = loaded(tmp_path / "palette.png")
    assert np.all(pixels[:, :16] == ((255, 255, 255) if transparent else RED)) and np.all(
        pixels[:, 16:] == GREEN
    )
    assert "mode P converted to RGB" in notes and ("drawn on white" in notes) == transparent


def test_cmyk(tmp_path):
    Image.new("CMYK", (32, 24), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    pixels, notes = loaded(tmp_path / "print.jpg")
    assert np.abs(pixels.astype(int) - RED).max() <= 3 and notes == "mode CMYK converted to RGB"


def test_the_first_of_several_frames_is_taken(tmp_path):
    frames = [Image.fromarray(random_pixels(seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "film.tif", save_all=True, append_images=frames[1:])
    pixels, notes = loaded(tmp_path / "film.tif")
    assert np.array_equal(pixels, random_pixels(seed=0)) and notes == "first of 3 frames taken"


@pytest.mark.parametrize(
    "orientation, turned",
    [
        (1, lambda p: p),
        (2, lambda p: p[:, ::-1]),
        (3, lambda p: p[::-1, ::-1]),
        (4, lambda p: p[::-1]),
        (5, lambda p: p.transpose(1, 0, 2)),
        (6, lambda p: np.rot90(p, -1)),
        (7, lambda p: p[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, turned):
    exif, pixels = Image.Exif(), random_pixels()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(loaded(tmp_path / "turned.png")[0], turned(pixels))


@pytest.mark.parametrize("height, width", [(16, 16), (16, 300)])
def test_the_smallest_pictures_are_read(tmp_path, height, width):
    Image.fromarray(random_pixels(height, width)).save(tmp_path / "small.png")
    assert loaded(tmp_path / "small.png")[0].shape == (height, width, 3)


# what cannot be read


@pytest.mark.parametrize("height, width", [(15, 300), (300, 15), (1, 1)])
def test_a_side_below_sixteen_is_refused(tmp_path, height, width):
    Image.fromarray(random_pixels(height, width)).save(tmp_path / "tiny.png")
    with pytest.raises(
        ImageError, match=f"tiny.png: {width} x {height} pixels; both sides must be at least 16"
    ):
        load_image(tmp_path / "tiny.png")


def test_a_text_named_like_a_picture_is_refused(tmp_path):
    (tmp_path / "letter.png").write_text("Dear reader, " * 50)
    with pytest.raises(ImageError, match="letter.png: not a picture that Pillow can read"):
        load_image(tmp_path / "letter.png")


@pytest.mark.parametrize(
    "name, message",
    [
        ("missing.png", "no such file"),
        ("folder", "cannot be read .*irectory"),
        ("empty.png", "not a picture"),
    ],
)
def test_nothing_to_read(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=f"{name}: {message}"):
        load_image(tmp_path / name)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif", ".tif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_was_cut_off_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(random_pixels(96, 96)).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError, match=f"cut{suffix}: ") as caught:
        load_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what it found
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif", ".tif", ".bmp"])
def test_damage_is_read_or_refused_and_nothing_else(tmp_path, suffix):
    path, random = tmp_path / f"damaged{suffix}", np.random.default_rng(0)
    Image.fromarray(random_pixels()).save(path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        damaged = whole.copy()
        damaged[random.integers(0, min(len(whole), 400), 3)] = random.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            assert load_image(path)[0].shape[:2] == (1, 3)
        except ImageError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("limit, is_read", [(0.009215, False), (0.009216, True), (1.0, True)])
def test_the_limit_of_megapixels_is_the_callers(tmp_path, monkeypatch, limit, is_read):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own, which it calls an attack
    path = tmp_path / "large.png"
    Image.fromarray(random_pixels(96, 96)).save(path)
    if is_read:
        assert np.array_equal(to_pixels(load_image(path, max_megapixels=limit)[0]), random_pixels(96, 96))
    else:
        with pytest.raises(
            ImageError, match="large.png: 96 x 96 pixels, the limit is 0.009215 .* max_megapixels 1$"
        ):
            load_image(path, max_megapixels=limit)
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize("compressed", [False, True])
def test_a_long_text_does_not_matter(tmp_path, compressed):
    text = PngImagePlugin.PngInfo()
    for _ in range(3):
        text.add_itxt("history", "step; " * 12_000_000, zip=compressed)
        text.add_text("workflow", "node; " * 1000, zip=compressed)
    Image.fromarray(random_pixels()).save(tmp_path / "long.png", pnginfo=text, compress_level=1)
    pixels, notes = loaded(tmp_path / "long.png")
    assert np.array_equal(pixels, random_pixels()) and notes == ""


def test_an_orientation_in_xmp_is_kept(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta xmlns:tiff="t" tiff:Orientation="3"></x:xmpmeta>')
    text.add_text("Comment", "not this one")
    Image.fromarray(random_pixels()).save(tmp_path / "turned.png", pnginfo=text)
    assert np.array_equal(loaded(tmp_path / "turned.png")[0], random_pixels()[::-1, ::-1])


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError("out of memory error"), RuntimeError("Out of memory")]
)
@pytest.mark.parametrize("where", ["load", "to_tensor"])
def test_a_shortage_of_memory_is_no_fault_of_the_picture(tmp_path, monkeypatch, error, where):
    def fail(*_, **__):
        raise error

    Image.fromarray(random_pixels()).save(tmp_path / "sound.png")
    if where == "load":
        monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    elif isinstance(error, OSError):
        pytest.skip("torch raises no OSError")
    else:
        monkeypatch.setattr(images, "to_tensor", fail)
    with pytest.raises(OutOfMemory, match="sound.png: not enough memory to read this picture"):
        load_image(tmp_path / "sound.png")
    with pytest.raises(OutOfMemory):
        list(load_pictures(tmp_path, [], str))


def test_a_fault_of_the_disk_is_no_fault_of_the_picture(tmp_path, monkeypatch):
    Image.fromarray(random_pixels()).save(tmp_path / "sound.png")

    def fail(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        list(load_pictures(tmp_path, [], str))
    assert caught.value.filename == str(tmp_path / "sound.png")


def test_a_fault_of_ours_is_no_fault_of_the_picture(tmp_path, monkeypatch):
    Image.fromarray(random_pixels()).save(tmp_path / "sound.png")
    monkeypatch.setattr(colour, "to_rgb", lambda decoded: decoded.no_such_name)
    with pytest.raises(AttributeError, match="no_such_name"):
        load_image(tmp_path / "sound.png")


# writing


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".PNG"])
def test_saving_is_lossless(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    save_image(to_tensor(random_pixels()), path)
    assert np.array_equal(loaded(path)[0], random_pixels()) and os.listdir(tmp_path) == [path.name]
    assert lossless_bytes(to_tensor(random_pixels()), suffix.lower()) == path.read_bytes()


def test_saving_rounds_to_the_nearest_level_and_clamps(tmp_path):
    levels = torch.tensor([-0.1, 0.0, 0.49 / 255, 0.51 / 255, 100.4 / 255, 1.0, 1.7])
    save_image(levels.view(1, 7, 1).expand(3, 7, 20).repeat(1, 3, 1), tmp_path / "out.png")
    assert loaded(tmp_path / "out.png")[0][:7, 0, 0].tolist() == [0, 0, 0, 1, 100, 255, 255]


def test_pixels_and_tensors_are_inverse():
    every_level = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    assert np.array_equal(to_pixels(to_tensor(every_level)), every_level)


@pytest.mark.parametrize("name", ["out.jpg", "out.gif", "out"])
def test_a_lossy_or_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(ImageError, match=f"{name}: cannot write .*use one of .png"):
        save_image(torch.zeros(1, 3, 16, 16), tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("there_before", [False, True])
def test_a_disk_that_fails_leaves_what_was_there(tmp_path, monkeypatch, call, there_before):
    path = tmp_path / "out.png"
    if there_before:
        save_image(to_tensor(random_pixels(seed=1)), path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        save_image(to_tensor(random_pixels()), path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
