"""Sliders in a notebook: a pure function that is drawn again whenever a control moves.

    def render(*, size: int, photo: str) -> Rendered: ...            # pure: the same position, the same picture
    Explorer(render, [Slider("size", "size", 1, 9, 1, 3), Choice("photo", "photo", ["cat", "cup"])], size=(640, 400))

Positions seen before come from a cache. A control acts when it is let go, not on the way. What `render` raises is shown
in place of the text and raised again. `explorer.still()` is the first position for a page without a kernel.

`CodecExplorer` is the one of lesson 00; `photo_codec.PhotoCodec`, which knows no widgets, does its work.
"""

from __future__ import annotations

import html
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
from PIL import Image

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data import PHOTOS, ImageError
from dhp_lab.photo_codec import DETAIL, WHOLE, PhotoCodec
from dhp_lab.plots import Html, Rendered, img_tag

KEPT = 128                             # positions that a cache holds, up to 1 MB each
LABELS = {"description_width": "6em"}


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
        size: width and height in pixels of the picture's place, kept whatever the picture is, so that the page does not
            jump; a narrow page makes it smaller. beside: widgets beside the menus.
    """

    def __init__(
        self, render: Callable[..., Rendered], controls: Sequence[Control], *, size: tuple[int, int],
        beside: Sequence[widgets.Widget] = (),
    ) -> None:  # fmt: skip
        self.render, self.controls = lru_cache(maxsize=KEPT)(render), {control.name: control.holder for control in controls}
        self.frame = f'<div style="max-width: {size[0]}px; aspect-ratio: {size[0]}/{size[1]}">'
        self.picture, self.text = widgets.HTML(), widgets.HTML()
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
        picture = img_tag(shown.picture, shown.alt, "dhp-picture", "max-width: 100%; max-height: 100%")
        self.picture.value, self.text.value = f"{self.frame}{picture}</div>", shown.text

    def say(self, message: str) -> None:
        """Show a message in place of the result."""
        self.text.value = f"<b>{html.escape(message)}</b>"

    def still(self, quality: int = 90) -> Html:
        """The first position without widgets, its picture as WebP of this quality (1 .. 100)."""
        shown, file = self.render(**self.start), io.BytesIO()
        Image.open(io.BytesIO(shown.picture)).save(file, "WEBP", quality=quality, method=6)
        return Html(f"<div>{img_tag(file.getvalue(), shown.alt, 'dhp-still')}{shown.text}</div>")


class CodecExplorer(Explorer):
    """Lambda and K on photos of up to side x side pixels, or the reader's own; JPEG at as many bytes beside ours."""

    def __init__(self, model: DiffusionHyperprior, *, photo: str = "astronaut", side: int = 512) -> None:
        self.codec = PhotoCodec(model, side)
        self.upload = widgets.FileUpload(accept="image/*", description="your own picture", layout={"width": "max-content"})
        self.upload.observe(self._take_in, "value")
        super().__init__(self.codec.render, [
            Choice("photo", "photo", PHOTOS, photo), Choice("view", "show", [WHOLE, DETAIL]),
            Slider("lambda_rate", "λ", 1e-5, 3e-2, 0.1, 3e-3, unit="error for a bit per pixel; larger: smaller file", log=True),
            Slider("steps", "steps K", 0, 8, 1, 1, unit="0: no diffusion, 1: best PSNR, more: texture"),
        ], size=(1058, 544), beside=[self.upload])  # fmt: skip

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
