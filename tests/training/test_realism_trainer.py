"""Training the realism denoiser, with small made networks: stages, exact resume, ways to end, validation."""

from __future__ import annotations

import errno
import json
import os
import signal

import numpy as np
import pytest
import torch
from models import picture, untrained
from PIL import Image
from realism_runs import FILES, same, tensors
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dhp_lab.codec.denoising import residual_unet
from dhp_lab.codec.denoising.residual_sampling import FIRST, START, ResidualSampler, residual_schedule
from dhp_lab.core.weights import CheckpointError
from dhp_lab.data.images import ImageError
from dhp_lab.metrics.perceptual import dists_network, lpips_network
from dhp_lab.training import realism_trainer
from dhp_lab.training.codec_config import TrainingError
from dhp_lab.training.codec_state import TrainingState
from dhp_lab.training.realism_config import RealismConfig
from dhp_lab.training.realism_objective import decoded
from dhp_lab.training.realism_part import load_part
from dhp_lab.training.realism_trainer import RealismTrainer
from dhp_lab.training.realism_validation import Validation, validation_judges
from dhp_lab.training.run_folder import BOARD

pytestmark = pytest.mark.usefixtures("networks")


class Recorder(RealismTrainer):
    """A trainer that notes every loss, and is interrupted before a step, or by a signal in one."""

    def __init__(self, config: RealismConfig, stop_at: int | None = None, number: int = 0) -> None:
        super().__init__(config)
        self.losses, self.stop_at, self.number = [], stop_at, number

    def _train_step(self, x):
        if self.step == self.stop_at:
            if not self.number:
                raise KeyboardInterrupt
            signal.raise_signal(self.number)
        losses = super()._train_step(x)
        self.losses.append((self.step, self.stage, *(float(value) for value in losses.values())))
        return losses


def test_both_stages_change_the_network_and_nothing_of_the_codec(config, codec, tmp_path):
    files = {path.name: path.read_bytes() for path in codec.iterdir()}
    run = Recorder(config(validate_every=5))
    before, of_codec = tensors(run), {n: v.clone() for n, v in run.model.state_dict().items()}
    run.run()
    assert [stage for _, stage, *_ in run.losses] == 3 * ["denoising"] + 2 * ["drawn"]
    assert {
        name for name, value in run.network.state_dict().items() if torch.equal(value, before[name])
    } == set()
    assert same(run.model.state_dict(), of_codec)
    assert {path.name: path.read_bytes() for path in codec.iterdir()} == files

    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == FILES | {
        "photos.list",
        "samples",
        "tensorboard",
        "training.log",
    }
    assert [path.name for path in (out / "samples").iterdir()] == ["step_0000005.png"]
    with Image.open(out / "samples" / "step_0000005.png") as sheet:
        assert sheet.size == (4 * 64, 7 * 64), "four crops: the photo and K = 1, 2, 4 at two rates"
    text = (out / "training.log").read_text()
    assert text.count("validation at step 5, lambda") == 2
    assert all(f"K = {k}: PSNR" in text for k in (1, 2, 4)) and "LPIPS" in text and "DISTS" in text
    found = EventAccumulator(str(out / BOARD)).Reload().Tags()
    assert "validation/DISTS at lambda 0.005, K = 4" in found["scalars"] and len(found["images"]) == 1


def test_what_is_left_is_the_average_and_loads_into_the_network(config, tmp_path):
    run = RealismTrainer(config(drawn_steps=0, ema_decay=0.5))
    run.run()
    about = json.loads((tmp_path / "out" / "realism.json").read_text())
    levels = {"start": START, "first": FIRST}
    assert about == {"model": "ResidualUNet", "widths": [4, 6, 8], "codec": run.model.model_id.hex()} | levels
    network = residual_unet.ResidualUNet((4, 6, 8))
    network.load_state_dict(load_file(tmp_path / "out" / "realism.safetensors"))
    assert same(network.state_dict(), run.ema.average.state_dict())
    assert not same(network.state_dict(), run.network.state_dict())
    assert same(load_part(tmp_path / "out").state_dict(), network.state_dict())


def test_the_loss_falls_where_residuals_can_be_guessed(config, monkeypatch):
    """Residuals that are a function of x_hat: the network can learn it."""
    run = Recorder(config(denoising_steps=60, drawn_steps=0, lr=1e-2, batch_size=1))
    photo = run.crops["denoising"].batch(0, 1)
    monkeypatch.setattr(realism_trainer, "next_batch", lambda batches: photo)
    run.run()
    losses = [loss for *_, loss, _ in run.losses]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [2, 3, 4])
def test_a_resumed_run_repeats_the_unbroken_one_exactly(config, tmp_path, stop_at):
    whole = Recorder(config(tmp_path / "whole", validate_every=2))
    whole.run()
    first = Recorder(config(validate_every=2), stop_at)
    with pytest.raises(TrainingError, match=f"stopped at step {stop_at}; go on with --resume"):
        first.run()
    second = Recorder(config(validate_every=2, resume=True))
    second.run()
    assert first.losses + second.losses == whole.losses
    left = [
        (folder / "realism.safetensors").read_bytes() for folder in (tmp_path / "out", tmp_path / "whole")
    ]
    assert left[0] == left[1]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_run_between_two_steps_and_saves_it(config, tmp_path, name):
    run = Recorder(config(drawn_steps=0), 1, getattr(signal, name))
    with pytest.raises(TrainingError, match="stopped at step 2; go on with --resume"):
        run.run()
    assert {path.name for path in (tmp_path / "out").iterdir()} >= FILES
    again = RealismTrainer(config(drawn_steps=0, resume=True))
    assert again.step == 2 and same(tensors(again), tensors(run))


def test_a_step_that_is_broken_off_is_made_again_alike(config, tmp_path, monkeypatch):
    """Its noise was drawn already, its update not begun."""
    whole = Recorder(config(tmp_path / "whole", drawn_steps=0))
    whole.run()
    run = Recorder(config(drawn_steps=0))
    check = run.safeguards.check_loss

    def broken_off(objective, step):
        check(objective, step)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(run.safeguards, "check_loss", broken_off)
    with pytest.raises(TrainingError, match="stopped at step 2; go on with --resume"):
        run.run()
    second = Recorder(config(drawn_steps=0, resume=True))
    second.run()
    assert run.losses + second.losses == whole.losses


def test_the_second_stage_can_follow_later_and_starts_from_the_average(config):
    first = RealismTrainer(config(drawn_steps=0, ema_decay=0.9))
    first.run()
    second = Recorder(config(ema_decay=0.9, resume=True), stop_at=3)
    second._go_to("drawn")
    assert same(tensors(second), first.ema.average.state_dict())
    assert RealismTrainer(config(denoising_steps=4, resume=True)).step == 3
    with pytest.raises(CheckpointError, match="stages of .* at step 3 .*--init_from"):
        RealismTrainer(config(denoising_steps=2, resume=True))


def test_a_loss_that_is_not_finite_ends_the_run_with_its_remedy(config, monkeypatch):
    run = RealismTrainer(config(drawn_steps=0))
    forward = run.objective.forward
    monkeypatch.setattr(
        run.objective, "forward", lambda x: {n: v * float("nan") for n, v in forward(x).items()}
    )
    with pytest.raises(TrainingError, match=r"the loss is nan at step 0; .*With a smaller --lr \(now 0.0006"):
        run.run()


def test_a_full_disk_ends_in_one_line_and_the_state_before_is_intact(config, tmp_path, monkeypatch):
    run = RealismTrainer(config(drawn_steps=0, minutes_between_saves=0.0))
    save = TrainingState.save

    def full(state, path):
        if state.step == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(state, path)

    monkeypatch.setattr(TrainingState, "save", full)
    with pytest.raises(
        TrainingError, match=r"cannot write to .*last\.safetensors: No space .* with --resume"
    ):
        run.run()
    assert RealismTrainer(config(drawn_steps=0, resume=True)).step == 1


def test_a_photo_that_cannot_be_read_saves_the_run(config, tmp_path, monkeypatch):
    run, begin = RealismTrainer(config(drawn_steps=0)), realism_trainer.next_batch

    def gone(batches):
        if run.step == 2:
            raise ImageError("none of the files is a photo")
        return begin(batches)

    monkeypatch.setattr(realism_trainer, "next_batch", gone)
    with pytest.raises(TrainingError, match="photos cannot be read: none of .*; stopped at step 2; go on"):
        run.run()
    assert RealismTrainer(config(drawn_steps=0, resume=True)).step == 2


# the figures of a validation


def test_a_validation_judges_what_the_decoder_would_show():
    torch.manual_seed(1)
    network = residual_unet.ResidualUNet((4, 6, 8)).eval().requires_grad_(False)
    torch.nn.init.normal_(network.exit.weight, std=0.2)
    sampler = ResidualSampler(network, residual_schedule())
    model, x = untrained(N=8, M=16).requires_grad_(False), picture(64, 64, count=2)
    judges = validation_judges(torch.device("cpu"))
    validation = Validation(model, x, judges)
    found = validation.draw(sampler)
    assert [(one.lambda_rate, one.steps) for one in found] == [
        (r, k) for r in (1.5e-2, 5e-3) for k in (1, 2, 4)
    ]
    for one in found:
        conditions = decoded(model, x, torch.full((2,), one.lambda_rate))
        wanted = conditions.picture
        if one.steps > 1:
            wanted = sampler.sample(conditions, steps=one.steps)
        wanted = wanted.clamp(0, 1)
        assert torch.equal(one.pictures, wanted)
        error = (one.pictures - x).square().mean((1, 2, 3))
        assert one.figures["PSNR"] == pytest.approx((-10 * error.log10()).mean().item(), abs=0.02)
        assert one.figures["LPIPS"] == pytest.approx(lpips_network()(wanted, x).mean().item(), rel=1e-5)
        assert one.figures["DISTS"] == pytest.approx(dists_network()(wanted, x).mean().item(), rel=1e-5)
    again = validation.draw(sampler)
    assert [one.figures for one in again] == [one.figures for one in found]
