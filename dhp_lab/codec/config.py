"""What a codec is made of: the settings that its checkpoint's config.json holds."""

from __future__ import annotations

from dataclasses import dataclass

from dhp_lab.codec.context import PASSES
from dhp_lab.diffusion.schedules import NoiseSchedule, cosine, linear

SCHEDULES = {"linear": linear, "cosine": cosine}


@dataclass(frozen=True)
class CodecConfig:
    """What a model is made of.

    Attributes:
        N: width of the networks and channels of z, 4 .. 1024. M: channels of y, 1 .. 768.
        diffusion_steps: T, the number of times in the schedule, >= 1. schedule: "linear" or "cosine".
        transmit: "z+y" sends hyper-latents and latents, "z" hyper-latents alone.
        passes: over the latents, 1, 2 or 4; later ones learn from earlier ones (``context``).
        dead_zone: 0 .. 1, how much rounding leans towards zero where scales are small (``entropy.bin_width``).

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

    def __post_init__(self) -> None:
        if not 4 <= self.N <= 1024:
            raise ValueError(f"N must lie in 4 .. 1024, got {self.N}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got '{self.schedule}'")
        if self.transmit not in ("z+y", "z"):
            raise ValueError(f"transmit must be 'z+y' or 'z', got '{self.transmit}'")
        if self.passes not in PASSES or (self.passes > 1 and self.transmit == "z") or (self.passes == 4 and self.M == 1):
            raise ValueError(f"passes must be 1, 2 or 4, with z alone 1, with one channel at most 2; got {self.passes}")
        if not 0 <= self.dead_zone <= (1 if self.transmit == "z+y" else 0):
            raise ValueError(f"dead_zone must lie in 0 .. 1, and be 0 with z alone; got {self.dead_zone}")

    def noise_schedule(self) -> NoiseSchedule:
        """The chain that the denoiser walks back."""
        return SCHEDULES[self.schedule](self.diffusion_steps)
