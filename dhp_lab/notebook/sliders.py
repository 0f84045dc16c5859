"""Explorers in a notebook: a pure function that is drawn again whenever a control moves.

    def render(*, size: int, photo: str) -> Rendered: ...       # pure: the same position, the same picture
    Explorer(
        render,
        [Slider("size", "size", 1, 9, 1, 3), Dropdown("photo", "photo", ["cat", "cup"])],
        size=(640, 400),
    )

Positions seen before come from a cache. A control acts when it is let go, not on the way. What `render`
raises is shown in place of the text and raised again. `explorer.still()` is the first position for a page
without a kernel.

This is the only module that imports ipywidgets; each lesson's ``explorer`` builds its own of these parts.
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

from dhp_lab.notebook.html import Html, Rendered, img_tag

KEPT = 128  # positions that a cache holds, up to 1 MB each
LABELS = {"description_width": "6em"}


@dataclass(frozen=True)
class Control:
    """What a reader moves.

    Attributes:
        name: the parameter of `render`.
        holder: the widget that holds its value.
        row: the widgets to show.
    """

    name: str
    holder: widgets.ValueWidget
    row: widgets.Widget


def Slider(
    name: str,
    label: str,
    low: float,
    high: float,
    step: float,
    value: float,
    *,
    unit: str = "",
    log: bool = False,
) -> Control:
    """A slider, a box to type the number into, and its unit. The number is whole if all four given are.

    Args:
        name: the parameter of `render`.
        label: its name for the reader.
        low, high, value: the ends, and where it stands at first.
        step: of the slider; in decades with log=True, which spaces the positions logarithmically.
        unit: shown behind the box.
    """
    whole = all(isinstance(number, int) for number in (low, high, step, value))
    slider_kind = widgets.FloatLogSlider if log else widgets.IntSlider if whole else widgets.FloatSlider
    box_kind = widgets.BoundedIntText if whole else widgets.BoundedFloatText
    slider = slider_kind(
        value=value,
        min=math.log10(low) if log else low,
        max=math.log10(high) if log else high,
        step=step,
        description=label,
        readout=False,
        continuous_update=False,
        style=LABELS,
        layout=widgets.Layout(width="30em"),
    )
    slider.add_class("dhp-slider")
    layout = widgets.Layout(width="7em")
    box = box_kind(value=value, min=low, max=high, step=None if log else step, layout=layout)

    def to_box(change) -> None:
        box.value = change.new if whole else float(f"{change.new:.3g}")

    def to_slider(change) -> None:
        slider.value = change.new

    slider.observe(to_box, "value")
    box.observe(to_slider, "value")
    return Control(name, box, widgets.HBox([slider, box, widgets.Label(unit)]))


def lambda_slider(value: float, *, low: float = 1e-5, high: float = 3e-2) -> Control:
    """The slider of lambda, the parameter ``lambda_rate``, on a logarithmic scale from low to high."""
    unit = "error for a bit per pixel; larger: smaller file"
    return Slider("lambda_rate", "λ", low, high, 0.1, value, unit=unit, log=True)


def Dropdown(name: str, label: str, options: Sequence[str], value: str | None = None) -> Control:
    """A menu of names.

    Args:
        name: the parameter of `render`.
        label: its name for the reader.
        options: the names.
        value: the one chosen at first, else the first of them.
    """
    menu = widgets.Dropdown(description=label, options=list(options), value=value or options[0], style=LABELS)
    return Control(name, menu, menu)


def TextBox(name: str, label: str, options: Sequence[str]) -> Control:
    """A line to type into, with a menu of suggestions; the first of them is there at the start.

    Args:
        name: the parameter of `render`.
        label: its name for the reader.
        options: the suggestions.
    """
    line = widgets.Combobox(
        value=options[0],
        options=options,
        description=label,
        continuous_update=False,
        style=LABELS,
        layout=widgets.Layout(width="36em"),
    )
    return Control(name, line, line)


def Upload(label: str, receive: Callable[[str, bytes], None]) -> widgets.FileUpload:
    """A button for the reader's own picture, which stays in the kernel and out of the notebook.

    Args:
        label: of the button.
        receive: gets the file's name and bytes.
    """
    button = widgets.FileUpload(accept="image/*", description=label, layout={"width": "max-content"})

    def uploaded(change) -> None:
        if change.new:
            name, data = change.new[0]["name"], bytes(change.new[0]["content"])
            button.value = ()
            receive(name, data)

    button.observe(uploaded, "value")
    return button


class Explorer(widgets.VBox):
    """Controls, a picture and a text that follow `render`.

    Args:
        render: takes each control's value by its name.
        controls: of ``Slider``, ``Dropdown`` and ``TextBox``.
        size: width and height in pixels of the picture's place, kept whatever the picture is, so that the
            page does not jump; a narrow page makes it smaller.
        beside: widgets beside the menus.
    """

    def __init__(
        self,
        render: Callable[..., Rendered],
        controls: Sequence[Control],
        *,
        size: tuple[int, int],
        beside: Sequence[widgets.Widget] = (),
    ) -> None:
        self.render = lru_cache(maxsize=KEPT)(render)
        self.controls = {control.name: control.holder for control in controls}
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
        """Show what `render` gives for the controls' position.

        Raises:
            Exception: what `render` raises, after its message is shown.
        """
        try:
            shown = self.render(**self.position())
        except Exception as error:
            self.show_message(f"{type(error).__name__}: {error}")
            raise
        picture = img_tag(shown.picture, shown.alt, "dhp-picture", "max-width: 100%; max-height: 100%")
        self.picture.value = f"{self.frame}{picture}</div>"
        self.text.value = shown.text

    def show_message(self, message: str) -> None:
        """Show a message in place of the text."""
        self.text.value = f"<b>{html.escape(message)}</b>"

    def still(self, quality: int = 90) -> Html:
        """The first position without widgets, its picture as WebP of this quality (1 .. 100)."""
        shown = self.render(**self.start)
        file = io.BytesIO()
        with Image.open(io.BytesIO(shown.picture)) as picture:
            picture.save(file, "WEBP", quality=quality, method=6)
        return Html(f"<div>{img_tag(file.getvalue(), shown.alt, 'dhp-still')}{shown.text}</div>")
