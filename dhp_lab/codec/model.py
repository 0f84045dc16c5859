r"""DiffusionHyperprior: a scale hyperprior and a latent diffusion model that share one bitstream.

    x --g_a--> y --/Delta--> h_a --> z --entropy bottleneck--> z_hat --h_s--> mean, scale
               |                                                             |
               +---> q = round(y/Delta - mean) ---- Gaussian conditional ----+--> bytes
    decoder:   y_hat = Delta (q + mean)  ->  K denoising steps from t* to 0  ->  y_tilde  --g_s-->  x_hat

K = 0 decodes y_hat as it is (a mean-scale hyperprior, Minnen et al. 2018), K = 1 its posterior mean, K > 1 a
sample. ``gamma`` blends the two ends: 0 gives the sample as drawn, 1 the posterior mean.

The hyperprior is ``codec.hyperprior``, the denoiser and its sampler ``codec.denoising``; here they become a
codec.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.checkpoint import load_codec, misfit, save_model
from dhp_lab.codec.config import CodecConfig
from dhp_lab.codec.denoising.sampling import LatentSampler
from dhp_lab.codec.entropy_coding import decode_latents, encode_latents
from dhp_lab.codec.hyperprior import Hyperprior
from dhp_lab.codec.latents import check_pictures, check_sampling
from dhp_lab.codec.networks.tiling import SMALL_TILE
from dhp_lab.codec.parts import CodecParts, native_parts
from dhp_lab.core.hub import upload_checkpoint
from dhp_lab.core.memory import raise_if_of_the_machine
from dhp_lab.core.precision import float32_by_default


class DiffusionHyperprior(Hyperprior):
    """The codec as a CompressAI model.

    ``create_diffusion_hyperprior_model`` makes one, ``from_pretrained`` loads one.

    Args:
        config: its settings. parts: transforms, denoiser and schedule; None makes the native ones of
            ``config``.
    """

    @float32_by_default()
    def __init__(self, config: CodecConfig, parts: CodecParts | None = None) -> None:
        parts = parts or native_parts(config)
        super().__init__(config, parts)
        self.config = config
        self.model_id = bytes(8)  # of the checkpoint it was loaded from
        self.denoiser = parts.denoiser
        self.noise_schedule = parts.noise_schedule
        self.unit_latents = parts.unit_latents

    @property
    def latent_scale(self) -> float:
        """The latents' root mean square, which puts Delta and the schedule's sigma into one unit."""
        if self.unit_latents:
            return 1.0
        return self.log2_spread.detach().double().exp2().square().mean().sqrt().item()

    @property
    def sampler(self) -> LatentSampler:
        """The denoiser with its schedule, in the latents' unit."""
        return LatentSampler(self.denoiser, self.noise_schedule, self.latent_scale, self.tile)

    def start_time(self, delta: float) -> float:
        """t*: the schedule's time at which its noise is as strong as the rounding error of step Delta."""
        return self.sampler.start_time(delta)

    @float32_by_default()
    def forward(self, x: Tensor, lambda_rate: float = 1e-3, *, steps: int | None = None) -> dict:
        """Encode and decode without writing bytes.

        Args:
            x: (B, 3, H, W) in [0, 1], H and W >= 16.
            lambda_rate: 1e-6 .. 1e-1.
            steps: K; None is 0 in train mode and 1 in eval mode.

        Returns:
            x_hat (B, 3, H, W), y, y_hat, z, scales_hat (standard deviation of y, latent units), likelihoods
            {"y", "z"}.

        Raises:
            ValueError: a value out of range, or a picture that is too small or has not 3 channels.
        """
        check_pictures(x)
        steps = (0 if self.training else 1) if steps is None else steps
        code = lambda_code(lambda_rate)
        if self.training:
            latents = self.training_latents(x, torch.full((len(x),), float(lambda_rate), device=x.device))
        else:
            latents = self.encode(x, [code] * len(x))
        state = self.decoder_state(latents)
        y_hat = self.sampler.sample(state, steps=steps)
        return {
            "x_hat": self.synthesise(y_hat, latents.log2_delta, x.shape[-2:]),
            "y": latents.y,
            "y_hat": y_hat,
            "z": latents.z,
            "scales_hat": latents.scale * state.delta,
            "likelihoods": self.likelihoods(latents),
        }

    # real bytes

    @torch.no_grad()
    @float32_by_default()
    def compress(self, x: Tensor, lambda_rate: float = 1e-3) -> dict:
        """Code pictures.

        Args:
            x: (B, 3, H, W) in [0, 1], H and W >= 16. lambda_rate: 1e-6 .. 1e-1, larger = fewer bytes.

        Returns:
            {"strings": [y, z, side], "shape": (H, W)}; each of y, z, side is a list of B byte strings.

        Raises:
            ValueError: a value out of range, a picture too small, or a model without probability tables.
        """
        check_pictures(x)
        was_training, code = self.training, lambda_code(lambda_rate)
        self.eval()
        try:
            latents = self.encode(x, [code] * len(x))
        finally:
            self.train(was_training)
        return {"strings": encode_latents(self, latents, code), "shape": tuple(x.shape[-2:])}

    @torch.no_grad()
    @float32_by_default()
    def decompress(
        self, strings: list, shape: tuple[int, int], *, steps: int = 1, gamma: float = 0.0, seed: int = 0
    ) -> dict:
        """Decode what ``compress`` wrote.

        Args:
            strings: [y, z, side]; None in the place of y's bytes gives the preview from z alone.
            shape: (H, W) of the pictures.
            steps: K, 0 .. 1000.
            gamma: weight of the posterior mean in the result, 0 (the sample as drawn) .. 1 (what K = 1
                gives).
            seed: of the noise that K > 1 draws.

        Returns:
            {"x_hat": (B, 3, H, W) in [0, 1]}

        Raises:
            BitstreamError: the decoded symbols are not those that were coded. ValueError: a value out of
                range.
        """
        check_sampling(steps, gamma)
        state = decode_latents(self, strings, shape)
        y_hat = self.sampler.sample(state, steps=steps, gamma=gamma, seed=seed)
        return {"x_hat": self.synthesise(y_hat, state.log2_delta, shape).clamp_(0, 1)}

    # settings and checkpoints

    def low_memory(self) -> DiffusionHyperprior:
        """Itself, for a machine with little memory: smaller tiles, and borrowed networks in half precision.

        Pictures differ a little from those of the whole codec; files are read by both.
        """
        self.tile = SMALL_TILE
        for part in self.modules():
            if part is not self and hasattr(part, "low_memory"):
                part.low_memory()
        return self

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """As in ``Hyperprior``, and "denoiser"."""
        return super().parameter_groups() | {"denoiser": list(self.denoiser.parameters())}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors, with the probability tables, to a folder.

        Large tensors are stored in float16: to write files that the checkpoint reads, load it
        (``from_pretrained``).

        Raises:
            OSError: the disk's own trouble; an older checkpoint there is intact.
        """
        self.update(update_quantiles=self._tables_stale)
        save_model(folder, self.config, self)

    def push_to_hub(self, repository: str) -> str:
        """Save the model as "owner/name" on the Hugging Face hub; returns the address."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_checkpoint(folder, repository)

    @classmethod
    @float32_by_default()
    def from_pretrained(cls, folder: str | Path) -> DiffusionHyperprior:
        """Load a checkpoint, a folder or "owner/name" on the Hugging Face hub, in eval mode on the CPU.

        Raises:
            CheckpointError: a file is missing, damaged, or of another kind of model.
        """
        config, parts, tensors, identity = load_codec(folder)
        try:
            model = cls(config, parts)
            model.load_state_dict(tensors)
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            raise_if_of_the_machine(error)
            raise misfit(folder, error) from None
        model.model_id = identity
        return model.to(memory_format=torch.channels_last).eval()
