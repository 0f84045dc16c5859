"""dhp_lab: the diffusion-hyperprior study kit, from the first step of DDPM to a working image codec."""

from dhp_lab import _torchvision_ops  # noqa: F401  (stands in line for the first import of torchvision)

__version__ = "0.1.0"
