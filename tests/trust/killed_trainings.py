"""Small trainings that are killed at random moments, on a disk that fills, and whose photos vanish.

    python tests/trust/killed_trainings.py [--kills 20] [--seed 0] [--output data/results/trust.json]

| part     | what happens                                                                                  |
|----------|-----------------------------------------------------------------------------------------------|
| killed   | `kill -9` at random moments, `--resume` after each: every loss, however often its step was    |
|          | made, and the last checkpoint must be those of an unbroken run, bit for bit                   |
| vanished | the same, and a photo is removed before every second kill: losses must be those of a run that |
|          | goes on from there unbroken                                                                   |
| full     | the disk (a small tmpfs, which only root can make) fills: one line, then `--resume` with room |

A process that has loaded the package forks the trainings, so that a kill meets the training and not the
import of torch. States are saved after every step, in which a tiny training spends most of its time. Runs on
one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from time import perf_counter

import trust_results

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))  # recorded_training.py, as in tests
PHOTOS = 12
STEPS_AHEAD = 4  # at most, that a training makes before it is killed
LINE = 50  # bytes of a step's losses, about
PATIENCE = 900.0  # seconds, for a step
EVERY = 2  # kills, between two photos that vanish
DISK = 32_000_000  # bytes


class Fault(Exception):
    """A training that did not go on as it should."""


class Lab:
    """A folder of photos, and trainings on them.

    Args:
        folder: for everything. rng: of the moments.
    """

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng

    def photos(self, name: str) -> Path:
        """Make smooth random pictures; return their folder."""
        import numpy as np
        from PIL import Image

        place, draws = self.folder / name, np.random.default_rng(0)
        place.mkdir()
        for i in range(PHOTOS):
            coarse = Image.fromarray(draws.integers(0, 256, (6, 5, 3), dtype=np.uint8))
            coarse.resize((80, 96), Image.Resampling.BICUBIC).save(place / f"{i:02}.png")
        return place

    def start(self, photos: Path, out: Path, losses: Path, **changes) -> int:
        """Start a training in a process of its own; return its number."""
        from recorded_training import SMALL, main

        config = {**SMALL, "batch_size": 4, "minutes_between_saves": 0.0, "validate_every": 5, **changes}
        config |= {"data_path": str(photos), "output_dir": str(out)}
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            os.dup2(os.open(self.errors(out), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            main(str(losses), "", json.dumps(config))
            code = 0
        except SystemExit as end:
            os.write(2, f"{end}\n".encode())
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)

    def errors(self, out: Path) -> Path:
        """What the trainings of a folder said on stderr."""
        return self.folder / f"{out.name}.err"

    def finish_well(self, photos: Path, out: Path, losses: Path, **changes) -> None:
        """Train to the end.

        Raises:
            Fault: it did not get there.
        """
        if self.finish(self.start(photos, out, losses, **changes)):
            raise Fault(self.errors(out).read_text()[-2000:])

    def finish(self, child: int) -> int:
        """Wait for a training; return its exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def kill(self, child: int, losses: Path) -> None:
        """Kill a training within a few steps, at a random moment.

        Raises:
            Fault: it ended before.
        """
        goal = _size(losses) + self.rng.randrange(STEPS_AHEAD) * LINE
        deadline = perf_counter() + PATIENCE
        while _size(losses) < goal and perf_counter() < deadline and not os.waitpid(child, os.WNOHANG)[0]:
            time.sleep(0.002)
        time.sleep(self.rng.uniform(0, 0.3))
        try:
            os.kill(child, signal.SIGKILL)
            code = self.finish(child)
        except (ProcessLookupError, ChildProcessError):
            code = None
        if code != -signal.SIGKILL:
            raise Fault(f"a training ended before it was killed: take more --epochs than for {losses.name}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _same(found: dict, expected: dict, since: int = 0) -> int:
    """Compare losses; return how often a step was made in all.

    Raises:
        Fault: a loss differs, or a step is missing.
    """
    times = 0
    for step, values in expected.items():
        if step < since:
            continue
        for value in found.get(step, []) or [None]:
            times += 1
            if value != values[-1]:
                raise Fault(f"step {step}: {value}, in the unbroken run {values[-1]}")
    return times


def _model_id(out: Path) -> bytes:
    from dhp_lab.codec.model import DiffusionHyperprior

    return DiffusionHyperprior.from_pretrained(out / "final_checkpoint").model_id


def _clean(lab: Lab, out: Path) -> None:
    """Check that a finished run left nothing half written, and no traceback.

    Raises:
        Fault: it did.
    """
    left, said = [str(path) for path in out.rglob(".*")], lab.errors(out).read_text()
    if left or "Traceback" in said or "Error" in said:
        raise Fault(f"left behind: {left}; said: {said[-2000:]}")


def killed(lab: Lab, kills: int, epochs: int) -> dict:
    """The first part: its counts."""
    from recorded_training import read_losses

    photos, out, losses = lab.photos("photos"), lab.folder / "killed", lab.folder / "killed.losses"
    unbroken, beside = lab.folder / "unbroken", lab.folder / "unbroken.losses"
    lab.finish_well(photos, unbroken, beside, epochs=epochs)
    half_written, stateless = 0, 0
    for _ in range(kills):
        resume = (out / "last.safetensors").exists()
        child = lab.start(photos, out, losses, epochs=epochs, resume=resume, overwrite=not resume)
        lab.kill(child, losses)
        stateless += not (out / "last.safetensors").exists()
        half_written += len(list(out.rglob(".*.part")))
    resume = (out / "last.safetensors").exists()
    lab.finish_well(photos, out, losses, epochs=epochs, resume=resume, overwrite=not resume)
    expected = read_losses(beside)
    made = _same(read_losses(losses), expected)
    if _model_id(out) != _model_id(unbroken):
        raise Fault("the last checkpoints differ")
    _clean(lab, out)
    return {
        "kills": kills,
        "before_the_first_state": stateless,
        "half_written_files": half_written,
        "steps": len(expected),
        "steps_made": made,
    }


def vanished(lab: Lab, kills: int, epochs: int) -> dict:
    """The second part: its counts. What is lost with each photo begins a segment, with losses of its own."""
    from recorded_training import read_losses

    photos, out = lab.photos("vanishing"), lab.folder / "vanished"
    files = sorted(photos.iterdir())[1:]  # the first one is held out
    lab.rng.shuffle(files)
    segments = [(lab.folder / "reference0", lab.folder / "segment0.losses")]
    settings = {"epochs": epochs, "cache_gb": 0.0}
    lab.finish_well(photos, *segments[0], **settings)
    for count in range(1, kills + 1):
        losses = segments[-1][1].with_suffix(".found")
        resume = (out / "last.safetensors").exists()
        child = lab.start(photos, out, losses, resume=resume, overwrite=not resume, **settings)
        if count % EVERY or not resume:
            lab.kill(child, losses)
            continue
        time.sleep(lab.rng.uniform(0, 0.3))
        size = _size(losses)  # of losses that surely do not miss the photo
        files.pop().unlink()
        lab.kill(child, losses)
        if losses.exists():
            os.truncate(losses, size)
        segments.append((lab.folder / f"reference{count}", lab.folder / f"segment{count}.losses"))
        shutil.copytree(out, segments[-1][0])
        lab.finish_well(photos, *segments[-1], resume=True, **settings)
    losses = segments[-1][1].with_suffix(".found")
    lab.finish_well(photos, out, losses, resume=True, **settings)
    made = 0
    for _, beside in segments:
        found, expected = read_losses(beside.with_suffix(".found")), read_losses(beside)
        made += _same(found, {step: expected[step] for step in found})
    if max(found) != max(expected) or _model_id(out) != _model_id(segments[-1][0]):
        raise Fault("the last checkpoints differ")
    skipped = {line.split("skipped ")[1] for line in _log(out) if "skipped " in line}
    if not skipped or any(not line.endswith(": no such file") for line in skipped):
        raise Fault(f"photos were gone, and the log says: {skipped}")
    _clean(lab, out)
    return {"kills": kills, "photos_gone": PHOTOS - 1 - len(files), "of_photos": PHOTOS, "steps_made": made}


def _log(out: Path) -> list[str]:
    return (out / "training.log").read_text().splitlines()


def full(lab: Lab, epochs: int) -> dict | None:
    """The third part, after the first: its counts; None where no disk can be made."""
    disk, mount, umount = lab.folder / "disk", shutil.which("mount"), shutil.which("umount")
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)]
    if not mount or not umount or subprocess.run([mount, *options], capture_output=True).returncode:
        return None
    try:
        return _full(lab, disk, epochs)
    finally:
        subprocess.run([umount, str(disk)], check=True)


def _full(lab: Lab, disk: Path, epochs: int) -> dict:
    from recorded_training import read_losses

    photos, out, losses = lab.folder / "photos", disk / "full", lab.folder / "full.losses"
    child = lab.start(photos, out, losses, epochs=epochs)
    while not (out / "last.safetensors").exists():
        time.sleep(0.01)
    time.sleep(lab.rng.uniform(0, 0.3))
    filled = _fill(disk / "filler")
    code, said = lab.finish(child), lab.errors(out).read_text()
    wanted = f"dhp: cannot write to {out}"
    if code != 1 or said.count("dhp: ") != 1 or wanted not in said or "go on with --resume" not in said:
        raise Fault(f"a full disk, and the run ended with {code}: {said[-2000:]}")
    (disk / "filler").unlink()
    lab.finish_well(photos, out, losses, epochs=epochs, resume=True)
    made = _same(read_losses(losses), read_losses(lab.folder / "unbroken.losses"))
    if _model_id(out) != _model_id(lab.folder / "unbroken"):
        raise Fault("the last checkpoints differ")
    _clean(lab, out)
    return {"disk_of_bytes": DISK, "filled_with_bytes": filled, "steps_made": made}


def _fill(path: Path) -> int:
    """Write to a file until the disk is full; return its size."""
    with open(path, "wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return file.tell()


def row(found: dict) -> list[str]:
    """Its line in the table of SECURITY.md."""
    first, second, third = found["killed"], found["vanished"], found["full_disk"]
    disk = "; the disk filled once" if third else ""
    kills = first["kills"] + second["kills"]
    return [
        "small trainings, `kill -9` at random moments, photos that vanish, a disk that fills",
        f"{kills} kills, {second['photos_gone']} of {second['of_photos']} photos gone{disk}",
        f"each went on with `--resume`; {first['steps_made'] + second['steps_made']} losses and the last "
        f"checkpoint were those of unbroken runs to the last bit",
    ]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = trust_results.new_parser(__doc__)
    parser.add_argument("--kills", type=int, default=20, help="in each of the first two parts")
    parser.add_argument("--epochs", type=int, default=24, help="of the codec's stage, of 3 steps each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Kill, go on, compare, and record the counts.

    Raises:
        SystemExit: a training did not go on as it should; nothing is recorded.
    """
    options = make_parser().parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    import dhp_lab.training.codec_trainer  # noqa: F401 (loaded once, before the trainings are forked)
    from dhp_lab.core.environment import environment

    torch.set_num_threads(1)
    begin = perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            lab = Lab(Path(folder), random.Random(options.seed))
            found = {
                "killed": killed(lab, options.kills, options.epochs),
                "vanished": vanished(lab, options.kills, options.epochs),
                "full_disk": full(lab, options.epochs),
            }
    except Fault as fault:
        sys.exit(f"a fault was found: {fault}")
    words = f"--kills {options.kills} --epochs {options.epochs} --seed {options.seed}"
    about = {
        "command": f"python tests/trust/killed_trainings.py {words}",
        "environment": environment(torch.device("cpu")),
    }
    trust_results.save(__file__, {**about, **found, "seconds": round(perf_counter() - begin)}, options.output)


if __name__ == "__main__":
    main()
