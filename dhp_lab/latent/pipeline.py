"""Latent diffusion with captions: three small networks in the folder of a Stable Diffusion pipeline.

    caption --tokens--> text encoder --(B, 17, D)--> cross-attention
                                                          |
    noise (B, 4, H/f, W/f) --> U-Net, step by step from T to 0 --> latents --> VAE's decoder --> picture

Rombach et al. 2022, section 3. The parts are diffusers' and transformers' own classes, so that plain
diffusers loads the folder; the chain, the samplers and guidance are those of ``dhp_lab.diffusion``.

| folder         | part                          | class                                           |
|----------------|-------------------------------|-------------------------------------------------|
| `vae`          | first stage, KL-reg           | AutoencoderKL                                   |
| `unet`         | eps or v (z_t, t, caption)    | UNet2DConditionModel                            |
| `text_encoder` | a causal transformer          | CLIPTextModel, small and trained with the U-Net |
| `tokenizer`    | one token for each word       | PreTrainedTokenizerFast                         |
| `scheduler`    | the chain                     | DDIMScheduler                                   |

The U-Net works on latents times ``vae.config.scaling_factor``, about unit variance. Our time t is diffusers'
timestep + 1.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from dhp_lab.core.files import replace_files
from dhp_lab.core.precision import autocast
from dhp_lab.diffusion.guidance import guided
from dhp_lab.diffusion.process import eps_from_v
from dhp_lab.diffusion.samplers import State, ddim, last, start
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.latent.autoencoders import decode, save_autoencoder
from dhp_lab.latent.folder import (
    EPSILON,
    V_PREDICTION,
    as_checkpoint_error,
    check_parts,
    load_vae_unet_schedule,
    read_network,
    scheduler_of,
    without_progress_bars,
)

EMPTY = ""  # the null caption of classifier-free guidance


@dataclass(frozen=True)
class LatentDiffusion:
    """The parts of a pipeline; see the table in the module's docstring.

    Attributes:
        vae: first stage, with its scaling factor.
        unet: denoiser of scaled latents.
        text_encoder, tokenizer: of the captions.
        schedule: the chain that the U-Net was trained on.
        check: raises ValueError for a caption that the text encoder was not trained on; None lets all pass.
        prediction: what the U-Net was trained to predict, "epsilon" or "v_prediction".

    Raises:
        ValueError: another prediction.
    """

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: PreTrainedTokenizerFast
    schedule: NoiseSchedule
    check: Callable[[str], object] | None = None
    prediction: str = EPSILON

    def __post_init__(self) -> None:
        if self.prediction not in (EPSILON, V_PREDICTION):
            raise ValueError(
                f"a U-Net predicts {EPSILON!r} or {V_PREDICTION!r} here, got {self.prediction!r}"
            )

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.unet.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, h, w) of one picture's latents."""
        side = self.unet.config.sample_size
        return self.unet.config.in_channels, side, side

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Start, a token for each word, end, and padding.

        Args:
            captions: at least one.

        Returns:
            (B, L) whole numbers.

        Raises:
            ValueError: a caption with a word outside the grammar (the message lists the words), or not a
                sentence of it; one caption that is not in a list, or an empty list.
        """
        if isinstance(captions, str) or not captions:
            raise ValueError(f"captions must be a list of at least one, got {captions!r}")
        for caption in captions:
            if self.check is not None and caption != EMPTY:
                self.check(caption)
        batch = self.tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")
        return batch["input_ids"].to(self.device)

    def context(self, captions: Sequence[str]) -> Tensor:
        """(B, L, D) the context of the U-Net's cross-attention, a vector for each token.

        Arguments and errors as for ``tokens``.
        """
        return self.text_encoder(self.tokens(captions)).last_hidden_state

    def eps(self, z_t: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The noise estimate, converted if the U-Net predicts v.

        Args:
            z_t: (B, 4, h, w) noisy scaled latents.
            t: (B,) their times, 0 < t <= T.
            context: (B, L, D), by ``context``.

        Returns:
            (B, 4, h, w) float32.
        """
        with autocast(z_t.device):
            output = self.unet(z_t, t - 1, encoder_hidden_states=context).sample.float()
        return eps_from_v(self.schedule, z_t, t, output) if self.prediction == V_PREDICTION else output

    @torch.no_grad()
    def states(
        self,
        captions: Sequence[str],
        *,
        steps: int = 25,
        guidance: float = 4.0,
        eta: float = 0.0,
        seed: int = 0,
    ) -> Iterator[State]:
        """Sample latents by DDIM with classifier-free guidance.

        Args:
            captions: B of them; "" is the null caption, for any picture.
            steps: 1 .. T, each of them one evaluation of the U-Net on 2B latents.
            guidance: the scale, at least 0; 0 ignores the captions, 1 is the network as it was trained.
            eta: 0 .. 1, see ``samplers.ddim``.
            seed: of all noise.

        Yields:
            The state after each step; its x and x0 are scaled latents (B, 4, h, w).

        Raises:
            ValueError: a value out of range, or a caption outside the grammar.
        """
        count = len(captions)
        contexts = torch.cat([self.context(captions), self.context([EMPTY])])  # (B + 1, L, D)

        def eps_of_caption(z_t: Tensor, t: Tensor, index: Tensor) -> Tensor:
            return self.eps(z_t, t, contexts[index])

        denoiser = guided(eps_of_caption, torch.arange(count), scale=guidance, null=count)
        generator = torch.Generator().manual_seed(seed)
        z_T = start(self.schedule, (count, *self.latent_shape), generator=generator, device=self.device)
        yield from ddim(denoiser, self.schedule, z_T, count=steps, eta=eta, generator=generator)

    @torch.no_grad()
    def pictures(self, z: Tensor) -> Tensor:
        """Decode scaled latents (B, 4, h, w) to pictures (B, 3, H, W) in [0, 1]."""
        return decode(self.vae, z / self.vae.config.scaling_factor)

    def sample(self, captions: Sequence[str], **options) -> Tensor:
        """Sample pictures (B, 3, H, W) in [0, 1] for captions; options and errors as for ``states``."""
        return self.pictures(last(self.states(captions, **options)).x)

    def to(self, device: torch.device | str) -> LatentDiffusion:
        """Move the networks to a device and return the pipeline."""
        for part in (self.vae, self.unet, self.text_encoder):
            part.to(device)
        return self

    def save(self, folder: str | Path, **more: dict) -> None:
        """Write the folder that ``diffusers.StableDiffusionPipeline`` writes, made if need be; other files
        there stay.

        Args:
            folder: where to.
            more: name=dictionary, each written beside the parts as name.json.

        Raises:
            OSError: the folder cannot be written; no file of an older pipeline there is left half written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part") as temporary:
            write_parts(self, Path(temporary))
            for name, values in more.items():
                (Path(temporary) / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n")
            replace_files(Path(temporary), folder)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str = "cpu",
        check: Callable[[str], object] | None = None,
    ) -> LatentDiffusion:
        """Read a pipeline in the folder layout of Stable Diffusion, in eval mode; nothing is fetched.

        Args:
            folder: of the pipeline.
            device: where the networks live.
            check: see the class.

        Raises:
            CheckpointError: a part is missing (the message names it) or damaged.
        """
        folder = Path(folder)
        check_parts(folder)
        vae, unet, schedule, prediction = load_vae_unet_schedule(folder)
        with as_checkpoint_error(folder):
            text_encoder = read_network(CLIPTextModel, folder, "text_encoder")
            tokenizer = PreTrainedTokenizerFast.from_pretrained(
                folder, subfolder="tokenizer", local_files_only=True
            )
            return cls(vae, unet, text_encoder, tokenizer, schedule, check, prediction).to(device)


def write_parts(model: LatentDiffusion, folder: Path) -> None:
    """Write all parts of a pipeline to an empty folder, VAE and U-Net in float16."""
    pipeline = StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=scheduler_of(model.schedule, model.prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with without_progress_bars():
        pipeline.save_pretrained(folder, safe_serialization=True)
    # Written once more: in float16, and without the path that they were loaded from in their configuration.
    for name, network in (("vae", model.vae), ("unet", model.unet)):
        save_autoencoder(folder / name, network)
