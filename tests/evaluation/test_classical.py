"""JPEG, WebP, JPEG 2000 and AVIF through Pillow: real files, monotonic curves."""

import itertools

import pytest
import torch
from photos import photo
from PIL import UnidentifiedImageError, features

from dhp_lab.evaluation.classical import AVIF, JPEG, JPEG2000, PillowCodec
from dhp_lab.evaluation.codecs import CODECS, choose, find_codec, sweep
from dhp_lab.evaluation.config import CLASSICAL_CODECS, MORE_CODECS
from dhp_lab.evaluation.evaluate import evaluate
from dhp_lab.metrics.pixels import psnr

PILLOW = [key for key, codec in CODECS.items() if type(codec) is PillowCodec]


def test_the_names_that_need_no_torch_are_those_of_the_codecs():
    assert tuple(CODECS) == CLASSICAL_CODECS + MORE_CODECS
    assert len({codec.name for codec in CODECS.values()}) == len(CODECS)


def test_an_unknown_name_is_an_error_with_the_choices():
    with pytest.raises(ValueError, match="unknown codec 'gif'; choose from jpeg, webp, .*, vvc$"):
        choose(("jpeg", "gif"))


def test_a_pillow_without_a_format_leaves_it_out(monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: feature != "avif")
    assert choose(CLASSICAL_CODECS) == (
        [CODECS[key] for key in ("jpeg", "webp", "jpeg2000")],
        [AVIF.missing()],
    )
    assert AVIF.missing().startswith("AVIF 4:4:4 is left out: this Pillow was built without it; install ")


@pytest.mark.parametrize("key", PILLOW)
def test_classical_codec_sweeps_a_monotonic_curve(key):
    side = 96 if key == "avif" else 256  # AVIF at speed 2 takes its time
    x = photo(side, side)
    rows = list(sweep(find_codec(key), "astronaut", x))
    assert [row.setting for row in rows] == list(CODECS[key].settings)
    assert all(a.n_bytes < b.n_bytes and a.psnr < b.psnr for a, b in itertools.pairwise(rows))
    first = CODECS[key].encode(x, CODECS[key].settings[0])
    assert rows[0].n_bytes == len(first)
    assert rows[0].psnr == pytest.approx(psnr(CODECS[key].decode(first), x).item(), abs=1e-9)


def test_classical_files_are_of_the_format_they_say():
    x = photo(64, 80)
    magic = {
        "jpeg": b"\xff\xd8\xff",
        "webp": b"RIFF",
        "jpeg2000": b"\0\0\0\x0cjP  ",
        "avif": b"\0\0\0 ftypavif",
        "avif420": b"\0\0\0 ftypavif",
    }
    for key, start in magic.items():
        data = CODECS[key].encode(x, CODECS[key].settings[-1])
        assert data.startswith(start)
        x_hat = CODECS[key].decode(data)
        assert x_hat.shape == x.shape
        assert psnr(x_hat, x).item() > 30
    with pytest.raises(UnidentifiedImageError):
        JPEG.decode(data)


def test_jpeg2000_hits_its_target_rate():
    x = photo(512, 512)
    for bpp in (0.2, 1.0):
        assert 8 * len(JPEG2000.encode(x, bpp)) / 512**2 == pytest.approx(bpp, rel=0.03)


def test_avif_keeps_the_chroma_that_half_the_resolution_loses():
    """Red and blue columns of one pixel: 4:2:0 cannot hold them, whatever the quality."""
    x = torch.zeros(1, 3, 64, 64)
    x[:, 0, :, ::2] = x[:, 2, :, 1::2] = 1
    full, half = (codec.decode(codec.encode(x, 90)) for codec in (AVIF, CODECS["avif420"]))
    assert psnr(full, x).item() > 30 and psnr(half, x).item() < 10


def test_classical_codecs_take_the_smallest_pictures():
    for key in PILLOW:
        rows = list(sweep(CODECS[key], "tiny", photo(16, 17)))
        assert all(row.ms_ssim is None and row.n_bytes > 0 for row in rows)


def test_without_a_model_the_classical_codecs_are_measured():
    result = evaluate(None, [("a", photo())], codecs=("jpeg", "webp"))
    assert {point.codec for point in result.points} == {"JPEG", "WebP"}
    assert result.measurements == [] and "model_id" not in result.about
