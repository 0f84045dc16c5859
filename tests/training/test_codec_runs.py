"""How a training ends and begins again: signals, more epochs, and earlier work that is never lost unasked."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.files import OverwriteError
from dhp_lab.training.codec_config import TrainingConfig, TrainingError
from dhp_lab.training.codec_state import TrainingState
from dhp_lab.training.codec_trainer import Trainer
from dhp_lab.training.optimisation import lr_factor
from dhp_lab.training.run_folder import MADE, log_to_file
from dhp_lab.training.stop_signals import stop_requests

SMALL = {
    "batch_size": 2,
    "epochs": 2,
    "denoiser_epochs": 0,
    "joint_epochs": 1,
    "N": 8,
    "M": 8,
    "diffusion_steps": 10,
    "image_size": 64,
    "device": "cpu",
    "minutes_between_saves": 60.0,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Four smooth random pictures."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(4):
        coarse = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        coarse.resize((80, 96), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def config(photos: Path, out: Path, **changes) -> TrainingConfig:
    return TrainingConfig(data_path=str(photos), output_dir=str(out), **{**SMALL, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all that a run makes and a later one could replace."""
    return {name: (folder / name).read_bytes() for name in MADE if (folder / name).exists()}


@pytest.fixture
def finished(photos, tmp_path) -> Path:
    """The folder of a run that went to its end."""
    Trainer(config(photos, tmp_path / "out")).run()
    return tmp_path / "out"


def test_a_training_is_never_overwritten_unasked(photos, finished):
    before = contents(finished)
    assert before.keys() == set(MADE)
    with pytest.raises(OverwriteError, match=r"exists and .*--resume.*another --output_dir.*--overwrite"):
        Trainer(config(photos, finished, seed=1))
    assert contents(finished) == before
    with pytest.raises(ValueError, match="choose one"):
        config(photos, finished, resume=True, overwrite=True)


def test_overwriting_leaves_nothing_of_the_earlier_run(photos, finished, monkeypatch):
    before = contents(finished)
    (finished / "samples" / "mine.txt").write_text("kept")
    run = Trainer(config(photos, finished, seed=1, overwrite=True))
    assert contents(finished) == before, "nothing is removed before training begins"

    def explode(x):
        raise TrainingError("at once")

    monkeypatch.setattr(run, "_train_step", explode)
    with pytest.raises(TrainingError, match="at once"):
        run.run()
    assert contents(finished) == {}
    assert os.listdir(finished / "samples") == ["mine.txt"]


def test_a_place_that_cannot_be_written_is_noticed_before_training(photos, tmp_path):
    (tmp_path / "final_checkpoint" / "model.safetensors").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"final_checkpoint/model\.safetensors"):
        Trainer(config(photos, tmp_path, overwrite=True))


def test_without_a_saved_state_nobody_is_sent_to_resume(photos, tmp_path, monkeypatch):
    run = Trainer(config(photos, tmp_path))
    is_usable = run.safeguards.is_usable
    monkeypatch.setattr(run.safeguards, "is_usable", lambda norm, step: is_usable(norm * float("nan"), step))
    monkeypatch.setattr("dhp_lab.training.safeguards.MOST_LEFT_OUT", 2)
    with pytest.raises(TrainingError, match=r"no state was saved yet. With a smaller --lr .* start again"):
        run.run()
    assert not (tmp_path / "last.safetensors").exists()


def test_more_epochs_go_on_with_the_learning_rate_of_the_longer_run(photos, finished):
    log, total = finished / "training.log", Trainer(config(photos, finished, resume=True)).step
    run = Trainer(config(photos, finished, resume=True, joint_epochs=3))
    assert run.step == total < run.total and "the learning rate follows the new plan" in log.read_text()
    rates = []
    step = run._train_step

    def noted(x):
        report = step(x)
        rates.append(run.optimizer.param_groups[0]["lr"] / run.optimizer.param_groups[0]["base_lr"])
        return report

    run._train_step = noted
    run.run()
    length, done = run.lengths[2], total - run.lengths[0]
    expected = [lr_factor(k, length, warmup=length, floor=0.01) for k in range(done + 1, length + 1)]
    assert rates == pytest.approx(expected) and len(rates) == run.total - total
    DiffusionHyperprior.from_pretrained(finished / "final_checkpoint")


def test_a_stage_that_was_left_out_can_follow(photos, tmp_path):
    Trainer(config(photos, tmp_path, joint_epochs=0)).run()
    run = Trainer(config(photos, tmp_path, joint_epochs=0, denoiser_epochs=1, resume=True))
    run.run()
    assert run.stage == "denoiser" and run.step == run.total == sum(run.lengths)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_run_between_two_steps_and_saves_it(photos, tmp_path, name):
    run = Trainer(config(photos, tmp_path, epochs=20))
    step, before = run._train_step, signal.getsignal(getattr(signal, name))

    def interrupted(x):
        if run.step == 3:
            signal.raise_signal(getattr(signal, name))
        return step(x)

    run._train_step = interrupted
    with pytest.raises(TrainingError, match="stopped at step 4; go on with --resume"):
        run.run()
    assert signal.getsignal(getattr(signal, name)) == before
    again = Trainer(config(photos, tmp_path, epochs=20, resume=True))
    assert again.step == 4
    assert all(
        torch.equal(a, b) for a, b in zip(again.model.parameters(), run.model.parameters(), strict=True)
    )


def test_a_second_signal_does_not_wait():
    with stop_requests() as stop:
        assert not stop
        signal.raise_signal(signal.SIGTERM)
        assert stop and stop.name == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_a_program_that_ends_may_go_on_noting():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with stop_requests() as stop:
            stop.stays = True
        signal.raise_signal(signal.SIGTERM)
        assert stop.name == "SIGTERM"
    finally:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            signal.signal(getattr(signal, name), before if name == "SIGTERM" else signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_nohup_stays_in_force_and_a_thread_has_no_handlers():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)
    found = []

    def inside():
        with stop_requests() as stop:
            found.append((bool(stop), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [(False, signal.getsignal(signal.SIGTERM))]


BACKGROUND = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for `dhp train &`
from dhp_lab.cli import app
from dhp_lab.training.codec_trainer import Trainer
step = Trainer._train_step
def stepped(self, x):
    if self.step == 2:
        print("going", flush=True)
    return step(self, x)
Trainer._train_step = stepped
app(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_in_the_background_is_saved_by_kill(photos, tmp_path, number):
    options = f"train --data_path {photos} --output_dir {tmp_path} --N 8 --M 8 --image_size 64 --batch_size 2"
    command = [sys.executable, "-c", BACKGROUND, *options.split(), "--device", "cpu", "--epochs", "5000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "going\n"
        run.send_signal(number)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 1 and "go on with --resume" in errors.splitlines()[-1], errors
    assert (tmp_path / "last.safetensors").is_file()


# what a kill leaves behind, and photos that come and go


def test_a_second_signal_within_an_update_saves_nothing_half_done(photos, tmp_path, monkeypatch):
    """Weights after the optimiser's step are not those of the step before: --resume would repeat it."""
    run = Trainer(config(photos, tmp_path, epochs=20, minutes_between_saves=0.0))
    update = run.ema.update

    def interrupted(model):
        if run.step == 2:
            raise KeyboardInterrupt
        update(model)

    monkeypatch.setattr(run.ema, "update", interrupted)
    with pytest.raises(TrainingError, match=r"stopped at step 2; the last good state is .*last\.safetensors"):
        run.run()
    assert Trainer(config(photos, tmp_path, epochs=20, resume=True)).step == 2
    assert Trainer(config(photos, tmp_path, epochs=20, resume=True)).ema.steps == 2


def test_what_a_killed_run_left_half_written_is_removed(photos, finished):
    names = (".last.safetensors.123", ".photos.list.7", "best_checkpoint/.config.json.9")
    parts = [finished / f"{name}.part" for name in (*names, "samples/.step_0000005.png.22509")]
    for part in parts:
        part.write_bytes(b"half")
    (finished / ".mine.part").write_bytes(b"kept")
    Trainer(config(photos, finished, resume=True))
    assert not any(part.exists() for part in parts) and (finished / ".mine.part").exists()


def test_a_resumed_run_keeps_its_list_and_its_validation(photos, tmp_path, caplog):
    """A photo goes and two come: the list stays, the batches of the photos that are left too."""
    own = tmp_path / "own"
    shutil.copytree(photos, own)
    first = Trainer(config(own, tmp_path / "out"))
    first.run()
    validated = first.val
    for name in ("00.png", "9.png"):
        shutil.copy(own / "1.png", own / name)
    (own / "0.png").unlink()  # the one that was held out
    again = Trainer(config(own, tmp_path / "out", resume=True))
    assert list(again.photos) == list(first.photos) and again.lengths == first.lengths
    assert torch.equal(again.val, validated)
    assert torch.equal(again.crops.batch(7, 2), first.crops.batch(7, 2))
    assert "the photos are those that the run began with" in caplog.text
    (tmp_path / "out" / "photos.list").unlink()
    anew = Trainer(config(own, tmp_path / "out", resume=True, epochs=2, joint_epochs=2))
    assert len(anew.photos) == 5


def test_photos_that_are_all_gone_end_the_run_in_a_line_with_its_state(photos, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(photos, own)
    run = Trainer(config(own, tmp_path / "out", epochs=20, cache_gb=0.0))
    step = run._train_step

    def emptied(x):
        if run.step == 3:
            shutil.rmtree(own)
        return step(x)

    run._train_step = emptied
    with pytest.raises(TrainingError, match=r"photos cannot be read: none of the 3 .*go on with --resume"):
        run.run()
    saved = TrainingState.load(tmp_path / "out" / "last.safetensors")
    assert saved.step == run.step >= 4
    shutil.copytree(photos, own)
    again = Trainer(config(own, tmp_path / "out", epochs=20, resume=True))
    assert again.step == saved.step


def test_a_disk_that_cannot_be_read_is_not_called_one_that_cannot_be_written(photos, tmp_path, monkeypatch):
    run = Trainer(config(photos, tmp_path, epochs=20, cache_gb=0.0))
    read = Path.read_bytes

    def fail(path):
        if path.suffix == ".png" and run.step >= 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(TrainingError, match=r"cannot be read: .*\.png: Input/output error; stopped at step"):
        run.run()


def test_a_log_on_a_full_disk_costs_lines_and_not_the_run(tmp_path, monkeypatch, capsys):
    log_to_file(tmp_path / "training.log")
    [handler] = [h for h in logging.getLogger("dhp_lab").handlers if isinstance(h, logging.FileHandler)]

    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(handler, "flush", full)
        for _ in range(3):
            logging.getLogger("dhp_lab.training").info("a line")
    errors = capsys.readouterr().err
    assert errors.count("No space left on device") == 1 and "Traceback" not in errors
    logging.getLogger("dhp_lab.training").info("room again")
    assert "room again" in (tmp_path / "training.log").read_text()


@pytest.mark.slow
def test_processes_that_read_give_the_same_training(photos, tmp_path):
    losses = []
    for workers in (0, 2):
        run = Trainer(config(photos, tmp_path / str(workers), workers=workers))
        run.run()
        losses.append([p.detach().clone() for p in run.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*losses, strict=True))
