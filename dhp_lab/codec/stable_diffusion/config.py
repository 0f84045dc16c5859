r"""The same codec with the parts of Stable Diffusion, or of its smaller descendants such as BK-SDM (Kim et
al. 2023).

    x --VAE--> y --/Delta--> h_a --> z ...     as in ``model``; y is the scaled latent, about unit variance
    decoder:   y_hat -> K steps of the U-Net with the empty prompt, from t* to 0 -> y_tilde --VAE--> x_hat

Three parts differ from those of the native codec, and a folder in diffusers' layout (``latent.pipeline``) has
them:

| part         | native           | here                                                              |
|--------------|------------------|-------------------------------------------------------------------|
| g_a, g_s     | lapped + network | AutoencoderKL, its latents scaled; a latent stands for f x f pixels |
| D            | LatentDenoiser   | UNet2DConditionModel, which predicts eps or v                     |
| the schedule | linear, cosine   | the folder's, of which ``diffusion_steps`` times are kept         |

A rounding error in y is noise of sigma = Delta/sqrt(12), so the U-Net is evaluated at the time that has it
(Relic et al. 2024 start there too, with a predicted time). It is not conditioned on z: a small ``Adapter``
with zero initialisation, trained with the U-Net frozen, adds what z predicts of y to its input. VAE and U-Net
are not the checkpoint's own: it names their folder and a digest of their weights. The empty prompt is encoded
once, when the codec is created, and stored with it.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from dhp_lab.codec.config import CodecConfig

FOLDER = "folder"  # the schedule: that of bk_sdm_path


@dataclass(frozen=True)
class StableDiffusionConfig(CodecConfig):
    """The settings of a codec with the parts of Stable Diffusion.

    Attributes:
        N: channels of z, 4 .. 1024. M: channels inside the hyper-networks, at least 4.
        diffusion_steps: how many of the folder's times the chain keeps.
        bk_sdm_path: a folder in diffusers' layout, or "owner/name" on the Hugging Face hub.
        use_pretrained_vae, use_pretrained_unet: False puts a new network of ours in the part's place, to be
            trained.
        parts: digest of the weights that are taken from the folder; "" takes what is there.
        tokens: how many vectors the U-Net's empty prompt has.
        schedule: "folder". transmit, passes, dead_zone, trellis: as in ``CodecConfig``.

    Raises:
        ValueError: a value outside its range.
    """

    diffusion_steps: int = 30
    schedule: str = FOLDER
    bk_sdm_path: str = ""
    use_pretrained_vae: bool = True
    use_pretrained_unet: bool = True
    parts: str = ""
    tokens: int = 77

    kind: ClassVar[str] = "StableDiffusionHyperprior"
    schedules: ClassVar[tuple[str, ...]] = (FOLDER,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.M < 4:
            raise ValueError(f"M must be at least 4, got {self.M}")

    @property
    def lambda_range(self) -> tuple[float, float]:
        """The trade-offs that training draws: below, the VAE's own error is all that is left."""
        return 1e-3, 1e-1

    def to_dict(self, folder: Path) -> dict[str, object]:
        """As in ``CodecConfig``; a local folder is named as seen from the checkpoint's own, so that both can
        move.
        """
        path = Path(self.bk_sdm_path)
        named = self.bk_sdm_path
        if path.is_dir():
            named = Path(os.path.relpath(path, folder)).as_posix()
            named = named if named.startswith(".") else f"./{named}"  # "a/b" could be a name on the hub
        return {"model": self.kind, **asdict(self), "bk_sdm_path": named}

    @classmethod
    def from_dict(cls, values: dict[str, object], folder: Path) -> StableDiffusionConfig:
        """The inverse of ``to_dict``, without the kind's name. Errors as for the class, and TypeError."""
        named = str(values.get("bk_sdm_path", ""))
        near = folder / named
        exists_in_part = "/" in named and near.parent.is_dir()
        is_local = near.is_dir() or named.startswith(".") or exists_in_part
        return cls(**{"revision": 1, **values, "bk_sdm_path": str(near.resolve()) if is_local else named})
