"""All codecs by their names on the command line, and the sweep that measures one.

dhp evaluate --codecs jpeg,hevc     ->  choose  ->  sweep each over its settings  ->  Measurements
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

from torch import Tensor

from dhp_lab.evaluation.classical import AVIF, AVIF420, JPEG, JPEG2000, WEBP, Codec
from dhp_lab.evaluation.measurements import Measurement, measure
from dhp_lab.evaluation.rivals import HEVC, JXL, VVC

CODECS: dict[str, Codec] = {
    "jpeg": JPEG,
    "webp": WEBP,
    "jpeg2000": JPEG2000,
    "avif": AVIF,
    "avif420": AVIF420,
    "jxl": JXL,
    "hevc": HEVC,
    "vvc": VVC,
}


def find_codec(key: str) -> Codec:
    """Return the codec of a name in CODECS, be it installed or not.

    Raises:
        ValueError: another name.
    """
    if key not in CODECS:
        raise ValueError(f"unknown codec {key!r}; choose from {', '.join(CODECS)}")
    return CODECS[key]


def choose(keys: Sequence[str]) -> tuple[list[Codec], list[str]]:
    """Return the codecs of some names that can run here, and a line on each that cannot.

    Args:
        keys: names in CODECS; one given twice counts once.

    Raises:
        ValueError: another name.
    """
    found, lines = [], []
    for codec in map(find_codec, dict.fromkeys(keys)):
        line = codec.missing()
        if line is None:
            found.append(codec)
        else:
            lines.append(line)
    return found, lines


def sweep(
    codec: Codec, picture: str, x: Tensor, measured: Callable[..., Measurement] = measure
) -> Iterator[Measurement]:
    """Measure a picture, (1, 3, H, W) in [0, 1] and called `picture`, at each setting of the codec.

    Args:
        measured: by what each decoded picture is measured: `measure`, or that of some `Judges`.

    Raises:
        CodecError: the codec's program failed.
    """
    for setting in codec.settings:
        start = perf_counter()
        data = codec.encode(x, setting)
        encoded = perf_counter()
        x_hat = codec.decode(data)
        decoded = perf_counter()
        yield measured(
            x_hat,
            x,
            codec=codec.name,
            setting=setting,
            picture=picture,
            n_bytes=len(data),
            encode_seconds=encoded - start,
            decode_seconds=decoded - encoded,
        )
