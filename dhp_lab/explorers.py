"""Sliders in a notebook: a pure function that is drawn again whenever a control moves.

    def render(*, size: int, photo: str) -> Rendered: ...            # pure: the same position, the same picture
    Explorer(render, [Slider("size", "size", 1, 9, 1, 3), Choice("photo", "photo", ["cat", "cup"])], height=400)

Positions seen before come from a cache. A control acts when it is let go, not on the way. Whatever `render` raises is
shown in place of the text and raised again. `explorer.still()` is the first position for a page without a kernel.

`start_here` is the explorer of lesson 00, on `PhotoCodec`, which compresses a photo once for each lambda.
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
import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dhp_lab import classical, metrics
from dhp_lab.codec import bitstream
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.rate import quantisation_sigma
from dhp_lab.data import ImageError, load_image, to_pixels, to_tensor
from dhp_lab.plots import Html, img_tag, photos_figure, picture_bytes, table_html

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle", "china", "flower")
WHOLE, DETAIL = "whole picture", "detail, 3 x 3 times larger"
DETAIL_SIDE = 114                      # pixels; three details beside each other are as wide as two photos of 512
KEPT = 128                             # positions that a cache holds, up to 1 MB each
NARROW = {"description_width": "7em"}


@dataclass(frozen=True)
class Rendered:
    """One position: `picture`, the bytes of a PNG; `alt`, what is to be seen; `text`, the result as HTML."""

    picture: bytes
    alt: str
    text: str


class Slider:
    """A number: a slider, a box to type it into, and its unit.

    Args:
        name: the parameter of `render`. label: its name for the reader. low, high, value: all whole for a whole number.
        step: of the slider; in decades where log=True spaces its positions logarithmically. unit: shown behind the box.
    """

    def __init__(
        self, name: str, label: str, low: float, high: float, step: float, value: float, *, unit: str = "", log: bool = False
    ) -> None:
        self.name, self.whole = name, all(isinstance(number, int) for number in (low, high, step, value))
        look = {"description": label, "readout": False, "continuous_update": False, "value": value, "style": NARROW}
        kind = widgets.FloatLogSlider if log else widgets.IntSlider if self.whole else widgets.FloatSlider
        ends = (math.log10(low), math.log10(high)) if log else (low, high)
        self.slider = kind(min=ends[0], max=ends[1], step=step, layout=widgets.Layout(width="28em"), **look)
        self.slider.add_class("dhp-slider")
        box = widgets.BoundedIntText if self.whole else widgets.BoundedFloatText
        self.box = box(min=low, max=high, step=None if log else step, value=value, layout=widgets.Layout(width="7em"))
        self.slider.observe(lambda change: setattr(self.box, "value", self._rounded(change.new)), "value")
        self.box.observe(lambda change: setattr(self.slider, "value", change.new), "value")
        self.row = widgets.HBox([self.slider, self.box, widgets.Label(unit)])

    @property
    def value(self) -> float:
        """The number in the box: three significant digits where it came from the slider."""
        return self.box.value

    def observe(self, handler: Callable) -> None:
        """Call the handler whenever the number has changed."""
        self.box.observe(handler, "value")

    def _rounded(self, number: float) -> float:
        return number if self.whole else float(f"{number:.3g}")


class Choice:
    """One of several names, in a menu. name: the parameter of `render`. value: the first option if not given."""

    def __init__(self, name: str, label: str, options: Sequence[str], value: str | None = None) -> None:
        self.name = name
        self.row = widgets.Dropdown(description=label, options=list(options), value=value or options[0], style=NARROW)

    @property
    def value(self) -> str:
        """The chosen name."""
        return self.row.value

    def observe(self, handler: Callable) -> None:
        """Call the handler whenever another name is chosen."""
        self.row.observe(handler, "value")

    def add(self, option: str) -> None:
        """Add a name to the menu and choose it."""
        self.row.options = [*self.row.options, option]
        self.row.value = option


class Explorer(widgets.VBox):
    """Controls, a picture and a line of text that follow `render`.

    Args:
        render: takes each control's value by its name; pure. controls: `Slider` and `Choice`.
        height: of the picture's place in pixels, so that the page does not jump. beside: widgets beside the menus.
    """

    def __init__(
        self, render: Callable[..., Rendered], controls: Sequence[Slider | Choice], *, height: int,
        beside: Sequence[widgets.Widget] = (),
    ) -> None:  # fmt: skip
        self.render, self.controls = lru_cache(maxsize=KEPT)(render), list(controls)
        self.picture = widgets.HTML(layout=widgets.Layout(min_height=f"{height}px"))
        self.text = widgets.HTML()
        self.text.add_class("dhp-text")
        menus = [control.row for control in controls if isinstance(control, Choice)]
        sliders = [control.row for control in controls if isinstance(control, Slider)]
        top = [widgets.HBox([*menus, *beside], layout=widgets.Layout(flex_flow="row wrap"))] if menus or beside else []
        super().__init__([*top, *sliders, self.picture, self.text])
        self.add_class("dhp-explorer")
        self.start = self.position()
        for control in controls:
            control.observe(lambda change: self.draw())
        self.draw()

    def position(self) -> dict[str, float | str]:
        """The controls' values by name."""
        return {control.name: control.value for control in self.controls}

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


def load_photo(name: str, side: int = 512) -> Tensor:
    """One of `PHOTOS`, which come with scikit-image and scikit-learn: its middle, (1, 3, H, W) in [0, 1], H, W <= side.

    Raises:
        ValueError: another name.
    """
    if name not in PHOTOS:
        raise ValueError(f"there is no photo {name!r}; choose one of {', '.join(PHOTOS)}")
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image(f"{name}.jpg")
    else:
        import skimage.data

        pixels = skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
    top, left = (max(0, length - side) // 2 for length in pixels.shape[:2])
    return to_tensor(pixels[top : top + side, left : left + side])


def jpeg_within(x: Tensor, n_bytes: int) -> bytes:
    """The best JPEG file of (1, 3, H, W) in [0, 1] that has at most n_bytes; the smallest one where none has."""
    jpeg = classical.find_codec("jpeg")
    quality = bisect_right(range(1, 101), n_bytes, key=lambda quality: len(classical.encode(jpeg, x, quality)))
    return classical.encode(jpeg, x, max(quality, 1))


def busiest(x: Tensor, side: int = DETAIL_SIDE) -> tuple[slice, slice]:
    """Rows and columns of the square of (1, 3, H, W) whose neighbouring pixels differ most, side pixels or less."""
    grey = F.pad(x.mean(1, keepdim=True), (0, 1, 0, 1), mode="replicate")
    change = grey[..., 1:, :-1].sub(grey[..., :-1, :-1]).abs() + grey[..., :-1, 1:].sub(grey[..., :-1, :-1]).abs()
    size = tuple(min(side, length) for length in x.shape[-2:])
    means = F.avg_pool2d(change, size, stride=4)[0, 0]
    top, left = (4 * int(i) for i in divmod(int(means.argmax()), means.shape[1]))
    return slice(top, top + size[0]), slice(left, left + size[1])


class PhotoCodec:
    """A model and photos: each file is written once, each decode is made once. side: largest of a picture, in pixels."""

    def __init__(self, model: DiffusionHyperprior, side: int) -> None:
        self.model, self.side, self.own = model, side, {}
        self.photo = lru_cache(maxsize=None)(lambda name: self.own[name] if name in self.own else load_photo(name, side))
        self.encode, self.decode, self.jpeg = (lru_cache(KEPT)(f) for f in (self._encode, self._decode, self._jpeg))

    def add(self, name: str, data: bytes) -> tuple[str, list[str]]:
        """Take in the reader's picture file; returns the name it goes by and what had to be converted.

        Raises:
            ImageError: not a picture, or too small.
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
            notes = [*notes, f"shrunk from {width} x {height} pixels, so that the sliders stay quick"]
        key = f"{len(self.own) + 1}: {path.name}"
        self.own[key] = x
        return key, notes

    def _encode(self, photo: str, lambda_rate: float) -> tuple[bytes, float]:
        x = self.photo(photo).to(self.model.log2_spread.device)
        start = perf_counter()
        coded = self.model.compress(x, lambda_rate=lambda_rate)
        seconds = perf_counter() - start
        model_id, transmit = self.model.model_id, self.model.config.transmit
        return bitstream.write(coded["strings"], coded["shape"], model_id=model_id, transmit=transmit), seconds

    def _decode(self, photo: str, lambda_rate: float, steps: int) -> tuple[Tensor, float]:
        file = bitstream.read(self.encode(photo, lambda_rate)[0])
        start = perf_counter()
        x_hat = self.model.decompress(file.strings, file.shape, steps=steps)["x_hat"].cpu()
        return x_hat, perf_counter() - start

    def _jpeg(self, photo: str, n_bytes: int) -> bytes:
        return jpeg_within(self.photo(photo), n_bytes)
