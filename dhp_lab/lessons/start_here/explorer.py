"""The explorer of the first lesson: lambda and K on a photo."""

from __future__ import annotations

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.images import ImageError
from dhp_lab.data.photos import PHOTOS
from dhp_lab.notebook.photo_codec import BESIDE, DETAIL, WHOLE, PhotoCodec
from dhp_lab.notebook.sliders import Dropdown, Explorer, Slider, Upload, lambda_slider


class CodecExplorer(Explorer):
    """Lambda and K on photos, or on the reader's own; a JPEG or AVIF of at most as many bytes beside ours.

    Args:
        model: on any device.
        photo: the one shown first, a name of ``PHOTOS``.
        side: the largest side of a photo in pixels.
    """

    def __init__(self, model: DiffusionHyperprior, *, photo: str = "astronaut", side: int = 512) -> None:
        self.codec = PhotoCodec(model, side)
        self.upload = Upload("your own picture", self._add)
        super().__init__(
            self.codec.render,
            [
                Dropdown("photo", "photo", PHOTOS, photo),
                Dropdown("view", "show", [WHOLE, DETAIL]),
                Dropdown("beside", "beside ours", list(BESIDE)),
                lambda_slider(3e-3),
                Slider("steps", "steps K", 0, 8, 1, 1, unit="0: no diffusion, 1: best PSNR, more: texture"),
            ],
            size=(1058, 544),
            beside=[self.upload],
        )

    def _add(self, name: str, data: bytes) -> None:
        """Put the reader's picture in front of the menu, which then chooses it; or say why not."""
        menu = self.controls["photo"]
        try:
            menu.options = [self.codec.add(name, data), *menu.options]
        except ImageError as error:
            self.show_message(str(error))


def explore(model: DiffusionHyperprior, *, photo: str = "astronaut", side: int = 512) -> CodecExplorer:
    """Lambda and K on a photo. Arguments as for ``CodecExplorer``."""
    return CodecExplorer(model, photo=photo, side=side)
