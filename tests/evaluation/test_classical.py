"""JPEG, WebP, JPEG 2000 and AVIF through Pillow: real files, monotonic curves."""

import itertools

import pytest
from photos import photo

from dhp_lab.evaluation.classical import CODECS, decode, encode, find_codec, sweep
from dhp_lab.evaluation.config import CLASSICAL_CODECS
from dhp_lab.evaluation.evaluate import evaluate
from dhp_lab.metrics.pixels import psnr


def test_the_names_that_need_no_torch_are_those_of_the_codecs():
    assert tuple(CODECS) == CLASSICAL_CODECS


@pytest.mark.parametrize("key", CODECS)
def test_classical_codec_sweeps_a_monotonic_curve(key):
    x = photo(256, 256)
    rows = list(sweep(find_codec(key), "astronaut", x))
    assert [row.setting for row in rows] == list(CODECS[key].settings)
    assert all(a.n_bytes < b.n_bytes and a.psnr < b.psnr for a, b in itertools.pairwise(rows))
    first = encode(CODECS[key], x, CODECS[key].settings[0])
    assert rows[0].n_bytes == len(first)
    assert rows[0].psnr == pytest.approx(psnr(decode(first), x).item(), abs=1e-9)


def test_classical_files_are_of_the_format_they_say():
    x = photo(64, 80)
    magic = {
        "jpeg": b"\xff\xd8\xff",
        "webp": b"RIFF",
        "jpeg2000": b"\0\0\0\x0cjP  ",
        "avif": b"\0\0\0 ftypavif",
    }
    for key, start in magic.items():
        data = encode(CODECS[key], x, CODECS[key].settings[-1])
        assert data.startswith(start)
        assert decode(data).shape == x.shape
        assert psnr(decode(data), x).item() > 30


def test_jpeg2000_hits_its_target_rate():
    x = photo(512, 512)
    for bpp in (0.2, 1.0):
        assert 8 * len(encode(CODECS["jpeg2000"], x, bpp)) / 512**2 == pytest.approx(bpp, rel=0.03)


def test_classical_codecs_take_the_smallest_pictures():
    for key in CODECS:
        rows = list(sweep(CODECS[key], "tiny", photo(16, 17)))
        assert all(row.ms_ssim is None and row.n_bytes > 0 for row in rows)


def test_without_a_model_the_classical_codecs_are_measured():
    result = evaluate(None, [("a", photo())], codecs=("jpeg", "webp"))
    assert {point.codec for point in result.points} == {"JPEG", "WebP"}
    assert result.measurements == [] and "model_id" not in result.about
