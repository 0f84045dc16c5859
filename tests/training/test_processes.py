"""Several processes of one training: the losses of one, files written once, and the end of one of them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from recorded_training import SMALL, read_losses

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.training.codec_state import TrainingState
from dhp_lab.training.processes import Processes, is_loss

SCRIPT = Path(__file__).resolve().parents[1] / "recorded_training.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]
PATIENCE = 300  # seconds; a test that waits for so long has found a hang
TOLERANCE = 2e-4  # relative; measured: 2e-7 for losses, 3e-5 for gradient norms. See the first test


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Eight smooth random pictures of 96 x 80 pixels."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(8):
        coarse = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8))
        coarse.resize((80, 96), Image.Resampling.BICUBIC).save(folder / f"photo{i}.png")
    return folder


def words(out: Path, photos: Path, losses: Path, kill: str = "", **changes) -> list[str]:
    """The script and its arguments."""
    config = {**SMALL, "data_path": str(photos), "output_dir": str(out), **changes}
    return [str(SCRIPT), str(losses), kill, json.dumps(config)]


def run(command: list[str]) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def one(photos, tmp_path_factory) -> tuple[Path, dict]:
    """One process with batches of four."""
    out = tmp_path_factory.mktemp("one")
    done = run([sys.executable, *words(out / "run", photos, out / "losses", batch_size=4)])
    assert done.returncode == 0, done.stderr
    return out / "run", read_losses(out / "losses")


@pytest.mark.slow
def test_two_processes_repeat_one_and_the_end_of_one_ends_both(photos, tmp_path, one):
    """Two processes with batches of two; the second one is killed at step 5, and --resume goes on.

    Losses are those of one process with batches of four, as far as float32 allows: gradients are added up in
    another order, which changes weights by 2^-24 of their size or, where a gradient is all but rounding, by
    up to a learning rate. Other crops or other noise change losses by a tenth and more. One process with
    batches of two would make twice as many steps.
    """
    out, losses = tmp_path / "run", tmp_path / "losses"
    launch = [*TORCHRUN, "--nproc_per_node", "2", "--master_port", str(free_port())]
    killed = run([*launch, *words(out, photos, losses, kill="1:5")])
    said = [line.rpartition("dhp: ")[2] for line in killed.stderr.splitlines() if "dhp: " in line]
    message = "another process of this training has ended; stopped at step 5; go on with --resume"
    assert killed.returncode != 0 and said == [message], killed.stderr
    assert sorted(read_losses(losses)) == [0, 1, 2, 3, 4]

    done = run([*launch, *words(out, photos, losses, resume=True)])
    assert done.returncode == 0, done.stderr
    found, expected = read_losses(losses), one[1]
    assert found.keys() == expected.keys() and all(len(times) == 1 for times in found.values())
    for step, [(stage, *values)] in found.items():
        [(same_stage, *wanted)] = expected[step]
        assert stage == same_stage and values == pytest.approx(wanted, rel=TOLERANCE), step

    log = (out / "training.log").read_text()
    assert log.count("stage 'codec' from step 0") == log.count("resumed at step 5") == 1
    assert len(list((out / "tensorboard").glob("events.*"))) == 2  # one for each time it was started
    assert not list(out.rglob(".*"))
    ours, theirs = (DiffusionHyperprior.from_pretrained(o / "final_checkpoint") for o in (out, one[0]))
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (a - b).abs().max() < 20 * SMALL["lr"], name


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_the_same_step(photos, tmp_path):
    """The first process alone gets the signal; both log when, and the state of that step is saved."""
    losses, port = tmp_path / "losses", str(free_port())
    launch = [*TORCHRUN, "--nproc_per_node", "2", "--master_port", port]
    command = [*launch, *words(tmp_path / "run", photos, losses, kill="0:3:SIGTERM", epochs=500)]
    done = run(command)
    said = [line.rpartition("dhp: ")[2] for line in done.stderr.splitlines() if "dhp: " in line]
    assert done.returncode != 0 and said == 2 * ["stopped at step 4; go on with --resume"], done.stderr
    assert sorted(read_losses(losses)) == [0, 1, 2, 3]
    assert TrainingState.load(tmp_path / "run" / "last.safetensors").step == 4


@pytest.mark.slow
def test_two_machines_need_nothing_of_each_others_disk(photos, tmp_path, one):
    """Each has photos of its own, in another place, and only the first one writes."""
    shutil.copytree(photos, tmp_path / "copy")
    port, environment = str(free_port()), os.environ | {"OMP_NUM_THREADS": "1"}
    runs = []
    for rank, place in enumerate((photos, tmp_path / "copy")):
        launch = [*TORCHRUN, "--nnodes", "2", "--node_rank", str(rank), "--nproc_per_node", "1"]
        launch += ["--master_addr", "127.0.0.1", "--master_port", port]
        arguments = words(tmp_path / f"out{rank}", place, tmp_path / f"losses{rank}")
        runs.append(subprocess.Popen([*launch, *arguments], env=environment, stderr=subprocess.PIPE))
    errors = [one.communicate(timeout=PATIENCE)[1].decode() for one in runs]
    assert [one.returncode for one in runs] == [0, 0], errors
    found, expected = read_losses(tmp_path / "losses0"), one[1]
    assert found.keys() == expected.keys()
    for step, [(_, *values)] in found.items():
        assert values == pytest.approx(expected[step][0][1:], rel=TOLERANCE), step
    assert (tmp_path / "out0" / "final_checkpoint").is_dir()
    assert not (tmp_path / "out1").exists() and not (tmp_path / "losses1").exists()


@pytest.mark.slow
def test_accelerate_starts_two_processes_on_a_cpu(photos, tmp_path, one):
    launch = [*ACCELERATE, "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port())]
    done = run([*launch, *words(tmp_path / "run", photos, tmp_path / "losses", epochs=1, joint_epochs=0)])
    assert done.returncode == 0, done.stderr
    found = read_losses(tmp_path / "losses")
    assert len(found) == 4, "steps of two processes: half as many as of one"
    assert found[0][0][1:] == pytest.approx(one[1][0][0][1:], rel=TOLERANCE)


def test_one_process_shares_with_nobody():
    processes, values = Processes("cpu"), {"a": torch.tensor(2.0)}
    assert (processes.count, processes.index, processes.is_main) == (1, 0, True)
    assert processes.mean(values) is values and processes.any(True) and not processes.any(False)
    assert processes.share_bytes(b"abc") == b"abc"
    processes.leave()


@pytest.mark.parametrize(
    "error, expected",
    [
        (RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1"), True),
        (RuntimeError("NCCL error: remote process exited"), True),
        (torch.distributed.DistNetworkError("failed to recv, got 0 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_errors_that_say_that_another_process_has_ended(error, expected):
    assert is_loss(error) == expected
