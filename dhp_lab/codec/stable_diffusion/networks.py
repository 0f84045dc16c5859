"""Pretrained networks as parts of the codec: a VAE for g_a and g_s, a U-Net for D.

Where they are frozen, nothing of them is trained or stored with the codec; see ``stable_diffusion.config``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.denoising.decoder_state import DecoderState
from dhp_lab.codec.denoising.denoiser import Denoiser
from dhp_lab.codec.networks.layers import zero_init
from dhp_lab.core.precision import autocast
from dhp_lab.core.tensors import crop_to, pad_to_multiple
from dhp_lab.diffusion.process import eps_from_v
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.latent.folder import V_PREDICTION

ADAPTER_WIDTH = 64  # channels inside the adapter
UNET_ERROR = -4.0  # log of the U-Net's squared error at the start, in those of the noise


class Frozen(nn.Module):
    """A network that is never trained or stored: it moves with the model, and is no part of its state."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "network", network.eval().requires_grad_(False))

    def _apply(self, fn: Callable, recurse: bool = True) -> Frozen:
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict) -> Frozen:
        return Frozen(self.network)  # a copied codec shares what neither of the two changes

    def low_memory(self) -> None:
        """Hold the network in half precision, and let its attention work in slices."""
        on_gpu = next(self.network.parameters()).is_cuda
        nn.Module.to(self.network, torch.float16 if on_gpu else torch.bfloat16)  # diffusers' own `to` warns
        if hasattr(self.network, "set_attention_slice"):
            self.network.set_attention_slice("max")

    def forward(self, x: Tensor, *arguments: Tensor, **more: Tensor) -> Tensor:
        """The network's output, in the precision that it is held in."""
        return self.network(x.to(next(self.network.parameters()).dtype), *arguments, **more)


class VaeAnalysis(nn.Module):
    """g_a: the mode of a VAE's encoder; pictures (B, 3, f h, f w) -> scaled latents (B, C, h, w).

    Args:
        encoder: pictures in [-1, 1] -> mean and log variance (B, 2 C, h, w). factor: what makes the latents'
            variance about 1.
    """

    def __init__(self, encoder: nn.Module, factor: float) -> None:
        super().__init__()
        self.encoder, self.factor = encoder, factor

    def forward(self, x: Tensor, log2_delta: Tensor, std: Tensor) -> Tensor:
        """log2_delta, std: as for ``Analysis``; a VAE uses neither."""
        with autocast(x.device):
            moments = self.encoder(2 * x - 1)
        return self.factor * moments.chunk(2, 1)[0].float()


class VaeSynthesis(nn.Module):
    """g_s: a VAE's decoder; scaled latents -> pictures, about [0, 1]. Arguments as for
    ``VaeAnalysis``.
    """

    def __init__(self, decoder: nn.Module, factor: float) -> None:
        super().__init__()
        self.decoder, self.factor = decoder, factor

    def forward(self, y_hat: Tensor, log2_delta: Tensor, std: Tensor) -> Tensor:
        """log2_delta, std: as for ``Synthesis``."""
        with autocast(y_hat.device):
            x_hat = self.decoder(y_hat / self.factor)
        return (x_hat.float() + 1) / 2


class Adapter(nn.Module):
    """What z and the symbols say of y, as a residual on the U-Net's input (B, C, h, w); nothing until it is
    trained.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(4 * channels + 2, ADAPTER_WIDTH, 3, padding=1)
        self.exit = zero_init(nn.Conv2d(ADAPTER_WIDTH, channels, 3, padding=1))

    def forward(self, state: Tensor, sigma: Tensor, decoder_state: DecoderState) -> Tensor:
        """state: (B, C, h, w) y with noise. sigma: (B, 1, h, w) of that noise, both in latent units."""
        delta = decoder_state.delta
        log2_scale = (decoder_state.scale * delta).clamp(min=1e-3).log2() / 4
        log2_sigma = sigma.clamp(min=1e-3).log2() / 4
        symbols = decoder_state.symbols.clamp(-5, 5) / 5
        planes = [state, decoder_state.mean * delta, log2_scale, symbols, decoder_state.decoded, log2_sigma]
        return self.exit(F.silu(self.entry(torch.cat(planes, 1))))


class UNetDenoiser(Denoiser):
    r"""D: a latent diffusion model's U-Net with the empty prompt, for a state that is y plus white noise.

    Its estimate of y and the posterior of a single latent (``single_latent_posterior``) are weighted by the
    inverse of their variances:

        D = (V_b unet + V_u base) / (V_b + V_u),     E[(y - D)^2] = V_b V_u / (V_b + V_u),
        V_u = sigma^2 exp(a + b log2(sigma))

    with a and b learnt for each channel; at the start nearly all the weight is the U-Net's.

    Args:
        unet: takes C channels, predicts eps or v.
        tokens: L, of the empty prompt (1, L, D), the buffer ``context``.
        schedule: that the U-Net was trained on.
        prediction: "epsilon" or "v_prediction". dead_zone: of the symbols' bins.
    """

    def __init__(
        self, unet: nn.Module, tokens: int, schedule: NoiseSchedule, prediction: str, dead_zone: float
    ) -> None:
        channels = unet.config.in_channels
        super().__init__(channels, dead_zone)
        self.unet, self.schedule, self.prediction = Frozen(unet), schedule, prediction
        self.adapter = Adapter(channels)
        start = torch.tensor([UNET_ERROR, 0.0]).view(2, 1, 1, 1)
        self.error = nn.Parameter(start.repeat(1, channels, 1, 1))  # a, b
        self.register_buffer("context", torch.zeros(1, tokens, unet.config.cross_attention_dim))

    def forward(self, u: Tensor, sigma: Tensor, decoder_state: DecoderState) -> tuple[Tensor, Tensor]:
        """Arguments and results as for ``LatentDenoiser``; one noise level for each picture."""
        delta = decoder_state.delta
        state, level = (u + decoder_state.mean) * delta, sigma * delta
        estimate = (state - level * self._eps(state, level, decoder_state)) / delta - decoder_state.mean
        base, variance = self.single_latent_posterior(u, sigma, decoder_state)
        a, b = self.error
        log_ratio = (a + b * level.clamp(min=1e-4).log2()).clamp(-20, 5)
        unet_variance = (sigma.square() * log_ratio.exp()).clamp(min=1e-12)  # V_u, in steps squared
        base_weight = unet_variance / (unet_variance + variance)
        return torch.lerp(estimate, base, base_weight), base_weight * variance

    def _eps(self, state: Tensor, level: Tensor, decoder_state: DecoderState) -> Tensor:
        """The noise that the U-Net predicts in a state (B, C, h, w), in units of its standard deviation."""
        top = self.schedule.sigma(self.schedule.steps).item()
        times = self.schedule.time_of(level.detach().amax((1, 2, 3)).double().cpu().clamp(1e-4, top))
        scale = self.schedule.scale(times).to(state).view(-1, 1, 1, 1)
        z_t = scale * state + self.adapter(state, level, decoder_state)
        stride = 2 ** (len(self.unet.network.config.block_out_channels) - 1)
        context = self.context.expand(len(state), -1, -1).to(self.unet.network.dtype)
        with autocast(state.device):
            steps = (times - 1).clamp(min=0).to(state)  # diffusers counts from 0
            output = self.unet(pad_to_multiple(z_t, stride), steps, encoder_hidden_states=context).sample
        output = crop_to(output, state.shape[-2:]).float()
        return eps_from_v(self.schedule, z_t, times, output) if self.prediction == V_PREDICTION else output
