"""Make pictures.png, the part of Fashion-MNIST that is shipped, out of the four files of the whole set.

    dhp download fashion-mnist
    python data/fashion_mnist/make.py [--source data/fashion_mnist] [--output data/fashion_mnist/pictures.png]

It takes the first 1 000 pictures of each class in the official training file, in the order of the file, and
the first 200 of each class in the official test file. They stand class by class in one grey PNG of 120 rows
of 100 pictures: rows 0 .. 99 to train on, ten for each class, rows 100 .. 119 held out, two for each class.
"""

from __future__ import annotations

import argparse
import gzip
import io
from pathlib import Path

import numpy as np
from PIL import Image

from dhp_lab.core.files import write_atomic
from dhp_lab.core.paths import data_dir
from dhp_lab.data.fashion import CLASSES, COLUMNS, FILE, ROWS, SIDE, TEST, TRAIN

IMAGES_HEADER, LABELS_HEADER = 16, 8  # bytes of an IDX file before its numbers


def first_of_each_class(folder: Path, part: str, count: int) -> np.ndarray:
    """(10 * count, 28, 28) uint8: the first pictures of each class in a part's files, class by class."""
    images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=IMAGES_HEADER).reshape(-1, SIDE, SIDE)
    classes = np.frombuffer(labels, np.uint8, offset=LABELS_HEADER)
    return np.concatenate([pixels[classes == number][:count] for number in range(CLASSES)])


def main() -> None:
    """Read the four files, write the PNG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--source", type=Path, default=data_dir() / "fashion_mnist")
    parser.add_argument("--output", type=Path, default=FILE)
    options = parser.parse_args()
    train = first_of_each_class(options.source, "train", TRAIN // CLASSES)
    test = first_of_each_class(options.source, "t10k", TEST // CLASSES)
    tiles = np.concatenate([train, test]).reshape(ROWS, COLUMNS, SIDE, SIDE)
    sheet = tiles.swapaxes(1, 2).reshape(ROWS * SIDE, COLUMNS * SIDE)
    png = io.BytesIO()
    Image.fromarray(sheet).save(png, "PNG", optimize=True)
    write_atomic(options.output, png.getvalue())


if __name__ == "__main__":
    main()
