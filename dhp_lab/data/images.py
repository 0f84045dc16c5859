"""Pictures from files, one or a folder of them, and back: float32 (1, 3, H, W) in [0, 1], RGB."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from dhp_lab.core.files import write_atomic

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2"}
LOSSLESS = {".png": {}, ".webp": {"lossless": True}, ".bmp": {}, ".tif": {}, ".tiff": {}, ".ppm": {}}
"""Suffixes that ``save_image`` takes, and Pillow's options for each."""

MIN_SIDE = 16  # pixels
GREY_MODES = ("1", "L", "I", "F", "LA", "I;16")

Log = Callable[[str], None]
"""Called with one line of text."""

Picture = tuple[str, Tensor]
"""The name of a picture's file, and the picture (1, 3, H, W) in [0, 1]."""


class ImageError(ValueError):
    """A picture that cannot be read, used or written; the message names the file and the reason."""


def list_images(folder: str | Path) -> list[Path]:
    """All picture files below a folder, sorted by path.

    Raises:
        ImageError: the folder is missing or holds no file with a picture's suffix.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise ImageError(
            f"{folder} holds no picture (looked for {', '.join(sorted(SUFFIXES))}, folders below included)"
        )
    return files


def load_image(path: str | Path) -> tuple[Tensor, list[str]]:
    """Read a picture file as RGB.

    Returns:
        x: float32 (1, 3, H, W) in [0, 1], turned upright as its EXIF orientation says.
        notes: what had to be converted, one sentence each; empty for plain 8-bit RGB.

    Raises:
        ImageError: no such file, not a picture, damaged, or a side below 16 pixels.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            image.load()
            notes = _conversion_notes(image)
            x = from_pil(image)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not a picture that Pillow can read") from None
    except Exception as error:  # damaged files: Pillow's plugins raise TypeError, RuntimeError and others
        raise ImageError(f"{path}: cannot be read ({error})") from None
    height, width = x.shape[-2:]
    if min(height, width) < MIN_SIDE:
        raise ImageError(f"{path}: {width} x {height} pixels; both sides must be at least {MIN_SIDE}")
    return x, notes


def from_pil(image: Image.Image) -> Tensor:
    """A Pillow picture of any mode as ``load_image`` gives it: (1, 3, H, W), upright, drawn on white."""
    return to_tensor(np.asarray(_as_rgb(ImageOps.exif_transpose(image))))


def _conversion_notes(image: Image.Image) -> list[str]:
    notes = []
    if image.mode in GREY_MODES:
        notes.append(f"grey picture (mode {image.mode}) coded as RGB")
    elif image.mode not in ("RGB", "RGBA"):
        notes.append(f"mode {image.mode} converted to RGB")
    if _has_transparency(image):
        notes.append("transparency dropped: drawn on white")
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"first of {image.n_frames} frames taken")
    return notes


def _has_transparency(image: Image.Image) -> bool:
    return "A" in image.getbands() or "transparency" in image.info


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16 and 32 bits: scaled, not clipped, to 8
        wide = np.asarray(image, dtype=np.float64)
        top = 65535.0 if image.mode != "F" else max(1.0, float(wide.max()))
        grey = np.rint(wide / top * 255).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if _has_transparency(image):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


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
    stream = io.BytesIO()
    file_format = Image.registered_extensions()[suffix]
    Image.fromarray(to_pixels(x)).save(stream, format=file_format, **LOSSLESS[suffix])
    write_atomic(path, stream.getvalue())


def load_pictures(folder: Path, notes: list[str], log: Log) -> Iterator[Picture]:
    """Iterate over the readable pictures of a folder and those below.

    Args:
        folder: it is searched at once, its pictures are read one by one.
        notes: receives a line for each picture skipped or converted.
        log: is called with these lines, and with one for each picture loaded.

    Returns:
        An iterator over pictures, each named by its path inside the folder.

    Raises:
        ImageError: the folder is missing or holds no picture.
    """
    files = list_images(folder)

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
                notes.append(f"{name}: {remark}")
                log(f"warning: {notes[-1]}")
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
