"""A codec's parts from its configuration: the transforms, the denoiser and the noise schedule."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dhp_lab.codec.config import CodecConfig
from dhp_lab.codec.denoising.denoiser import Denoiser, LatentDenoiser
from dhp_lab.codec.networks.lapped import BLOCK, lapped_filters
from dhp_lab.codec.networks.layers import widths
from dhp_lab.codec.networks.tiling import TILE
from dhp_lab.codec.networks.transforms import Analysis, Synthesis
from dhp_lab.diffusion.schedules import SCHEDULES, NoiseSchedule


@dataclass(frozen=True)
class CodecParts:
    """The parts in which codecs of different kinds differ, and the numbers that go with them.

    Attributes:
        g_a, g_s: as ``Analysis`` and ``Synthesis``.
        denoiser: D, as ``LatentDenoiser``.
        noise_schedule: the chain that D walks back.
        channels: of y. hyper_width: channels inside h_a and h_s.
        block: a latent stands for block x block pixels.
        tile: largest side of what the networks see at once, in latents.
        log2_spread: (channels,) log2 of the standard deviations that y starts with.
        unit_latents: whether y has unit variance already, as the schedule assumes; else it is divided by its
            root mean square.
        digest: of weights that are borrowed, "" where none are.
    """

    g_a: nn.Module
    g_s: nn.Module
    denoiser: Denoiser
    noise_schedule: NoiseSchedule
    channels: int
    hyper_width: int
    block: int
    tile: int
    log2_spread: Tensor
    unit_latents: bool = False
    digest: str = ""


def native_parts(config: CodecConfig) -> CodecParts:
    """New networks around the lapped transform.

    Raises:
        ValueError: M outside 1 .. 768.
    """
    return CodecParts(
        g_a=Analysis(config.N, config.M, bounded=config.revision > 1),
        g_s=Synthesis(config.N, config.M, bounded=config.revision > 1),
        denoiser=LatentDenoiser(config.N, config.M, config.dead_zone),
        noise_schedule=SCHEDULES[config.schedule](config.diffusion_steps),
        channels=config.M,
        hyper_width=widths(config.N)[2],
        block=BLOCK,
        tile=TILE,
        log2_spread=0.5 * lapped_filters(config.M)["variance"].log2(),
    )
