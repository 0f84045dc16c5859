"""The explorer of the first lesson: lambda and K on a photo."""

from __future__ import annotations

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.images import ImageError
from dhp_lab.data.photos import PHOTOS
from dhp_lab.notebook.photo_codec import DETAIL, WHOLE, PhotoCodec
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider, Upload


class CodecExplorer(Explorer):
    """Lambda and K on photos of up to side x side pixels, or the reader's own; JPEG at as many bytes beside
    ours.
    """

    def __init__(self, model: DiffusionHyperprior, *, photo: str = "astronaut", side: int = 512) -> None:
        self.codec = PhotoCodec(model, side)
        self.upload = Upload("your own picture", self._take_in)
        super().__init__(
            self.codec.render,
            [
                Dropdown("photo", "photo", PHOTOS, photo),
                Dropdown("view", "show", [WHOLE, DETAIL]),
                Slider(
                    "lambda_rate",
                    "λ",
                    1e-5,
                    3e-2,
                    0.1,
                    3e-3,
                    unit="error for a bit per pixel; larger: smaller file",
                    log=True,
                ),
                Slider("steps", "steps K", 0, 8, 1, 1, unit="0: no diffusion, 1: best PSNR, more: texture"),
            ],
            size=(1058, 544),
            beside=[self.upload],
        )

    def _take_in(self, name: str, data: bytes) -> None:
        menu = self.controls["photo"]
        try:
            menu.options = [
                self.codec.add(name, data),
                *menu.options,
            ]  # a menu with new options takes the first
        except ImageError as error:
            self.show_message(str(error))


def explore(model: DiffusionHyperprior, *, photo: str = "astronaut", side: int = 512) -> CodecExplorer:
    """Lambda and K on a photo, or the reader's own; JPEG at as many bytes beside ours."""
    return CodecExplorer(model, photo=photo, side=side)
