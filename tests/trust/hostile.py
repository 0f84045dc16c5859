"""Changed .dhp files, and what a decoder may make of them.

    changed = mutate(seed.data, rng)                    a file with some bytes changed
    changed = mended(changed)                           with header and payload CRC made right again
    changed = forged(codec, changed)                    with every checksum made right, the symbols' too
    outcome = judge(codec, changed)                     read, shown, decoded: what happened

Three things may happen to a changed file: it is refused with a BitstreamError; its symbols are still those
that were sent, and it shows the same picture; or every checksum over what was changed was forged.
"""

from __future__ import annotations

import os
import random
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import redirect_stdout
from enum import StrEnum
from io import StringIO
from itertools import product
from pathlib import Path
from unittest import mock

import torch

from dhp_lab.cli import files as program
from dhp_lab.codec import dhp_file, entropy_coding
from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.bitstream import HEADER_BYTES, BitstreamError, DhpFile
from dhp_lab.codec.bits.lambdas import CODE_MAX, CODE_MIN
from dhp_lab.codec.bits.rans import symbol_crc
from dhp_lab.codec.entropy_coding import SIDE, decode_latents
from dhp_lab.codec.model import DiffusionHyperprior

MAX_PIXELS = 100_000  # of the pictures that are decoded
MOST_BYTES = 8192  # of a changed file
FIELDS = {  # offset of a header's field: its bytes, and values on the edge of what is allowed
    3: (1, [0, 1, 2, 255]),
    4: (1, [0, 1, 2, 128]),
    5: (1, [0, 1, 2, 4, 255]),
    6: (4, [0, 15, 16, 17, 79, 81, 316, 6250, 2**31, 2**32 - 1]),
    10: (4, [0, 15, 16, 17, 111, 113, 316, 6250, 2**31, 2**32 - 1]),
    14: (8, [0, 2**64 - 1]),
    22: (2, [0, CODE_MIN - 1, CODE_MIN, CODE_MAX, CODE_MAX + 1, 65535]),
    24: (4, [0, 2**32 - 1]),
    28: (4, [0, 2**32 - 1]),
    32: (4, [0, 1, 2**31, 2**32 - 1]),
    36: (4, [0, 1, 2**31, 2**32 - 1]),
    40: (4, [0, 2**32 - 1]),
    44: (4, [0, 2**32 - 1]),
}


class Outcome(StrEnum):
    """What became of a changed file."""

    CONTAINER = "refused by header, lengths or CRC"
    MODEL = "refused as another model's"
    SYMBOLS = "refused by the CRC of its symbols"
    SAME = "decoded to the picture that was sent"
    HEADER_FORGED = "size or lambda changed, and the header's CRC forged"
    ALL_FORGED = "every checksum forged"


class Fault(AssertionError):
    """A file that did what no file may do; the message says what."""


class Codec:
    """A model, the files it wrote, and the pictures in them.

    Args:
        model: the codec. files: at least one that it wrote. folder: a checkpoint, for ``dhp info``.
    """

    def __init__(self, model: DiffusionHyperprior, files: list[bytes], folder: Path) -> None:
        self.model, self.files, self.folder = model, files, folder
        self.sent = [bitstream.read(data) for data in files]
        self.pictures: dict[tuple, torch.Tensor] = {}

    def picture(self, number: int, steps: int, preview: bool) -> torch.Tensor:
        """What one of its files decodes to."""
        key = (number, steps, preview)
        if key not in self.pictures:
            self.pictures[key] = dhp_file.decode(self.model, self.files[number], steps=steps, preview=preview)
        return self.pictures[key]

    def decode_all(self) -> None:
        """Decode every file now, at K = 0 and 1, whole and as a preview."""
        for number, steps, preview in product(range(len(self.files)), (0, 1), (False, True)):
            self.picture(number, steps, preview)


# ------------------------------------------------------------------------------------------------- changes


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to three changes: a field, a bit, some bytes of a stream, a cut, bytes too many."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(CHANGES)(changed, rng)
    return bytes(changed[:MOST_BYTES])


def _change_field(data: bytearray, rng: random.Random) -> None:
    offset = rng.choice(list(FIELDS))
    size, edges = FIELDS[offset]
    old = int.from_bytes(data[offset : offset + size], "big")
    near = (old + rng.choice((-16, -1, 1, 16))) % 256**size
    value = rng.choice([rng.choice(edges), near, rng.randrange(256**size), rng.randrange(16, 320)])
    data[offset : offset + size] = (value % 256**size).to_bytes(size, "big")


def _change_size(data: bytearray, rng: random.Random) -> None:
    height = rng.randrange(16, rng.choice((32, 32, 64, 64, 64, 320, MAX_PIXELS // 16)))
    width = rng.randrange(16, max(17, min(height + 16, MAX_PIXELS // height + 1)))
    height, width = rng.sample((height, width), 2)
    data[6:14] = struct.pack(">II", height, width)


def _flip_a_bit(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _change_a_stream(data: bytearray, rng: random.Random) -> None:
    if len(data) > HEADER_BYTES:
        start = rng.randrange(HEADER_BYTES, len(data))
        count = min(rng.choice((1, 2, 4, 16, 64)), len(data) - start)
        fill = rng.choice((b"\xff" * count, bytes(count), rng.randbytes(count)))
        data[start : start + count] = fill


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _cut_a_stream(data: bytearray, rng: random.Random) -> None:
    """Bytes go from y or z, and the header says so."""
    if len(data) > HEADER_BYTES + 4:
        start = rng.randrange(HEADER_BYTES, len(data))
        del data[start : start + rng.choice((1, 2, 4, 16))]
        _announce(data, rng)


def _lengthen(data: bytearray, rng: random.Random) -> None:
    """Bytes are added, and the header says so or not."""
    place = rng.randrange(min(HEADER_BYTES, len(data)), len(data) + 1)
    count = rng.choice((1, 4, 64, 1024))
    data[place:place] = rng.choice((bytes(count), b"\xff" * count, rng.randbytes(count)))
    if rng.random() < 0.7:
        _announce(data, rng)


def _announce(data: bytearray, rng: random.Random) -> None:
    """Write lengths of z and y that fit the file; where one ends, the old header says or the draw does."""
    if len(data) >= HEADER_BYTES:
        both, z = len(data) - HEADER_BYTES, int.from_bytes(data[32:36], "big")
        z = rng.randint(0, both) if z > both or rng.random() < 0.2 else z
        data[32:40] = struct.pack(">II", z, both - z)


CHANGES: list[Callable[[bytearray, random.Random], None]] = [
    _change_field,
    _change_field,
    _change_size,
    _flip_a_bit,
    _change_a_stream,
    _change_a_stream,
    _cut,
    _cut_a_stream,
    _lengthen,
]


# ------------------------------------------------------------------------------------------------- forgery


def mended(data: bytes) -> bytes:
    """The file with the CRC of its payload and then that of its header made right."""
    if len(data) < HEADER_BYTES:
        return data
    fields = data[:40] + struct.pack(">I", zlib.crc32(data[HEADER_BYTES:]))
    return fields + struct.pack(">I", zlib.crc32(fields)) + data[HEADER_BYTES:]


def forged(codec: Codec, data: bytes) -> bytes:
    """The file as one who has the model would make it: it names the model, and every CRC is right.

    A header that is no header, or a picture that is too large, stays as it is.
    """
    own = codec.sent[0]
    flags = bitstream.TRANSMIT.index(own.transmit)
    data = mended(
        bitstream.MAGIC + bytes([own.version, flags, own.passes]) + data[6:14] + own.model_id + data[22:]
    )
    try:
        file = bitstream.read(data, max_pixels=MAX_PIXELS)
    except BitstreamError:
        return data
    found = {"z": 0, "y": 0}

    def note(name: str, symbols: torch.Tensor, expected: int) -> None:
        found[name] = symbol_crc(symbols)

    with mock.patch.object(entropy_coding, "check_symbols", note):
        try:
            decode_latents(codec.model, file.strings, file.shape)
        except BitstreamError:  # y has no bytes
            return data
    side = SIDE.pack(SIDE.unpack(file.side)[0], found["z"], found["y"])
    return mended(data[:22] + side + data[32:])


# ------------------------------------------------------------------------------------------------ judgement


def judge(codec: Codec, data: bytes, *, steps: int = 1, preview: bool = False) -> Outcome:
    """Read, show and decode a file.

    Raises:
        Fault: a picture that is not the one that was sent, though a checksum over the change still holds; or
            numbers that are no picture.
        Exception: anything else than a BitstreamError that reading, ``dhp info`` or decoding raised.
    """
    try:
        file = bitstream.read(data, max_pixels=MAX_PIXELS, allow_truncated=preview)
    except BitstreamError as error:
        if _is_shown(codec, data) and "too large" not in str(error):
            raise Fault(f"dhp info shows a file that is refused: {error}") from error
        return Outcome.CONTAINER
    if _is_shown(codec, data) != (file.y is not None):
        raise Fault("dhp info refuses a whole file, or shows one that was cut off")
    try:
        x_hat = dhp_file.decode(codec.model, file, steps=steps, preview=preview)
    except BitstreamError as error:
        return Outcome.SYMBOLS if "symbols" in str(error) else Outcome.MODEL
    return _judge_picture(codec, file, x_hat, steps, preview)


def _judge_picture(codec: Codec, file: DhpFile, x_hat: torch.Tensor, steps: int, preview: bool) -> Outcome:
    if x_hat.shape != (1, 3, file.height, file.width) or not bool(((x_hat >= 0) & (x_hat <= 1)).all()):
        raise Fault(
            f"decoded to {tuple(x_hat.shape)}, {x_hat.min()} .. {x_hat.max()}, not a picture in 0 .. 1"
        )
    same_symbols = [
        n for n, sent in enumerate(codec.sent) if _checks(file, preview) == _checks(sent, preview)
    ]
    if not same_symbols:
        return Outcome.ALL_FORGED
    for number in same_symbols:
        sent = codec.sent[number]
        if (file.shape, file.side[:2]) == (sent.shape, sent.side[:2]):
            if not torch.equal(x_hat, codec.picture(number, steps, preview)):
                raise Fault(f"another picture than that of file {number}, whose checksums of symbols it has")
            return Outcome.SAME
    return Outcome.HEADER_FORGED


def _checks(file: DhpFile, preview: bool) -> bytes:
    """The CRCs of the symbols that are decoded."""
    return file.side[2:6] if preview else file.side[2:]


def _is_shown(codec: Codec, data: bytes) -> bool:
    """Whether ``dhp info`` shows a file, be it as another model's, or refuses it with a BitstreamError."""
    path = Path(tempfile.gettempdir()) / f"hostile-{os.getpid()}.dhp"
    path.write_bytes(data)
    try:
        with redirect_stdout(StringIO()):
            program.info(path, model_path=str(codec.folder))
    except BitstreamError as error:
        return "wrong model" in str(error)
    finally:
        path.unlink()
    return True
