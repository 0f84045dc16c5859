r"""The same codec with the parts of Stable Diffusion, or of its smaller descendants such as BK-SDM (Kim et
al. 2023).

    x --VAE--> y --/Delta--> h_a --> z ...            as in ``model``; y is the scaled latent, about unit variance
    decoder:   y_hat  ->  K steps of the U-Net with the empty prompt, from t* to 0  ->  y_tilde  --VAE--> x_hat

Only three parts differ from those of the native codec, and a folder in diffusers' layout
(``latent_diffusion``) has them all:

| part               | native           | here                                                                       |
|--------------------|------------------|----------------------------------------------------------------------------|
| g_a, g_s           | lapped + network | AutoencoderKL, its latents times the scaling factor; a latent is f x f pixels |
| D                  | LatentDenoiser   | UNet2DConditionModel, which tells eps or v                                 |
| the schedule       | linear, cosine   | the folder's, of which ``diffusion_steps`` times are kept                  |

A rounding error in y is noise of sigma = Delta/sqrt(12), so the U-Net is asked at the time that has it, as in
Relic et al. 2024. It knows nothing of z; a small ``Adapter``, which starts at nothing and is trained with the
U-Net frozen, lays what z says of y onto its input. VAE and U-Net are not the checkpoint's own: it names their
folder, and a digest of their weights. The empty prompt is worked out once, when the codec is created, and
stored with it: the text encoder is not asked again.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from dhp_lab.codec.config import CodecConfig
from dhp_lab.codec.denoising.denoiser import LatentDenoiser
from dhp_lab.codec.stable_diffusion.networks import (
    Frozen,
    UNetDenoiser,
    VaeAnalysis,
    VaeSynthesis,
)
from dhp_lab.core.hub import find_checkpoint
from dhp_lab.core.weights import CheckpointError
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.latent.autoencoders import kl_autoencoder
from dhp_lab.latent.folder import INDEX, load_vae_unet_schedule

FOLDER = "folder"  # the schedule: that of bk_sdm_path
PARTS = INDEX, "vae/*", "unet/*", "text_encoder/*", "tokenizer/*", "scheduler/*"


@dataclass(frozen=True)
class StableDiffusionConfig(CodecConfig):
    """What a codec with the parts of Stable Diffusion is made of.

    Attributes:
        N: channels of z, 4 .. 1024. M: channels inside the hyper-networks, at least 4.
        diffusion_steps: how many of the folder's times the chain keeps.
        bk_sdm_path: a folder in diffusers' layout, or "owner/name" on the Hugging Face hub.
        use_pretrained_vae, use_pretrained_unet: False puts a new network of ours in the part's place, to be
            trained.
        parts: digest of the weights that are taken from the folder; "" takes what is there.
        tokens: how many vectors the U-Net's empty prompt has.
        schedule: "folder". transmit, passes, dead_zone: as in ``CodecConfig``.

    Raises:
        ValueError: a value outside its range, or parts that do not fit each other.
        CheckpointError: the folder or a part is missing or damaged, or has other weights than ``parts`` says.
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
    tile: ClassVar[int] = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.M < 4:
            raise ValueError(f"M must be at least 4, got {self.M}")
        vae, unet, schedule, prediction = load_vae_unet_schedule(find_checkpoint(self.bk_sdm_path, PARTS))
        if not 1 <= self.diffusion_steps <= schedule.steps:
            raise ValueError(
                f"diffusion_steps must lie in 1 .. {schedule.steps}, the folder's times; got {self.diffusion_steps}"
            )
        given, taken = vae.config.latent_channels, unet.config.in_channels
        if given != taken:
            raise ValueError(
                f"the VAE at {self.bk_sdm_path} gives latents of {given} channels, the U-Net takes {taken}: they do not fit"
            )
        for name, value in (
            ("vae", vae),
            ("unet", unet),
            ("whole_schedule", schedule),
            ("prediction", prediction),
        ):
            object.__setattr__(self, name, value)
        found = self._digest()
        if self.parts and self.parts != found:
            raise CheckpointError(
                f"the weights at {self.bk_sdm_path} are not those that this codec was trained with: "
                f"digest {found}, not {self.parts}; fetch the same version"
            )
        object.__setattr__(self, "parts", found)

    def _digest(self) -> str:
        chosen = [
            part
            for part, wanted in ((self.vae, self.use_pretrained_vae), (self.unet, self.use_pretrained_unet))
            if wanted
        ]
        digest = hashlib.sha256()
        for part in chosen:
            for name, tensor in sorted(part.state_dict().items()):
                digest.update(name.encode() + tensor.float().numpy().tobytes())
        return digest.hexdigest()[:16] if chosen else ""

    def stored(self, folder: Path) -> dict[str, object]:
        """As in ``CodecConfig``; a local folder is named as seen from the checkpoint's own, so that both can
        move.
        """
        path = Path(self.bk_sdm_path)
        named = os.path.relpath(path, folder) if path.is_dir() else self.bk_sdm_path
        return {"model": self.kind, **asdict(self), "bk_sdm_path": named}

    @classmethod
    def read(cls, values: dict[str, object], folder: Path) -> StableDiffusionConfig:
        """The inverse of ``stored``, without the name of the kind. Errors as for the class."""
        near = folder / str(values.get("bk_sdm_path", ""))
        return cls(
            **{
                **values,
                "bk_sdm_path": str(near.resolve()) if near.is_dir() else values.get("bk_sdm_path", ""),
            }
        )

    @property
    def lambda_range(self) -> tuple[float, float]:
        """The trade-offs that training draws: below, the VAE's own error is all that is left."""
        return 1e-3, 1e-1

    @property
    def channels(self) -> int:
        """Of y: those of the VAE's latents."""
        return self.vae.config.latent_channels

    @property
    def hyper_width(self) -> int:
        """Channels inside h_a and h_s."""
        return self.M

    @property
    def block(self) -> int:
        """f: a latent stands for f x f pixels."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def transforms(self) -> tuple[nn.Module, nn.Module]:
        """g_a and g_s: the folder's VAE, or a new one of the same f and as many channels."""
        vae = (
            self.vae if self.use_pretrained_vae else kl_autoencoder(self.block, latent_channels=self.channels)
        )
        into, out_of = (
            conv or nn.Identity() for conv in (vae.quant_conv, vae.post_quant_conv)
        )  # not every VAE has them
        parts = nn.Sequential(vae.encoder, into), nn.Sequential(out_of, vae.decoder)
        if self.use_pretrained_vae:
            parts = tuple(Frozen(part) for part in parts)
        return VaeAnalysis(parts[0], vae.config.scaling_factor), VaeSynthesis(
            parts[1], vae.config.scaling_factor
        )

    def log2_spread(self) -> Tensor:
        """(channels,) zeros: scaled latents have about unit variance."""
        return torch.zeros(self.channels)

    def latent_scale(self, log2_spread: Tensor) -> float:
        """1: the schedule was made for scaled latents."""
        return 1.0

    def denoiser(self) -> nn.Module:
        """D: the folder's U-Net, or a new ``LatentDenoiser``."""
        if not self.use_pretrained_unet:
            return LatentDenoiser(self.N, self.channels, self.dead_zone)
        return UNetDenoiser(self.unet, self.tokens, self.whole_schedule, self.prediction, self.dead_zone)

    def noise_schedule(self) -> NoiseSchedule:
        """``diffusion_steps`` of the folder's times, evenly spaced up to the last."""
        kept = self.whole_schedule.times(self.diffusion_steps).flip(0)
        falling = self.whole_schedule.log_alpha_bar(kept)
        return NoiseSchedule(FOLDER, -torch.expm1(falling.diff()))
