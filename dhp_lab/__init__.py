"""dhp_lab: the diffusion-hyperprior study kit, from the first step of DDPM to a working image codec."""

from dhp_lab import _torchvision_ops  # noqa: F401  (stands in line for the first import of torchvision)

__version__ = "0.1.0"


def __getattr__(name: str):
    """``dhp_lab.dhp_file``, loaded when it is first asked for: it needs torch."""
    if name == "dhp_file":
        from importlib import import_module

        return import_module("dhp_lab.codec.dhp_file")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
