"""A model and photos, as an explorer asks for them: each file written once, each picture decoded once; JPEG
beside it.
"""

from __future__ import annotations

import html
import tempfile
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from time import perf_counter

import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.gain import quantisation_sigma
from dhp_lab.data.images import ImageError, load_image, to_pixels
from dhp_lab.data.photos import PHOTOS, load_photo
from dhp_lab.evaluation import classical
from dhp_lab.metrics.pixels import bits_per_pixel, gradient_energy_ratio, psnr
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.photo_figures import busiest, photos_figure

WHOLE, DETAIL = "whole picture", "detail, 3 times as large"
DETAIL_SIZE = (170, 114)  # pixels; three such details, enlarged, take the place of two photos of 512 x 512
KEPT = 128  # files that a cache holds


def jpeg_within(x: Tensor, n_bytes: int) -> bytes:
    """The best JPEG file of (1, 3, H, W) in [0, 1] that has at most n_bytes; the smallest one where none has."""
    jpeg = classical.find_codec("jpeg")
    quality = bisect_right(
        range(1, 101), n_bytes, key=lambda quality: len(classical.encode(jpeg, x, quality))
    )
    return classical.encode(jpeg, x, max(quality, 1))


class PhotoCodec:
    """A model and photos: each file is written once, each picture decoded once. side: a photo's largest, in
    pixels.
    """

    def __init__(self, model: DiffusionHyperprior, side: int) -> None:
        self.model, self.side, self.own = model, side, {}
        self.photo = lru_cache(maxsize=len(PHOTOS))(self._photo)
        self.encode, self.decode = (
            lru_cache(maxsize=KEPT)(self._encode),
            lru_cache(maxsize=KEPT // 8)(self._decode),
        )

    def add(self, name: str, data: bytes) -> str:
        """Take in the reader's own picture file and return the name it goes by.

        Raises:
            ImageError: not a picture, or one too small.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / (Path(name).name or "picture")
            path.write_bytes(data)
            try:
                x, notes = load_image(path)
            except ImageError as error:
                raise ImageError(str(error).replace(str(path), path.name)) from None
        height, width = x.shape[-2:]
        if (scale := self.side / max(height, width)) < 1:
            size = [max(16, round(scale * length)) for length in (height, width)]
            x = F.interpolate(x, size=size, mode="bicubic", antialias=True).clamp(0, 1)
            notes.append(f"shrunk from {width} x {height} pixels")
        key = f"yours, {len(self.own) + 1}: {path.name}"
        self.own[key] = x, notes
        return key

    def render(self, *, photo: str, view: str, lambda_rate: float, steps: int) -> Rendered:
        """The photo through our codec and, at the same number of bytes, through JPEG."""
        (x, notes), (data, jpeg, encode_seconds) = self.photo(photo), self.encode(photo, lambda_rate)
        ours, decode_seconds = self.decode(photo, lambda_rate, steps)
        theirs = classical.decode(jpeg)
        times = f"{1000 * encode_seconds:.0f} ms + {1000 * decode_seconds:.0f} ms"
        rows = [_row(f"ours, K = {steps}", data, ours, x, times), _row("JPEG", jpeg, theirs, x, "")]
        table = table_html(
            rows, ["", "bytes", "bits per pixel", "PSNR, dB", "texture kept", "encode + decode"]
        ).text
        small = ["no JPEG of this picture is as small: this is its smallest"] if len(jpeg) > len(data) else []
        text = (
            self._chain(lambda_rate)
            + table
            + "".join(f"<p>{html.escape(note)}</p>" for note in notes + small)
        )
        figure = _panels(x, {f"ours, {len(data)} bytes": ours, f"JPEG, {len(jpeg)} bytes": theirs}, view)
        alt = f"{photo}, {view}: ours in {len(data)} bytes (λ = {lambda_rate:g}, K = {steps}), JPEG in {len(jpeg)} bytes"
        return Rendered(picture_bytes(figure, compress_level=1), alt, text)

    def _chain(self, lambda_rate: float) -> str:
        delta = self.model.step_size(lambda_rate)
        sigma, time, last = (
            quantisation_sigma(delta),
            self.model.start_time(delta),
            self.model.config.diffusion_steps,
        )
        return f"<p>λ = {lambda_rate:g} → Δ = {delta:.4f} → σ<sub>q</sub> = {sigma:.4f} → t* = {time:.2f} of {last}</p>"

    def _photo(self, name: str) -> tuple[Tensor, list[str]]:
        return self.own[name] if name in self.own else (load_photo(name, self.side), [])

    def _encode(self, photo: str, lambda_rate: float) -> tuple[bytes, bytes, float]:
        x, model = self.photo(photo)[0], self.model
        start = perf_counter()
        coded = model.compress(x.to(model.log2_spread.device), lambda_rate=lambda_rate)
        seconds = perf_counter() - start
        data = bitstream.write(coded["strings"], coded["shape"], **model.file_fields)
        return data, jpeg_within(x, len(data)), seconds

    def _decode(self, photo: str, lambda_rate: float, steps: int) -> tuple[Tensor, float]:
        file = bitstream.read(self.encode(photo, lambda_rate)[0])
        start = perf_counter()
        x_hat = self.model.decompress(file.strings, file.shape, steps=steps)["x_hat"].cpu()
        return x_hat, perf_counter() - start


def _row(name: str, data: bytes, x_hat: Tensor, x: Tensor, times: str) -> list[str]:
    rate, texture = bits_per_pixel(len(data), *x.shape[-2:]), gradient_energy_ratio(x_hat, x).item()
    return [name, str(len(data)), f"{rate:.3f}", f"{psnr(x_hat, x).item():.2f}", f"{texture:.2f}", times]


def _panels(x: Tensor, coded: dict[str, Tensor], view: str) -> Figure:
    if view == WHOLE:
        return photos_figure({title: to_pixels(picture) for title, picture in coded.items()})
    rows, cols = busiest(to_pixels(x), *DETAIL_SIZE)
    return photos_figure({t: to_pixels(p)[rows, cols] for t, p in {"original": x, **coded}.items()}, zoom=3)
