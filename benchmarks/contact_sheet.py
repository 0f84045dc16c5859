"""Ten crops of photos as one picture: the original, and what the same bytes decode to at two rates.

    python benchmarks/contact_sheet.py --output FILE.webp [--model_path DIR] [--lambda_rates 2e-2,7e-3]
                                       [--steps 4] [--seed 0] [--codecs avif,vvc] [--kilobytes 1500]
                                       [--threads 0]

Columns: the original; K = 0, K = 1 and a drawn picture of one .dhp file; other codecs' largest files that are
no larger, or their smallest where none is so small. Each photo is coded whole, the middle 512 pixels of it,
and shown are crops at full size; the bytes under a crop are those of the photo's file. The photos come with
scikit-image and scikit-learn: faces, text, skies, edges, fur and leaves are among the crops.

FILE ends in .webp or .png. A WebP has the best quality that fits into --kilobytes; a PNG that does not fit is
refused. Prints what it wrote, and a line for each codec that is not installed.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from common import add_machine_options, listed, load_codec, new_parser, one_of, set_threads
from PIL import Image, ImageDraw, ImageFont
from realism_decoders import SETTINGS, nearest_below
from torch import Tensor

from dhp_lab.codec import dhp_file
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.files import write_atomic
from dhp_lab.core.paths import default_checkpoint
from dhp_lab.core.search import largest_within
from dhp_lab.core.weights import CheckpointError
from dhp_lab.data.images import to_pixels, to_tensor
from dhp_lab.data.photos import PHOTOS, load_photo
from dhp_lab.evaluation.codecs import choose, find_codec
from dhp_lab.evaluation.evaluate import model_ids
from dhp_lab.metrics.pixels import bits_per_pixel

SIDE = 144  # of a crop, in pixels
GAP, LINE, LETTERS = 4, 17, 12  # pixels between crops, for a line of text, and of its letters
PAPER, INK = "white", "black"


class Crop(NamedTuple):
    """A crop: what it shows, its photo, and its upper left corner in it."""

    shows: str
    photo: str
    top: int
    left: int

    def of(self, picture: Tensor) -> Tensor:
        """Cut it out of the photo, (1, 3, H, W)."""
        return picture[..., self.top : self.top + SIDE, self.left : self.left + SIDE]


CROPS = (
    Crop("face", "astronaut", 30, 154),
    Crop("letters", "astronaut", 310, 97),
    Crop("fur", "chelsea", 40, 110),
    Crop("spoon", "coffee", 200, 250),
    Crop("sky, mast", "rocket", 120, 60),
    Crop("engine", "motorcycle", 215, 230),
    Crop("sky, roof", "china", 20, 130),
    Crop("leaves", "china", 275, 340),
    Crop("petals", "flower", 130, 150),
    Crop("text", "page", 36, 6),
)


class Decoded(NamedTuple):
    """A photo as one column has it: its head, the bytes of the file, the picture (1, 3, H, W) in [0, 1]."""

    head: str
    n_bytes: int
    picture: Tensor


def load(name: str) -> Tensor:
    """The middle of a photo in PHOTOS, or scikit-image's page of text; (1, 3, H, W) in [0, 1]."""
    if name in PHOTOS:
        return load_photo(name)
    import skimage.data

    return to_tensor(getattr(skimage.data, name)()[..., None].repeat(3, 2))  # a grey one


def columns(
    model: DiffusionHyperprior, x: Tensor, rate: float, *, steps: int, seed: int, codecs: Sequence[str]
) -> Iterator[Decoded]:
    """What a photo becomes at a trade-off: the model's pictures of one file, and the other codecs'."""
    data = dhp_file.encode(model, x, lambda_rate=rate)
    for k in (0, 1, steps):
        picture = dhp_file.decode(model, data, steps=k, seed=seed).float().cpu()
        yield Decoded(f"K = {k}", len(data), picture)
    for key in codecs:
        found = nearest_below(key, x, len(data))
        print(f"{find_codec(key).name}: {found.n_bytes} of {len(data)} bytes", file=sys.stderr)
        yield Decoded(find_codec(key).name, found.n_bytes, found.picture)


def draw_sheet(model: DiffusionHyperprior, options: argparse.Namespace, codecs: Sequence[str]) -> Image.Image:
    """Code all photos, and draw the sheet: a row for each crop and trade-off."""
    photos = {name: load(name) for name in dict.fromkeys(crop.photo for crop in CROPS)}
    chosen = {"steps": options.steps, "seed": options.seed, "codecs": codecs}
    decoded = {
        (name, rate): [*columns(model, x, rate, **chosen)]
        for name, x in photos.items()
        for rate in options.lambda_rates
    }
    rows = [(crop, rate) for crop in CROPS for rate in options.lambda_rates]
    heads = ["original", *(one.head for one in next(iter(decoded.values())))]
    width = len(heads) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, LINE + len(rows) * (SIDE + LINE + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, head in enumerate(heads):
        _write(pen, number, 0, head)
    for row, (crop, rate) in enumerate(rows):
        x, top = photos[crop.photo], LINE + row * (SIDE + LINE + GAP)
        cells = [(x, f"{crop.shows}, lambda {rate:g}")]
        for one in decoded[crop.photo, rate]:
            bpp = bits_per_pixel(one.n_bytes, *x.shape[-2:])
            cells.append((one.picture, f"{one.n_bytes} bytes, {bpp:.2f} bpp"))
        for number, (picture, words) in enumerate(cells):
            pixels = Image.fromarray(to_pixels(crop.of(picture)))
            sheet.paste(pixels, (number * (SIDE + GAP), top))
            _write(pen, number, top + SIDE, words)
    return sheet


def _write(pen: ImageDraw.ImageDraw, column: int, top: int, words: str) -> None:
    """Write a line in the middle of a column."""
    place = column * (SIDE + GAP) + SIDE // 2, top + LINE // 2
    pen.text(place, words, INK, ImageFont.load_default(LETTERS), anchor="mm")


def as_file(sheet: Image.Image, suffix: str, most: int) -> bytes:
    """The sheet as a file of at most so many bytes.

    Args:
        suffix: .webp or .png.

    Raises:
        SystemExit: it does not fit.
    """

    def encode(quality: int) -> bytes:
        stream = io.BytesIO()
        if suffix == ".png":
            sheet.save(stream, "PNG", optimize=True)
        else:
            sheet.save(stream, "WEBP", quality=quality, method=6)
        return stream.getvalue()

    data = encode(0) if suffix == ".png" else largest_within(encode, 1, 100, most)
    if len(data) > most:
        sys.exit(f"the sheet has {len(data)} bytes as {suffix}, more than {most}: raise --kilobytes")
    return data


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "contact_sheet")
    parser.set_defaults(output=None)
    parser.add_argument("--model_path", help="a checkpoint with a realism part; the shipped one if not given")
    parser.add_argument("--lambda_rates", type=listed(float), default=(2e-2, 7e-3))
    parser.add_argument("--steps", type=int, default=4, help="K of the drawn picture")
    parser.add_argument("--seed", type=int, default=0, help="of the noise that is drawn")
    parser.add_argument("--codecs", type=listed(one_of(SETTINGS)), default=("avif", "vvc"))
    parser.add_argument("--kilobytes", type=int, default=1500, help="that the picture may have")
    add_machine_options(parser, device=False)
    return parser


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    """Code, draw, write."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.output is None or options.output.suffix.lower() not in (".webp", ".png"):
        parser.error(f"--output must end in .webp or .png, got {options.output}")
    if options.steps < 2:
        parser.error(f"--steps must be at least 2, for a picture that is drawn, got {options.steps}")
    set_threads(options)
    folder = options.model_path or default_checkpoint()
    try:
        model = load_codec(folder)
    except CheckpointError as error:
        sys.exit(str(error))
    if model.realism is None:
        sys.exit(f"{folder} has no realism part: name a checkpoint that holds realism.json (--model_path)")
    found, missing = choose(options.codecs)
    for line in missing:
        print(line)
    codecs = [key for key in dict.fromkeys(options.codecs) if find_codec(key) in found]
    sheet = draw_sheet(model, options, codecs)
    data = as_file(sheet, options.output.suffix.lower(), 1000 * options.kilobytes)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(options.output, data)
    named = ", ".join(f"{name} {value}" for name, value in model_ids(model).items())
    print(f"{options.output}: {sheet.width} x {sheet.height}, {len(data)} bytes, {named}")


if __name__ == "__main__":
    main()
