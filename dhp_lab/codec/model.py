r"""DiffusionHyperprior: a scale hyperprior and a latent diffusion model that share one bitstream.

    x --g_a--> y --/Delta--> h_a --> z --entropy bottleneck--> z_hat --h_s--> mean, scale
               |                                                             |
               +---> q = round(y/Delta - mean) ---- Gaussian conditional ----+--> bytes
    decoder:   y_hat = Delta (q + mean)  ->  K denoising steps from t* to 0  ->  y_tilde  --g_s-->  x_hat

K = 0 decodes y_hat as it is (a mean-scale hyperprior, Minnen et al. 2018), K = 1 its posterior mean, K > 1 a
sample. ``gamma`` blends the two ends: 0 gives the sample as drawn, 1 the posterior mean.

With a realism part K > 1 draws near the pixels, around the picture of K = 1:

    x_hat of K = 1  --K steps of the residual's diffusion (``residual_sampling``)-->  x_hat

But where z alone is decoded, nearly all of the picture is to be drawn: there the latents' chain is walked.

The hyperprior is ``codec.hyperprior``, the denoisers and their samplers ``codec.denoising``; here they become
a codec.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.checkpoint import load_codec, misfit, save_model
from dhp_lab.codec.config import CodecConfig
from dhp_lab.codec.denoising.decoder_state import DecoderState
from dhp_lab.codec.denoising.expected_error import expected_errors
from dhp_lab.codec.denoising.residual_sampling import ResidualSampler, residual_schedule
from dhp_lab.codec.denoising.residual_unet import Conditions, ResidualUNet
from dhp_lab.codec.denoising.sampling import LatentSampler
from dhp_lab.codec.entropy_coding import decode_latents, encode_latents
from dhp_lab.codec.hyperprior import Hyperprior
from dhp_lab.codec.latents import check_pictures, check_sampling
from dhp_lab.codec.networks.tiling import SMALL_TILE
from dhp_lab.codec.parts import CodecParts, native_parts
from dhp_lab.codec.realism import check_realism, load_realism
from dhp_lab.core.hub import find_checkpoint, upload_checkpoint
from dhp_lab.core.memory import raise_if_of_the_machine
from dhp_lab.core.precision import float32_by_default
from dhp_lab.core.tensors import crop_to

REALISM_TILE = (
    64  # largest side, in latents, of what the realism part sees at once: it is wide near the pixels
)


class DiffusionHyperprior(Hyperprior):
    """The codec as a CompressAI model.

    ``create_diffusion_hyperprior_model`` makes one, ``from_pretrained`` loads one.

    Args:
        config: its settings. parts: transforms, denoiser and schedule; None makes the native ones of
            ``config``.

    Attributes:
        realism: the realism part, None where there is none. It can be assigned: ValueError for a codec that
            can have none. It moves with the model and is copied with it, but it is no part of its state_dict,
            parameters or modes: a codec is trained without it.
    """

    realism: ResidualUNet | None

    @float32_by_default()
    def __init__(self, config: CodecConfig, parts: CodecParts | None = None) -> None:
        parts = parts or native_parts(config)
        super().__init__(config, parts)
        self.config = config
        self.model_id = bytes(8)  # of the checkpoint it was loaded from
        self.realism = None
        self.denoiser = parts.denoiser
        self.noise_schedule = parts.noise_schedule
        self.unit_latents = parts.unit_latents

    def __setattr__(self, name: str, value: object) -> None:
        """As in torch, but ``realism`` becomes an attribute and no submodule."""
        if name != "realism":
            super().__setattr__(name, value)
            return
        if value is not None:
            check_realism(self.config)
        object.__setattr__(self, name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DiffusionHyperprior:
        """Move every tensor, also of the realism part."""
        super()._apply(fn, recurse)
        if self.realism is not None:
            self.realism._apply(fn, recurse)
        return self

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

    # what is decoded becomes a picture

    @property
    def realism_sampler(self) -> ResidualSampler:
        """The realism part with its schedule. ValueError without one."""
        if self.realism is None:
            raise ValueError("this codec has no realism part: take a checkpoint that holds realism.json")
        schedule = residual_schedule(self.realism.start, self.realism.first)
        return ResidualSampler(self.realism, schedule, min(self.tile, REALISM_TILE))

    def realism_conditions(self, state: DecoderState, y_hat: Tensor) -> Conditions:
        """What the realism part sees: the picture of K = 1, with sides that are multiples of 16, and its
        expected errors.

        Args:
            y_hat: (B, M, h, w) the latents of K = 1, ``sampler.sample(state, steps=1)``.
        """
        size = (self.block * y_hat.shape[-2], self.block * y_hat.shape[-1])
        return Conditions(
            picture=self.synthesise(y_hat, state.log2_delta, size),
            errors=expected_errors(state, self.dead_zone, self.tile),
            log2_delta=state.log2_delta,
        )

    def _decode(
        self, state: DecoderState, size: tuple[int, int], *, steps: int, gamma: float = 0.0, seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The latents that g_s sees, and the picture (B, 3, *size), about [0, 1]."""
        has_y = state.decoded.flatten(1).all(1)  # (B,)
        if steps < 2 or self.realism is None or not bool(has_y.any()):
            y_hat = self.sampler.sample(state, steps=steps, gamma=gamma, seed=seed)
            return y_hat, self.synthesise(y_hat, state.log2_delta, size)
        y_hat = self.sampler.sample(state, steps=1)
        conditions = self.realism_conditions(state, y_hat)
        drawn = crop_to(self.realism_sampler.sample(conditions, steps=steps, gamma=gamma, seed=seed), size)
        if bool(has_y.all()):
            return y_hat, drawn
        chain = self.sampler.sample(state, steps=steps, gamma=gamma, seed=seed)  # of previews in the batch
        has_y = has_y.view(-1, 1, 1, 1)
        y_hat = torch.where(has_y, y_hat, chain)
        return y_hat, torch.where(has_y, drawn, self.synthesise(chain, state.log2_delta, size))

    @float32_by_default()
    def forward(self, x: Tensor, lambda_rate: float = 1e-3, *, steps: int | None = None) -> dict:
        """Encode and decode without writing bytes.

        Args:
            x: (B, 3, H, W) in [0, 1], H and W >= 16.
            lambda_rate: 1e-6 .. 1e-1.
            steps: K; None is 0 in train mode and 1 in eval mode. What the realism part draws has no
                gradients.

        Returns:
            x_hat (B, 3, H, W), y, y_hat (what g_s sees), z, scales_hat (standard deviation of y, latent
            units), likelihoods {"y", "z"}.

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
        y_hat, x_hat = self._decode(state, x.shape[-2:], steps=steps)
        return {
            "x_hat": x_hat,
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
            steps: K, 0 .. 1000: 0 the dequantised latents, 1 their posterior mean, more draw: with a realism
                part near the pixels, else, and in a preview, latents.
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
        _, x_hat = self._decode(state, shape, steps=steps, gamma=gamma, seed=seed)
        return {"x_hat": x_hat.clamp_(0, 1)}

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
        """Write config.json and model.safetensors, with the probability tables, to a folder, and the realism
        part if there is one; without one that of an older checkpoint there is removed.

        Large tensors are stored in float16: to write files that the checkpoint reads, load it
        (``from_pretrained``).

        Raises:
            OSError: the disk's own trouble; an older checkpoint there is intact.
        """
        self.update(update_quantiles=self._tables_stale)
        save_model(folder, self.config, self, self.realism)

    def push_to_hub(self, repository: str) -> str:
        """Save the model as "owner/name" on the Hugging Face hub; returns the address."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_checkpoint(folder, repository)

    @classmethod
    @float32_by_default()
    def from_pretrained(cls, folder: str | Path) -> DiffusionHyperprior:
        """Load a checkpoint, a folder or "owner/name" on the Hugging Face hub, in eval mode on the CPU, with
        its realism part if there is one.

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
        model.realism = load_realism(find_checkpoint(folder), config, identity)
        return model.to(memory_format=torch.channels_last).eval()
