"""Pictures from files, one or a folder of them, and back: float32 (1, 3, H, W) in [0, 1], RGB."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from dhp_lab.core.files import read_at_most, write_atomic
from dhp_lab.core.memory import OutOfMemory, is_out_of_memory
from dhp_lab.data import colour
from dhp_lab.data.listing import SUFFIXES, ImageError, Log, list_images
from dhp_lab.data.png_chunks import without_text

__all__ = [
    "LOSSLESS",
    "MAX_MEGAPIXELS",
    "MIN_SIDE",
    "SUFFIXES",
    "ImageError",
    "Log",
    "Picture",
    "batches",
    "from_pil",
    "list_images",
    "load_image",
    "load_pictures",
    "lossless_bytes",
    "read_image",
    "save_image",
    "to_pixels",
    "to_tensor",
]

LOSSLESS = {".png": {}, ".webp": {"lossless": True}, ".bmp": {}, ".tif": {}, ".tiff": {}, ".ppm": {}}
"""Suffixes that ``save_image`` takes, and Pillow's options for each."""

MIN_SIDE = 16  # pixels
MAX_MEGAPIXELS = 250.0  # phones write pictures of 200; as in `cli.files`, which starts without torch
MAX_PIXEL_BYTES = 16  # uncompressed, four channels of 32 bits
MAX_PROFILE = 64 << 20  # bytes of a colour profile or metadata in a PNG, unpacked
DAMAGE = (  # what Pillow's decoders raise at bytes that are not what they should be
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,  # a part that is larger than the whole
)
_pillow_limits = threading.RLock()  # they are global

Picture = tuple[str, Tensor]
"""The name of a picture's file, and the picture (1, 3, H, W) in [0, 1]."""


def load_image(path: str | Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[Tensor, list[str]]:
    """Read a picture file as sRGB.

    Args:
        path: the file.
        max_megapixels: larger pictures are refused before their pixels are read.

    Returns:
        x: float32 (1, 3, H, W) in [0, 1], turned upright as its EXIF orientation says.
        notes: what had to be converted, one sentence each; empty for plain 8-bit sRGB.

    Raises:
        ImageError: no such file, not a picture, damaged, too large, or a side below 16 pixels.
        OSError: the disk's own trouble.
        OutOfMemory: the memory does not suffice for this picture.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except IsADirectoryError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from None
    except OSError as error:  # of the disk; some of them name no file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    return _picture_in(data, str(path), max_megapixels)


def read_image(
    stream: BinaryIO, name: str, *, max_megapixels: float = MAX_MEGAPIXELS
) -> tuple[Tensor, list[str]]:
    """Read a picture from a stream that cannot be rewound, such as a pipe.

    Args:
        stream: of a picture file's bytes; no more of it is read than a file of ``max_megapixels`` can have.
        name: of the stream, for messages.
        max_megapixels: larger pictures are refused before their pixels are read.

    Returns:
        x, notes: as ``load_image``.

    Raises:
        ImageError, OSError, OutOfMemory: as ``load_image``.
    """
    limit = int(max_megapixels * 1e6) * MAX_PIXEL_BYTES + MAX_PROFILE
    with _naming_memory(name):
        try:
            data = read_at_most(stream, limit + 1)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), name) from None
    if len(data) > limit:
        raise ImageError(
            f"{name}: more than {limit} bytes, which no picture of {max_megapixels:g} megapixels needs; "
            "shrink it, or allow more with max_megapixels"
        )
    return _picture_in(data, name, max_megapixels)


def _picture_in(data: bytes, name: str, max_megapixels: float) -> tuple[Tensor, list[str]]:
    """The picture (1, 3, H, W) in the bytes of a file, and what had to be converted."""
    if not data:
        raise ImageError(f"{name}: not a picture that Pillow can read: it is empty")
    with _naming_memory(name):
        decoded, frames = _decode(name, data, max_megapixels)
        try:
            rgb, notes = colour.to_rgb(decoded)
        except colour.PixelError as error:
            raise ImageError(f"{name}: {error}") from None
        x = to_tensor(np.asarray(rgb))
    if frames > 1:
        notes.append(f"first of {frames} frames taken")
    height, width = x.shape[-2:]
    if min(height, width) < MIN_SIDE:
        raise ImageError(f"{name}: {width} x {height} pixels; both sides must be at least {MIN_SIDE}")
    return x, notes


def from_pil(image: Image.Image) -> Tensor:
    """A Pillow picture of any mode as ``load_image`` gives it: (1, 3, H, W), upright, on white."""
    return to_tensor(np.asarray(colour.to_rgb(colour.decode(image))[0]))


def _decode(name: str, data: bytes, max_megapixels: float) -> tuple[colour.Decoded, int]:
    """The picture in the bytes of a file, and how many frames the file has."""
    data = without_text(data)
    try:
        with _own_limits(), Image.open(io.BytesIO(data)) as image:
            _check_size(image, max_megapixels)
            Image.MAX_IMAGE_PIXELS = max(1, int(max_megapixels * 1e6))  # for parts that are read later
            frames = getattr(image, "n_frames", 1)
            return colour.decode(image, again=Image.open(io.BytesIO(data))), frames
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture that Pillow can read") from None
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except DAMAGE as error:
        if is_out_of_memory(error):  # decoders raise OSError or RuntimeError
            raise MemoryError(str(error)) from None
        raise ImageError(f"{name}: cannot be read ({error})") from None


@contextmanager
def _naming_memory(name: str) -> Iterator[None]:
    """Name the file in an error of a shortage of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"{name}: not enough memory to read this picture; shrink it") from None


def _check_size(image: Image.Image, max_megapixels: float) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > max_megapixels:
        needed = -(-image.width * image.height // 1_000_000)  # rounded up
        raise ImageError(
            f"{image.width} x {image.height} pixels, the limit is {max_megapixels:g} megapixels; "
            f"shrink it, or allow more with max_megapixels {needed}"
        )


@contextmanager
def _own_limits() -> Iterator[None]:
    """Put ``load_image``'s limits, and its notes, in the place of Pillow's limits and warnings."""
    with _pillow_limits, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, MAX_PROFILE
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = before


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> float32 (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(pixels, dtype=np.uint8)).permute(2, 0, 1)[None].float() / 255


def to_pixels(x: Tensor) -> np.ndarray:
    """(1, 3, H, W) or (3, H, W) in [0, 1] -> (H, W, 3) uint8, clamped and rounded."""
    x = x[0] if x.ndim == 4 else x
    return (x.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def save_image(x: Tensor, path: str | Path) -> None:
    """Write a picture losslessly, 8 bits a channel; the file appears whole or not at all.

    Args:
        x: (1, 3, H, W) or (3, H, W) in [0, 1], clamped and rounded.
        path: its suffix is one of ``LOSSLESS``.

    Raises:
        ImageError: a suffix that is not lossless.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in LOSSLESS:
        raise ImageError(f"{path}: cannot write '{suffix or 'no suffix'}'; use one of {', '.join(LOSSLESS)}")
    write_atomic(path, lossless_bytes(x, suffix))


def lossless_bytes(x: Tensor, suffix: str) -> bytes:
    """The bytes of a lossless picture file, 8 bits a channel.

    Args:
        x: (1, 3, H, W) or (3, H, W) in [0, 1], clamped and rounded.
        suffix: of the format, one of ``LOSSLESS``.
    """
    stream = io.BytesIO()
    file_format = Image.registered_extensions()[suffix]
    Image.fromarray(to_pixels(x)).save(stream, format=file_format, **LOSSLESS[suffix])
    return stream.getvalue()


def load_pictures(
    folder: Path, notes: list[str], log: Log, *, output_dir: Path | None = None
) -> Iterator[Picture]:
    """Iterate over the readable pictures of a folder and those below.

    Args:
        folder: it is searched at once, its pictures are read one by one.
        notes: receives a line for each picture skipped or converted, and one on what was passed over.
        log: is called with these lines, and with one for each picture loaded.
        output_dir: where the caller's results go; pictures there are passed over.

    Returns:
        An iterator over pictures, each named by its path inside the folder.

    Raises:
        ImageError: the folder is missing or holds no picture.
    """

    def warn(line: str) -> None:
        notes.append(line)
        log(f"warning: {line}")

    files = list_images(folder, output_dir=output_dir, log=warn)

    def pictures() -> Iterator[Picture]:
        for number, file in enumerate(files, 1):
            name = file.relative_to(folder).as_posix()
            x = None
            try:
                x, remarks = load_image(file)
            except ImageError as error:
                reason = str(error).replace(str(file), name).removeprefix(f"{name}: ")
                remarks = [f"skipped, {reason}"]
            for remark in remarks:
                warn(f"{name}: {remark}")
            if x is not None:
                log(f"{number}/{len(files)} {name}")
                yield name, x

    return pictures()


def batches(pictures: Iterable[Picture], batch_size: int) -> Iterator[tuple[list[str], Tensor]]:
    """Stack consecutive pictures of one size.

    Args:
        pictures: as ``load_pictures`` gives them.
        batch_size: the largest B, at least 1.

    Yields:
        B names and (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: batch_size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    names, batch = [], []
    for name, x in pictures:
        if batch and (len(batch) == batch_size or x.shape != batch[0].shape):
            yield names, torch.cat(batch)  # (B, 3, H, W)
            names, batch = [], []
        names.append(name)
        batch.append(x)
    if batch:
        yield names, torch.cat(batch)  # (B, 3, H, W)
