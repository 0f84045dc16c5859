"""Stages, epochs and the learning rate of each step."""

from __future__ import annotations

import math

import pytest

from dhp_lab.training.codec_config import TrainingConfig
from dhp_lab.training.codec_plan import (
    LR_FLOOR,
    WARMUP,
    calibrates_after,
    stage_lengths,
    stage_lr_factor,
    stage_of,
)


@pytest.mark.parametrize("photos, processes, per_epoch", [(16, 1, 4), (17, 1, 5), (17, 2, 3), (1, 8, 1)])
def test_an_epoch_takes_each_photo_once_in_all_processes(photos, processes, per_epoch):
    config = TrainingConfig("photos", batch_size=4, epochs=3, denoiser_epochs=0, joint_epochs=2)
    assert stage_lengths(config, photos, processes) == [3 * per_epoch, 0, 2 * per_epoch]


def test_every_step_has_its_stage():
    assert [stage_of(step, (2, 0, 3)) for step in range(5)] == 2 * ["codec"] + 3 * ["joint"]
    assert [stage_of(step, (1, 1, 1)) for step in range(3)] == ["codec", "denoiser", "joint"]


def test_each_stage_warms_up_and_decays():
    lengths = (1000, 500, 0)
    for start, length in ((0, 1000), (1000, 500)):
        assert stage_lr_factor(start, lengths) == pytest.approx(1 / WARMUP)
        half = LR_FLOOR + (1 - LR_FLOOR) * (1 + math.cos(math.pi * (length // 2) / length)) / 2
        assert stage_lr_factor(start + length // 2, lengths) == pytest.approx(half)
        assert LR_FLOOR < stage_lr_factor(start + length - 1, lengths) < LR_FLOOR + 1e-3


def test_the_codec_is_calibrated_at_the_ends_of_its_stages_and_in_between_if_asked():
    lengths = (6, 4, 5)

    def steps(every: int) -> list[int]:
        done = ((step + 1, stage_of(step, lengths)) for step in range(15))
        return [step for step, stage in done if calibrates_after(step, stage, lengths, every)]

    assert steps(0) == [6, 15] and steps(4) == [4, 6, 12, 15]
