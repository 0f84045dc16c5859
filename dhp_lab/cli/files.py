"""``dhp compress``, ``decompress`` and ``info``: photo -> .dhp file -> photo, and a look into a file.

Output files appear whole or not at all. ``-`` is standard input or output (``cli.pipes``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dhp_lab.cli import pipes
from dhp_lab.cli.app import Device, Force, LowMemory, ModelPath, app
from dhp_lab.cli.pipes import PIPE, input_name, output_name
from dhp_lab.cli.progress import EffortBar

if TYPE_CHECKING:
    from torch import Tensor

    from dhp_lab.codec.bits.bitstream import DhpFile
    from dhp_lab.codec.model import DiffusionHyperprior

MAX_MEGAPIXELS = 100.0  # the largest picture that `decompress` makes without an option
MAX_SOURCE_MEGAPIXELS = 250.0  # that `compress` reads: phones write pictures of 200
DHP_FILE = typer.Argument(
    metavar="IN.dhp",
    parser=pipes.file_or_pipe,
    help="A file written by dhp compress; - reads it from standard input.",
)


@app.command()
def compress(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            parser=pipes.file_or_pipe,
            help="A picture, at least 16 x 16 pixels; - reads it from standard input.",
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.dhp",
            parser=pipes.file_or_pipe,
            help="The file to write; - writes to standard output.",
        ),
    ],
    lambda_rate: Annotated[
        float, typer.Option("--lambda_rate", help="1e-6 .. 1e-1; larger = smaller file.")
    ] = 1e-3,
    effort: Annotated[
        int,
        typer.Option("--effort", help="0 .. 9: time spent on a smaller file; Ctrl-C takes the best so far."),
    ] = 0,
    max_megapixels: Annotated[
        float, typer.Option("--max_megapixels", help="Refuse larger pictures.")
    ] = MAX_SOURCE_MEGAPIXELS,
    model_path: ModelPath = None,
    device: Device = None,
    low_memory: LowMemory = False,
    force: Force = False,
) -> None:
    """Compress a picture to a .dhp file."""
    _check_within("effort", effort, 0, 9)
    _check_within("max_megapixels", max_megapixels, 0, 1e6)
    _check_target(source, target, [".dhp"], force)
    from dhp_lab.codec.bits.lambdas import check_lambda

    check_lambda(lambda_rate)
    x, notes = _read_picture(source, max_megapixels)
    model = _load_model(model_path, device, low_memory)
    from dhp_lab.codec import dhp_file

    start = time.perf_counter()
    with EffortBar(effort) as bar:
        data = dhp_file.encode(model, x, lambda_rate=lambda_rate, effort=effort, report=bar.show)
    notes = [*bar.notes(), *notes]
    seconds = time.perf_counter() - start
    _write(target, data)
    height, width = x.shape[-2:]
    facts = [f"{len(data)} bytes", f"{_bpp(len(data), height, width):.3f} bpp", f"{seconds:.2f} s", *notes]
    pipes.report(target, f"{output_name(target)}: {', '.join(facts + _size_notes(height, width))}")


@app.command()
def decompress(
    source: Annotated[Path, DHP_FILE],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.png",
            parser=pipes.file_or_pipe,
            help="The picture to write, in a lossless format; - writes a PNG to standard output.",
        ),
    ],
    steps: Annotated[
        int, typer.Option("--steps", help="0 no diffusion, 1 best PSNR, 2 .. 1000 a sample.")
    ] = 1,
    gamma: Annotated[
        float, typer.Option("--gamma", help="0 .. 1: 0 the sample, 1 the posterior mean.")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Start of the random numbers of a sample.")] = 0,
    preview: Annotated[
        bool, typer.Option("--preview", help="From z alone, even if the file was cut off.")
    ] = False,
    max_megapixels: Annotated[
        float, typer.Option("--max_megapixels", help="Refuse larger pictures.")
    ] = MAX_MEGAPIXELS,
    model_path: ModelPath = None,
    device: Device = None,
    low_memory: LowMemory = False,
    force: Force = False,
) -> None:
    """Decompress a .dhp file to a picture."""
    _check_within("steps", steps, 0, 1000)
    _check_within("gamma", gamma, 0, 1)
    _check_within("seed", seed, 0, 2**63 - 1)
    _check_within("max_megapixels", max_megapixels, 0, 1e6)
    if target == PIPE:
        pipes.check_standard_output()
    file = _read_dhp(source, max_pixels=int(max_megapixels * 1e6), allow_truncated=preview)
    from dhp_lab.data.images import LOSSLESS, lossless_bytes

    _check_target(source, target, list(LOSSLESS), force)
    model = _load_model(model_path, device, low_memory)
    from dhp_lab.codec import dhp_file

    start = time.perf_counter()
    x_hat = dhp_file.decode(model, file, steps=steps, gamma=gamma, seed=seed, preview=preview)
    seconds = time.perf_counter() - start
    _write(target, lossless_bytes(x_hat, ".png" if target == PIPE else target.suffix.lower()))
    facts = [f"{file.width} x {file.height} pixels", f"{seconds:.2f} s"]
    if preview:
        facts.append("preview from z alone")
    pipes.report(target, f"{output_name(target)}: {', '.join(facts)}")


@app.command()
def info(
    source: Annotated[Path, DHP_FILE],
    model_path: ModelPath = None,
) -> None:
    """Show what a .dhp file holds, after checking it."""
    from dhp_lab.codec.bits.bitstream import HEADER_BYTES, check_model

    file = _read_dhp(source, max_pixels=2**64)
    size = HEADER_BYTES + len(file.z) + len(file.y)
    model, model_id = _name_model(file, model_path)
    passes = f"{file.passes} entropy pass{'es' if file.passes > 1 else ''}"
    length = f"{size} bytes, {_bpp(size, *file.shape):.3f} bpp"
    rows = {
        "file": f"{input_name(source)}, version {file.version}, {length}",
        "picture": ", ".join([f"{file.width} x {file.height} pixels", *_size_notes(*file.shape)]),
        "lambda_rate": f"{file.lambda_rate:.3g}",
        "transmit": f"{file.transmit}, {passes}",
        "header": f"{HEADER_BYTES} bytes",
        "z": f"{len(file.z)} bytes, {len(file.z) / size:.1%}",
        "y": f"{len(file.y)} bytes, {len(file.y) / size:.1%}",
        "model": f"{file.model_id.hex()}, {model}",
        "checks": "header, lengths, CRC32 of header and streams: good",
    }
    typer.echo("\n".join(f"{name:<12} {value}" for name, value in rows.items()))
    if model_path is not None:
        check_model(file, model_id)


def _check_within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"--{name} must lie in {low:g} .. {high:g}, got {value}")


def _check_target(source: Path, target: Path, suffixes: list[str], force: bool) -> None:
    """Refuse an output that cannot or must not be written, before any work is done."""
    if target == PIPE:
        return pipes.check_standard_output()
    if target.suffix.lower() not in suffixes:
        raise ValueError(f"{target}: the output must end in {' or '.join(suffixes)}")
    if not target.parent.is_dir():
        raise ValueError(f"{target}: there is no folder {target.parent}; make it first")
    if not os.access(target.parent, os.W_OK):
        raise ValueError(f"{target}: the folder {target.parent} is not writable; choose another")
    if target.exists() and not target.is_file():
        raise ValueError(f"{target} is not a regular file; choose another output")
    if target.exists() and source != PIPE and source.exists() and target.samefile(source):
        raise ValueError(f"{target} is the input itself; choose another output")
    if (target.exists() or target.is_symlink()) and not force:
        raise ValueError(f"{target} exists; --force overwrites it")


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Name the output in an error of the disk, which itself names a temporary file or none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(target)) from None


def _write(target: Path, data: bytes) -> None:
    """Write a whole file, or all of it to standard output."""
    from dhp_lab.core.files import write_atomic

    if target == PIPE:
        return pipes.write_standard_output(data)
    with _writing(target):
        write_atomic(target, data)


def _read_picture(source: Path, max_megapixels: float) -> tuple[Tensor, list[str]]:
    """The picture (1, 3, H, W) in a file or in standard input, and what had to be converted."""
    from dhp_lab.data.images import load_image, read_image

    if source != PIPE:
        return load_image(source, max_megapixels=max_megapixels)
    with pipes.open_input(source) as stream:
        return read_image(stream, input_name(source), max_megapixels=max_megapixels)


def _read_dhp(path: Path, *, max_pixels: int, allow_truncated: bool = False) -> DhpFile:
    """Read and check a file: at most what its header announces, and one byte to see that it ends there."""
    from dhp_lab.codec.bits.bitstream import HEADER_BYTES, BitstreamError, announced_size, read

    try:
        with pipes.open_input(path) as stream:
            data = bytearray(stream.read(HEADER_BYTES))
            enough = announced_size(data, max_pixels=max_pixels) + 1
            while chunk := stream.read(min(enough - len(data), 1 << 20)):
                data += chunk
        return read(data, max_pixels=max_pixels, allow_truncated=allow_truncated)
    except BitstreamError as error:
        raise BitstreamError(f"{input_name(path)}: {error}") from None


def _load_model(model_path: str | None, device: str | None, low_memory: bool) -> DiffusionHyperprior:
    """The model on its device, ready to code; a wrong device is refused before anything slow is imported."""
    from dhp_lab.core.paths import default_checkpoint
    from dhp_lab.core.settings import choose_device

    place = choose_device(device)
    from dhp_lab.codec.model import DiffusionHyperprior

    model = DiffusionHyperprior.from_pretrained(model_path or default_checkpoint()).to(place).eval()
    return model.low_memory() if low_memory else model


def _name_model(file: DhpFile, model_path: str | None) -> tuple[str, bytes | None]:
    """How the file's model relates to the one named (or the shipped one), and that one's id; no torch."""
    from dhp_lab.codec.checkpoint import model_id
    from dhp_lab.core.files import is_disk_error
    from dhp_lab.core.paths import default_checkpoint
    from dhp_lab.core.weights import CONFIG, WEIGHTS, CheckpointError

    try:
        folder = Path(model_path or default_checkpoint())
        found = model_id((folder / CONFIG).read_bytes(), (folder / WEIGHTS).read_bytes())
    except (OSError, CheckpointError) as error:
        if model_path is not None:
            raise CheckpointError(f"no checkpoint at {model_path}: {error}") from None
        if is_disk_error(error):
            return f"cannot be compared: {error.filename}: {error.strerror}", None
        return "cannot be compared: the shipped checkpoint is not there", None
    name = "the shipped checkpoint" if model_path is None else model_path
    if found == file.model_id:
        return name, found
    return f"not {name} ({found.hex()})", found


def _bpp(size: int, height: int, width: int) -> float:
    return size * 8 / (height * width)


def _size_notes(height: int, width: int) -> list[str]:
    """The option that decompress will need because of the picture's size."""
    if height * width <= 1e6 * MAX_MEGAPIXELS:
        return []
    megapixels = -(-height * width // 1_000_000)  # rounded up
    return [f"decompress needs --max_megapixels {megapixels}"]
