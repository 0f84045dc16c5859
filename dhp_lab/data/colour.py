"""Colours and levels of a Pillow picture as they were meant: 8-bit sRGB, whatever the file holds.

    levels        16 and 32 bits, floats: scaled to 8 bits, rounded
    colours       an ICC profile, a PNG's gamma: converted to sRGB (IEC 61966-2-1)
    transparency  drawn on white, after the colours, because white is sRGB's

Pillow reads the upper bytes alone of 16-bit colour. Its decoders name the byte order of what they unpack
(`RGB;16B`), so that unpacking once more in the opposite order gives the lower bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from PIL import Image, ImageCms, ImageOps

GREY_MODES = ("1", "L", "I", "F", "LA", "I;16", "I;16B", "I;16L")
WIDE_COLOUR = re.compile(r"RGBA?;16[LBN]")  # Pillow's raw modes of which it keeps the upper bytes
CUT_COLOUR = re.compile(r"(LA|RGBX|RGBa|CMYK);16[LBN]")  # likewise, and they cannot be unpacked twice
OPPOSITE = {"L": "B", "B": "L", "N": "B" if np.little_endian else "L"}
WHITE = 65535  # of 16 bits
NARROW = (8, 10, 12)  # bits of cameras and scanners whose levels are stored in 16 as they are
MAX_SAMPLE_VALUE, SAMPLE_FORMAT, UNSIGNED = 281, 339, 1  # TIFF 6.0, sections 8 and 19
PROFILE_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
AS_SRGB = 2  # of 255: a profile that moves no colour by more is sRGB, as rounded by its maker
INVERSE_GAMMA = 2.2  # about that of sRGB; a PNG writes 1 / 2.2


class PixelError(ValueError):
    """Pixels that are no picture; the message says why."""


@dataclass(frozen=True)
class Decoded:
    """A picture whose pixels are in memory, upright.

    Attributes:
        image: in any of Pillow's modes.
        lower: the lower bytes of 16-bit colours, of which ``image`` has the upper ones.
        white: the largest value of a TIFF, as its tag MaxSampleValue says.
        unsigned: whether 32-bit whole numbers have no sign; Pillow takes all of them for signed ones.
        upper_only: whether the lower bytes of 16-bit colours are lost.
    """

    image: Image.Image
    lower: Image.Image | None = None
    white: int | None = None
    unsigned: bool = False
    upper_only: bool = False


def decode(image: Image.Image, again: Image.Image | None = None) -> Decoded:
    """Load a picture that Pillow has opened.

    Args:
        image: a lazy one, or one in memory.
        again: the same file, opened once more; without it 16-bit colours lose their lower bytes.

    Raises:
        Exception: whatever Pillow's decoders raise at damaged files.
    """
    raw_modes = _raw_modes(image)
    is_wide = bool(raw_modes) and all(WIDE_COLOUR.fullmatch(mode) for mode in raw_modes)
    lower = None
    if again is not None and is_wide:
        again.tile = [_swapped(tile) for tile in again.tile]
        lower = ImageOps.exif_transpose(again)
    tags = getattr(image, "tag_v2", {})
    return Decoded(
        ImageOps.exif_transpose(image),
        lower,
        white=_white_level(tags),
        unsigned=UNSIGNED in np.atleast_1d(tags.get(SAMPLE_FORMAT, UNSIGNED)) and bool(tags),
        upper_only=any(CUT_COLOUR.fullmatch(mode) for mode in raw_modes) or (is_wide and lower is None),
    )


def to_rgb(decoded: Decoded) -> tuple[Image.Image, list[str]]:
    """Convert a picture of any mode to 8-bit sRGB on white.

    Returns:
        The picture in mode RGB, and what was converted, one sentence each; none for plain 8-bit sRGB.

    Raises:
        PixelError: values that are not finite numbers.
    """
    image, notes = decoded.image, []
    if image.mode in GREY_MODES:
        notes.append(f"grey picture (mode {image.mode}) coded as RGB")
    elif image.mode not in ("RGB", "RGBA"):
        notes.append(f"mode {image.mode} converted to RGB")
    if decoded.upper_only:
        notes.append("16 bits a channel cut to 8")
    colours, alpha = _eight_bits(decoded, notes)
    rgb = _as_srgb(colours, image.info, notes)
    if alpha is None:
        return rgb, notes
    notes.append("transparency dropped: drawn on white")
    rgb.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB"), notes


def _raw_modes(image: Image.Image) -> list[str]:
    """How Pillow unpacks each tile of a picture that is not yet loaded; "" where it does not say."""
    arguments = [tile[3] for tile in getattr(image, "tile", ())]
    first = [words[0] if isinstance(words, tuple) and words else words for words in arguments]
    return [word if isinstance(word, str) else "" for word in first]


def _swapped(tile: tuple) -> tuple:
    """A tile whose raw mode has the opposite byte order."""
    words = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
    raw_mode = words[0][:-1] + OPPOSITE[words[0][-1]]
    return tile._replace(args=(raw_mode, *words[1:]))


def _white_level(tags: Mapping) -> int | None:
    """A TIFF's largest value, where a tag names one."""
    values = np.atleast_1d(tags.get(MAX_SAMPLE_VALUE, 0))
    return int(values.max()) or None


# levels


def _eight_bits(decoded: Decoded, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """The colours in mode L, RGB or CMYK, and the alpha channel in mode L, if there is one."""
    image = decoded.image
    if image.mode == "F" or image.mode.startswith("I"):
        values = _numbers(decoded)[..., None]  # (H, W, 1)
        alpha = _keyed(values, image.info)
    elif decoded.lower is not None:
        values = np.asarray(image).astype(np.uint16) << 8 | np.asarray(decoded.lower)  # (H, W, 3 or 4)
        notes.append("16 bits a channel rounded to 8")
        has_alpha = values.shape[2] == 4
        alpha = Image.fromarray(_rounded(values[..., 3], WHITE)) if has_alpha else _keyed(values, image.info)
        values = values[..., :3]
    else:
        return _parts(image)
    pixels = _rounded(values, _white_of(values, decoded.white, notes))
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]), alpha


def _parts(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """As ``_eight_bits``, of a picture that has 8 bits or fewer."""
    if image.has_transparency_data:
        image = image if image.mode == "LA" else image.convert("RGBA")
        colours = image.convert("L" if image.mode == "LA" else "RGB")
        return colours, image.getchannel("A")
    if image.mode == "1":
        return image.convert("L"), None
    return (image if image.mode in PROFILE_COLOURS else image.convert("RGB")), None


def _numbers(decoded: Decoded) -> np.ndarray:
    """Values of a grey picture of 16 or 32 bits, (H, W).

    Raises:
        PixelError: values that are not finite.
    """
    values = np.asarray(decoded.image)
    if values.dtype == np.int32 and decoded.unsigned:
        values = values.view(np.uint32)
    wrong = values.size - int(np.isfinite(values).sum())
    if wrong:
        raise PixelError(f"{wrong} of {values.size} values are not finite numbers")
    return values


def _white_of(values: np.ndarray, declared: int | None, notes: list[str]) -> float:
    """The value of white in levels of more than 8 bits, with a note on anything but plain 16 bits.

    Args:
        declared: by the file, or None; not believed if there are larger values.
    """
    low, high = values.min().item(), values.max().item()
    if low < 0:
        notes.append(f"values from {low:g} to 0 are black")
    if declared is not None and declared >= high:
        notes += [f"white is {declared}, as the file says"] if declared != WHITE else []
        return declared
    if values.dtype.kind == "f":
        notes += [f"values up to {high:g}: the largest is white"] if high > 1 else []
        return max(1.0, high)
    if high > WHITE:
        notes.append(f"values up to {high}: the largest is white")
        return high
    for bits in NARROW:
        if 0 < high < 2**bits:
            notes.append(f"values end at {high}: taken as {bits} bits")
            return 2**bits - 1
    if 0 < high <= WHITE // 4:
        notes.append(f"dark: values end at {high} of {WHITE}")
    return WHITE


def _rounded(values: np.ndarray, white: float) -> np.ndarray:
    return np.rint(values.astype(np.float64) * (255 / white)).clip(0, 255).astype(np.uint8)


def _keyed(wide: np.ndarray, info: dict) -> Image.Image | None:
    """The alpha channel of a PNG in which one colour is transparent, its 16-bit values being (H, W, C)."""
    colour = info.get("transparency")
    if colour is None:
        return None
    return Image.fromarray(np.where((wide == colour).all(-1), 0, 255).astype(np.uint8))


# colours


def _as_srgb(colours: Image.Image, info: dict, notes: list[str]) -> Image.Image:
    """Colours in mode L, RGB or CMYK as sRGB, by the file's profile or gamma."""
    if "icc_profile" in info:
        try:
            transform, name = _way_to_srgb(info["icc_profile"] or b"", colours.mode)
        except (ImageCms.PyCMSError, OSError, UnicodeDecodeError):
            notes.append("the colour profile is damaged or of another kind of picture: sRGB assumed")
            return colours.convert("RGB")
        if transform is None:
            return colours.convert("RGB")
        notes.append(f"colours converted from {name} to sRGB")
        return transform(colours)
    rgb = colours.convert("RGB")
    gamma = info.get("gamma")
    if not gamma or "srgb" in info or abs(gamma * INVERSE_GAMMA - 1) < 0.05:
        return rgb
    notes.append(f"colours converted from a gamma of {gamma:.3g} to sRGB")
    linear = np.linspace(0, 1, 256) ** (1 / gamma)
    return rgb.point(3 * np.rint(255 * _srgb_curve(linear)).astype(int).tolist())


@lru_cache(maxsize=8)
def _way_to_srgb(profile: bytes, mode: str) -> tuple[Callable[[Image.Image], Image.Image] | None, str]:
    """The conversion from a profile to sRGB, None if it is sRGB itself; and the profile's name.

    Raises:
        ImageCms.PyCMSError, OSError, UnicodeDecodeError: it is damaged, or not of pictures in this mode.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if space != PROFILE_COLOURS[mode]:
        raise ImageCms.PyCMSError(f"a profile of {space} in a picture of {mode}")
    name = " ".join(ImageCms.getProfileDescription(source).split()) or "an unnamed profile"
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if mode == "L":
        flags |= ImageCms.Flags.NOOPTIMIZE  # optimised it errs by ten levels; here it converts 256 values
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=flags,
    )
    apply = partial(ImageCms.applyTransform, transform=transform)
    if mode == "CMYK":
        return apply, name
    samples = _samples(mode)
    converted = apply(samples)
    moved = np.asarray(converted).astype(int) - np.asarray(samples.convert("RGB"))
    if np.abs(moved).max() <= AS_SRGB:
        return None, name
    if mode == "L":
        table = np.asarray(converted)[0].T.ravel().tolist()  # (3 * 256,)
        return (lambda picture: picture.convert("RGB").point(table)), name
    return apply, name


def _samples(mode: str) -> Image.Image:
    """Colours of all of a mode's range."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
    return Image.fromarray(grid.reshape(27, 27, 3))


def _srgb_curve(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1: linear light to the value that is stored, both in [0, 1]."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
