"""A PNG file without the texts in it (PNG third edition, section 11.3.3): histories of editors, workflows.

Pillow unpacks them and refuses a picture for the length of a text; none of them changes a pixel.
"""

from __future__ import annotations

import struct

SIGNATURE = b"\x89PNG\r\n\x1a\n"
FRAME_BYTES = 12  # of a chunk around its content: length, type, CRC
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
ORIENTATION = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"Raw profile type APP1")  # keywords to keep


def without_text(data: bytes) -> bytes:
    """Drop the text chunks of a PNG file, but for those that may hold its orientation.

    Args:
        data: a whole file; one of another format, and what follows damage, stays as it is.
    """
    if not data.startswith(SIGNATURE):
        return data
    kept, start, position = [], 0, len(SIGNATURE)
    while position + FRAME_BYTES <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + FRAME_BYTES + length
        if kind in TEXTS and end <= len(data) and not data.startswith(ORIENTATION, position + 8):
            kept.append(data[start:position])
            start = end
        position = end
    return b"".join([*kept, data[start:]]) if kept else data
