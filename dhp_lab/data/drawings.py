"""Random drawings to train a codec on beside photos: bars, checkers, text, flat areas, gradients.

Photos hardly ever hold saturated colours, hard edges or flat areas, and a codec that never saw them spends
bits on them or leaves halos. Shapes are drawn at three times the size and shrunk, or at their size with hard
edges.

| drawing    | what it looks like                                                   |
|------------|----------------------------------------------------------------------|
| bars       | stripes of 2 .. 6 colours, any period from 2 pixels on, any angle    |
| checkers   | the same in two directions                                           |
| text       | rows of random characters in Pillow's own font                       |
| shapes     | polygons, ellipses and lines on a flat ground                        |
| gradients  | a linear or round ramp between two colours, smooth or in few levels  |
"""

from __future__ import annotations

import math
import string
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dhp_lab.data.crops import PhotoCrops
from dhp_lab.data.images import to_tensor

SUPERSAMPLING = 3
LEAST_SIZE = 8
SATURATED_SHARE = 0.5  # of the colours: each channel 0 or 255, black and white among them
GREY_SHARE = 0.2  # likewise
SMOOTH_SHARE = 0.5  # of the drawings, whose edges are anti-aliased
UPRIGHT_SHARE = 0.5  # of bars and checkers: along the pixels' rows or columns
SPLIT_SHARE = 0.3  # of the crops: two drawings side by side
NOISY_SHARE = 0.25  # of the crops
MOST_NOISE = 8.0  # standard deviation, in 8-bit levels
DRAWING = 1  # the last word of the seed: numpy's generator of [a, b, 0] is that of [a, b], which photos use
CHARACTERS = np.array(list(string.ascii_letters + string.digits + ".,:;!?-+()%&" + 8 * " "))

Pixels = np.ndarray


def drawn_crop(size: int, seed: int | np.random.Generator) -> Tensor:
    """A random drawing, always the same for one seed.

    Args:
        size: side in pixels, at least 8.
        seed: >= 0, or the generator to draw from.

    Returns:
        (3, size, size) float32 in [0, 1], whole multiples of 1/255.

    Raises:
        ValueError: a smaller size.
    """
    if size < LEAST_SIZE:
        raise ValueError(f"a drawn crop must have a side of at least {LEAST_SIZE} pixels, got {size}")
    random = np.random.default_rng(seed)
    pixels = _drawing(size, random)
    if random.random() < SPLIT_SHARE:
        place = int(random.integers(1, size))
        pixels[:, place:] = _drawing(size, random)[:, place:]
        pixels = pixels if random.random() < 0.5 else pixels.swapaxes(0, 1)
    if random.random() < NOISY_SHARE:
        noise = random.uniform(0.5, MOST_NOISE) * random.standard_normal(pixels.shape)
        pixels = np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
    return to_tensor(pixels)[0]


class WithDrawings:
    """A stream of crops of photos, some of them replaced by drawings; crop number n is always the same.

    Args:
        photos: the stream. share: the probability of each crop to be replaced, in [0, 1].

    Raises:
        ValueError: another share.
    """

    def __init__(self, photos: PhotoCrops, share: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"the share of drawings must lie in [0, 1], got {share}")
        self.photos, self.share = photos, share

    def __len__(self) -> int:
        """The number of photos, of which an epoch consists."""
        return len(self.photos)

    def batch(self, number: int, count: int) -> Tensor:
        """Batch ``number`` >= 0 of ``count`` crops each: (count, 3, size, size) float32 in [0, 1]."""
        crops = [self._crop(number * count + i) for i in range(count)]
        return torch.cat(crops)

    def _crop(self, number: int) -> Tensor:
        """Crop ``number`` of the stream, (1, 3, size, size); no photo is read for a drawing."""
        random = np.random.default_rng([self.photos.seed, number, DRAWING])
        if random.random() < self.share:
            return drawn_crop(self.photos.size, random)[None]
        return self.photos.crop(number)


# drawings, each (size, size, 3) uint8


def _drawing(size: int, random: np.random.Generator) -> Pixels:
    kinds = (_bars, _checkers, _text, _shapes, _gradient)
    return kinds[random.integers(len(kinds))](size, random)


def _colours(count: int, random: np.random.Generator) -> Pixels:
    """(count, 3) uint8: saturated ones, greys, and any."""
    kind = random.random((count, 1))
    colours = random.integers(0, 256, (count, 3))
    colours = np.where(kind < SATURATED_SHARE + GREY_SHARE, colours[:, :1], colours)
    saturated = 255 * random.integers(0, 2, (count, 3))
    return np.where(kind < SATURATED_SHARE, saturated, colours).astype(np.uint8)


def _scale(random: np.random.Generator) -> int:
    """How many times the size a drawing is drawn at."""
    return SUPERSAMPLING if random.random() < SMOOTH_SHARE else 1


def _shrunk(pixels: Pixels, size: int) -> Pixels:
    """Means of square blocks: anti-aliasing."""
    scale = len(pixels) // size
    if scale == 1:
        return pixels
    return np.array(Image.fromarray(pixels).reduce(scale))


def _grid(size: int, scale: int) -> tuple[Pixels, Pixels]:
    """Rows (n, 1) and columns (1, n) of a drawing's points, in pixels of the finished crop."""
    places = (np.arange(size * scale) + 0.5) / scale
    return places[:, None], places[None, :]


def _stripes(rows: Pixels, cols: Pixels, angle: float, longest: float, random: np.random.Generator) -> Pixels:
    """The number of the stripe that each point lies in; widths log-uniform from 1 pixel to ``longest``."""
    width = math.exp(random.uniform(0, math.log(longest)))
    if random.random() < 0.5:
        width = float(round(width))
    along = math.cos(angle) * cols + math.sin(angle) * rows
    return np.floor(along / width + random.random()).astype(np.int64)


def _angle(random: np.random.Generator) -> float:
    """Any direction, often along rows or columns."""
    if random.random() < UPRIGHT_SHARE:
        return math.pi / 2 * int(random.integers(2))
    return random.uniform(0, math.pi)


def _bars(size: int, random: np.random.Generator) -> Pixels:
    scale, colours = _scale(random), _colours(int(random.integers(2, 7)), random)
    stripes = _stripes(*_grid(size, scale), _angle(random), size / 2, random)
    return _shrunk(colours[stripes % len(colours)], size)


def _checkers(size: int, random: np.random.Generator) -> Pixels:
    scale, colours, angle = _scale(random), _colours(2, random), _angle(random)
    grid = _grid(size, scale)
    fields = (_stripes(*grid, turn, size / 2, random) for turn in (angle, angle + math.pi / 2))
    return _shrunk(colours[sum(fields) % 2], size)


@lru_cache(maxsize=64)
def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)


def _text(size: int, random: np.random.Generator) -> Pixels:
    ground, *inks = (tuple(colour) for colour in _colours(3, random).tolist())
    image = Image.new("RGB", (size, size), ground)
    draw = ImageDraw.Draw(image)
    draw.fontmode = "L" if random.random() < 0.8 else "1"  # anti-aliased or not
    height = round(math.exp(random.uniform(math.log(8), math.log(max(9, size / 4)))))
    leading = height * random.uniform(1.0, 1.8)
    left = random.uniform(-height, height)
    ink = inks[0]
    for top in np.arange(-random.uniform(0, height), size, leading):
        letters = "".join(random.choice(CHARACTERS, int(random.integers(1, 2 + 3 * size // height))))
        ink = inks[random.integers(2)] if random.random() < 0.2 else ink
        draw.text((left, float(top)), letters, fill=ink, font=_font(height))
    return np.array(image)


def _shapes(size: int, random: np.random.Generator) -> Pixels:
    scale, count = _scale(random), int(random.integers(1, 13))
    ground, *colours = (tuple(colour) for colour in _colours(count + 1, random).tolist())
    image = Image.new("RGB", (size * scale, size * scale), ground)
    draw = ImageDraw.Draw(image)
    for colour in colours:
        kind, centre = random.integers(4), random.uniform(0, size, 2)
        spread = random.uniform(0.05, 0.5) * size
        points = scale * (centre + random.uniform(-spread, spread, (int(random.integers(3, 7)), 2)))
        low, high = points.min(0), points.max(0)
        if kind == 0:
            draw.polygon([tuple(point) for point in points.tolist()], fill=colour)
        elif kind == 1:
            draw.rectangle([*low.tolist(), *high.tolist()], fill=colour)
        elif kind == 2:
            draw.ellipse([*low.tolist(), *high.tolist()], fill=colour)
        else:
            width = scale * int(random.integers(1, 6))
            draw.line([tuple(point) for point in points[:2].tolist()], fill=colour, width=width)
    return _shrunk(np.array(image), size)


def _gradient(size: int, random: np.random.Generator) -> Pixels:
    rows, cols = _grid(size, 1)
    if random.random() < 0.5:
        angle = random.uniform(0, 2 * math.pi)
        ramp = math.cos(angle) * cols + math.sin(angle) * rows
    else:
        row, col = random.uniform(0, size, 2)
        ramp = np.hypot(rows - row, cols - col)
    ramp = (ramp - ramp.min()) / np.ptp(ramp)
    if random.random() < 0.3:
        levels = int(random.integers(2, 17))
        ramp = np.rint(ramp * levels) / levels
    first, last = _colours(2, random).astype(np.float64)
    return np.rint(first + (last - first) * ramp[..., None]).astype(np.uint8)
