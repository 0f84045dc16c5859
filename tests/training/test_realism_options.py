"""Bad input to a training of the realism denoiser, what is never lost, and `dhp train-realism` itself."""

from __future__ import annotations

import json

import pytest
import torch
from models import untrained
from programs import dhp, refused
from realism_runs import FILES, SMALL, same, tensors

from dhp_lab.codec.denoising import residual_unet
from dhp_lab.codec.stable_diffusion.config import StableDiffusionConfig
from dhp_lab.core.files import OverwriteError
from dhp_lab.core.weights import CheckpointError
from dhp_lab.metrics.network_files import MissingNetwork
from dhp_lab.training import realism_config
from dhp_lab.training.codec_config import TrainingError
from dhp_lab.training.codec_state import TrainingState
from dhp_lab.training.realism_config import RealismConfig
from dhp_lab.training.realism_part import load_part, save_part
from dhp_lab.training.realism_trainer import RealismTrainer, train_realism

pytestmark = pytest.mark.usefixtures("networks")


def test_a_part_to_start_from_brings_its_weights_and_widths(config, tmp_path):
    torch.manual_seed(3)
    network = residual_unet.ResidualUNet((2, 4, 6), start=2.5, first=0.1)
    save_part(tmp_path, network, b"codec-id")
    start = {"init_from": str(tmp_path), "drawn_steps": 0}
    run = RealismTrainer(config(**start, widths=realism_config.WIDTHS))
    levels = run.objective.sampler.schedule.sigma(torch.tensor([1.0, 1000.0])).tolist()
    assert levels == pytest.approx([0.1, 2.5])
    assert run.network.widths == (2, 4, 6) and same(tensors(run), network.state_dict())
    with pytest.raises(ValueError, match="widths is 4,6,8, .* leave widths out"):
        RealismTrainer(config(**start))
    for damage, message in (("realism.json", "is damaged"), ("realism.safetensors", "is damaged")):
        whole = (tmp_path / damage).read_bytes()
        (tmp_path / damage).write_bytes(b"{")
        with pytest.raises(CheckpointError, match=message):
            load_part(tmp_path)
        (tmp_path / damage).write_bytes(whole)
    about = json.loads((tmp_path / "realism.json").read_text()) | {"widths": [2, 4, 8]}
    (tmp_path / "realism.json").write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="does not fit realism.json"):
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


def test_a_codec_of_borrowed_parts_is_refused(config, monkeypatch):
    model = untrained(N=8, M=16)
    monkeypatch.setattr(model, "config", StableDiffusionConfig(bk_sdm_path="somewhere"))
    with pytest.raises(TrainingError, match="has the parts of Stable Diffusion"):
        RealismTrainer(config(drawn_steps=0), model=model)


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
    assert load_part(tmp_path).widths == (4, 6, 8)


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
