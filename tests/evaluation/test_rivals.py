"""JPEG XL, HEVC and VVC: a made-up ffmpeg shows how the program is used, the real ones what they reach."""

import ast
import itertools
import sys
import time

import numpy as np
import pytest
import torch
from photos import photo

from dhp_lab.evaluation import ffmpeg
from dhp_lab.evaluation.classical import CodecError
from dhp_lab.evaluation.codecs import CODECS, choose, sweep
from dhp_lab.evaluation.evaluate import evaluate
from dhp_lab.evaluation.rivals import HEVC, JXL, VVC
from dhp_lab.metrics.pixels import psnr

KEYS = ("jxl", "hevc", "vvc")
FAKE = """#!{python} -S
import sys, time
words, write = sys.argv[1:], sys.stdout.buffer.write
open({log!r}, "a").write(repr(words) + "\\n")
if "-encoders" in words:
    print(" V....D libx265   H.265\\n V....D libvvenc   H.266")
    sys.exit()
data = sys.stdin.buffer.read()
{trouble}
if "yuv4mpegpipe" in words:
    size, _, planes = data.partition(b"\\n")
    width, height = size.split(b"x")
    write(b"YUV4MPEG2 W" + width + b" H" + height + b" F25:1 C444p10\\nFRAME\\n" + planes)
else:
    write(words[words.index("-video_size") + 1].encode() + b"\\n" + data)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Install an ffmpeg whose stream is the plain planes, with some trouble; return the list of its calls."""

    def install(trouble=""):
        path, log = tmp_path / "ffmpeg", tmp_path / "log"
        path.write_text(FAKE.format(python=sys.executable, log=str(log), trouble=trouble))
        path.chmod(0o755)
        monkeypatch.setattr(ffmpeg, "program", lambda: str(path))
        ffmpeg._encoders.cache_clear()
        return lambda: [ast.literal_eval(line) for line in log.read_text().splitlines()]

    yield install
    ffmpeg._encoders.cache_clear()


@pytest.fixture
def nothing_installed(monkeypatch):
    """Hide the packages of the extra."""
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)


# the program


def test_a_program_that_loses_nothing_gives_back_the_picture(fake):
    fake()
    x = photo(34, 18)
    assert torch.equal(HEVC.decode(HEVC.encode(x, 31)), x)
    assert psnr(VVC.decode(VVC.encode(x, 31)), x).item() > 30  # chroma at half the resolution


@pytest.mark.parametrize("height, width", [(16, 16), (17, 33), (16, 33), (17, 32)])
def test_odd_sides_are_padded_and_cropped(fake, height, width):
    calls = fake()
    x = photo(height, width)
    data = HEVC.encode(x, 31)
    even = f"{width + width % 2}x{height + height % 2}"
    assert even in calls()[-1] and data[1:].startswith(even.encode())
    assert data[0] == 2 * (height % 2) + width % 2
    assert torch.equal(HEVC.decode(data), x)
    luma = np.frombuffer(data[2 + len(even) :], "<u2")[: (height + height % 2) * (width + width % 2)]
    luma = luma.reshape(height + height % 2, -1)
    assert np.array_equal(luma[-1], luma[height - 1]) and np.array_equal(luma[:, -1], luma[:, width - 1])


def test_command_lines(fake):
    calls = fake()
    HEVC.decode(HEVC.encode(photo(16, 32), 22))
    VVC.encode(photo(16, 32), 33)
    hevc, decode, vvc = (" ".join(call) for call in calls())
    assert hevc.startswith(
        "-hide_banner -loglevel error -f rawvideo -pix_fmt yuv444p10le -video_size 32x16 -i -"
    )
    assert "-c:v libx265 -preset veryslow -tune psnr -x265-params qp=22:" in hevc and hevc.endswith(
        "-f hevc -"
    )
    assert "-f hevc -i - " in decode and decode.endswith("-f yuv4mpegpipe -")
    assert (
        "yuv420p10le" in vvc
        and "-c:v libvvenc -preset slow -qp 33 -qpa 0" in vvc
        and vvc.endswith("-f vvc -")
    )


def test_a_failure_is_one_line_with_the_reason(fake):
    fake(
        "sys.stderr.write('warm up\\n[libx265 @ 1] bad QP\\n[out#0/hevc] Nothing written\\n\\n'); sys.exit(3)"
    )
    with pytest.raises(CodecError) as caught:
        HEVC.encode(photo(16, 16), 31)
    assert str(caught.value) == "HEVC 4:4:4: ffmpeg failed (3): [libx265 @ 1] bad QP"


def test_a_failure_without_a_word_is_one_line_too(fake):
    fake("sys.exit(1)")
    with pytest.raises(CodecError, match="^VVC 4:2:0: ffmpeg failed \\(1\\): it wrote no reason$"):
        VVC.encode(photo(16, 16), 31)


def test_a_program_that_hangs_is_ended(fake):
    fake("time.sleep(60)")
    start = time.perf_counter()
    with pytest.raises(CodecError, match="took longer than 0.3 s, and was ended"):
        ffmpeg.run([], b"", timeout=0.3)
    assert time.perf_counter() - start < 10


def test_what_cannot_be_started_is_named(tmp_path):
    with pytest.raises(CodecError, match="did not start: No such file"):
        ffmpeg.run([], b"", path=str(tmp_path / "none"))


@pytest.mark.parametrize("answer", ["b''", "b'YUV4MPEG2 W16\\nFRAME\\n'", "b'YUV4MPEG2 W16 H16\\n'"])
def test_a_stream_without_a_picture_is_an_error(fake, answer):
    fake(f"write({answer}); sys.exit()")
    with pytest.raises(CodecError, match="ffmpeg decoded no picture"):
        HEVC.decode(b"\0stream")


def test_encoders_are_those_that_the_program_lists(fake):
    fake()
    path = ffmpeg.program()
    assert ffmpeg.has_encoder(path, "libx265") and not ffmpeg.has_encoder(path, "libx26")
    assert HEVC.missing() is None and VVC.missing() is None


# what is missing


def test_what_is_not_installed_is_one_line_with_the_command(nothing_installed):
    found, lines = choose(("jpeg", *KEYS, "jpeg"))
    assert found == [CODECS["jpeg"]]
    assert lines == [
        'JPEG XL is left out: pillow-jxl-plugin is not installed; pip install "dhp-lab[rivals]"',
        'HEVC 4:4:4 is left out: imageio-ffmpeg is not installed; pip install "dhp-lab[rivals]"',
        'VVC 4:2:0 is left out: imageio-ffmpeg is not installed; pip install "dhp-lab[rivals]"',
    ]
    for key in KEYS:
        with pytest.raises(CodecError, match="not installed"):
            CODECS[key].encode(photo(16, 16), CODECS[key].settings[0])


def test_an_ffmpeg_without_the_encoder_is_named(fake, monkeypatch):
    fake()
    monkeypatch.setattr(ffmpeg, "has_encoder", lambda path, encoder: encoder == "libx265")
    assert HEVC.missing() is None
    assert "was built without libvvenc; pip install" in VVC.missing()


def test_an_evaluation_goes_on_without_what_is_missing(nothing_installed):
    report = evaluate(None, [("a", photo())], codecs=("jpeg", "hevc"))
    assert {point.codec for point in report.points} == {"JPEG"}
    assert report.notes == [HEVC.missing()]
    assert HEVC.missing() in report.table()
    with pytest.raises(ValueError, match="nothing to measure.*imageio-ffmpeg is not installed"):
        evaluate(None, [("a", photo())], codecs=("vvc",))


def test_a_codec_that_fails_is_left_out_from_all_averages(fake):
    """It fails at the second picture: the first one's figures would be the mean of another set."""
    fake("if '32x16' in words: sys.exit(9)")
    pictures = [("a", photo(16, 16)), ("b", photo(16, 32))]
    report = evaluate(None, pictures, codecs=("jpeg", "hevc"))
    assert {point.codec for point in report.points} == {"JPEG"}
    assert report.notes[0].startswith("HEVC 4:4:4 is left out, it failed at b: HEVC 4:4:4: ffmpeg failed (9)")


# the real ones, where they are installed


@pytest.fixture(params=KEYS)
def rival(request):
    """A codec of the extra that can run here."""
    codec = CODECS[request.param]
    if line := codec.missing():
        pytest.skip(line)
    return codec


@pytest.mark.slow
def test_real_files_grow_with_the_setting_and_so_does_quality(rival):
    x = photo(96, 128, shift=64)
    rows = list(sweep(rival, "astronaut", x))
    assert [row.setting for row in rows] == list(rival.settings)
    assert all(a.n_bytes < b.n_bytes and a.psnr < b.psnr for a, b in itertools.pairwise(rows))


def test_real_files_of_the_smallest_and_of_odd_sizes(rival):
    for height, width in ((16, 16), (17, 33)):
        x = photo(height, width)
        data = rival.encode(x, rival.settings[-1])
        assert rival.decode(data).shape == x.shape
        assert psnr(rival.decode(data), x).item() > 37
        assert len(data) < height * width * 3


def test_real_streams_are_raw():
    for codec, first in (
        (HEVC, b"\0\0\0\1\x40\1"),
        (VVC, b"\0\0\0\1\0\x79"),
    ):  # a start code, then a parameter set
        if codec.missing() is None:
            assert codec.encode(photo(16, 16), 30)[1:].startswith(first)
    if JXL.missing() is None:
        assert JXL.encode(photo(16, 16), 50).startswith(b"\xff\x0a")


def test_real_errors_are_one_line():
    for codec in (HEVC, VVC):
        if codec.missing() is None:
            with pytest.raises(CodecError) as caught:
                codec.decode(b"\0no stream")
            assert "\n" not in str(caught.value) and str(caught.value).startswith(codec.name)
