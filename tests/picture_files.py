"""Picture files and colour profiles written byte by byte, as their standards define them."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def s15(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + s15(*values)


def profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 4 (ICC.1:2010), of a display."""
    tags = {b"wtpt": xyz(0.9642, 1, 0.8249), **tags}
    for name, text in ((b"desc", "test profile"), (b"cprt", "none")):
        letters = text.encode("utf-16-be")
        tags[name] = b"mluc\0\0\0\0" + struct.pack(">II", 1, 12) + b"enUS"
        tags[name] += struct.pack(">II", len(letters), 28) + letters
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = bytes(4) + struct.pack(">I", 0x04000000) + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    head = (head + bytes(28) + s15(0.9642, 1, 0.8249)).ljust(124, b"\0")
    body = head + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(body) + 4) + body


def rgb_profile(matrix: np.ndarray, curve: bytes) -> bytes:
    tags = {name: xyz(*column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)}
    return profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


SRGB_CURVE = (
    b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + s15(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
)


def power(gamma: float) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", 0, 0) + s15(gamma)


def cmyk_profile() -> bytes:
    """A CMYK profile of two grid points an axis: L* falls with the ink of all four, without colour."""
    grid = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(16, 4)
    light = np.round(65280 * (1 - grid.sum(1) / 4)).astype(int)  # Lab of version 2: 100 is 0xFF00
    colours = b"".join(struct.pack(">HHH", value, 0x8000, 0x8000) for value in light)
    head = b"mft2\0\0\0\0" + bytes([4, 3, 2, 0]) + s15(1, 0, 0, 0, 1, 0, 0, 0, 1) + struct.pack(">HH", 2, 2)
    data = profile(
        b"CMYK",
        {b"A2B0": head + struct.pack(">HH", 0, 65535) * 4 + colours + struct.pack(">HH", 0, 65535) * 3},
    )
    return data[:8] + struct.pack(">I", 0x02400000) + b"prtrCMYKLab " + data[24:]


def png(values: np.ndarray, colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of (H, W, C) values, uint8 or uint16, with chunks before the pixels."""
    height, width, _ = values.shape
    bits = 8 * values.itemsize
    rows = b"".join(b"\0" + row.astype(f">u{values.itemsize}").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        file += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return file


TIFF_TYPES = {"u": 1, "i": 2, "f": 3}


def tiff(
    values: np.ndarray, *, order: str = "<", zipped: bool = False, tags: dict[int, int] | None = None
) -> bytes:
    """A TIFF file of (H, W, C) values in one strip (TIFF 6.0)."""
    height, width, channels = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if zipped else data
    bits, sample_format = 8 * values.itemsize, TIFF_TYPES[values.dtype.kind]
    entries = {256: [width], 257: [height], 258: [bits] * channels, 259: [8 if zipped else 1]}
    entries |= {262: [1 if channels < 3 else 2], 273: [8], 277: [channels], 278: [height], 279: [len(data)]}
    entries |= {338: [2]} if channels == 4 else {}
    entries |= {339: [sample_format] * channels} | {tag: [value] for tag, value in (tags or {}).items()}
    directory = 8 + len(data) + len(data) % 2
    further = directory + 2 + 12 * len(entries) + 4
    table, lists = b"", b""
    for tag, numbers in sorted(entries.items()):
        kind, code = (4, "I") if len(numbers) == 1 and tag in (256, 257, 273, 278, 279) else (3, "H")
        packed = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        if len(packed) > 4:
            packed, lists = struct.pack(f"{order}I", further + len(lists)), lists + packed
        table += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", directory)
    return (
        (head + data).ljust(directory, b"\0")
        + struct.pack(f"{order}H", len(entries))
        + table
        + bytes(4)
        + lists
    )
