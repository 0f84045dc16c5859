"""Networks that somebody else has trained, as parts of the codec: a VAE for g_a and g_s, a U-Net for D.

Where they are frozen, nothing of them is trained or stored with the codec; see ``stable_diffusion``.
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
from dhp_lab.diffusion.process import eps_from_v
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.latent.folder import V_PREDICTION

ADAPTER_WIDTH = 64  # channels inside the adapter
UNET_ERROR = -4.0  # log of the U-Net's squared error at the start, in those of the noise


class Frozen(nn.Module):
    """A network that is used and never trained or stored: it moves with the model, and is no part of its
    state.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "network", network.eval().requires_grad_(False))

    def _apply(self, fn: Callable, recurse: bool = True) -> Frozen:
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def low_memory(self) -> None:
        """Hold the network in half precision, and let its attention work in slices."""
        on_gpu = next(self.network.parameters()).is_cuda
        nn.Module.to(self.network, torch.float16 if on_gpu else torch.bfloat16)  # diffusers' own `to` warns
        if hasattr(self.network, "set_attention_slice"):
            self.network.set_attention_slice("max")

    def forward(self, x: Tensor, *arguments: Tensor, **more: Tensor) -> Tensor:
        """What the network says, asked in the precision that it is held in."""
        return self.network(x.to(next(self.network.parameters()).dtype), *arguments, **more)


class VaeAnalysis(nn.Module):
    """g_a: the mode of what a VAE's encoder tells; pictures (B, 3, f h, f w) -> scaled latents (B, C, h, w).

    Args:
        encoder: pictures in [-1, 1] -> mean and log variance (B, 2 C, h, w). factor: what makes the latents'
            variance about 1.
    """

    def __init__(self, encoder: nn.Module, factor: float) -> None:
        super().__init__()
        self.encoder, self.factor = encoder, factor

    def forward(self, x: Tensor, log2_delta: Tensor, std: Tensor) -> Tensor:
        """log2_delta, std: as for ``Analysis``; a VAE asks for neither."""
        with autocast(x.device):
            moments = self.encoder(2 * x - 1)
        return self.factor * moments.chunk(2, 1)[0].float()


class VaeSynthesis(nn.Module):
    """g_s: a VAE's decoder; scaled latents -> pictures, about [0, 1]. Arguments as for ``V_PREDICTIONaeAnalysis``."""

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
        delta = decoder_state.log2_delta.exp2().view(-1, 1, 1, 1)
        told = [
            state,
            decoder_state.mean * delta,
            (decoder_state.scale * delta).clamp(min=1e-3).log2() / 4,
            decoder_state.symbols.clamp(-5, 5) / 5,
        ]
        return self.exit(
            F.silu(self.entry(torch.cat([*told, decoder_state.decoded, sigma.clamp(min=1e-3).log2() / 4], 1)))
        )


class UNetDenoiser(Denoiser):
    r"""D: a latent diffusion model's U-Net with the empty prompt, which takes a state for y plus white noise.

    What it says of y, and what z and the symbol say (the closed form), are averaged by what each is believed
    to be off:

        D = (V_b unet + V_u base) / (V_b + V_u),     E[(y - D)^2] = V_b V_u / (V_b + V_u),     V_u = sigma^2 exp(a + b log2(sigma))

    with a and b learnt for each channel; they start where the U-Net has nearly all the say.

    Args:
        unet: takes C channels, tells eps or v. tokens: L, of the empty prompt (1, L, D), the buffer
            ``context``. schedule: that the U-Net was trained on.
        prediction: "epsilon" or "v_prediction". dead_zone: of the symbols' bins.
    """

    def __init__(
        self, unet: nn.Module, tokens: int, schedule: NoiseSchedule, prediction: str, dead_zone: float
    ) -> None:
        super().__init__(unet.config.in_channels, dead_zone)
        self.unet, self.schedule, self.prediction = Frozen(unet), schedule, prediction
        self.adapter = Adapter(unet.config.in_channels)
        self.error = nn.Parameter(
            torch.tensor([UNET_ERROR, 0.0]).view(2, 1, 1, 1).repeat(1, unet.config.in_channels, 1, 1)
        )  # a, b
        self.register_buffer("context", torch.zeros(1, tokens, unet.config.cross_attention_dim))

    def forward(self, u: Tensor, sigma: Tensor, decoder_state: DecoderState) -> tuple[Tensor, Tensor]:
        """Arguments and results as for ``LatentDenoiser``; one noise level for each picture."""
        delta = decoder_state.log2_delta.exp2().view(-1, 1, 1, 1)
        state, level = (u + decoder_state.mean) * delta, sigma * delta
        told = (state - level * self._eps(state, level, decoder_state)) / delta - decoder_state.mean
        base, variance = self.closed_form(u, sigma, decoder_state)
        a, b = self.error
        off = (sigma.square() * (a + b * level.clamp(min=1e-4).log2()).clamp(-20, 5).exp()).clamp(
            min=1e-12
        )  # V_u, in steps
        share = off / (off + variance)
        return torch.lerp(told, base, share), share * variance

    def _eps(self, state: Tensor, level: Tensor, decoder_state: DecoderState) -> Tensor:
        top = self.schedule.sigma(self.schedule.steps).item()
        times = self.schedule.time_of(level.detach().amax((1, 2, 3)).double().cpu().clamp(1e-4, top))
        scale = self.schedule.scale(times).to(state).view(-1, 1, 1, 1)
        z_t = scale * state + self.adapter(state, level, decoder_state)
        unit = 2 ** (len(self.unet.network.config.block_out_channels) - 1)
        rows, cols = (-side % unit for side in z_t.shape[-2:])
        padded = F.pad(z_t, (0, cols, 0, rows), mode="replicate") if rows or cols else z_t
        context = self.context.expand(len(state), -1, -1).to(self.unet.network.dtype)
        with autocast(state.device):
            told = self.unet(padded, (times - 1).clamp(min=0).to(state), encoder_hidden_states=context).sample
        told = told[..., : state.shape[-2], : state.shape[-1]].float()
        return eps_from_v(self.schedule, z_t, times, told) if self.prediction == V_PREDICTION else told
