"""The pictures of a training run: crops to train on, and a batch to validate and calibrate on."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from torch import Tensor

from dhp_lab.data.crops import PhotoCrops
from dhp_lab.data.drawings import WithDrawings
from dhp_lab.data.images import list_images
from dhp_lab.training.codec_config import TrainingConfig

log = logging.getLogger(__name__)

VALIDATION_CROPS = 8


def split_validation(crops: PhotoCrops) -> PhotoCrops:
    """Take a validation set out of the training photos: every 20th, of many photos about 16."""
    return crops.hold_out(every=max(20, len(crops) // 16))


def training_pictures(config: TrainingConfig) -> tuple[PhotoCrops | WithDrawings, Tensor]:
    """The stream of training crops, and a batch of validation crops of photos alone.

    Returns:
        crops, and (VALIDATION_CROPS, 3, image_size, image_size) in [0, 1].

    Raises:
        ImageError: no usable photo.
    """
    photos_of = partial(list_images, output_dir=Path(config.output_dir), log=log.warning)
    crops = PhotoCrops(photos_of(config.data_path), config.image_size, config.seed)
    if config.val_data_path:
        validation = PhotoCrops(photos_of(config.val_data_path), config.image_size, seed=0)
    else:
        validation = split_validation(crops)
    log.info("%d photos to train on, %d to validate", len(crops), len(validation))
    validation = validation.batch(0, VALIDATION_CROPS)
    return (WithDrawings(crops, config.drawn_share) if config.drawn_share else crops), validation
