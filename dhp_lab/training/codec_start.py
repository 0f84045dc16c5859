"""The codec that a training starts with."""

from __future__ import annotations

from dhp_lab.codec.create import (
    create_bk_sdm_compression_model,
    create_diffusion_hyperprior_model,
    with_settings,
)
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.training.codec_config import TrainingConfig


def initial_model(config: TrainingConfig) -> DiffusionHyperprior:
    """The codec that a run starts with: a checkpoint with other settings, or a new one.

    Raises:
        CheckpointError: the folder to start from, or whose parts are taken, is missing or damaged.
        ValueError: settings out of range.
    """
    if config.init_from:
        model = DiffusionHyperprior.from_pretrained(config.init_from)
        if config.N not in (None, model.N):
            raise ValueError(f"N is {config.N}, the checkpoint {config.init_from} has {model.N}: leave N out")
        names = ("M", "transmit", "passes", "dead_zone", "trellis")
        settings = {name: getattr(config, name) for name in names}
        model = with_settings(model, **settings)
    elif config.bk_sdm_path is not None:
        model = create_bk_sdm_compression_model(**config.codec_settings)
    else:
        model = create_diffusion_hyperprior_model(**config.codec_settings)
    return model.low_memory() if config.low_memory else model
