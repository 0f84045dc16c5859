"""What the lesson on entropy coding codes: the pixels of a grey photo, predicted from their neighbours.

| paper                                        | here                                                        |
|----------------------------------------------|-------------------------------------------------------------|
| W, N, NW, NE of a pixel                      | ``Neighbours``                                              |
| median predictor (Weinberger et al. 2000)    | ``median_prediction``                                       |
| p as whole numbers that add up to 2^16       | ``frequencies``, CompressAI's tables: ``gaussian_tables``   |
"""

from __future__ import annotations

import io
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from dhp_lab.codec.bits.rans import CoderTables, coder_tables, rans_encode
from dhp_lab.codec.bits.scales import SCALES, scale_indexes
from dhp_lab.core.compressai_imports import GaussianConditional
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import load_photo
from dhp_lab.notebook.photo_figures import LUMA

OUTSIDE = 128  # the value of a pixel beyond the border
PRECISION = 16  # a table's frequencies add up to 2^16
SIDE = 128  # pixels of the lesson's photos


class Neighbours(NamedTuple):
    """The four neighbours of each pixel that are decoded before it, (h, w) each."""

    west: np.ndarray
    north: np.ndarray
    north_west: np.ndarray
    north_east: np.ndarray


def grey_photo(name: str, side: int = SIDE) -> np.ndarray:
    """The middle of a photo of ``PHOTOS`` in grey, (h, w) whole numbers 0 .. 255; h, w <= side."""
    return np.rint(to_pixels(load_photo(name, side)) @ LUMA).astype(np.int64)


def neighbours(values: np.ndarray, outside: int = OUTSIDE) -> Neighbours:
    """The neighbours of each of (h, w) values; ``outside`` stands beyond the borders."""
    wide = np.pad(values, ((1, 0), (1, 1)), constant_values=outside)
    return Neighbours(wide[1:, :-2], wide[:-1, 1:-1], wide[:-1, :-2], wide[:-1, 2:])


def median_prediction(pixels: np.ndarray) -> np.ndarray:
    """The median of W, N and W + N - NW for each of (h, w) pixels (Weinberger, Seroussi & Sapiro 2000,
    "LOCO-I", eq. 1).
    """
    west, north, north_west, _ = neighbours(pixels)
    return np.median([west, north, west + north - north_west], axis=0).astype(np.int64)


def from_residuals(residuals: np.ndarray) -> np.ndarray:
    """The pixels whose ``median_prediction`` leaves these residuals (h, w); the sums are taken mod 256."""
    rows, cols = residuals.shape
    wide = np.full((rows + 1, cols + 2), OUTSIDE).tolist()
    for i in range(rows):
        above, line, found = wide[i], wide[i + 1], residuals[i].tolist()
        for j in range(cols):
            west, north = line[j], above[j + 1]
            predicted = sorted((west, north, west + north - above[j]))[1]
            line[j + 1] = (predicted + found[j]) % 256
    return np.array(wide)[1:, 1:-1]


def frequencies(p: np.ndarray, precision: int = PRECISION) -> np.ndarray:
    """Whole numbers (n,), each at least 1, that add up to 2^precision and are nearly proportional to p.

    Args:
        p: (n,) probabilities or counts, not negative, with a sum above 0.

    Raises:
        ValueError: more than 2^precision symbols.
    """
    free = 2**precision - len(p)
    if free < 0:
        raise ValueError(f"{len(p)} symbols need a precision of {len(p).bit_length()} bits, got {precision}")
    whole = 1 + np.floor(p / p.sum() * free).astype(np.int64)
    whole[np.argmax(whole)] += 2**precision - whole.sum()
    return whole


@cache
def gaussian_tables() -> CoderTables:
    """CompressAI's tables of normal densities, a row for each of ``SCALES``."""
    conditional = GaussianConditional(SCALES, scale_bound=SCALES[0])
    conditional.update()
    return coder_tables(conditional)


def table_rows(scale: np.ndarray) -> np.ndarray:
    """The rows of ``gaussian_tables`` for scales of any shape, those at the ends for scales beyond them."""
    return scale_indexes(torch.from_numpy(np.log2(np.maximum(scale, SCALES[0])))).numpy()


def gaussian_bytes(symbols: np.ndarray, scale: np.ndarray) -> bytes:
    """Whole numbers coded by CompressAI's rANS, each with the table of its own scale; both (h, w)."""
    rows = torch.from_numpy(np.ascontiguousarray(table_rows(scale)).ravel())
    return rans_encode(torch.from_numpy(symbols.ravel().astype(np.int32)), rows, gaussian_tables())


def file_size(pixels: np.ndarray, kind: str, **options: object) -> int:
    """Bytes of a grey picture (h, w) as a file of one of Pillow's formats; the options are Pillow's."""
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, kind, **options)
    return len(file.getvalue())
