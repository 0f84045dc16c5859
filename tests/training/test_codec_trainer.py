"""Training: the loss of a resumed run, what is left behind, and every way in which a run can end."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.weights import CheckpointError
from dhp_lab.data.images import ImageError
from dhp_lab.training import codec_objective as objective
from dhp_lab.training import codec_trainer as training
from dhp_lab.training.codec_config import TrainingConfig, TrainingError
from dhp_lab.training.codec_objective import CodecObjective
from dhp_lab.training.codec_trainer import Trainer, train

SMALL = {
    "batch_size": 2,
    "epochs": 2,
    "denoiser_epochs": 1,
    "joint_epochs": 1,
    "lr": 5e-4,
    "N": 8,
    "M": 16,
    "diffusion_steps": 10,
    "image_size": 64,
    "device": "cpu",
    "validate_every": 4,
    "minutes_between_saves": 0.0,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Eight smooth random pictures of 96 x 80 pixels, and a broken one."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(8):
        coarse = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        coarse.resize((80, 96), Image.Resampling.BICUBIC).save(folder / f"photo{i}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n then nothing")
    return folder


class Recorder(Trainer):
    """A trainer that notes every loss, reports every step, and can be interrupted before a step."""

    def __init__(self, config: TrainingConfig, stop_at: int | None = None) -> None:
        super().__init__(config)
        self.losses, self.stop_at = [], stop_at
        training.REPORT_EVERY = 1

    def _train_step(self, x):
        if self.step == self.stop_at:
            raise KeyboardInterrupt
        report = super()._train_step(x)
        self.losses.append(
            (self.step, self.stage, float(report["objective"]), float(report["gradient norm"]))
        )
        return report


def config(photos: Path, out: Path, **changes) -> TrainingConfig:
    return TrainingConfig(data_path=str(photos), output_dir=str(out), **{**SMALL, **changes})


@pytest.fixture(scope="module")
def unbroken(photos, tmp_path_factory) -> tuple[Recorder, Path]:
    out = tmp_path_factory.mktemp("unbroken")
    run = Recorder(config(photos, out))
    run.run()
    return run, out


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop_at", [3, 8, 11], ids=["in the codec stage", "between stages", "in the denoiser stage"]
)
def test_a_resumed_run_repeats_the_unbroken_one_exactly(photos, tmp_path, unbroken, stop_at):
    first = Recorder(config(photos, tmp_path), stop_at)
    with pytest.raises(TrainingError, match=f"stopped at step {stop_at}; go on with --resume"):
        first.run()
    second = Recorder(config(photos, tmp_path, resume=True))
    second.run()
    assert first.losses + second.losses == unbroken[0].losses
    final = [
        DiffusionHyperprior.from_pretrained(folder / "final_checkpoint") for folder in (tmp_path, unbroken[1])
    ]
    assert final[0].model_id == final[1].model_id


def test_a_run_goes_through_its_stages_and_leaves_everything_behind(unbroken):
    run, out = unbroken
    stages = [stage for _, stage, *_ in run.losses]
    assert [stages.count(s) for s in ("codec", "denoiser", "joint")] == run.lengths and min(run.lengths) > 0
    assert {p.name for p in out.iterdir()} >= {
        "training.log",
        "samples",
        "tensorboard",
        "best_checkpoint",
        "last.safetensors",
    }
    assert "stage 'joint'" in (out / "training.log").read_text()
    assert list((out / "samples").glob("*.png")) and list((out / "tensorboard").iterdir())
    model = DiffusionHyperprior.from_pretrained(out / "best_checkpoint")
    x = torch.rand(1, 3, 48, 64)
    coded = model.compress(x)
    assert model.decompress(coded["strings"], coded["shape"])["x_hat"].shape == x.shape
    assert not list(out.glob(".*")), "a temporary file was left behind"


@pytest.mark.slow
def test_training_lowers_the_validation_loss(photos, tmp_path):
    settings = {
        "epochs": 40,
        "denoiser_epochs": 0,
        "joint_epochs": 0,
        "lambda_rate": 1e-2,
        "lr": 4e-3,
        "validate_every": 1000,
    }
    run = Trainer(config(photos, tmp_path, minutes_between_saves=60.0, **settings))
    before = CodecObjective(run._averaged(), 1e-2).validate(run.val, denoise=False)[0]["objective"]
    run.run()
    assert run.best < 0.9 * before


def test_the_frozen_codec_does_not_move_in_the_denoiser_stage(photos, tmp_path, unbroken):
    out = tmp_path / "second"
    start = unbroken[1] / "final_checkpoint"
    train(config(photos, out, epochs=0, joint_epochs=0, init_from=str(start)))
    before, after = (
        DiffusionHyperprior.from_pretrained(f).state_dict() for f in (start, out / "final_checkpoint")
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("denoiser.") for name in moved)


def test_a_broken_picture_is_skipped_with_a_warning_that_names_it(photos, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "dhp_lab"):
        Trainer(config(photos, tmp_path))
    assert any("broken.png" in message for message in caplog.messages)


def test_an_empty_folder_is_one_clear_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no picture"):
        train(config(tmp_path / "empty", tmp_path / "out"))


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_state(photos, tmp_path, monkeypatch):
    healthy = objective.CodecObjective.forward

    def forward(self, x, stage, first):
        out = healthy(self, x, stage, first)
        forward.calls += 1
        return {**out, "objective": out["objective"] * float("nan")} if forward.calls > 5 else out

    forward.calls = 0
    monkeypatch.setattr(objective.CodecObjective, "forward", forward)
    with pytest.raises(TrainingError, match="the loss is nan at step 5; .* smaller --lr"):
        train(config(photos, tmp_path))
    monkeypatch.setattr(objective.CodecObjective, "forward", healthy)
    assert Recorder(config(photos, tmp_path, resume=True)).step == 5
    DiffusionHyperprior.from_pretrained(tmp_path / "best_checkpoint")


@pytest.mark.parametrize("bad", [{2}, set(range(2, 99))])
def test_a_gradient_that_is_not_finite_costs_one_update_and_a_row_of_them_the_run(
    photos, tmp_path, monkeypatch, caplog, bad
):
    """The square root of 0 is finite, and its slope is not."""
    run = Trainer(config(photos, tmp_path, epochs=20))
    healthy, weight = run.objective.forward, run.model.g_a.entry.weight

    def forward(x, stage, first):
        out = healthy(x, stage, first)
        if run.step in bad:
            out["objective"] = out["objective"] + (0 * weight.sum()).sqrt()
        return out

    monkeypatch.setattr(run.objective, "forward", forward)
    if len(bad) > 1:
        with pytest.raises(TrainingError, match="not finite in the 10 steps up to 11; .* smaller --lr"):
            run.run()
    else:
        run.run()
        assert run.ema.steps == run.total - 1
    assert "step 2: the gradient is not finite, its update is left out" in caplog.text
    assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters())


FULL_DISK = """
import resource, sys
from dhp_lab.training.codec_trainer import Trainer
from dhp_lab.training.codec_config import TrainingConfig, TrainingError
run = Trainer(TrainingConfig(**{settings}))
step = run._train_step
def fill(x):
    if run.step == 6:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # no file may grow beyond 100 kB
    return step(x)
run._train_step = fill
try:
    run.run()
except TrainingError as error:
    sys.exit(f"one line: {{error}}")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files by setrlimit")
def test_a_full_disk_ends_in_one_line_with_the_last_checkpoint_intact(photos, tmp_path):
    settings = {**SMALL, "data_path": str(photos), "output_dir": str(tmp_path)}
    command = [sys.executable, "-c", FULL_DISK.format(settings=settings)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120
    )
    assert (
        done.returncode == 1 and "one line: cannot write to" in done.stderr and "--resume" in done.stderr
    ), done.stderr
    assert "Traceback" not in done.stderr
    assert Recorder(config(photos, tmp_path, resume=True)).step == 6
    DiffusionHyperprior.from_pretrained(tmp_path / "best_checkpoint")
    assert not list(tmp_path.glob(".*"))


def test_resuming_without_a_state_or_with_another_plan_is_refused(photos, tmp_path, unbroken):
    with pytest.raises(TrainingError, match="there is no"):
        Trainer(config(photos, tmp_path, resume=True))
    with pytest.raises(CheckpointError, match="stages of .*--init_from"):
        Trainer(config(photos, unbroken[1], resume=True, epochs=3))
    with pytest.raises(CheckpointError, match="stages of .* at step"):
        Trainer(config(photos, unbroken[1], resume=True, joint_epochs=0))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_size": 0}, "batch_size"),
        ({"epochs": -1}, "epochs"),
        ({"lr": 0.0}, "lr"),
        ({"image_size": 100}, "image_size"),
        ({"calibrate_every": -1}, "calibrate_every must be at least 0, got -1"),
        ({"drawn_share": 1.0}, r"drawn_share must lie in \[0, 1\), got 1.0"),
        ({"drawn_share": float("nan")}, "drawn_share"),
        ({"init_from": "a", "bk_sdm_path": "b"}, "leave bk_sdm_path out"),
        ({"use_pretrained_vae": True}, "name it with bk_sdm_path"),
        ({"lambda_rate": 1.0}, "lambda_rate"),
        ({"epochs": 0, "denoiser_epochs": 0, "joint_epochs": 0}, "nothing to train"),
    ],
)
def test_bad_settings_name_the_value(change, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(data_path="photos", **{**SMALL, **change})
