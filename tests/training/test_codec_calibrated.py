"""Training with a measured gain curve and with drawings: when, of what, and that a resumed run repeats it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.crops import PhotoCrops
from dhp_lab.data.drawings import WithDrawings
from dhp_lab.training import codec_trainer as training
from dhp_lab.training.calibration import calibrate
from dhp_lab.training.codec_config import TrainingConfig, TrainingError
from dhp_lab.training.codec_state import TrainingState
from dhp_lab.training.codec_trainer import Trainer

SMALL = {
    "batch_size": 2,
    "epochs": 3,
    "denoiser_epochs": 2,
    "joint_epochs": 2,
    "N": 8,
    "M": 48,
    "diffusion_steps": 10,
    "image_size": 64,
    "device": "cpu",
    "minutes_between_saves": 60.0,
    "lr": 1e-3,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Four smooth random pictures with grain, one of them held out: two steps an epoch."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(4):
        coarse = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((80, 96), Image.Resampling.BICUBIC)).astype(float)
        grainy = (smooth + random.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(folder / f"{i}.png")
    return folder


def config(photos: Path, out: Path, **changes) -> TrainingConfig:
    return TrainingConfig(data_path=str(photos), output_dir=str(out), **{**SMALL, **changes})


class Recorder(Trainer):
    """A trainer that notes every loss and can be interrupted before a step."""

    def __init__(self, config: TrainingConfig, stop_at: int | None = None) -> None:
        super().__init__(config)
        self.losses, self.stop_at = [], stop_at

    def _train_step(self, x):
        if self.step == self.stop_at:
            raise KeyboardInterrupt
        report = super()._train_step(x)
        self.losses.append(float(report["objective"]))
        return report


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [6, 14]),
        ({"calibrate_every": 4}, [4, 6, 12, 14]),
        ({"joint_epochs": 0}, [6]),
        ({"epochs": 0, "joint_epochs": 0, "calibrate_every": 1}, []),
        ({"denoiser_epochs": 0, "joint_epochs": 0}, [6]),
    ],
    ids=["ends of stages", "and between", "denoiser last", "denoiser alone", "codec alone"],
)
def test_the_curve_is_measured_when_the_codec_has_moved(photos, tmp_path, monkeypatch, changes, expected):
    """After steps 0 .. 6 of the codec, 6 .. 10 of the denoiser, 10 .. 14 of both."""
    steps = []
    monkeypatch.setattr(training, "calibrate_both", lambda *_: steps.append(run.step))
    run = Trainer(config(photos, tmp_path, **changes))
    run.run()
    assert steps == expected


def test_a_run_leaves_a_calibrated_codec(photos, tmp_path):
    """Gradients leave the knots alone; at the end all that was saved has the curve that fits the average."""
    run = Recorder(config(photos, tmp_path, denoiser_epochs=0, joint_epochs=0, minutes_between_saves=0.0))
    start = run.model.gain.knots.detach().clone()
    train_step, seen = run._train_step, []

    def noted(x):
        report = train_step(x)
        seen.append(run.model.gain.knots.detach().clone())
        return report

    run._train_step = noted
    run.run()
    assert all(torch.equal(knots, start) for knots in seen)
    final = DiffusionHyperprior.from_pretrained(tmp_path / "final_checkpoint")
    state = TrainingState.load(tmp_path / "last.safetensors")
    knots = final.gain.knots.detach()
    assert not torch.equal(knots, start) and bool((knots.diff() > 0).all())
    assert torch.equal(state.model["gain.knots"], knots) and torch.equal(state.average["gain.knots"], knots)
    assert torch.equal(run.model.gain.knots, knots)
    with torch.no_grad():
        run.ema.average.gain.knots.copy_(start)
    calibrate(run.ema.average, run.val)
    assert torch.equal(run.ema.average.gain.knots, knots)
    log = (tmp_path / "training.log").read_text()
    assert f"at its knots: {start[0]:.3f} " in log and f"calibration, {knots[0]:.3f} " in log


def test_a_run_for_one_lambda_shifts_its_curve(photos, tmp_path):
    run = Trainer(config(photos, tmp_path, denoiser_epochs=0, joint_epochs=0, lambda_rate=3e-3))
    start = run.model.gain.knots.detach().clone()
    run.run()
    shift = run.model.gain.knots.detach() - start
    assert torch.allclose(shift, shift[0].expand(len(shift)), atol=1e-6) and shift[0].abs() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [3, 7, 12])
def test_a_resumed_run_with_calibrations_and_drawings_repeats_the_unbroken_one(photos, tmp_path, stop_at):
    options = {"calibrate_every": 2, "drawn_share": 0.4}
    unbroken = Recorder(config(photos, tmp_path / "unbroken", **options))
    unbroken.run()
    first = Recorder(config(photos, tmp_path / "broken", **options), stop_at)
    with pytest.raises(TrainingError, match=f"stopped at step {stop_at}"):
        first.run()
    second = Recorder(config(photos, tmp_path / "broken", **options, resume=True))
    second.run()
    assert first.losses + second.losses == unbroken.losses
    final = [
        DiffusionHyperprior.from_pretrained(tmp_path / name / "final_checkpoint")
        for name in ("broken", "unbroken")
    ]
    assert final[0].model_id == final[1].model_id


def test_drawings_are_trained_on_and_never_validated_on(photos, tmp_path):
    plain = Trainer(config(photos, tmp_path / "plain"))
    mixed = Trainer(config(photos, tmp_path / "mixed", drawn_share=0.5))
    assert isinstance(plain.crops, PhotoCrops) and isinstance(mixed.crops, WithDrawings)
    assert torch.equal(plain.val, mixed.val) and plain.lengths == mixed.lengths
    pairs = [(plain.crops.batch(step, 2), mixed.crops.batch(step, 2)) for step in range(40)]
    kept = torch.stack([(a == b).all(3).all(2).all(1) for a, b in pairs])
    assert kept.float().mean().item() == pytest.approx(0.5, abs=5 * (0.25 / 80) ** 0.5)
    assert torch.equal(mixed.crops.batch(7, 2), pairs[7][1])
