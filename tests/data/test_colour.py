"""Colours and levels, against what the formats' definitions say they mean."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from picture_files import SRGB_CURVE, cmyk_profile, png, power, profile, rgb_profile, tiff
from PIL import Image, ImageCms

from dhp_lab.data.images import ImageError, from_pil, load_image, to_pixels

# primaries as XYZ under D50, the columns of the ICC's matrices (Apple's Display P3, Adobe RGB (1998), sRGB)
DISPLAY_P3 = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def decoded(values: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1: stored values in [0, 1] to linear light."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encoded(linear: np.ndarray) -> np.ndarray:
    """The inverse, clipped to [0, 1]."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def loaded(path: Path) -> tuple[np.ndarray, str]:
    x, notes = load_image(path)
    return to_pixels(x).astype(int), "; ".join(notes)


def patches() -> np.ndarray:
    """Colours that are inside sRGB after any of the conversions here, as (16, 64, 3) patches of a pixel."""
    colours = np.random.default_rng(0).integers(90, 160, (16, 64, 3))
    return colours.astype(np.uint8)


# profiles


@pytest.mark.parametrize("suffix, options", [(".png", {}), (".tif", {}), (".webp", {"lossless": True})])
@pytest.mark.parametrize(
    "matrix, curve, linear",
    [
        (DISPLAY_P3, SRGB_CURVE, decoded),
        (ADOBE_RGB, power(563 / 256), lambda values: values ** (563 / 256)),
    ],
)
def test_colours_are_converted_by_the_profile(tmp_path, suffix, options, matrix, curve, linear):
    path, pixels = tmp_path / f"photo{suffix}", patches()
    Image.fromarray(pixels).save(path, icc_profile=rgb_profile(matrix, curve), **options)
    expected = 255 * encoded(linear(pixels / 255) @ matrix.T @ np.linalg.inv(SRGB).T)
    found, notes = loaded(path)
    assert np.abs(found - expected).max() <= 1.01 and np.abs(found - pixels).max() > 5
    assert notes == "colours converted from test profile to sRGB"


def test_display_p3_by_its_known_values(tmp_path):
    """A red of 203, 65, 53 in Display P3 is one of 220, 49, 42 in sRGB."""
    Image.new("RGB", (16, 16), (203, 65, 53)).save(
        tmp_path / "p3.png", icc_profile=rgb_profile(DISPLAY_P3, SRGB_CURVE)
    )
    assert np.abs(loaded(tmp_path / "p3.png")[0] - (220, 49, 42)).max() <= 2


@pytest.mark.parametrize("made_by", ["Pillow", "hand"])
def test_srgb_itself_changes_nothing_and_needs_no_note(tmp_path, made_by):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = srgb if made_by == "Pillow" else rgb_profile(SRGB, SRGB_CURVE)
    Image.fromarray(pixels).save(tmp_path / "srgb.png", icc_profile=data)
    found, notes = loaded(tmp_path / "srgb.png")
    assert np.array_equal(found, pixels) and notes == ""


@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_grey_by_its_profile(tmp_path, gamma):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = profile(b"GRAY", {b"kTRC": power(gamma)})
    Image.fromarray(grey).save(tmp_path / "grey.png", icc_profile=data)
    found, notes = loaded(tmp_path / "grey.png")
    expected = 255 * encoded((grey / 255) ** gamma)
    assert np.abs(found - expected[..., None]).max() <= 1.01
    assert "coded as RGB" in notes and "converted from test profile" in notes


def test_transparent_and_palette_pictures_are_converted_before_they_are_drawn_on_white(tmp_path):
    data, colour = rgb_profile(DISPLAY_P3, SRGB_CURVE), (120, 100, 90)
    Image.new("RGB", (16, 16), colour).save(tmp_path / "plain.png", icc_profile=data)
    plain = loaded(tmp_path / "plain.png")[0][0, 0]
    Image.new("RGBA", (16, 16), (*colour, 128)).save(tmp_path / "half.png", icc_profile=data)
    found, notes = loaded(tmp_path / "half.png")
    assert np.abs(found[0, 0] - (plain * 128 + 255 * 127) / 255).max() <= 1
    assert "converted from" in notes and "drawn on white" in notes
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, *colour])
    palette.save(tmp_path / "palette.png", icc_profile=data)
    assert np.array_equal(loaded(tmp_path / "palette.png")[0][0, 0], plain)


def test_ink_by_its_profile(tmp_path):
    inks = (64, 128, 32, 96)
    Image.new("CMYK", (16, 16), inks).save(tmp_path / "print.tif", icc_profile=cmyk_profile())
    found, notes = loaded(tmp_path / "print.tif")
    lightness = 100 * (1 - sum(inks) / 4 / 255)
    luminance = ((lightness + 16) / 116) ** 3  # CIE 1976, above 8
    assert np.abs(found - 255 * encoded(np.array(luminance))).max() <= 3
    assert "mode CMYK converted to RGB" in notes and "colours converted from" in notes


@pytest.mark.parametrize(
    "data",
    [b"no profile", bytes(200), profile(b"GRAY", {b"kTRC": power(1.0)}), rgb_profile(SRGB, SRGB_CURVE)[:300]],
)
def test_a_damaged_or_foreign_profile_is_a_note(tmp_path, data):
    Image.fromarray(patches()).save(tmp_path / "photo.png", icc_profile=data)
    found, notes = loaded(tmp_path / "photo.png")
    assert np.array_equal(found, patches())
    assert notes == "the colour profile is damaged or of another kind of picture: sRGB assumed"


def test_a_profile_whose_compression_is_damaged_is_a_note(tmp_path):
    Image.fromarray(patches()).save(tmp_path / "photo.png", icc_profile=rgb_profile(DISPLAY_P3, SRGB_CURVE))
    data = bytearray((tmp_path / "photo.png").read_bytes())
    start = data.index(b"iCCP")
    (length,) = struct.unpack_from(">I", data, start - 4)
    data[start + 40 : start + 44] = b"\xff\xff\xff\xff"
    struct.pack_into(">I", data, start + 4 + length, zlib.crc32(data[start : start + 4 + length]))
    (tmp_path / "photo.png").write_bytes(data)
    found, notes = loaded(tmp_path / "photo.png")
    assert np.array_equal(found, patches()) and "profile is damaged" in notes


def test_damage_in_a_profile_never_stops_the_reading(tmp_path):
    random, whole = np.random.default_rng(0), np.frombuffer(rgb_profile(DISPLAY_P3, SRGB_CURVE), np.uint8)
    for _ in range(100):
        damaged = whole.copy()
        damaged[random.integers(0, len(damaged), 4)] = random.integers(0, 256, 4)
        Image.fromarray(patches()).save(tmp_path / "photo.png", icc_profile=damaged.tobytes())
        load_image(tmp_path / "photo.png")


def test_a_picture_of_pillow_is_converted_too(tmp_path):
    Image.fromarray(patches()).save(tmp_path / "p3.png", icc_profile=rgb_profile(DISPLAY_P3, SRGB_CURVE))
    with Image.open(tmp_path / "p3.png") as picture:
        assert np.array_equal(to_pixels(from_pil(picture)), loaded(tmp_path / "p3.png")[0])


@pytest.mark.parametrize("gamma, changes", [(1.0, True), (1 / 1.8, True), (1 / 2.2, False)])
def test_the_gamma_of_a_png(tmp_path, gamma, changes):
    """PNG third edition, section 12.1: stored = linear ** gamma."""
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    file = png(
        grey[..., None].repeat(3, 2).astype(np.uint8), 2, (b"gAMA", struct.pack(">I", round(gamma * 1e5)))
    )
    (tmp_path / "gamma.png").write_bytes(file)
    found, notes = loaded(tmp_path / "gamma.png")
    expected = 255 * encoded((grey / 255) ** (1 / gamma)) if changes else grey
    assert np.abs(found - expected[..., None]).max() <= 0.51 and ("gamma" in notes) == changes


# more than 8 bits


def wide(channels: int, top: int = 65535) -> np.ndarray:
    values = np.random.default_rng(2).integers(0, top + 1, (20, 24, channels), dtype=np.uint16)
    values[0, 0], values[0, 1] = 0, top
    return values


def rounds_to(found: np.ndarray, values: np.ndarray, white: float) -> bool:
    """Whether 8-bit levels are the nearest ones to values of which the largest is white."""
    return np.abs(found - np.clip(255 * (values / white), 0, 255)).max() <= 0.5 + 1e-6


def test_sixteen_bit_colour_of_png_is_rounded(tmp_path):
    (tmp_path / "deep.png").write_bytes(png(wide(3), 2))
    found, notes = loaded(tmp_path / "deep.png")
    assert rounds_to(found, wide(3), 65535) and notes == "16 bits a channel rounded to 8"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_of_tiff_are_rounded(tmp_path, order, zipped, channels):
    (tmp_path / "deep.tif").write_bytes(tiff(wide(channels), order=order, zipped=zipped))
    assert rounds_to(loaded(tmp_path / "deep.tif")[0], wide(channels), 65535)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("channels", [1, 3])
def test_fewer_bits_in_a_file_of_sixteen_are_not_dark(tmp_path, bits, channels):
    values = wide(channels, 2**bits - 1)
    (tmp_path / "camera.png").write_bytes(png(values, 0 if channels == 1 else 2))
    (tmp_path / "camera.tif").write_bytes(tiff(values))
    for name in ("camera.png", "camera.tif"):
        found, notes = loaded(tmp_path / name)
        assert rounds_to(found, values, 2**bits - 1)
        assert f"values end at {2**bits - 1}: taken as {bits} bits" in notes


def test_white_is_what_the_tiff_says(tmp_path):
    values = wide(1, 9000)
    (tmp_path / "camera.tif").write_bytes(tiff(values, tags={281: 16383}))
    found, notes = loaded(tmp_path / "camera.tif")
    assert rounds_to(found, values, 16383) and "white is 16383, as the file says" in notes
    (tmp_path / "wrong.tif").write_bytes(tiff(wide(1), tags={281: 255}))
    assert rounds_to(loaded(tmp_path / "wrong.tif")[0], wide(1), 65535)


def test_a_dark_picture_stays_dark_with_a_note(tmp_path):
    (tmp_path / "night.png").write_bytes(png(wide(1, 12000), 0))
    found, notes = loaded(tmp_path / "night.png")
    assert rounds_to(found, wide(1, 12000), 65535) and "dark: values end at 12000 of 65535" in notes
    (tmp_path / "black.png").write_bytes(png(np.zeros((16, 16, 1), np.uint16), 0))
    found, notes = loaded(tmp_path / "black.png")
    assert found.max() == 0 and notes == "grey picture (mode I;16) coded as RGB"


@pytest.mark.parametrize("dtype, top", [(np.int32, 2**31 - 1), (np.uint32, 2**32 - 1), (np.int32, 10**8)])
def test_thirty_two_bits_are_not_clipped(tmp_path, dtype, top):
    values = np.linspace(0, top, 20 * 24).astype(dtype).reshape(20, 24, 1)
    (tmp_path / "deep.tif").write_bytes(tiff(values))
    found, notes = loaded(tmp_path / "deep.tif")
    assert rounds_to(found, values, top) and f"values up to {top}: the largest is white" in notes


def test_negative_values_are_black_with_a_note(tmp_path):
    values = np.linspace(-1, 1, 20 * 24, dtype=np.float32).reshape(20, 24, 1)
    (tmp_path / "signed.tif").write_bytes(tiff(values))
    found, notes = loaded(tmp_path / "signed.tif")
    assert rounds_to(found, values, 1) and "values from -1 to 0 are black" in notes


def test_floats_above_one_are_scaled_with_a_note(tmp_path):
    values = np.linspace(0, 3.5, 20 * 24, dtype=np.float32).reshape(20, 24, 1)
    (tmp_path / "bright.tif").write_bytes(tiff(values))
    found, notes = loaded(tmp_path / "bright.tif")
    assert rounds_to(found, values, 3.5) and "values up to 3.5: the largest is white" in notes


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path, value):
    values = np.zeros((20, 24, 1), np.float32)
    values[3, 4] = value
    (tmp_path / "broken.tif").write_bytes(tiff(values))
    with pytest.raises(ImageError, match="broken.tif: 1 of 480 values are not finite numbers"):
        load_image(tmp_path / "broken.tif")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_colour_of_sixteen_bits_is_drawn_on_white(tmp_path, channels):
    values = wide(channels)
    key = values[5, 5]
    values[6] = key
    values[7] = key + 1 if key[0] < 65535 else key - 1  # the same upper byte is not enough
    chunk = (b"tRNS", struct.pack(f">{channels}H", *key.tolist()))
    (tmp_path / "key.png").write_bytes(png(values, 0 if channels == 1 else 2, chunk))
    found, notes = loaded(tmp_path / "key.png")
    clear = (values == key).all(-1)
    assert clear.sum() >= 25 and np.all(found[clear] == 255)
    assert rounds_to(found[~clear], values[~clear], 65535) and "drawn on white" in notes


def test_sixteen_bit_colour_with_alpha(tmp_path):
    values = wide(4)
    (tmp_path / "alpha.png").write_bytes(png(values, 6))
    (tmp_path / "alpha.tif").write_bytes(tiff(values))
    share = values[..., 3:] / 65535
    expected = 255 * (share * values[..., :3] / 65535 + 1 - share)
    for name in ("alpha.png", "alpha.tif"):
        assert np.abs(loaded(tmp_path / name)[0] - expected).max() <= 1.5


def test_grey_with_alpha_of_sixteen_bits_says_that_it_is_cut(tmp_path):
    (tmp_path / "la.png").write_bytes(png(wide(2), 4))
    found, notes = loaded(tmp_path / "la.png")
    share = wide(2)[..., 1:] / 65535
    assert np.abs(found - 255 * (share * wide(2)[..., :1] / 65535 + 1 - share)).max() <= 2.5
    assert "16 bits a channel cut to 8" in notes


def test_an_orientation_turns_both_bytes(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = png(wide(3), 2, (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    (tmp_path / "turned.png").write_bytes(file)
    assert rounds_to(loaded(tmp_path / "turned.png")[0], np.rot90(wide(3), -1), 65535)


def test_a_profile_of_sixteen_bit_colour(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(patches()).save(stream, "PNG", icc_profile=rgb_profile(DISPLAY_P3, SRGB_CURVE))
    (tmp_path / "eight.png").write_bytes(stream.getvalue())
    data = zlib.compress(rgb_profile(DISPLAY_P3, SRGB_CURVE))
    file = png(patches().astype(np.uint16) * 257, 2, (b"iCCP", b"p3\0\0" + data))
    (tmp_path / "sixteen.png").write_bytes(file)
    assert np.array_equal(loaded(tmp_path / "sixteen.png")[0], loaded(tmp_path / "eight.png")[0])
