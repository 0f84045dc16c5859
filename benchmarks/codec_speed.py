"""How fast is the codec, and how much memory does it need?

    python benchmarks/codec_speed.py [--model_path DIR] [--runs 7] [--threads N] [--output
        data/results/speed.json]

Prints tables and writes them as JSON, and into benchmarks/README.md. Every figure is a median with the least
and the greatest in brackets. Model load and each size of picture run in processes of their own, so that
neither caches nor memory of one reach the next. The photos come with scikit-image and scikit-learn. Files are
kept in memory; reading and writing the disk is not timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from saving import save

LAMBDA_RATE = 1e-3
STEPS = (0, 1, 2, 4)
MEGAPIXELS = {1: (1155, 866), 3: (2000, 1500), 6: (2828, 2121), 12: (4000, 3000)}  # width, height
ROOT = Path(__file__).resolve().parents[1]


# ------------------------------------------------------------------------------- in the child processes


def photo(width: int = 768, height: int = 512):
    """A photo of coffee (3:2, scikit-image) resized, (1, 3, height, width) in [0, 1]."""
    import skimage
    from PIL import Image

    from dhp_lab.data.images import to_tensor

    return to_tensor(Image.fromarray(skimage.data.coffee()).resize((width, height), Image.Resampling.BICUBIC))


def mosaic(width: int, height: int):
    """Photos of scikit-image and scikit-learn side by side at full detail, (1, 3, height, width) in [0, 1]."""
    import numpy as np
    import skimage
    from sklearn.datasets import load_sample_images

    from dhp_lab.data.images import to_tensor

    parts = [
        skimage.data.astronaut(),
        skimage.data.coffee(),
        skimage.data.rocket(),
        *load_sample_images().images,
    ]
    row = np.concatenate([part[:400, :600] for part in parts], axis=1)  # (400, 2472..3000, 3)
    down, across = -(-height // row.shape[0]), -(-width // row.shape[1])
    rows = [np.tile(np.roll(row, 600 * i, axis=1), (1, across, 1)) for i in range(down)]
    return to_tensor(np.concatenate(rows)[:height, :width])


def timed(function, runs: int) -> tuple[list[float], object]:
    """Return the seconds of `runs` calls after one that is not counted, and the last result."""
    seconds, result = [], function()
    for _ in range(runs):
        start = perf_counter()
        result = function()
        seconds.append(perf_counter() - start)
    return seconds, result


def load_model(folder: str, threads: int):
    """Return the model and the seconds for importing and for loading it; 0 threads leaves torch its own
    choice.
    """
    start = perf_counter()
    import torch

    from dhp_lab.codec.model import DiffusionHyperprior

    torch.set_num_threads(threads or torch.get_num_threads())
    imported = perf_counter()
    model = DiffusionHyperprior.from_pretrained(folder)
    return model, {"import_seconds": imported - start, "load_seconds": perf_counter() - imported}


def encoder(model, x):
    """Return a function that makes the .dhp file of x."""
    from dhp_lab.codec.bits.bitstream import write

    def encode() -> bytes:
        coded = model.compress(x, lambda_rate=LAMBDA_RATE)
        return write(coded["strings"], coded["shape"], **model.file_fields)

    return encode


def decoder(model, data: bytes, steps: int):
    """Return a function that makes the picture of a .dhp file."""
    from dhp_lab.codec.bits.bitstream import read

    def decode():
        file = read(data)
        return model.decompress(file.strings, file.shape, steps=steps)["x_hat"]

    return decode


def child(job: str, options: argparse.Namespace) -> dict[str, object]:
    """Do one job, "load", "photo", "encode" or "decode", in this process; return its figures."""
    model, figures = load_model(options.model_path, options.threads)
    import torch

    from dhp_lab.core.environment import environment, peak_memory_mb

    if job == "load":
        return {**figures, "environment": environment(torch.device("cpu")), "model_id": model.model_id.hex()}
    idle = peak_memory_mb()
    if job == "photo":
        x = photo()
        seconds, data = timed(encoder(model, x), options.runs)
        decoding = {k: timed(decoder(model, data, k), options.runs)[0] for k in STEPS}
        return {"encode_seconds": seconds, "decode_seconds": decoding, "n_bytes": len(data)}
    if job == "encode":
        seconds, data = timed(encoder(model, mosaic(*options.size)), options.runs)
        options.file.write_bytes(data)
    else:
        seconds, _ = timed(decoder(model, options.file.read_bytes(), 1), options.runs)
    size = options.file.stat().st_size
    return {"seconds": seconds, "n_bytes": size, "idle_memory_mb": idle, "peak_memory_mb": peak_memory_mb()}


# ------------------------------------------------------------------------------------ in the parent process


def ask(options: argparse.Namespace, job: str, *more: object) -> dict[str, object]:
    """Run one job in a fresh process and return what it printed."""
    words = [
        sys.executable,
        __file__,
        "--job",
        job,
        "--model_path",
        options.model_path,
        "--threads",
        options.threads,
    ]
    done = subprocess.run(
        [str(word) for word in (*words, *more)], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(options: argparse.Namespace) -> dict[str, object]:
    """Run all jobs; return every figure."""
    loads = [ask(options, "load") for _ in range(options.runs)]
    sizes = []
    with tempfile.TemporaryDirectory() as folder:
        for megapixels, size in MEGAPIXELS.items():
            file = Path(folder) / f"{megapixels}.dhp"
            more = ("--size", *size, "--file", file, "--runs", min(3, options.runs))
            encode, decode = (ask(options, job, *more) for job in ("encode", "decode"))
            sizes.append(
                {"megapixels": size[0] * size[1] / 1e6, "size": size, "encode": encode, "decode": decode}
            )
    return {
        "command": f"python benchmarks/codec_speed.py --runs {options.runs} --threads {options.threads}",
        "model": Path(options.model_path).name,
        "model_id": loads[0]["model_id"],
        "environment": loads[0]["environment"],
        "lambda_rate": LAMBDA_RATE,
        "load": {name: [one[name] for one in loads] for name in ("import_seconds", "load_seconds")},
        "photo_768x512": ask(options, "photo", "--runs", options.runs),
        "sizes": sizes,
        "exponent": {job: slope(sizes, job) for job in ("encode", "decode")},
    }


def slope(sizes: list[dict], job: str) -> float:
    """The exponent p of seconds ~ pixels**p, by least squares on the logarithms; 1 is linear."""
    import numpy as np

    pixels, seconds = [one["megapixels"] for one in sizes], [median(one[job]["seconds"]) for one in sizes]
    return float(np.polyfit(np.log(pixels), np.log(seconds), 1)[0])


def spread(values: list[float], digits: int = 3) -> str:
    """Return "median (least..greatest)"."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def tables(found: dict) -> str:
    """Return all figures as Markdown."""
    photo, place = found["photo_768x512"], found["environment"]
    lines = [
        f"`{found['command']}` on {place['device']}, {place['threads']} threads, torch {place['versions']['torch']}, "
        f"{place['date']}; model {found['model']} ({found['model_id']}), lambda {found['lambda_rate']:g}",
        "",
        f"| 768 x 512 photo, {photo['n_bytes']} bytes | seconds: median (least..greatest) |",
        "|---|---|",
        f"| import of torch and the package, fresh process | {spread(found['load']['import_seconds'])} |",
        f"| model load, fresh process | {spread(found['load']['load_seconds'])} |",
        f"| encode | {spread(photo['encode_seconds'])} |",
    ]
    lines += [f"| decode, K = {k} | {spread(seconds)} |" for k, seconds in photo["decode_seconds"].items()]
    lines += [
        "",
        "| megapixels | bytes | encode, s | peak MB | decode K = 1, s | peak MB |",
        "|" + 6 * "---|",
    ]
    for one in found["sizes"]:
        cells = [
            f"{spread(one[job]['seconds'], 2)} | {one[job]['peak_memory_mb']:.0f}"
            for job in ("encode", "decode")
        ]
        lines.append(f"| {one['megapixels']:.1f} | {one['encode']['n_bytes']} | {' | '.join(cells)} |")
    idle, powers = found["sizes"][0]["encode"]["idle_memory_mb"], found["exponent"]
    lines += [
        "",
        f"Of the peaks, {idle:.0f} MB are Python, torch and the model. Seconds grow as pixels to the power "
        f"{powers['encode']:.2f} (encode) and {powers['decode']:.2f} (decode); 1 is linear.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Parse the options; be the parent, or a child where --job is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_path", default=str(ROOT / "data" / "checkpoints" / "diffusion-hyperprior"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch chooses")
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "results" / "speed.json")
    parser.add_argument("--job", choices=("load", "photo", "encode", "decode"), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(child(options.job, options)))
        return
    found = measure_all(options)
    save(found, tables(found), options.output)


if __name__ == "__main__":
    main()
