"""The fundamentals of diffusion, each file one idea; nothing here knows of codecs."""

from dhp_lab.diffusion.schedules import NoiseSchedule, cosine, geometric, linear

__all__ = ["NoiseSchedule", "cosine", "geometric", "linear"]
