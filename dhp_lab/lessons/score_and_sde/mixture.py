"""The lesson's toy, which other lessons use too: its home is ``dhp_lab.diffusion.mixture``."""

from dhp_lab.diffusion.mixture import ISLANDS, Mixture

__all__ = ["ISLANDS", "Mixture"]
