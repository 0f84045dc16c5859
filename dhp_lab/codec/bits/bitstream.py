"""The .dhp container: one picture's streams behind a header that is checked before anything is trusted.

Numbers are big-endian. z comes before y, so a file that was cut off may still hold a whole z and show a
preview.

| offset | bytes | field                                                                                     |
|--------|-------|-------------------------------------------------------------------------------------------|
| 0      | 3     | magic ``DHP``                                                                             |
| 3      | 1     | version, 1                                                                                |
| 4      | 1     | flags: bit 0 = y is not sent (``transmit="z"``); bits 1..7 are reserved and 0             |
| 5      | 1     | entropy passes over y, 1..255                                                             |
| 6      | 4     | height H in pixels, at least 16                                                           |
| 10     | 4     | width W in pixels, at least 16                                                            |
| 14     | 8     | model id: first 8 bytes of the sha256 of configuration and weights                        |
| 22     | 2     | side: lambda code c, 140 .. 34157; lambda = 2^(c/2048 - 20) = 1e-6 .. 1e-1                |
| 24     | 4     | side: CRC32 of the decoded symbols of z (the decoder checks it)                           |
| 28     | 4     | side: CRC32 of the decoded symbols of y (the decoder checks it)                           |
| 32     | 4     | length of z in bytes, at least 1, at most 64 (H + 63) (W + 63)                            |
| 36     | 4     | length of y in bytes, as much at most; 0 where y is not sent or has nothing to say        |
| 40     | 4     | CRC32 of the payload, z then y                                                            |
| 44     | 4     | CRC32 of bytes 0..43                                                                      |
| 48     |       | z, then y, then the end of the file                                                       |

The payload's CRC finds damage to the file; the CRC of the symbols finds a decoder that read them differently.
The most bytes of a stream are more than any model can need (a symbol takes 6 at most), so that a small
picture never makes a reader hold gigabytes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from dhp_lab.codec.bits.lambdas import CODE_MAX, CODE_MIN, lambda_of

MAGIC = b"DHP"
VERSION = 1
MIN_SIDE = 16  # pixels
TRANSMIT = ("z+y", "z")  # by the value of flag bit 0
BYTES_A_PIXEL = 64  # the most of either stream, for sides rounded up

_FIELDS = struct.Struct(">3s3B2I8s10s3I")  # all but the header's own CRC
_CRC = struct.Struct(">I")
HEADER_BYTES = _FIELDS.size + _CRC.size  # 48

_FOREIGN = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"BM": "a BMP picture",
    b"RIFF": "a WebP picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"PK\3\4": "a ZIP archive",
}


class BitstreamError(ValueError):
    """A file or stream that cannot be decoded: the message says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class DhpFile:
    """One verified .dhp file.

    Attributes:
        version: format version, 1.
        height, width: the picture's size in pixels.
        transmit: "z+y", or "z" where y is generated from the hyperprior.
        passes: entropy passes over y, 1..255.
        model_id: 8 bytes, the model that wrote the file.
        side: 10 bytes: lambda code, CRC32 of the symbols of z, CRC32 of the symbols of y.
        z: the stream of z.
        y: the stream of y; b"" where nothing was sent, None where the file was cut off.
    """

    version: int
    height: int
    width: int
    transmit: str
    passes: int
    model_id: bytes
    side: bytes
    z: bytes
    y: bytes | None

    @property
    def lambda_rate(self) -> float:
        """The trade-off that the file was written with, 1e-6 .. 1e-1."""
        return lambda_of(int.from_bytes(self.side[:2], "big"))

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels, as ``model.decompress`` takes it."""
        return self.height, self.width

    @property
    def strings(self) -> list[list[bytes | None]]:
        """[[y], [z], [side]], as ``model.decompress`` takes them for a batch of one; y is None where it was
        cut off.
        """
        return [[self.y], [self.z], [self.side]]


@dataclass(frozen=True)
class _Header:
    """The fields in file order; ``flags`` and lengths as stored."""

    magic: bytes
    version: int
    flags: int
    passes: int
    height: int
    width: int
    model_id: bytes
    side: bytes
    z_bytes: int
    y_bytes: int
    payload_crc: int


def write(
    strings: list[list[bytes]],
    shape: tuple[int, int],
    *,
    model_id: bytes,
    transmit: str = "z+y",
    passes: int = 1,
) -> bytes:
    """The bytes of a .dhp file.

    Args:
        strings: [[y], [z], [side]] as ``model.compress`` gives them for a batch of one; side has 10 bytes.
        shape: (H, W) in pixels, each at least 16.
        model_id: the 8 bytes of ``model.model_id``.
        transmit: "z+y", or "z" with an empty y. passes: entropy passes over y, 1..255.

    Raises:
        ValueError: an argument that the format cannot hold.
    """
    if len(strings) != 3 or any(len(batch) != 1 for batch in strings):
        raise ValueError(
            f"a file holds one picture, [[y], [z], [side]]; got lists of {[len(b) for b in strings]}"
        )
    ((y,), (z,), (side,)), (height, width) = strings, shape
    if transmit not in TRANSMIT:
        raise ValueError(f"transmit must be one of {TRANSMIT}, got {transmit!r}")
    for name, value, size in (("y", y, None), ("z", z, None), ("side", side, 10), ("model_id", model_id, 8)):
        if not isinstance(value, bytes) or (size and len(value) != size):
            raise ValueError(f"{name} must be {size or 'any number of'} bytes, got {value!r:.40}")
    header = _Header(
        MAGIC,
        VERSION,
        TRANSMIT.index(transmit),
        passes,
        height,
        width,
        model_id,
        side,
        len(z),
        len(y),
        zlib.crc32(y, zlib.crc32(z)),
    )
    if problem := _problem(header):
        raise ValueError(f"cannot write this picture: {problem}")
    fields = _FIELDS.pack(*vars(header).values())
    return b"".join((fields, _CRC.pack(zlib.crc32(fields)), z, y))


def read(data: bytes, *, max_pixels: int = 100_000_000, allow_truncated: bool = False) -> DhpFile:
    """The streams of a .dhp file, after every check that needs no model.

    Args:
        data: the whole file.
        max_pixels: largest H * W accepted; nothing is allocated for a picture above it.
        allow_truncated: accept a file that holds all of z but not all of y, with ``y=None``. The payload's
            CRC cannot be checked then; the decoder still checks the CRC of the symbols of z.

    Raises:
        BitstreamError: foreign, damaged, truncated, unknown version or too large.
    """
    header = _read_header(data)
    _check_pixels(header, max_pixels)
    whole = _is_whole(len(data), header, allow_truncated)
    if whole and (crc := zlib.crc32(data[HEADER_BYTES:])) != header.payload_crc:
        raise BitstreamError(
            f"damaged streams: CRC32 of bytes {HEADER_BYTES}-{len(data) - 1} is {crc:08x}, the header says "
            f"{header.payload_crc:08x} (byte 40): copy it again"
        )
    z_end = HEADER_BYTES + header.z_bytes
    z, y = bytes(data[HEADER_BYTES:z_end]), bytes(data[z_end:]) if whole else None
    return DhpFile(
        header.version,
        header.height,
        header.width,
        TRANSMIT[header.flags],
        header.passes,
        header.model_id,
        header.side,
        z,
        y,
    )


def announced_size(header: bytes, *, max_pixels: int = 100_000_000) -> int:
    """Length in bytes of the whole file, from its first 48 bytes (so that no more of a file need be read).

    Args:
        header: the first 48 bytes, fewer of a file that was cut off.
        max_pixels: as for ``read``.

    Raises:
        BitstreamError: as ``read``, for what the header shows.
    """
    fields = _read_header(header)
    _check_pixels(fields, max_pixels)
    return HEADER_BYTES + fields.z_bytes + fields.y_bytes


def check_model(file: DhpFile, model_id: bytes) -> None:
    """Pass if the file was written by the model with this id.

    Raises:
        BitstreamError: another model wrote it; both ids are named.
    """
    if file.model_id != model_id:
        raise BitstreamError(
            f"wrong model: the file was written by model {file.model_id.hex()} (byte 14), this one is "
            f"{model_id.hex()}: give the folder of the right one with --model_path"
        )


def _read_header(data: bytes) -> _Header:
    """Magic, version, length and CRC of the header, then its fields."""
    if bytes(data[:3]) != MAGIC[: len(data)] or not data:
        raise BitstreamError(
            f"not a .dhp file: {_looks_like(bytes(data[:16]))}: make one with `dhp compress`"
        )
    if len(data) > 3 and data[3] != VERSION:
        raise BitstreamError(
            f"unknown version {data[3]} (byte 3), this program reads {VERSION}: update dhp-lab"
        )
    if len(data) < HEADER_BYTES:
        raise BitstreamError(
            f"truncated header: {len(data)} of {HEADER_BYTES} bytes, "
            f"{HEADER_BYTES - len(data)} are missing: copy again"
        )
    fields, (stored,) = bytes(data[:44]), _CRC.unpack_from(data, 44)
    if (crc := zlib.crc32(fields)) != stored:
        raise BitstreamError(
            f"damaged header: CRC32 of bytes 0-43 is {crc:08x}, stored is {stored:08x} (byte 44): "
            "copy it again"
        )
    header = _Header(*_FIELDS.unpack(fields))
    if problem := _problem(header):
        raise BitstreamError(
            f"invalid header: {problem}; update dhp-lab, or write the file again with `dhp compress`"
        )
    return header


def _check_pixels(header: _Header, max_pixels: int) -> None:
    """Refuse a picture that is larger than the caller wants."""
    pixels = header.height * header.width
    if pixels > max_pixels:
        raise BitstreamError(
            f"picture too large: {header.width} x {header.height} = {pixels} pixels, the limit is "
            f"{max_pixels} (bytes 6-13): if you trust the file, raise the limit "
            f"(--max_megapixels {-(-pixels // 1_000_000)})"
        )


def _problem(header: _Header) -> str | None:
    """The first field that is out of its range or disagrees with another, in words."""
    code, largest = int.from_bytes(header.side[:2], "big"), 2**32 - 1
    most = min(largest, BYTES_A_PIXEL * (header.height + 63) * (header.width + 63))
    size = f"{header.width} x {header.height} pixels"
    checks = (
        (header.flags <= 1, f"reserved flag bits are set, {header.flags:08b} (byte 4)"),
        (1 <= header.passes <= 255, f"{header.passes} entropy passes (byte 5), must be 1..255"),
        (
            MIN_SIDE <= header.height <= largest,
            f"height {header.height} (byte 6), must be {MIN_SIDE}..{largest}",
        ),
        (
            MIN_SIDE <= header.width <= largest,
            f"width {header.width} (byte 10), must be {MIN_SIDE}..{largest}",
        ),
        (CODE_MIN <= code <= CODE_MAX, f"lambda code {code} (byte 22), must be {CODE_MIN}..{CODE_MAX}"),
        (1 <= header.z_bytes <= most, f"z has {header.z_bytes} bytes (byte 32), {size} take 1..{most}"),
        (header.y_bytes <= most, f"y has {header.y_bytes} bytes (byte 36), {size} take 0..{most}"),
        (
            header.flags == 0 or not header.y_bytes,
            f"y has {header.y_bytes} bytes (byte 36) but is not sent (byte 4)",
        ),
    )
    return next((text for good, text in checks if not good), None)


def _is_whole(size: int, header: _Header, allow_truncated: bool) -> bool:
    """True for exactly the announced length, False for a cut y where that is allowed; raises otherwise."""
    z_end = HEADER_BYTES + header.z_bytes
    end = z_end + header.y_bytes
    if size > end:
        raise BitstreamError(
            f"unexpected bytes after the end (byte {end}): the file must have {end}; copy it again"
        )
    if size == end:
        return True
    missing = f"truncated file: {size} of {end} bytes, {end - size} are missing"
    if size < z_end:
        raise BitstreamError(
            f"{missing}, {z_end - size} of them from z, so there is no preview: copy it again"
        )
    if not allow_truncated:
        raise BitstreamError(f"{missing}, but z is whole: copy it again, or see a preview with --preview")
    return False


def _looks_like(start: bytes) -> str:
    """What a foreign file seems to be, from its first bytes."""
    names = (f"it starts like {name} (byte 0)" for magic, name in _FOREIGN.items() if start.startswith(magic))
    return next(
        names, f"it starts with {start[:4]!r}, not {MAGIC!r} (byte 0)" if start else "the file is empty"
    )
