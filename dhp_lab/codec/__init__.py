"""The codec: a scale hyperprior and a latent diffusion model that share one bitstream.

The names below are loaded when they are first used, so that reading a file's header needs no torch.
"""

from importlib import import_module

HOMES = {
    "DiffusionHyperprior": "dhp_lab.codec.model",
    "create_diffusion_hyperprior_model": "dhp_lab.codec.create",
    "create_bk_sdm_compression_model": "dhp_lab.codec.create",
}

__all__ = ["DiffusionHyperprior", "create_bk_sdm_compression_model", "create_diffusion_hyperprior_model"]


def __getattr__(name: str):
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
