"""Picture <-> .dhp file: the one place where bytes are made of pictures and pictures of bytes.

    data = dhp_file.encode(model, x, lambda_rate=1e-3)          # a whole file, header included
    x_hat = dhp_file.decode(model, data, steps=1)

``encode_within`` makes the largest file within a number of bytes; ``encode_batch`` and ``decode_batch`` code
pictures of one size at once. ``effort`` above 0 spends the encoder's time on fewer bits (``codec.effort``).
``codec.bits.bitstream`` is the container's format; ``DiffusionHyperprior.compress`` and ``decompress`` code
the streams inside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.bitstream import BitstreamError, DhpFile
from dhp_lab.codec.bits.lambdas import CODE_MAX, lambda_code, lambda_of
from dhp_lab.codec.effort import Report, compress
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.tiling import OVERLAP
from dhp_lab.core.memory import check_memory
from dhp_lab.core.search import largest_within, largest_within_near
from dhp_lab.data.images import from_pil

# Tensors as large as y, and as the picture, that are held at once (benchmarks/codec_speed.py has the peaks).
ENCODING, OPTIMISING, DECODING, DRAWING = 10, 22, 12, 4
PICTURES, DRAWN_PICTURES = 3, 4  # drawing: the decoded one, two states of the chain, and what is on its way
TILE_BYTES = 12  # of the realism part, a pixel of a tile and channel at half the resolution


def encode(
    model: DiffusionHyperprior,
    x: Tensor | Image.Image,
    *,
    lambda_rate: float = 1e-3,
    effort: int = 0,
    report: Report | None = None,
) -> bytes:
    """Encode one picture to the bytes of a .dhp file.

    Args:
        model: in any mode, on any device.
        x: (1, 3, H, W) float32 in [0, 1] on any device, or a PIL picture; H and W >= 16.
        lambda_rate: 1e-6 .. 1e-1, larger = fewer bytes.
        effort: 0 .. 9: how long the latents are optimised for this picture; the file never costs more than at
            effort 0. Ctrl-C ends the optimisation early, with the best file so far.
        report: receives an ``effort.Progress`` after every iteration.

    Raises:
        ValueError: a value out of range, more than one picture, or an effort with a model that sends z alone.
        OutOfMemory: picture and effort need more memory than there is.
    """
    x = x if isinstance(x, Tensor) else from_pil(x)
    if len(x) != 1:
        raise ValueError(f"a file holds one picture, got {len(x)}; encode_batch makes a file of each")
    return encode_batch(model, x, lambda_rate=lambda_rate, effort=effort, report=report)[0]


def encode_batch(
    model: DiffusionHyperprior,
    x: Tensor,
    *,
    lambda_rate: float = 1e-3,
    effort: int = 0,
    report: Report | None = None,
) -> list[bytes]:
    """Encode pictures (B, 3, H, W) to a file each. Arguments and errors as for ``encode``."""
    copies = ENCODING if effort == 0 else OPTIMISING
    _check_memory(model, len(x), x.shape[-2:], "encoding", copies, PICTURES)
    coded = compress(model, x.to(model.log2_spread.device), lambda_rate, effort, report)
    streams = zip(*coded["strings"], strict=True)  # B times (y, z, side)
    return [
        bitstream.write(
            [[y], [z], [side]],
            coded["shape"],
            model_id=model.model_id,
            transmit=model.config.transmit,
            passes=model.config.passes,
        )
        for y, z, side in streams
    ]


def encode_within(
    model: DiffusionHyperprior,
    x: Tensor | Image.Image,
    n_bytes: int,
    *,
    least_lambda: float = 1e-5,
    code_step: int = 64,
    near_lambda: float | None = None,
) -> bytes:
    """The largest file of at most n_bytes, by a search over lambda; where none fits, the smallest.

    Args:
        model, x: as for ``encode``.
        n_bytes: the limit, header included.
        least_lambda: the smallest lambda that is tried, 1e-6 .. 1e-1.
        code_step: lambda codes between neighbouring trials; 64 are a 32nd of an octave.
        near_lambda: a guess, 1e-6 .. 1e-1, from which half as many trials are enough; None bisects.
    """
    settings = (CODE_MAX - lambda_code(least_lambda)) // code_step  # a larger setting: a larger file

    def encode_setting(setting: int) -> bytes:
        return encode(model, x, lambda_rate=lambda_of(CODE_MAX - code_step * setting))

    if near_lambda is None:
        return largest_within(encode_setting, 0, settings, n_bytes)
    start = min((CODE_MAX - lambda_code(near_lambda)) // code_step, settings)
    octave = max(1, (lambda_code(2e-2) - lambda_code(1e-2)) // code_step)
    return largest_within_near(encode_setting, 0, settings, n_bytes, start=start, step=octave)


def decode(
    model: DiffusionHyperprior,
    data: bytes | DhpFile,
    *,
    steps: int = 1,
    gamma: float = 0.0,
    seed: int = 0,
    preview: bool = False,
) -> Tensor:
    """Decode a .dhp file to its picture, (1, 3, H, W) in [0, 1] on the model's device.

    Args:
        model: the one that wrote the file.
        data: the file's bytes, or what ``bitstream.read`` made of them.
        steps: K, 0 .. 1000: 0 is no diffusion, 1 the posterior mean, more draw a sample; with the model's
            realism part if it has one.
        gamma: weight of the posterior mean in a sample, 0 .. 1. seed: of the noise that is drawn.
        preview: decode z alone, also of a file that was cut off behind it.

    Raises:
        BitstreamError: foreign, damaged or cut off; written by another model; a header that contradicts its
            model or its streams. ValueError: steps or gamma out of range. OutOfMemory: the picture needs more
            memory than there is.
    """
    file = data if isinstance(data, DhpFile) else bitstream.read(data, allow_truncated=preview)
    return decode_batch(model, [file], steps=steps, gamma=gamma, seed=seed, preview=preview)


def decode_batch(
    model: DiffusionHyperprior,
    files: Sequence[bytes | DhpFile],
    *,
    steps: int = 1,
    gamma: float = 0.0,
    seed: int = 0,
    preview: bool = False,
) -> Tensor:
    """Decode files of one size to pictures (B, 3, H, W). Arguments and errors as for ``decode``."""
    parsed = [
        file if isinstance(file, DhpFile) else bitstream.read(file, allow_truncated=preview) for file in files
    ]
    if len({file.shape for file in parsed}) != 1:
        raise ValueError(f"the files must hold pictures of one size, got {[file.shape for file in parsed]}")
    for file in parsed:
        check_header(model, file)
        if file.y is None and not preview:
            raise BitstreamError("y was cut off: copy the file again, or see a preview")
    count, size = len(parsed), parsed[0].shape
    _check_memory(model, count, size, "decoding", DECODING, PICTURES)
    if steps > 1 and not preview and getattr(model, "realism", None) is not None:  # other codecs have none
        tile = count * _tile_bytes(model, size)
        _check_memory(model, count, size, "drawing", DRAWING, DRAWN_PICTURES, beside=tile)
    y = [None if preview else file.y for file in parsed]
    strings = [y, [file.z for file in parsed], [file.side for file in parsed]]
    return model.decompress(strings, parsed[0].shape, steps=steps, gamma=gamma, seed=seed)["x_hat"]


def _tile_bytes(model: DiffusionHyperprior, size: tuple[int, int]) -> int:
    """What the realism part takes for the largest tile of a picture."""
    side = model.block * (model.realism_sampler.tile + 2 * OVERLAP)
    return TILE_BYTES * model.realism.widths[0] * min(size[0], side) * min(size[1], side)


def _check_memory(
    model: DiffusionHyperprior,
    count: int,
    size: tuple[int, int],
    job: str,
    copies: int,
    pictures: int,
    *,
    beside: int = 0,
) -> None:
    """Pass pictures of (height, width) that fit into the memory with so many bytes beside them; CUDA's own
    errors are clear.

    Raises:
        OutOfMemory: they do not.
    """
    if model.log2_spread.device.type != "cpu":
        return
    pixels = count * size[0] * size[1]
    needed = 4 * pixels * (3 * pictures + copies * model.M / model.block**2) + beside
    what = f"{job} {pixels / 1e6:.0f} megapixels"
    check_memory(needed, what, "shrink the picture, or cut it into parts")


def check_header(model: DiffusionHyperprior, file: DhpFile) -> None:
    """Pass a file whose header fits the model.

    Raises:
        BitstreamError: another model wrote it, or its number of passes or what it transmits is not the
            model's.
    """
    bitstream.check_model(file, model.model_id)
    for name, byte, said, own in (
        ("entropy passes", 5, file.passes, model.config.passes),
        ("transmit", 4, file.transmit, model.config.transmit),
    ):
        if said != own:
            raise BitstreamError(
                f"the header contradicts its model: {name} {said} (byte {byte}), the model has {own}; "
                "write the file again with `dhp compress`"
            )
