"""The fundamentals of diffusion, each file one idea; nothing here depends on codecs."""

from dhp_lab.diffusion.schedules import NoiseSchedule, cosine, geometric, linear

__all__ = ["NoiseSchedule", "cosine", "geometric", "linear"]
