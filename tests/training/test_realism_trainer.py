"""Training the realism denoiser, with small made networks: stages, exact resume, ways to end, bad input."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from made_networks import lay_all
from models import picture, untrained
from PIL import Image
from programs import dhp, refused
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dhp_lab.codec.denoising import residual_unet
from dhp_lab.codec.denoising.residual_sampling import ResidualSampler, residual_schedule
from dhp_lab.core.files import OverwriteError
from dhp_lab.core.weights import CheckpointError
from dhp_lab.metrics.network_files import MissingNetwork
from dhp_lab.metrics.perceptual import dists_network, lpips_network
from dhp_lab.training import realism_config
from dhp_lab.training.codec_config import TrainingError
from dhp_lab.training.codec_state import TrainingState
from dhp_lab.training.realism_config import RealismConfig
from dhp_lab.training.realism_objective import decoded
from dhp_lab.training.realism_part import load_part, save_part
from dhp_lab.training.realism_trainer import RealismTrainer, train_realism
from dhp_lab.training.realism_validation import Validation, validation_judges
from dhp_lab.training.run_folder import BOARD

SMALL = {
    "denoising_steps": 3,
    "drawn_steps": 2,
    "batch_size": 2,
    "image_size": 64,
    "drawn_image_size": 64,
    "widths": (4, 6, 8),
    "device": "cpu",
    "validate_every": 100,
    "minutes_between_saves": 60.0,
}
FILES = {"realism.json", "realism.safetensors", "last.safetensors"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Four smooth random pictures with a little grain."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(4):
        coarse = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        coarse.resize((80, 96), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def codec(tmp_path_factory) -> Path:
    """The folder of a small codec."""
    folder = tmp_path_factory.mktemp("codec")
    model = untrained(N=8, M=16)
    model.update()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def networks(tmp_path_factory):
    """Small networks of the judges, where programs look for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DHP_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))
        forget()
        lay_all()
        yield
    forget()


def forget() -> None:
    """Load the judges anew when they are next used."""
    lpips_network.cache_clear()
    dists_network.cache_clear()


@pytest.fixture
def without_networks(monkeypatch, tmp_path):
    """A machine without any network of the judges."""
    monkeypatch.setenv("DHP_DATA", str(tmp_path / "nothing"))
    forget()
    yield
    forget()


@pytest.fixture
def config(photos, codec, tmp_path):
    """Makes the configuration of a small run."""

    def make(out: Path = tmp_path / "out", **changes) -> RealismConfig:
        places = {"data_path": str(photos), "model_path": str(codec), "output_dir": str(out)}
        return RealismConfig(**places, **{**SMALL, **changes})

    return make


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


def tensors(run: RealismTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.network.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


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
    assert json.loads((tmp_path / "out" / "realism.json").read_text()) == {"widths": [4, 6, 8]}
    network = residual_unet.ResidualUNet((4, 6, 8))
    network.load_state_dict(load_file(tmp_path / "out" / "realism.safetensors"))
    assert same(network.state_dict(), run.ema.average.state_dict())
    assert not same(network.state_dict(), run.network.state_dict())
    assert same(load_part(tmp_path / "out")[1].state_dict(), network.state_dict())


def test_the_loss_falls_where_residuals_can_be_guessed(config, monkeypatch):
    """Residuals that are a function of x_hat: the network can learn them by heart."""
    run = Recorder(config(denoising_steps=60, drawn_steps=0, lr=1e-2, batch_size=1))
    photo = run.crops["denoising"].batch(0, 1)
    monkeypatch.setattr(run, "_next", lambda batches: photo)
    run.run()
    losses = [loss for *_, loss, _ in run.losses]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


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


def test_a_part_to_start_from_brings_its_weights_and_widths(config, tmp_path):
    torch.manual_seed(3)
    network = residual_unet.ResidualUNet((2, 4, 6))
    save_part(tmp_path, (2, 4, 6), network)
    start = {"init_from": str(tmp_path), "drawn_steps": 0}
    run = RealismTrainer(config(**start, widths=realism_config.WIDTHS))
    assert run.widths == (2, 4, 6) and same(tensors(run), network.state_dict())
    with pytest.raises(ValueError, match="widths is 4,6,8, .* leave widths out"):
        RealismTrainer(config(**start))
    for damage, message in (("realism.json", "is damaged"), ("realism.safetensors", "is damaged")):
        whole = (tmp_path / damage).read_bytes()
        (tmp_path / damage).write_bytes(b"{")
        with pytest.raises(CheckpointError, match=message):
            load_part(tmp_path)
        (tmp_path / damage).write_bytes(whole)
    (tmp_path / "realism.json").write_text('{"widths": [2, 4, 8]}')
    with pytest.raises(CheckpointError, match="is of another network"):
        load_part(tmp_path)
    with pytest.raises(CheckpointError, match="no realism part at nowhere"):
        load_part("nowhere")


def test_missing_networks_are_one_line_before_anything_is_trained(
    config, tmp_path, without_networks, monkeypatch
):
    monkeypatch.setattr(RealismTrainer, "_train_step", None)
    with pytest.raises(MissingNetwork, match="dhp download metric-networks"):
        train_realism(config())
    assert not list((tmp_path / "out").rglob("*.*"))


def test_without_networks_the_first_stage_is_trained_and_validated_in_psnr(
    config, tmp_path, without_networks
):
    train_realism(config(drawn_steps=0, denoising_steps=1))
    text = (tmp_path / "out" / "training.log").read_text()
    assert "validations are without DISTS" in text and "K = 4: PSNR" in text and "LPIPS 0" not in text


def test_nothing_is_overwritten_unasked(config, tmp_path):
    (tmp_path / "out").mkdir()
    for name in FILES:
        place = tmp_path / "out" / name
        place.write_text("much work")
        with pytest.raises(OverwriteError, match=f"{name} exists .*--overwrite"):
            RealismTrainer(config())
        assert place.read_text() == "much work"
        place.unlink()
    (tmp_path / "out" / "realism.json").write_text("old")
    (tmp_path / "out" / "mine.txt").write_text("mine")
    train_realism(config(drawn_steps=0, denoising_steps=1, overwrite=True))
    assert "widths" in (tmp_path / "out" / "realism.json").read_text()
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_state_of_another_training_is_refused(config, tmp_path):
    with pytest.raises(TrainingError, match="there is no"):
        RealismTrainer(config(resume=True))
    run = RealismTrainer(config(drawn_steps=0, denoising_steps=1))
    run.run()
    with pytest.raises(CheckpointError, match="other --widths"):
        RealismTrainer(config(drawn_steps=0, denoising_steps=1, widths=(4, 6, 10), resume=True))
    state = TrainingState.load(tmp_path / "out" / "last.safetensors")
    facts = {name: getattr(state, name) for name in state.__dataclass_fields__} | {"stage": "joint"}
    TrainingState(**facts).save(tmp_path / "out" / "last.safetensors")
    with pytest.raises(CheckpointError, match="not of a training of the realism denoiser"):
        RealismTrainer(config(drawn_steps=0, denoising_steps=1, resume=True))


def test_a_loss_that_is_not_finite_ends_the_run_with_its_remedy(config, monkeypatch):
    run = RealismTrainer(config(drawn_steps=0))
    forward = run.objective.forward
    monkeypatch.setattr(
        run.objective, "forward", lambda x: {n: v * float("nan") for n, v in forward(x).items()}
    )
    with pytest.raises(TrainingError, match=r"the loss is nan at step 0; .*With a smaller --lr \(now 0.0006"):
        run.run()


def test_the_configuration_knows_the_usual_widths():
    assert realism_config.WIDTHS == residual_unet.WIDTHS


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"validate_every": 0}, "validate_every must be at least 1, got 0"),
        ({"denoising_steps": -1}, "denoising_steps must be at least 0, got -1"),
        ({"denoising_steps": 0, "drawn_steps": 0}, "nothing to train"),
        ({"image_size": 100}, "image_size must be a multiple of 64 of at least 64, got 100"),
        ({"drawn_image_size": 0}, "drawn_image_size must be a multiple of 64"),
        ({"lr": 0.0}, r"lr must lie in \(0, 1\), got 0.0"),
        ({"drawn_lr": float("nan")}, "drawn_lr must lie in"),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), got 1.0"),
        ({"lpips_weight": -1.0}, "lpips_weight must be at least 0, got -1.0"),
        ({"minutes_between_saves": float("nan")}, "minutes_between_saves must be at least 0, got nan"),
        ({"widths": (48, 80)}, "widths must be three numbers of at least 1, such as 48,80,128; got 48,80"),
        ({"resume": True, "overwrite": True}, "choose one"),
        (
            {f"{name}_weight": 0.0 for name in ("statistics", "lpips", "mse", "denoising")},
            "all weights of the loss are 0",
        ),
    ],
)
def test_bad_settings_name_the_value(change, message):
    with pytest.raises(ValueError, match=message):
        RealismConfig(data_path="photos", **{**SMALL, **change})


# the command


def test_the_command_trains_and_says_what_to_copy(photos, codec, tmp_path):
    sizes = "--denoising_steps 1 --drawn_steps 1 --batch_size 1 --image_size 64 --drawn_image_size 64"
    options = f"--data_path {photos} --model_path {codec} --output_dir {tmp_path} --widths 4,6,8 --device cpu"
    done = dhp("train-realism", *sizes.split(), *options.split())
    assert done.exit_code == 0, done.output
    assert (
        done.stdout == f"realism.json and realism.safetensors, to copy into the codec's folder: {tmp_path}\n"
    )
    assert load_part(tmp_path)[0] == (4, 6, 8)


@pytest.mark.parametrize(
    "line, message",
    [
        ("--data_path nowhere --drawn_steps 0", "nowhere is not a folder"),
        ("--data_path . --widths 4,6", "widths must be three numbers"),
        ("--data_path . --widths wide", "--widths takes numbers separated by commas"),
        ("--data_path . --denoising_steps 0 --drawn_steps 0", "nothing to train"),
        ("--data_path PHOTOS --drawn_steps 0 --model_path nowhere", "no checkpoint at nowhere"),
        ("--data_path PHOTOS --drawn_steps 0 --init_from nowhere", "no realism part at nowhere"),
        ("--data_path PHOTOS --resume", "there is no outputs-realism/last.safetensors"),
    ],
)
def test_bad_options_end_in_one_line(photos, tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    line = line.replace("PHOTOS", str(photos))
    assert message in refused("train-realism", *line.split(), "--device", "cpu", "--image_size", "64")


def test_missing_networks_are_one_line_of_the_command(photos, tmp_path, monkeypatch, without_networks):
    monkeypatch.chdir(tmp_path)
    line = refused("train-realism", "--data_path", photos, "--device", "cpu")
    assert "dhp download metric-networks" in line


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
