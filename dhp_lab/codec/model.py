r"""DiffusionHyperprior: a scale hyperprior and a latent diffusion model that share one bitstream.

    x --g_a--> y --/Delta--> h_a --> z --entropy bottleneck--> z_hat --h_s--> mean, scale
               |                                                             |
               +---> q = round(y/Delta - mean) ---- Gaussian conditional ----+--> bytes
    decoder:   y_hat = Delta (q + mean)  ->  K denoising steps from t* to 0  ->  y_tilde  --g_s-->  x_hat

K = 0 decodes y_hat as it is (a mean-scale hyperprior, Minnen et al. 2018), K = 1 its posterior mean, K > 1 a
sample.

``gamma`` blends the two ends: 0 gives the sample as drawn, 1 the posterior mean.

The hyperprior is ``codec.hyperprior``, the denoiser ``codec.denoiser``; here they become a codec.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.checkpoint import read_checkpoint, read_config, save_model
from dhp_lab.codec.config import CodecConfig
from dhp_lab.codec.denoising.decoder_state import DecoderState
from dhp_lab.codec.denoising.sampling import _noise, posterior_step
from dhp_lab.codec.entropy_coding import decode_latents, encode_latents
from dhp_lab.codec.hyperprior import Hyperprior, check_pictures, check_sampling
from dhp_lab.codec.networks.gain import quantisation_sigma
from dhp_lab.codec.networks.tiling import SMALL_TILE, tiled
from dhp_lab.core.hub import find_checkpoint, upload_checkpoint
from dhp_lab.core.weights import CheckpointError


class DiffusionHyperprior(Hyperprior):
    """The codec as a CompressAI model; ``create_diffusion_hyperprior_model`` makes one, ``from_pretrained``
    loads one.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__(config)
        self.config = config
        self.model_id = bytes(8)  # of the checkpoint it was loaded from
        self.denoiser = config.denoiser()
        self.noise_schedule = config.noise_schedule()

    @property
    def latent_scale(self) -> float:
        """The latents' root mean square, which puts Delta and the schedule's sigma into one unit."""
        return self.config.latent_scale(self.log2_spread)

    @property
    def file_fields(self) -> dict[str, object]:
        """What a .dhp file says of the model that wrote it: the keyword arguments of ``bitstream.write``."""
        return {"model_id": self.model_id, "transmit": self.config.transmit, "passes": self.config.passes}

    def start_time(self, delta: float) -> float:
        """t*: the schedule's time at which its noise is as strong as the rounding error of step Delta."""
        return self.noise_schedule.time_of(quantisation_sigma(delta) / self.latent_scale).item()

    def forward(self, x: Tensor, lambda_rate: float = 1e-3, *, steps: int | None = None) -> dict:
        """Encode and decode without writing bytes.

        Args:
            x: (B, 3, H, W) in [0, 1], H and W >= 16. lambda_rate: 1e-6 .. 1e-1.
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
        trade_off = torch.full((len(x),), float(lambda_rate), device=x.device)
        latents = self.latents(x, trade_off) if self.training else self.encode(x, [code] * len(x))
        y_hat = self.denoise(self.decoder_state(latents), steps=steps)
        delta = latents.log2_delta.exp2().view(-1, 1, 1, 1)
        return {
            "x_hat": self.synthesise(y_hat, latents.log2_delta, x.shape[-2:]),
            "y": latents.y,
            "y_hat": y_hat,
            "z": latents.z,
            "scales_hat": latents.scale * delta,
            "likelihoods": self.likelihoods(latents),
        }

    # real bytes

    @torch.no_grad()
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
    def decompress(
        self, strings: list, shape: tuple[int, int], *, steps: int = 1, gamma: float = 0.0, seed: int = 0
    ) -> dict:
        """Decode what ``compress`` wrote.

        Args:
            strings: [y, z, side]; None in the place of y's bytes gives the preview from z alone.
            shape: (H, W) of the pictures. steps: K, 0 .. 1000. seed: of the noise that K > 1 draws.
            gamma: weight of the posterior mean in the result, 0 (the sample as drawn) .. 1 (what K = 1
                gives).

        Returns:
            {"x_hat": (B, 3, H, W) in [0, 1]}

        Raises:
            BitstreamError: the decoded symbols are not those that were coded. ValueError: a value out of
                range.
        """
        check_sampling(steps, gamma)
        decoder_state = decode_latents(self, strings, shape)
        y_hat = self.denoise(decoder_state, steps=steps, gamma=gamma, seed=seed)
        return {"x_hat": self.synthesise(y_hat, decoder_state.log2_delta, shape).clamp_(0, 1)}

    def denoise(
        self, decoder_state: DecoderState, *, steps: int = 1, gamma: float = 0.0, seed: int = 0
    ) -> Tensor:
        """K denoising steps from t* (from T where z alone is known) to 0: what the decoder knows -> latents
        for g_s.

        Returns:
            (B, M, h, w) in latent units. Other arguments as for ``decompress``; each picture draws the same
            noise whatever batch it is in.
        """
        delta = decoder_state.log2_delta.exp2().view(-1, 1, 1, 1)
        if steps == 0:
            return (decoder_state.symbols + decoder_state.mean) * delta
        levels = self.noise_levels(decoder_state, steps)
        noise, start = (
            _noise(decoder_state, s) for s in (seed, seed ^ 0x5EED)
        )  # what all pictures draw, and undecoded ones first
        u = (
            decoder_state.symbols
            if bool(decoder_state.decoded.all())
            else torch.where(decoder_state.decoded > 0, decoder_state.symbols, levels[0] * start())
        )
        decoder_state = decoder_state.with_moments() if steps > 1 else decoder_state  # for all steps at once
        for k, sigma in enumerate(levels):
            clean, variance = self._denoise_once(u, sigma, decoder_state)
            if k == 0:
                posterior_mean = clean
            if k + 1 < steps:
                u = posterior_step(u, clean, variance, sigma, levels[k + 1], noise())
        return (torch.lerp(clean, posterior_mean, gamma) + decoder_state.mean) * delta

    def noise_levels(self, decoder_state: DecoderState, steps: int) -> list[Tensor]:
        """The K noise levels of a decode, each (B, 1, h, w) in quantiser steps, at equal times from the start
        towards 0.
        """
        deltas = decoder_state.log2_delta.double().exp2().tolist()
        starts = (
            [self.start_time(delta) for delta in deltas],
            [float(self.config.diffusion_steps)] * len(deltas),
        )
        shares = [1 - k / steps for k in range(steps)]
        return [
            torch.where(
                decoder_state.decoded > 0, *(self._sigmas(times, share, decoder_state) for times in starts)
            )
            for share in shares
        ]

    def _sigmas(self, times: list[float], share: float, decoder_state: DecoderState) -> Tensor:
        sigma = self.noise_schedule.sigma(torch.tensor(times) * share) * self.latent_scale
        return (sigma.to(decoder_state.log2_delta) / decoder_state.log2_delta.exp2()).view(-1, 1, 1, 1)

    def _denoise_once(self, u: Tensor, sigma: Tensor, decoder_state: DecoderState) -> tuple[Tensor, Tensor]:
        def part(r: slice, c: slice) -> Tensor:
            return torch.cat(self.denoiser(u[..., r, c], sigma[..., r, c], decoder_state.window(r, c)), 1)

        return tiled(part, *u.shape[-2:], 1, self.tile).chunk(2, 1)

    def low_memory(self) -> DiffusionHyperprior:
        """Itself, for a machine with little memory: smaller tiles, and what is borrowed (``pretrained``) in
        half precision.

        Pictures differ a little from those of the whole codec; files are read by both.
        """
        self.tile = SMALL_TILE
        for part in self.modules():
            if part is not self and hasattr(part, "spare_memory"):
                part.low_memory()
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors, with the probability tables, to a folder.

        Large tensors are stored in float16: to write files that the checkpoint reads, load it
        (``from_pretrained``).

        Raises:
            OSError: the disk's own trouble; an older checkpoint there is intact.
        """
        self.update(update_quantiles=self._tables_stale)
        save_model(folder, self)

    def push_to_hub(self, repository: str) -> str:
        """Save the model as "owner/name" on the Hugging Face hub; returns the address."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_checkpoint(folder, repository)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> DiffusionHyperprior:
        """Load a checkpoint, a folder or "owner/name" on the Hugging Face hub, in eval mode on the CPU.

        Raises:
            CheckpointError: a file is missing, damaged, or of another kind of model.
        """
        config, tensors, identity = read_checkpoint(folder)
        try:
            model = cls(read_config(config, find_checkpoint(folder)))
            model.load_state_dict(tensors)
        except CheckpointError:
            raise
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint at {folder} does not fit this version of dhp_lab: {error}"
            ) from None
        model.model_id = identity
        return model.to(memory_format=torch.channels_last).eval()
