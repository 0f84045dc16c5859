"""Hundreds of thousands of changed .dhp files, found by atheris, read, shown and decoded.

    python tests/trust/hostile_files.py [--inputs 200000] [--seed 0] [--output data/results/trust.json]

An eighth of the inputs are changed golden files and others of the three shipped codecs, the rest are files of
three small ones, which decode sooner: one pass, four passes, z alone. Half of the inputs have the checksums
mended: most of those the CRCs of header and payload, so that the change reaches the entropy decoder, an
eighth all of them, the symbols' too, so that it reaches the networks. Atheris keeps what reached new code,
and changes that further. It comes with `pip install "dhp-lab[trust]"`, for Linux.

An input may be refused with a BitstreamError, show the picture that was sent, or have every checksum over the
change forged. Anything else is a fault, and so are more than a second of CPU time (the least of three tries),
or 1 GB in the whole process; the first one ends the run, and its input is kept in --faults. Runs on one
thread, a quarter of an hour on a core of its own; nothing else should run beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter, process_time

import trust_results

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))  # models.py, as in tests
CHECKPOINTS, GOLDEN = ROOT / "data" / "checkpoints", ROOT / "tests" / "golden"
SHIPPED = ("diffusion-hyperprior", "scenes-codec", "z-only")
SMALL = ({}, {"passes": 4}, {"transmit": "z"})  # settings of codecs with 4 channels
ORDER = (3, 4, 5) * 7 + (0, 1, 2)  # a codec's number by the first byte of an input
SIZES = ((16, 16), (40, 33), (316, 316))  # of the files beside the golden ones, (H, W) in pixels
SECONDS, MEGABYTES = 1.0, 1000  # at most
AT_ONCE = 50_000  # inputs of a process: what atheris itself keeps grows with their number
TRIES = 3  # of an input that took longer: a processor shared with others counts more seconds
CONTAINER, EVERYTHING = 128, 240  # the treatment byte from which these checksums are mended
LARGE = 20_000  # pixels from which a picture is seldom changed further
HEAD = 3  # bytes before the file: which codec and file, what is mended, how it is decoded


class Target:
    """What atheris calls.

    Args:
        inputs: how many there will be. answer: the file that the counts are written to after the last.
    """

    def __init__(self, inputs: int, answer: Path) -> None:
        import torch
        from hostile import Codec
        from models import picture, woken

        from dhp_lab.codec import dhp_file
        from dhp_lab.codec.model import DiffusionHyperprior

        torch.set_num_threads(1)
        self.inputs, self.answer = inputs, answer
        pictures = [picture(*size, seed=number) for number, size in enumerate(SIZES)]
        models = [DiffusionHyperprior.from_pretrained(CHECKPOINTS / name) for name in SHIPPED]
        golden = [[(GOLDEN / f"{name}.dhp").read_bytes()] for name in SHIPPED]
        for number, settings in enumerate(SMALL):
            models.append(woken(N=4, M=4, **settings))
            models[-1].model_id = b"small-%02d" % number
            golden.append([])
        self.codecs = []
        for model, files in zip(models, golden, strict=True):
            files += [dhp_file.encode(model, x, lambda_rate=1e-2) for x in pictures]
            self.codecs.append(Codec(model, files, CHECKPOINTS / "scenes-codec"))
            self.codecs[-1].decode_all()
        self.count, self.outcomes, self.mended = 0, Counter(), Counter()
        self.slowest, self.start = 0.0, perf_counter()

    def seeds(self) -> list[bytes]:
        """One input for each file."""
        return [
            bytes([first, 0, 0]) + data
            for first, codec in enumerate(ORDER)
            if first >= len(ORDER) - len(self.codecs)
            for data in self.codecs[codec].files
        ]

    def mutate(self, data: bytes, max_size: int, seed: int) -> bytes:
        """Another input, made of one that reached new code; for half of them atheris changes the bytes."""
        import atheris
        from hostile import mutate

        rng = random.Random(seed)
        head, file = data[:HEAD].ljust(HEAD, b"\0"), data[HEAD:]
        file = mutate(file, rng) if rng.random() < 0.7 else atheris.Mutate(file, max_size - HEAD)
        large = math.prod(int.from_bytes(file[i : i + 4], "big") for i in (6, 10)) > LARGE
        if rng.random() < (0.9 if large else 0.1):  # a fresh start: large pictures take long
            head = bytes([rng.randrange(len(ORDER))])
            *small, large = self.codecs[ORDER[head[0]]].files
            file = mutate(large if rng.random() < 0.04 else rng.choice(small), rng)
        return (head[:1] + rng.randbytes(HEAD - 1) + file)[:max_size]

    def one(self, data: bytes) -> None:
        """Judge one input, and count it."""
        from hostile import Fault, forged, judge, mended

        from dhp_lab.core.environment import peak_memory_mb

        head, file = data[:HEAD].ljust(HEAD, b"\0"), data[HEAD:]
        codec = self.codecs[ORDER[head[0] % len(ORDER)]]
        treatment = "none" if head[1] < CONTAINER else "container" if head[1] < EVERYTHING else "everything"
        if treatment == "container":
            file = mended(file)
        elif treatment == "everything":
            file = forged(codec, file)
        seconds, tries = 2 * SECONDS, 0
        while seconds > SECONDS and tries < TRIES:
            start = process_time()
            outcome = judge(codec, file, steps=head[2] & 1, preview=head[2] & 14 == 14)
            seconds, tries = min(seconds, process_time() - start), tries + 1
        self.slowest = max(self.slowest, seconds)
        if seconds > SECONDS:
            raise Fault(f"{seconds:.2f} s of CPU time, at most {SECONDS} are allowed")
        if peak_memory_mb() > MEGABYTES:
            raise Fault(f"{peak_memory_mb():.0f} MB, at most {MEGABYTES} are allowed")
        self.outcomes[outcome.name.lower()] += 1
        self.mended[treatment] += 1
        self.count += 1
        if self.count == self.inputs:
            self.answer.write_text(json.dumps(self.found()))

    def found(self) -> dict:
        """The counts so far."""
        import torch

        from dhp_lab.core.environment import environment

        return {
            "environment": environment(torch.device("cpu")),
            "inputs": self.count,
            "checksums_mended": dict(sorted(self.mended.items())),
            "outcomes": dict(sorted(self.outcomes.items())),
            "slowest_cpu_seconds": round(self.slowest, 3),
            "seconds": round(perf_counter() - self.start),
        }


def fuzz(options: argparse.Namespace) -> None:
    """Be the process in which atheris runs; it ends the process itself."""
    try:
        import atheris
    except ImportError:
        sys.exit('atheris is missing: pip install "dhp-lab[trust]" (Linux)')
    with atheris.instrument_imports(include=["dhp_lab.codec", "dhp_lab.cli"]):
        import dhp_lab.cli.files
        import dhp_lab.codec.dhp_file  # noqa: F401 (imported to be instrumented)

    target = Target(options.inputs, options.child)
    corpus = options.child.with_name("corpus")
    corpus.mkdir()
    for number, data in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(data)
    words = [
        f"-seed={options.seed + 1}",
        f"-runs={options.inputs}",
        "-max_len=8192",
        "-timeout=300",
        "-report_slow_units=300",
        "-reload=0",
    ]
    words += [
        f"-artifact_prefix={options.faults}/",
        f"-rss_limit_mb={MEGABYTES + 500}",
        "-len_control=0",
        "-mutate_depth=1",
        "-cross_over=0",
    ]
    atheris.Setup([sys.argv[0], *words, str(corpus)], target.one, custom_mutator=target.mutate)
    atheris.Fuzz()


def row(found: dict) -> list[str]:
    """Its line in the table of SECURITY.md."""
    outcomes, mended = found["outcomes"], found["checksums_mended"]
    total = found["inputs"]
    same = outcomes.get("same", 0)
    refused = sum(outcomes.get(name, 0) for name in ("container", "model", "symbols"))
    forged = sum(outcomes.get(name, 0) for name in ("all_forged", "header_forged"))
    return [
        f"changed .dhp files, the checksums mended in {1 - mended['none'] / total:.0%}",
        f"{total:,} files".replace(",", " "),
        f"{refused / total:.1%} refused in one line, {same / total:.1%} showed the picture that was sent, "
        f"{forged / total:.1%} had every checksum over the change forged; none did anything else; "
        f"slowest {found['slowest_cpu_seconds']:.2f} s of CPU time, "
        f"{found['environment']['peak_memory_mb']:.0f} MB at most",
    ]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = trust_results.new_parser(__doc__)
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0, help="of atheris")
    parser.add_argument("--faults", type=Path, default=Path("faults"), help="folder for an input that failed")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Start the process that fuzzes, and record what it counted.

    Raises:
        SystemExit: it found a fault; nothing is recorded.
    """
    options = make_parser().parse_args(arguments)
    if options.child:
        return fuzz(options)
    options.faults.mkdir(parents=True, exist_ok=True)
    starts = range(0, options.inputs, AT_ONCE)
    parts = [
        _run_process(options, min(AT_ONCE, options.inputs - start), options.seed + number)
        for number, start in enumerate(starts)
    ]
    command = f"python tests/trust/hostile_files.py --inputs {options.inputs} --seed {options.seed}"
    trust_results.save(__file__, {"command": command, **together(parts)}, options.output)
    return None


def _run_process(options: argparse.Namespace, inputs: int, seed: int) -> dict:
    """What one process counted."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        words = ["--inputs", inputs, "--seed", seed, "--faults", options.faults, "--child", answer]
        # torch keeps a program for each shape of a convolution, 1024 of them: here every file has another
        alone = {"OMP_NUM_THREADS": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16"}
        done = subprocess.run([sys.executable, __file__, *map(str, words)], env=os.environ | alone)
        if done.returncode or not answer.exists():
            sys.exit(f"a fault was found (or the run was stopped); the input lies in {options.faults}")
        return json.loads(answer.read_text())


def together(parts: list[dict]) -> dict:
    """The counts of several processes as those of one, with the largest of their times and memories."""
    first, *_ = parts
    peak = max(part["environment"]["peak_memory_mb"] for part in parts)
    sums = {
        name: dict(sorted(sum((Counter(part[name]) for part in parts), Counter()).items()))
        for name in ("checksums_mended", "outcomes")
    }
    return {
        "environment": first["environment"] | {"peak_memory_mb": peak},
        "processes": len(parts),
        "inputs": sum(part["inputs"] for part in parts),
        **sums,
        "slowest_cpu_seconds": max(part["slowest_cpu_seconds"] for part in parts),
        "seconds": sum(part["seconds"] for part in parts),
    }


if __name__ == "__main__":
    main()
