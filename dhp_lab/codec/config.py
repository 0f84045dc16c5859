"""What a codec is made of: the settings that its checkpoint's config.json holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from dhp_lab.codec.denoising.denoiser import LatentDenoiser
from dhp_lab.codec.networks.context import PASSES
from dhp_lab.codec.networks.lapped import BLOCK, lapped_filters
from dhp_lab.codec.networks.layers import widths
from dhp_lab.codec.networks.tiling import TILE
from dhp_lab.codec.networks.transforms import Analysis, Synthesis
from dhp_lab.diffusion.schedules import SCHEDULES, NoiseSchedule


@dataclass(frozen=True)
class CodecConfig:
    """What a model is made of. Its methods make the parts in which codecs of different kinds differ.

    Attributes:
        N: width of the networks and channels of z, 4 .. 1024. M: channels of y, 1 .. 768.
        diffusion_steps: T, the number of times in the schedule, >= 1. schedule: "linear" or "cosine".
        transmit: "z+y" sends hyper-latents and latents, "z" hyper-latents alone.
        passes: over the latents, 1, 2 or 4; later ones learn from earlier ones (``context``).
        dead_zone: 0 .. 1, how much rounding leans towards zero where scales are small
            (``entropy.bin_width``).

    Raises:
        ValueError: a value outside its range.
    """

    N: int = 128
    M: int = 128
    diffusion_steps: int = 50
    schedule: str = "linear"
    transmit: str = "z+y"
    passes: int = 1
    dead_zone: float = 0.0

    kind: ClassVar[str] = "DiffusionHyperprior"  # as config.json calls it
    block: ClassVar[int] = BLOCK  # a latent stands for block x block pixels
    tile: ClassVar[int] = TILE  # largest side of what the networks see at once, in latents
    schedules: ClassVar[tuple[str, ...]] = tuple(SCHEDULES)

    def __post_init__(self) -> None:
        if not 4 <= self.N <= 1024:
            raise ValueError(f"N must lie in 4 .. 1024, got {self.N}")
        if self.schedule not in self.schedules:
            raise ValueError(f"schedule must be one of {', '.join(self.schedules)}, got '{self.schedule}'")
        if self.transmit not in ("z+y", "z"):
            raise ValueError(f"transmit must be 'z+y' or 'z', got '{self.transmit}'")
        if (
            self.passes not in PASSES
            or (self.passes > 1 and self.transmit == "z")
            or (self.passes == 4 and self.M == 1)
        ):
            raise ValueError(
                f"passes must be 1, 2 or 4, with z alone 1, with one channel at most 2; got {self.passes}"
            )
        if not 0 <= self.dead_zone <= (1 if self.transmit == "z+y" else 0):
            raise ValueError(f"dead_zone must lie in 0 .. 1, and be 0 with z alone; got {self.dead_zone}")

    @property
    def lambda_range(self) -> tuple[float, float]:
        """The trade-offs that training draws, log-uniformly; z alone cannot hold the bits of a smaller
        lambda.
        """
        return (1e-5, 3e-2) if self.transmit == "z+y" else (1e-3, 1e-1)

    def stored(self, folder: Path) -> dict[str, object]:
        """What config.json in a folder says."""
        return {"model": self.kind, **asdict(self)}

    @property
    def channels(self) -> int:
        """Of y."""
        return self.M

    @property
    def hyper_width(self) -> int:
        """Channels inside h_a and h_s."""
        return widths(self.N)[2]

    def transforms(self) -> tuple[nn.Module, nn.Module]:
        """g_a and g_s, as ``Analysis`` and ``Synthesis``."""
        return Analysis(self.N, self.M), Synthesis(self.N, self.M)

    def log2_spread(self) -> Tensor:
        """(channels,) log2 of the standard deviations that y starts with."""
        return 0.5 * lapped_filters(self.M)["variance"].log2()

    def latent_scale(self, log2_spread: Tensor) -> float:
        """What y is divided by to be in the schedule's unit: its root mean square."""
        return log2_spread.detach().double().exp2().square().mean().sqrt().item()

    def denoiser(self) -> nn.Module:
        """D, as ``LatentDenoiser``."""
        return LatentDenoiser(self.N, self.M, self.dead_zone)

    def noise_schedule(self) -> NoiseSchedule:
        """The chain that the denoiser walks back."""
        return SCHEDULES[self.schedule](self.diffusion_steps)
