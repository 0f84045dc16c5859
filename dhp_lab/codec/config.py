"""What a codec is made of: the settings that its checkpoint's config.json holds. Plain data; ``parts`` builds
from it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

PASSES = (1, 2, 4, 14)
REVISIONS = (1, 2)
TRANSMIT = ("z+y", "z")


@dataclass(frozen=True)
class CodecConfig:
    """The settings of a native codec.

    Attributes:
        N: width of the networks and channels of z, 4 .. 1024. M: channels of y, 1 .. 768.
        diffusion_steps: T, the number of times in the schedule, >= 1. schedule: "linear" or "cosine".
        transmit: "z+y" sends hyper-latents and latents, "z" hyper-latents alone.
        passes: of the context model over the latents, 1, 2, 4 or 14.
        dead_zone: 0 .. 1, how much wider than a step bins are where scales are small (``scales.bin_width``).
        revision: of the networks: 1 has learnt lapped filters and Gaussian tables, 2 fixed filters with a
            fading correction, limited non-linear parts and tables of a scale mixture. A config.json without
            it is of the first.
        trellis: whether latents are quantised with a trellis (``bits.trellis``), or rounded one by one.

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
    revision: int = 2
    trellis: bool = False

    kind: ClassVar[str] = "DiffusionHyperprior"  # as config.json calls it
    schedules: ClassVar[tuple[str, ...]] = ("linear", "cosine")

    def __post_init__(self) -> None:
        if not 4 <= self.N <= 1024:
            raise ValueError(f"N must lie in 4 .. 1024, got {self.N}")
        self._check_passes()
        if self.schedule not in self.schedules:
            raise ValueError(f"schedule must be one of {', '.join(self.schedules)}, got '{self.schedule}'")
        if self.transmit not in TRANSMIT:
            raise ValueError(f"transmit must be 'z+y' or 'z', got '{self.transmit}'")
        if self.revision not in REVISIONS:
            raise ValueError(f"revision must be 1 or 2, got {self.revision}")
        if not isinstance(self.trellis, bool) or (self.trellis and self.transmit == "z"):
            raise ValueError(f"trellis must be true or false, and false with z alone; got {self.trellis}")
        if not 0 <= self.dead_zone <= (1 if self.transmit == "z+y" else 0):
            raise ValueError(f"dead_zone must lie in 0 .. 1, and be 0 with z alone; got {self.dead_zone}")

    def _check_passes(self) -> None:
        too_many = (self.passes > 1 and self.transmit == "z") or self.passes > max(2 * self.M, 2)
        if self.passes not in PASSES or too_many:
            raise ValueError(
                f"passes must be 1, 2, 4 or 14, with z alone 1, and at most two for each of the {self.M} "
                f"channels; got {self.passes}"
            )

    @property
    def lambda_range(self) -> tuple[float, float]:
        """The trade-offs that training draws, log-uniformly; z alone cannot hold the bits of a smaller
        lambda.
        """
        return (1e-5, 3e-2) if self.transmit == "z+y" else (1e-3, 1e-1)

    def to_dict(self, folder: Path) -> dict[str, object]:
        """What config.json in a folder holds."""
        return {"model": self.kind, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, object], folder: Path) -> CodecConfig:
        """The inverse of ``to_dict``, without the kind's name. Errors as for the class, and TypeError."""
        return cls(**({"revision": 1} | values))
