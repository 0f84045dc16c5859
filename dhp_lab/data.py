"""Pictures from files and back, and endless reproducible crops of a folder of photos for training."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from dhp_lab.checkpoints import write_atomic

log = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2"}
LOSSLESS = {".png": {}, ".webp": {"lossless": True}, ".bmp": {}, ".tif": {}, ".tiff": {}, ".ppm": {}}
MIN_SIDE = 16
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle", "china", "flower")


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
        raise ImageError(f"{folder} holds no picture (looked for {', '.join(sorted(SUFFIXES))}, folders below included)")
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
            pixels = np.asarray(_as_rgb(ImageOps.exif_transpose(image)))
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not a picture that Pillow can read") from None
    except Exception as error:           # on damaged files Pillow's plugins raise whatever they met: TypeError, RuntimeError, ...
        raise ImageError(f"{path}: cannot be read ({error})") from None
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise ImageError(f"{path}: {pixels.shape[1]} x {pixels.shape[0]} pixels; both sides must be at least {MIN_SIDE}")
    return to_tensor(pixels), notes


def _conversion_notes(image: Image.Image) -> list[str]:
    notes = []
    if image.mode in ("1", "L", "I", "F", "LA", "I;16"):
        notes.append(f"grey picture (mode {image.mode}) coded as RGB")
    elif image.mode not in ("RGB", "RGBA"):
        notes.append(f"mode {image.mode} converted to RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        notes.append("transparency dropped: drawn on white")
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"first of {image.n_frames} frames taken")
    return notes


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":               # 16 and 32 bits: scaled, not clipped, to 8
        wide = np.asarray(image, dtype=np.float64)
        top = 65535.0 if image.mode != "F" else max(1.0, float(wide.max()))
        return Image.fromarray(np.rint(wide / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
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

    Raises:
        ImageError: a suffix that is not lossless. OSError: the disk's own trouble.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in LOSSLESS:
        raise ImageError(f"{path}: cannot write '{suffix or 'no suffix'}'; use one of {', '.join(LOSSLESS)}")
    stream = io.BytesIO()
    Image.fromarray(to_pixels(x)).save(stream, format=Image.registered_extensions()[suffix], **LOSSLESS[suffix])
    write_atomic(path, stream.getvalue())


def load_photo(name: str, side: int = 512) -> Tensor:
    """The middle of one of `PHOTOS`: (1, 3, H, W) in [0, 1], H and W at most `side`.

    Raises:
        ValueError: another name.
    """
    if name not in PHOTOS:
        raise ValueError(f"there is no photo {name!r}; choose one of {', '.join(PHOTOS)}")
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image  # here, because it loads much else

        pixels = load_sample_image(f"{name}.jpg")
    else:
        import skimage.data

        pixels = skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
    top, left = (max(0, length - side) // 2 for length in pixels.shape[:2])
    return to_tensor(pixels[top : top + side, left : left + side])


class PhotoCrops:
    """Random square crops of photos kept in memory as uint8; batch number s is always the same for one seed.

    JPEG photos are shrunk by a random factor of up to 2 where they are large enough, which removes their block artefacts.

    Args:
        files: picture files; broken ones and those smaller than the crop are skipped with a warning that names them.
        size: side of the crops in pixels.
        seed: of the crops' stream.

    Raises:
        ImageError: no usable photo is left.
    """

    def __init__(self, files: list[Path], size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.photos: list[np.ndarray] = []
        self.shrinkable: list[bool] = []
        for path in files:
            try:
                pixels = to_pixels(load_image(path)[0])
            except ImageError as error:
                log.warning("skipped %s", error)
                continue
            if min(pixels.shape[:2]) < size:
                log.warning("skipped %s: %d x %d is smaller than the crop of %d", path, pixels.shape[1], pixels.shape[0], size)
                continue
            self.photos.append(pixels)
            self.shrinkable.append(path.suffix.lower() in (".jpg", ".jpeg"))
        if not self.photos:
            raise ImageError(f"none of the {len(files)} files is a photo of at least {size} x {size} pixels")

    def __len__(self) -> int:
        return len(self.photos)

    def hold_out(self, every: int) -> PhotoCrops:
        """Take every n-th photo out of this set and return them as a set of their own; a single photo stays in both."""
        held = copy.copy(self)
        held.photos, held.shrinkable, held.seed = self.photos[::every], self.shrinkable[::every], 0
        if len(self) > 1:
            self.photos = [p for i, p in enumerate(self.photos) if i % every]
            self.shrinkable = [s for i, s in enumerate(self.shrinkable) if i % every]
        return held

    def batch(self, number: int, count: int) -> Tensor:
        """Batch ``number`` >= 0 of the stream: (count, 3, size, size) float32 in [0, 1]."""
        random = np.random.default_rng([self.seed, number])
        return torch.cat([self._crop(random) for _ in range(count)])

    def _crop(self, random: np.random.Generator) -> Tensor:
        index = int(random.integers(len(self.photos)))
        photo = self.photos[index]
        limit = min(2.0 if self.shrinkable[index] else 1.5, min(photo.shape[:2]) / self.size)
        side = round(self.size * float(random.uniform(1, limit))) if random.random() < 0.7 else self.size
        top, left = (int(random.integers(edge - side + 1)) for edge in photo.shape[:2])
        patch = to_tensor(photo[top : top + side, left : left + side])
        if side != self.size:
            patch = F.interpolate(patch, size=(self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        return patch.flip(-1) if random.random() < 0.5 else patch


@contextmanager
def reading_ahead() -> Iterator[ThreadPoolExecutor]:
    """One thread that makes the next batch on one core, while the caller trains on the others.

    A second team of OpenMP's threads would spin beside the first: on two cores a step took a quarter longer.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as reader:
            yield reader
    finally:
        torch.set_num_threads(threads)                                       # for threads that begin later
