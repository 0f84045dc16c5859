"""The columns of a report that a metric fills, in the table and in the JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dhp_lab.evaluation.measurements import Point
from dhp_lab.metrics.pixels import decibel

NOTHING = "-"  # where a figure is missing


class Column(NamedTuple):
    """A column of the table: its head, its width, and a point's text in it."""

    head: str
    width: int
    text: Callable[[Point], str]


def _number(field: str, form: str, scale: Callable[[float], float] = lambda value: value) -> Callable:
    """The text of a figure that may be missing."""

    def text(point: Point) -> str:
        value = getattr(point, field)
        return NOTHING if value is None else format(scale(value), form)

    return text


def _interval(point: Point) -> str:
    if point.patch_kid_low is None:
        return NOTHING
    return f"{point.patch_kid_low:.3f}..{point.patch_kid_high:.3f}"


FIRST = (
    Column("setting", 8, lambda point: f"{point.setting:g}"),
    Column("bpp", 7, _number("bpp", ".4f")),
    Column("ratio", 6, _number("compression_ratio", ".1f")),
)
LAST = (
    Column("encode s", 9, _number("encode_seconds", ".3f")),
    Column("decode s", 9, _number("decode_seconds", ".3f")),
)
OF_METRIC = {
    "psnr": (Column("PSNR", 6, _number("psnr", ".2f")),),
    "ms-ssim": (
        Column("MS-SSIM", 8, _number("ms_ssim", ".4f")),
        Column("dB", 6, _number("ms_ssim", ".2f", decibel)),
    ),
    "texture": (Column("texture", 8, _number("texture", ".3f")),),
    "lpips": (Column("LPIPS", 6, _number("lpips", ".3f")),),
    "lpips-vgg": (Column("LPIPS-VGG", 10, _number("lpips_vgg", ".3f")),),
    "dists": (Column("DISTS", 6, _number("dists", ".3f")),),
    "patch-kid": (
        Column("patch-KID", 10, _number("patch_kid", ".3f")),
        Column("95 %", 14, _interval),
    ),
    "ssimulacra2": (Column("SSIMULACRA2", 12, _number("ssimulacra2", ".1f")),),
    "cvvdp": (Column("CVVDP", 6, _number("cvvdp", ".2f")),),
}
FIELDS = {  # what each metric fills in the JSON
    **{name: (name.replace("-", "_"),) for name in OF_METRIC},
    "patch-kid": ("patch_kid", "patch_kid_low", "patch_kid_high"),
}


def points_table(points: Sequence[Point], metrics: Sequence[str]) -> str:
    """Return one line per codec and setting, codecs together, with the columns of some metrics."""
    columns = [*FIRST, *(column for name in metrics for column in OF_METRIC[name]), *LAST]
    order = list(dict.fromkeys(point.codec for point in points))
    together = sorted(points, key=lambda point: order.index(point.codec))
    rows = [("codec", [column.head for column in columns])]
    rows += [(point.codec, [column.text(point) for column in columns]) for point in together]
    return "\n".join(
        " ".join(
            [f"{name:<10}", *(f"{cell:>{column.width}}" for cell, column in zip(cells, columns, strict=True))]
        )
        for name, cells in rows
    )


def without_others(entry: dict[str, object], metrics: Sequence[str]) -> dict[str, object]:
    """Return an entry of the JSON without the figures of metrics that were not chosen."""
    others = {field for name, fields in FIELDS.items() if name not in metrics for field in fields}
    return {field: value for field, value in entry.items() if field not in others}
