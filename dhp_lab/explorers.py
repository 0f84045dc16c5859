"""Sliders in a notebook: a pure function that is drawn again whenever a control moves.

    def render(*, size: int, photo: str) -> Rendered: ...            # pure: the same position, the same picture
    Explorer(render, [Slider("size", "size", 1, 9, 1, 3), Choice("photo", "photo", ["cat", "cup"])], height=400)

Positions seen before come from a cache. A control acts when it is let go, not on the way. What `render` raises is shown
in place of the text and raised again. `explorer.still()` is the first position for a page without a kernel.

`CodecExplorer` is the one of lesson 00; `PhotoCodec`, which knows no widgets, does its work.
"""

from __future__ import annotations

import html
import io
import math
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter

import ipywidgets as widgets
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from dhp_lab import classical
from dhp_lab.codec import bitstream
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.rate import quantisation_sigma
from dhp_lab.data import ImageError, load_image, to_pixels
from dhp_lab.metrics import bits_per_pixel, gradient_energy_ratio, psnr
from dhp_lab.plots import PHOTOS, Html, busiest, img_tag, load_photo, photos_figure, picture_bytes, table_html

WHOLE, DETAIL = "whole picture", "detail, 3 times as large"
DETAIL_SIDE = 114                      # pixels; three details beside each other are as wide as two photos of 512
KEPT = 128                             # positions that a cache holds, up to 1 MB each
LABELS = {"description_width": "6em"}


@dataclass(frozen=True)
class Rendered:
    """One position: `picture`, the bytes of a PNG; `alt`, what is to be seen; `text`, the result as HTML."""

    picture: bytes
    alt: str
    text: str


@dataclass(frozen=True)
class Control:
    """What a reader moves: the parameter's name, the widget that holds its value, and the row of widgets to show."""

    name: str
    holder: widgets.ValueWidget
    row: widgets.Widget


def Slider(
    name: str, label: str, low: float, high: float, step: float, value: float, *, unit: str = "", log: bool = False
) -> Control:
    """A slider, a box to type the number into, and its unit. The number is whole if all four given are.

    Args:
        name: the parameter of `render`. label: its name for the reader. unit: shown behind the box.
        step: of the slider; in decades with log=True, which spaces the positions logarithmically.
    """
    whole = all(isinstance(number, int) for number in (low, high, step, value))
    kind = widgets.FloatLogSlider if log else widgets.IntSlider if whole else widgets.FloatSlider
    box_kind = widgets.BoundedIntText if whole else widgets.BoundedFloatText
    ends = {"min": math.log10(low), "max": math.log10(high)} if log else {"min": low, "max": high}
    slider = kind(value=value, step=step, **ends, description=label, readout=False, continuous_update=False, style=LABELS,
                  layout=widgets.Layout(width="30em"))  # fmt: skip
    slider.add_class("dhp-slider")
    box = box_kind(value=value, min=low, max=high, step=None if log else step, layout=widgets.Layout(width="7em"))

    slider.observe(lambda change: box.set_trait("value", change.new if whole else float(f"{change.new:.3g}")), "value")
    box.observe(lambda change: slider.set_trait("value", change.new), "value")
    return Control(name, box, widgets.HBox([slider, box, widgets.Label(unit)]))


def Choice(name: str, label: str, options: Sequence[str], value: str | None = None) -> Control:
    """A menu of names; value is the one chosen first, else the first of them."""
    menu = widgets.Dropdown(description=label, options=list(options), value=value or options[0], style=LABELS)
    return Control(name, menu, menu)


class Explorer(widgets.VBox):
    """Controls, a picture and a text that follow `render`.

    Args:
        render: takes each control's value by its name. controls: from `Slider` and `Choice`.
        height: of the picture's place in pixels, so that the page does not jump. beside: widgets beside the menus.
    """

    def __init__(
        self, render: Callable[..., Rendered], controls: Sequence[Control], *, height: int, beside: Sequence[widgets.Widget] = ()
    ) -> None:
        self.render, self.controls = lru_cache(maxsize=KEPT)(render), {control.name: control.holder for control in controls}
        self.picture = widgets.HTML(layout=widgets.Layout(min_height=f"{height}px"))
        self.text = widgets.HTML()
        self.text.add_class("dhp-text")
        menus = [control.row for control in controls if control.row is control.holder]
        sliders = [control.row for control in controls if control.row is not control.holder]
        super().__init__([widgets.HBox([*menus, *beside]), *sliders, self.picture, self.text])
        self.add_class("dhp-explorer")
        self.start = self.position()
        for control in controls:
            control.holder.observe(lambda change: self.draw(), "value")
        self.draw()

    def position(self) -> dict[str, float | str]:
        """The controls' values by name."""
        return {name: holder.value for name, holder in self.controls.items()}

    def draw(self) -> None:
        """Show what `render` gives for the controls' position."""
        try:
            shown = self.render(**self.position())
        except Exception as error:
            self.say(f"{type(error).__name__}: {error}")
            raise
        self.picture.value, self.text.value = img_tag(shown.picture, shown.alt, "dhp-picture"), shown.text

    def say(self, message: str) -> None:
        """Show a message in place of the result."""
        self.text.value = f"<b>{html.escape(message)}</b>"

    def still(self, quality: int = 90) -> Html:
        """The first position without widgets, its picture as WebP of this quality (1 .. 100)."""
        shown, file = self.render(**self.start), io.BytesIO()
        Image.open(io.BytesIO(shown.picture)).save(file, "WEBP", quality=quality, method=6)
        return Html(f"<div>{img_tag(file.getvalue(), shown.alt, 'dhp-still')}{shown.text}</div>")


def jpeg_within(x: Tensor, n_bytes: int) -> bytes:
    """The best JPEG file of (1, 3, H, W) in [0, 1] that has at most n_bytes; the smallest one where none has."""
    jpeg = classical.find_codec("jpeg")
    quality = bisect_right(range(1, 101), n_bytes, key=lambda quality: len(classical.encode(jpeg, x, quality)))
    return classical.encode(jpeg, x, max(quality, 1))


class PhotoCodec:
    """A model and photos: each file is written once, each picture decoded once. side: a photo's largest, in pixels."""

    def __init__(self, model: DiffusionHyperprior, side: int) -> None:
        self.model, self.side, self.own = model, side, {}
        self.photo = lru_cache(maxsize=len(PHOTOS))(self._photo)
        self.encode, self.decode = lru_cache(maxsize=KEPT)(self._encode), lru_cache(maxsize=KEPT)(self._decode)

    def add(self, name: str, data: bytes) -> str:
        """Take in the reader's own picture file and return the name it goes by, with what had to be converted.

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
        key = f"yours, {len(self.own) + 1}: " + ", ".join([path.name, *notes])
        self.own[key] = x
        return key

    def render(self, *, photo: str, view: str, lambda_rate: float, steps: int) -> Rendered:
        """The photo through our codec and, at the same number of bytes, through JPEG."""
        x, (data, jpeg, encode_seconds) = self.photo(photo), self.encode(photo, lambda_rate)
        ours, decode_seconds = self.decode(photo, lambda_rate, steps)
        theirs = classical.decode(jpeg)
        times = f"{1000 * encode_seconds:.0f} ms + {1000 * decode_seconds:.0f} ms"
        rows = [_row(f"ours, K = {steps}", data, ours, x, times), _row("JPEG", jpeg, theirs, x, "")]
        table = table_html(rows, ["", "bytes", "bits per pixel", "PSNR, dB", "texture kept", "encode + decode"]).text
        note = "" if len(jpeg) <= len(data) else "<p>No JPEG of this picture is as small: this is its smallest.</p>"
        figure = _panels(x, {f"ours, {len(data)} bytes": ours, f"JPEG, {len(jpeg)} bytes": theirs}, view)
        alt = f"{photo}, {view}: ours in {len(data)} bytes (λ = {lambda_rate:g}, K = {steps}), JPEG in {len(jpeg)} bytes"
        return Rendered(picture_bytes(figure, compress_level=1), alt, self._chain(lambda_rate) + table + note)

    def _chain(self, lambda_rate: float) -> str:
        delta = self.model.step_size(lambda_rate)
        sigma, time, last = quantisation_sigma(delta), self.model.start_time(delta), self.model.config.diffusion_steps
        return f"<p>λ = {lambda_rate:g} → Δ = {delta:.4f} → σ<sub>q</sub> = {sigma:.4f} → t* = {time:.2f} of {last}</p>"

    def _photo(self, name: str) -> Tensor:
        return self.own[name] if name in self.own else load_photo(name, self.side)

    def _encode(self, photo: str, lambda_rate: float) -> tuple[bytes, bytes, float]:
        x, model = self.photo(photo), self.model
        start = perf_counter()
        coded = model.compress(x.to(model.log2_spread.device), lambda_rate=lambda_rate)
        seconds = perf_counter() - start
        data = bitstream.write(coded["strings"], coded["shape"], model_id=model.model_id, transmit=model.config.transmit)
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
    rows, cols = busiest(to_pixels(x), DETAIL_SIDE)
    return photos_figure({t: to_pixels(p)[rows, cols] for t, p in {"original": x, **coded}.items()}, zoom=3)


class CodecExplorer(Explorer):
    """Lambda and K on photos of up to side x side pixels, or the reader's own; JPEG at as many bytes beside ours."""

    def __init__(self, model: DiffusionHyperprior, *, photo: str = "astronaut", side: int = 512) -> None:
        self.codec = PhotoCodec(model, side)
        self.upload = widgets.FileUpload(accept="image/*", description="your own picture")
        self.upload.observe(self._take_in, "value")
        super().__init__(self.codec.render, [
            Choice("photo", "photo", PHOTOS, photo), Choice("view", "show", [WHOLE, DETAIL]),
            Slider("lambda_rate", "λ", 1e-5, 1e-2, 0.1, 3e-3, unit="larger: smaller file", log=True),
            Slider("steps", "steps K", 0, 8, 1, 1, unit="0: no diffusion, 1: best PSNR, more: texture"),
        ], height=side + 40, beside=[self.upload])  # fmt: skip

    def _take_in(self, change) -> None:
        if not change.new:
            return
        name, data = change.new[0]["name"], bytes(change.new[0]["content"])
        self.upload.value = ()                        # the picture stays in the kernel, and out of the notebook
        menu = self.controls["photo"]
        try:
            menu.options = [self.codec.add(name, data), *menu.options]       # a menu with new options takes the first
        except ImageError as error:
            self.say(str(error))
