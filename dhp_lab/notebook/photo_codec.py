"""A model and photos behind an explorer: files and pictures are made once, a classical codec is beside."""

from __future__ import annotations

import html
import tempfile
from functools import lru_cache
from pathlib import Path
from time import perf_counter

import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.codec import dhp_file
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
FILES_KEPT, PICTURES_KEPT = 128, 16  # in the caches
BESIDE = {"JPEG": classical.JPEG, "AVIF": classical.QUICK_AVIF}  # what stands beside ours


class PhotoCodec:
    """A model and photos; ``encode`` and ``decode`` remember what they have made.

    Args:
        model: on any device.
        side: a photo's largest side in pixels; larger pictures of the reader's own are shrunk to it.
    """

    def __init__(self, model: DiffusionHyperprior, side: int) -> None:
        self.model = model
        self.side = side
        self.own: dict[str, tuple[Tensor, list[str]]] = {}  # the reader's pictures
        self.photo = lru_cache(maxsize=len(PHOTOS))(self._photo)
        self.files = lru_cache(maxsize=FILES_KEPT)(self._file)
        self.beside = lru_cache(maxsize=FILES_KEPT)(self._beside)
        self.decode = lru_cache(maxsize=PICTURES_KEPT)(self._decode)

    def add(self, name: str, data: bytes) -> str:
        """Take in the reader's own picture file and return the name it goes by.

        Args:
            name: of the file, without its folder.
            data: the file, in any format that Pillow reads.

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
        scale = self.side / max(height, width)
        if scale < 1:
            size = [max(16, round(scale * length)) for length in (height, width)]
            x = F.interpolate(x, size=size, mode="bicubic", antialias=True).clamp(0, 1)
            notes.append(f"shrunk from {width} x {height} pixels")
        key = f"yours, {len(self.own) + 1}: {path.name}"
        self.own[key] = x, notes
        return key

    def render(
        self, *, photo: str, view: str, beside: str = "JPEG", lambda_rate: float, steps: int
    ) -> Rendered:
        """The photo through our codec and, in at most as many bytes, through a classical one.

        Args:
            photo: a name of ``PHOTOS`` or one that ``add`` has returned.
            view: WHOLE or DETAIL.
            beside: "JPEG" or "AVIF", a key of ``BESIDE``.
            lambda_rate: 1e-6 .. 1e-1.
            steps: K of the decoder, 0 .. 1000.
        """
        x, notes = self.photo(photo)
        data, encode_seconds = self.encode(photo, lambda_rate)
        ours, decode_seconds = self.decode(photo, lambda_rate, steps)
        other = self.beside(beside, photo, lambda_rate)
        theirs = BESIDE[beside].decode(other)
        times = f"{1000 * encode_seconds:.0f} ms + {1000 * decode_seconds:.0f} ms"
        rows = [_row(f"ours, K = {steps}", data, ours, x, times), _row(beside, other, theirs, x, "")]
        header = ["", "bytes", "bits per pixel", "PSNR, dB", "texture kept", "encode + decode"]
        if len(other) > len(data):
            notes = [*notes, none_as_small(beside)]
        paragraphs = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
        text = self._noise_level(lambda_rate) + table_html(rows, header).text + paragraphs
        figure = _panels(x, {f"ours, {len(data)} bytes": ours, f"{beside}, {len(other)} bytes": theirs}, view)
        alt = (
            f"{photo}, {view}: ours in {len(data)} bytes (λ = {lambda_rate:g}, K = {steps}), "
            f"{beside} in {len(other)} bytes"
        )
        return Rendered(picture_bytes(figure, compress_level=1), alt, text)

    def _noise_level(self, lambda_rate: float) -> str:
        """lambda -> Delta -> sigma_q -> t* as a paragraph."""
        delta = self.model.step_size(lambda_rate)
        return (
            f"<p>λ = {lambda_rate:g} → Δ = {delta:.4f} → "
            f"σ<sub>q</sub> = {quantisation_sigma(delta):.4f} → "
            f"t* = {self.model.start_time(delta):.2f} of {self.model.config.diffusion_steps}</p>"
        )

    def _photo(self, name: str) -> tuple[Tensor, list[str]]:
        """The picture (1, 3, H, W) in [0, 1], and notes on how it was loaded."""
        return self.own[name] if name in self.own else (load_photo(name, self.side), [])

    def encode(self, photo: str, lambda_rate: float, effort: int = 0) -> tuple[bytes, float]:
        """Our file, and our encoder's seconds."""
        return self.files(photo, lambda_rate, effort)

    def _file(self, photo: str, lambda_rate: float, effort: int) -> tuple[bytes, float]:
        x, _ = self.photo(photo)
        start = perf_counter()
        data = dhp_file.encode(self.model, x, lambda_rate=lambda_rate, effort=effort)
        return data, perf_counter() - start

    def _beside(self, name: str, photo: str, lambda_rate: float, effort: int = 0) -> bytes:
        """A classical codec's best file of at most as many bytes as ours, or its smallest."""
        data, _ = self.encode(photo, lambda_rate, effort)
        return classical.best_within(BESIDE[name], self.photo(photo)[0], len(data))

    def _decode(self, photo: str, lambda_rate: float, steps: int) -> tuple[Tensor, float]:
        """The decoded picture on the CPU, and the decoder's seconds."""
        data, _ = self.encode(photo, lambda_rate)
        start = perf_counter()
        x_hat = dhp_file.decode(self.model, data, steps=steps).cpu()
        return x_hat, perf_counter() - start


def none_as_small(name: str) -> str:
    """The note under a picture that a classical codec cannot code in as few bytes as ours."""
    return f"no {name} of this picture is as small: this is its smallest"


def _row(name: str, data: bytes, x_hat: Tensor, x: Tensor, times: str) -> list[str]:
    rate = bits_per_pixel(len(data), *x.shape[-2:])
    quality = psnr(x_hat, x).item()
    texture = gradient_energy_ratio(x_hat, x).item()
    return [name, str(len(data)), f"{rate:.3f}", f"{quality:.2f}", f"{texture:.2f}", times]


def _panels(x: Tensor, coded: dict[str, Tensor], view: str) -> Figure:
    if view == WHOLE:
        return photos_figure({title: to_pixels(picture) for title, picture in coded.items()})
    rows, cols = busiest(to_pixels(x), *DETAIL_SIZE)
    pictures = {"original": x, **coded}
    details = {title: to_pixels(picture)[rows, cols] for title, picture in pictures.items()}
    return photos_figure(details, zoom=3)
