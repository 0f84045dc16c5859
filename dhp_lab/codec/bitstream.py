"""The .dhp container under its public name; ``codec.bits.bitstream`` is its home."""

from dhp_lab.codec.bits.bitstream import (
    HEADER_BYTES,
    MAGIC,
    MIN_SIDE,
    VERSION,
    BitstreamError,
    DhpFile,
    announced_size,
    check_model,
    read,
    write,
)

__all__ = [
    "HEADER_BYTES",
    "MAGIC",
    "MIN_SIDE",
    "VERSION",
    "BitstreamError",
    "DhpFile",
    "announced_size",
    "check_model",
    "read",
    "write",
]
