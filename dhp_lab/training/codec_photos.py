"""The pictures of a training run: crops to train on, and a batch to validate and calibrate on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor

from dhp_lab.core.files import write_atomic
from dhp_lab.data.crops import PhotoCrops
from dhp_lab.data.drawings import WithDrawings
from dhp_lab.data.images import ImageError, list_images
from dhp_lab.data.listing import list_names
from dhp_lab.data.photo_list import END, PhotoList
from dhp_lab.training.codec_config import TrainingConfig
from dhp_lab.training.processes import Processes
from dhp_lab.training.realism_config import RealismConfig
from dhp_lab.training.run_folder import PHOTOS

log = logging.getLogger(__name__)

VALIDATION_CROPS = 8

PhotoOptions = TrainingConfig | RealismConfig  # what names photos and their crops


def split_validation(crops: PhotoCrops) -> PhotoCrops:
    """Take a validation set out of the training photos: every 20th, of many photos about 16."""
    return crops.hold_out(every=max(20, len(crops) // 16))


def find_photos(config: PhotoOptions, processes: Processes) -> PhotoList:
    """The photos below ``data_path``, the same list in all processes and in a run that is resumed.

    A resumed run keeps the list that it began with (PHOTOS in its folder), so that photos that came or went
    do not change which ones are drawn.

    Raises:
        ImageError: no folder, or no picture in it. OSError: the disk's own trouble.
    """
    names = _names(config) if processes.is_main else None
    return PhotoList.from_bytes(config.data_path, processes.share_bytes(names))


def keep_photo_list(photos: PhotoList, folder: Path) -> None:
    """Write the list, for a run that goes on: the folder's path and the names, each ended by a zero byte.

    Raises:
        OSError: the disk's own trouble.
    """
    write_atomic(folder / PHOTOS, _place(photos.folder) + END + photos.to_bytes())


def _place(folder: str | Path) -> bytes:
    return os.fsencode(Path(folder).resolve())


def _names(config: PhotoOptions) -> bytes:
    """The names of the photos, kept ones if this run goes on with the same folder."""
    kept, folder = Path(config.output_dir) / PHOTOS, Path(config.data_path)
    if config.resume and kept.is_file() and folder.is_dir():
        place, _, names = kept.read_bytes().partition(END)
        if place == _place(folder) and names.endswith(END):
            log.info("the photos are those that the run began with, as listed in %s", kept)
            return names
    names = list_names(folder, output_dir=Path(config.output_dir), log=log.warning)
    return PhotoList(folder, names).to_bytes()


def training_crops(config: PhotoOptions, photos: PhotoList) -> tuple[PhotoCrops | WithDrawings, PhotoCrops]:
    """The stream of training crops, and that of the photos held out of it.

    Raises:
        ImageError: there are no photos.
    """
    share = config.cache_gb / max(1, config.workers)
    crops = PhotoCrops(photos, config.image_size, config.seed, cache_gb=share)
    held_out = crops if config.val_data_path else split_validation(crops)
    return (WithDrawings(crops, config.drawn_share) if config.drawn_share else crops), held_out


def validation_batch(
    config: PhotoOptions,
    held_out: PhotoCrops,
    crops: PhotoCrops | WithDrawings,
    processes: Processes,
    kept: Tensor | None = None,
) -> Tensor:
    """The crops to validate and calibrate on, the same in all processes.

    Args:
        held_out, crops: as ``training_crops`` gives them.
        kept: those of the run that goes on, whose photos may be gone by now.

    Returns:
        (VALIDATION_CROPS, 3, image_size, image_size) in [0, 1].

    Raises:
        ImageError: no usable photo. OSError: the disk's own trouble.
    """
    shape = (VALIDATION_CROPS, 3, config.image_size, config.image_size)
    if kept is not None and not config.val_data_path and kept.shape == shape:
        return kept
    x = _validation_batch(config, held_out, crops) if processes.is_main else None
    return processes.share(x, shape)


def _validation_batch(config: PhotoOptions, held_out: PhotoCrops, crops: PhotoCrops | WithDrawings) -> Tensor:
    if config.val_data_path:
        photos_of = partial(list_images, output_dir=Path(config.output_dir), log=log.warning)
        held_out = PhotoCrops(photos_of(config.val_data_path), config.image_size, seed=0, cache_gb=0)
    log.info("%d photos to train on, %d to validate", len(crops), len(held_out))
    try:
        return held_out.batch(0, VALIDATION_CROPS)
    except ImageError as error:
        if config.val_data_path:
            raise
        log.warning("%s: the validation uses photos that are trained on", error)
        photos = crops.photos if isinstance(crops, WithDrawings) else crops
        return photos.batch(0, VALIDATION_CROPS)


def share_of(
    crops: PhotoCrops | WithDrawings, batch_size: int, processes: Processes
) -> Callable[[int], Tensor]:
    """What reads this process's part of a step's batch: those of several processes follow each other."""
    return partial(_read_share, crops, batch_size, processes.count, processes.index)


def _read_share(
    crops: PhotoCrops | WithDrawings, batch_size: int, processes: int, index: int, step: int
) -> Tensor:
    return crops.batch(step * processes + index, batch_size)
