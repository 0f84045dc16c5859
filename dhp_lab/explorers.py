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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import ipywidgets as widgets
import torch
from PIL import Image

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data import PHOTOS, ImageError
from dhp_lab.diffusion.guidance import LabelDenoiser
from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.digits import CLASSES
from dhp_lab.lessons.conditional import ANY, NOTHING, GuidedDigits, masks
from dhp_lab.lessons.conditional import SIZE as CONDITIONAL_SIZE
from dhp_lab.lessons.ddim import SIZE as DDIM_SIZE
from dhp_lab.lessons.ddim import DigitDraws
from dhp_lab.lessons.ddpm import SIZE as DDPM_SIZE
from dhp_lab.lessons.ddpm import NoisyDigit
from dhp_lab.lessons.diffusion_hyperprior import SIZE as DIFFUSION_HYPERPRIOR_SIZE
from dhp_lab.lessons.diffusion_hyperprior import DiffusionTimes
from dhp_lab.lessons.latent_diffusion import CAPTIONS, SceneDraws
from dhp_lab.lessons.latent_diffusion import SIZE as LATENT_DIFFUSION_SIZE
from dhp_lab.lessons.measured_photo import MeasuredPhoto, picture_size
from dhp_lab.lessons.scale_hyperprior import SIZE as SCALE_HYPERPRIOR_SIZE
from dhp_lab.lessons.scale_hyperprior import HyperpriorMaps
from dhp_lab.lessons.score_and_sde import CORRECTED, SAMPLERS, SCHEDULES, sampler_picture
from dhp_lab.lessons.score_and_sde import SIZE as SCORE_AND_SDE_SIZE
from dhp_lab.photo_codec import DETAIL, WHOLE, PhotoCodec
from dhp_lab.plots import Html, Rendered, img_tag

if TYPE_CHECKING:
    from dhp_lab.latent_diffusion import LatentDiffusion

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


def ddpm(network: Denoiser, known: NoiseSchedule) -> Explorer:
    """Lesson 01: a digit at a time t of a schedule, and what the network (trained on ``known``, on the CPU) guesses it was."""
    return Explorer(NoisyDigit(network, known).render, [
        Choice("schedule", "schedule", ["linear", "cosine"]), Choice("digit", "digit", [str(i) for i in range(CLASSES)], "3"),
        Slider("t", "time t", 1, known.steps, 1, known.steps // 5, unit=f"of {known.steps}"),
        Slider("seed", "noise", 0, 20, 1, 0, unit="each number is other noise"),
    ], size=DDPM_SIZE)  # fmt: skip


def ddim(denoiser: Denoiser, schedule: NoiseSchedule, *, device: torch.device | str = "cpu") -> Explorer:
    """Lesson 02: steps, eta and seed of DDIM on digits; each noise is drawn from twice."""
    return Explorer(DigitDraws(denoiser, schedule, device=device).render, [
        Slider("steps", "steps", 1, min(250, schedule.steps), 1, 20, unit="questions to the network"),
        Slider("eta", "η", 0.0, 1.0, 0.1, 0.0, unit="0: no chance on the way, 1: as much as DDPM"),
        Slider("seed", "seed", 0, 99, 1, 0, unit="of all noise, at the start and on the way"),
    ], size=DDIM_SIZE)  # fmt: skip


def score_and_sde() -> Explorer:
    """Lesson 03: samplers on three islands in the plane, with the exact denoiser."""
    return Explorer(sampler_picture, [
        Choice("sampler", "sampler", list(SAMPLERS), CORRECTED), Choice("schedule", "schedule", list(SCHEDULES), "VE, geometric"),
        Slider("steps", "steps", 2, 100, 1, 20),
        Slider("snr", "SNR", 0.02, 0.6, 0.02, 0.16, unit="of the corrector: larger takes longer steps"),
    ], size=SCORE_AND_SDE_SIZE)  # fmt: skip


def conditional(network: LabelDenoiser, schedule: NoiseSchedule, *, device: torch.device | str = "cpu") -> Explorer:
    """Lesson 04: the class asked for and the guidance scale, drawn freely or around known pixels of a test digit."""
    numbers = [str(i) for i in range(CLASSES)]
    return Explorer(GuidedDigits(network, schedule, device=device).render, [
        Choice("label", "asked for", [*numbers, ANY], "3"), Choice("known", "known", [NOTHING, *masks()]),
        Choice("digit", "of a", numbers, "8"),
        Slider("scale", "scale", 0.0, 15.0, 0.5, 3.0, unit="0: the class counts nothing, 1: as trained"),
        Slider("seed", "seed", 0, 99, 1, 0, unit="of all noise"),
    ], size=CONDITIONAL_SIZE)  # fmt: skip


def latent_diffusion(models: Mapping[str, LatentDiffusion]) -> Explorer:
    """Lesson 05: pictures for a caption in the grammar's words, typed or chosen, by the model of one f."""
    caption = widgets.Combobox(value=CAPTIONS[0], options=CAPTIONS, description="caption", continuous_update=False, style=LABELS,
                               layout=widgets.Layout(width="36em"))  # fmt: skip
    return Explorer(SceneDraws(models).render, [
        Control("caption", caption, caption), Choice("f", "f", list(models)),
        Slider("steps", "steps", 1, 50, 1, 20, unit="two questions to the U-Net each"),
        Slider("guidance", "guidance", 0.0, 12.0, 0.5, 4.0, unit="0: the caption counts nothing, 1: as trained"),
        Slider("seed", "seed", 0, 99, 1, 0, unit="of all noise"),
    ], size=LATENT_DIFFUSION_SIZE)  # fmt: skip


def scale_hyperprior(model: DiffusionHyperprior, *, side: int = 512) -> Explorer:
    """Lesson 06: a photo's symbols and their scales, a channel at a time, and where its bits go."""
    return Explorer(HyperpriorMaps(model, side).render, [
        Choice("photo", "photo", PHOTOS),
        Slider("lambda_rate", "λ", 1e-5, 3e-2, 0.1, 1e-3, unit="error for a bit per pixel; larger: smaller file", log=True),
        Slider("channel", "channel", 0, model.config.M - 1, 1, 1, unit="of y, from coarse to fine"),
    ], size=SCALE_HYPERPRIOR_SIZE)  # fmt: skip


def diffusion_hyperprior(model: DiffusionHyperprior) -> Explorer:
    """Lesson 07: lambda sets the start time on a schedule, K and gamma what the decoder does from there."""
    return Explorer(DiffusionTimes(model).render, [
        Choice("photo", "photo", PHOTOS, "chelsea"), Choice("schedule", "schedule", ["linear", "cosine"]),
        Slider("lambda_rate", "λ", 1e-5, 3e-2, 0.1, 3e-3, unit="error for a bit per pixel; larger: smaller file", log=True),
        Slider("steps", "steps K", 0, 16, 1, 4, unit="questions to the denoiser; 0: none, 1: the average"),
        Slider("gamma", "γ", 0.0, 1.0, 0.1, 0.0, unit="0: the sample, 1: the average"),
    ], size=DIFFUSION_HYPERPRIOR_SIZE)  # fmt: skip


def evaluate(model: DiffusionHyperprior, *, side: int = 288) -> Explorer:
    """Lesson 08: a photo's middle, side x side pixels, by ours and by JPEG at as many bytes, with errors and curves."""
    return Explorer(MeasuredPhoto(model, side).render, [
        Choice("photo", "photo", PHOTOS, "coffee"),
        Slider("lambda_rate", "λ", 1e-5, 3e-2, 0.1, 5e-3, unit="error for a bit per pixel; larger: smaller file", log=True),
        Slider("steps", "steps K", 0, 16, 1, 4, unit="0: no diffusion, 1: best PSNR, more: texture"),
        Slider("gamma", "γ", 0.0, 1.0, 0.1, 0.0, unit="0: the sample, 1: the average"),
        Slider("seed", "seed", 0, 99, 1, 0, unit="of the noise"),
    ], size=picture_size(side))  # fmt: skip
