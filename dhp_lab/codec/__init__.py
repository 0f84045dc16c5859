"""The codec: a scale hyperprior and a latent diffusion model that share one bitstream.

The names below are loaded when they are first asked for, so that reading a file's header needs no torch.
"""

from importlib import import_module

__all__ = ["DiffusionHyperprior", "create_bk_sdm_compression_model", "create_diffusion_hyperprior_model"]


def __getattr__(name: str):
    if name in __all__:
        return getattr(
            import_module(f"dhp_lab.codec.{'model' if name == 'DiffusionHyperprior' else 'create'}"), name
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
