"""Where the codec fails: pictures that no camera takes, files that were damaged, and what becomes of both.

| function          | what it gives                                                            |
|-------------------|--------------------------------------------------------------------------|
| `drawn_pictures`  | text, patterns, noise, a flat colour and a tiny photo, by name           |
| `png_size`        | bytes of the same picture without any loss                               |
| `spoiled`         | a file, cut off and damaged in several ways, by what was done to it      |
| `outcome`         | the error that a file gives, or that it decodes                          |
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dhp_lab.codec.bits.bitstream import BitstreamError
from dhp_lab.data.images import MIN_SIDE, to_pixels, to_tensor
from dhp_lab.data.photos import load_photo

WORDS = (
    "the size of a file says little without the size of its picture "
    "and no point of a curve says what the curve says "
)
LETTERS = 12  # dots: size of the letters
LEADING = 15  # from line to line
MARGIN = 6  # around the text


def drawn_pictures(side: int) -> dict[str, Tensor]:
    """Pictures (1, 3, side, side) in [0, 1] by name, the last one tiny (16 x 16); always the same."""
    at = np.arange(side)
    chess = ((at[:, None] + at) % 2 * 255).astype(np.uint8)
    bars = np.zeros((side, side, 3), np.uint8)
    bars[..., 2] = 255
    bars[:, at % 6 < 3] = 255, 0, 0
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return {
        "text": to_tensor(_page(side)),
        "chessboard of pixels": to_tensor(np.repeat(chess[..., None], 3, 2)),
        "red and blue bars": to_tensor(bars),
        "noise": to_tensor(noise),
        "flat grey": to_tensor(np.full((side, side, 3), 128, np.uint8)),
        "tiny photo": load_photo("astronaut", MIN_SIDE),
    }


def _page(side: int) -> np.ndarray:
    """A page of small black letters on white, (side, side, 3) uint8."""
    image = Image.new("RGB", (side, side), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(LETTERS)
    words = iter((WORDS * side).split())
    for top in range(MARGIN, side - LEADING, LEADING):
        line = ""
        while pen.textlength(line, font=font) < side - 8 * LETTERS:
            line += next(words) + " "
        pen.text((MARGIN, top), line, fill="black", font=font)
    return np.asarray(image)


def png_size(x: Tensor) -> int:
    """Bytes of a picture (1, 3, H, W) in [0, 1] as PNG, from which every pixel comes back as it was."""
    file = io.BytesIO()
    Image.fromarray(to_pixels(x)).save(file, "PNG", optimize=True)
    return len(file.getvalue())


def spoiled(data: bytes) -> dict[str, bytes]:
    """A .dhp file, cut off and damaged in several ways, by what was done to it."""

    def flipped(at: int) -> bytes:
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return {
        "cut after 20 bytes": data[:20],
        "cut in the middle": data[: len(data) // 2],
        "one byte too many": data + b"\0",
        "one bit of the height turned": flipped(9),
        "one bit of y turned": flipped(len(data) - 10),
        "the wrong kind of file": b"\xff\xd8\xff\xe0" + data,
        "an empty file": b"",
    }


def outcome(decode: Callable[[bytes], object], data: bytes) -> str:
    """The first line of the `BitstreamError` that decoding raises, or "decoded"; other errors pass."""
    try:
        decode(data)
    except BitstreamError as error:
        return str(error).splitlines()[0]
    return "decoded"
