"""Which stage each step of a training belongs to, and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dhp_lab.training.codec_config import TrainingConfig
from dhp_lab.training.codec_objective import STAGES
from dhp_lab.training.optimisation import lr_factor

WARMUP = 200  # steps, at the start of each stage
LR_FLOOR = 0.01  # of the peak, at the end of each stage


def stage_lengths(config: TrainingConfig, photos: int, processes: int) -> list[int]:
    """Steps of the three stages, from epochs over this many photos, which the processes share."""
    per_epoch = math.ceil(photos / (config.batch_size * processes))
    return [per_epoch * count for count in (config.epochs, config.denoiser_epochs, config.joint_epochs)]


def stage_of(step: int, lengths: Sequence[int], stages: Sequence[str] = STAGES) -> str:
    """The stage of step 0 .. sum(lengths) - 1."""
    return next(stage for i, stage in enumerate(stages) if step < sum(lengths[: i + 1]))


def stage_lr_factor(step: int, lengths: Sequence[int], stages: Sequence[str] = STAGES) -> float:
    """The learning rate of step 0 .. sum(lengths) - 1 over its peak: each stage warms up and decays."""
    index = stages.index(stage_of(step, lengths, stages))
    length, start = lengths[index], sum(lengths[:index])
    return lr_factor(step - start + 1, length, warmup=min(WARMUP, length), floor=LR_FLOOR)


def calibrates_after(step: int, stage: str, lengths: Sequence[int], every: int) -> bool:
    """Whether the codec, which the denoiser's stage leaves alone, is to be measured after this many steps."""
    if stage == "denoiser":
        return False
    return step in (lengths[0], sum(lengths)) or (every > 0 and step % every == 0)
