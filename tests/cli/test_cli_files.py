"""`dhp compress`, `decompress` and `info`: real files in, real files out."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from programs import dhp, refused, small_checkpoint

from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core import paths, weights
from dhp_lab.data.images import LOSSLESS, load_image, to_pixels


@pytest.fixture
def no_shipped_checkpoint(monkeypatch):
    def missing():
        raise weights.CheckpointError("the shipped checkpoint is not there")

    monkeypatch.setattr(paths, "default_checkpoint", missing)


def test_compress_writes_what_the_model_says(checkpoint, picture, coded, tmp_path):
    model = DiffusionHyperprior.from_pretrained(checkpoint)
    expected = model.compress(load_image(picture)[0], lambda_rate=1e-3)
    file = bitstream.read(coded.read_bytes())
    assert (file.strings, file.shape) == (expected["strings"], (40, 56))
    assert (file.model_id, file.transmit) == (model.model_id, "z+y")
    assert file.lambda_rate == pytest.approx(1e-3, rel=4e-4)
    result = dhp("compress", picture, tmp_path / "a.dhp", "--model_path", checkpoint, "--lambda_rate", "1e-2")
    size = (tmp_path / "a.dhp").stat().st_size
    assert result.stdout.startswith(f"{tmp_path / 'a.dhp'}: {size} bytes, {size * 8 / 2240:.3f} bpp, ")
    assert result.stdout.count("\n") == 1 and os.listdir(tmp_path) == ["a.dhp"]


@pytest.mark.parametrize("options", [{}, {"steps": 0}, {"steps": 3, "gamma": 0.5, "seed": 7}])
def test_decompress_writes_what_the_model_says(checkpoint, coded, tmp_path, options):
    file = bitstream.read(coded.read_bytes())
    expected = DiffusionHyperprior.from_pretrained(checkpoint).decompress(
        file.strings, file.shape, **options
    )["x_hat"]
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    result = dhp(
        "decompress", coded, tmp_path / "a.png", "--model_path", checkpoint, "--device", "cpu", *flags
    )
    assert result.exit_code == 0 and result.stdout.startswith(f"{tmp_path / 'a.png'}: 56 x 40 pixels, "), (
        result.stderr
    )
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), to_pixels(expected))
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.slow
def test_another_process_gives_the_identical_picture(checkpoint, coded, tmp_path):
    options = ["--model_path", checkpoint, "--device", "cpu", "--steps", "2", "--seed", "3"]
    assert dhp("decompress", coded, tmp_path / "here.png", *options).exit_code == 0
    command = [sys.executable, "-m", "dhp_lab.cli", "decompress", coded, tmp_path / "there.png", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()


@pytest.mark.parametrize("suffix", list(LOSSLESS))
def test_every_output_format_is_lossless(checkpoint, coded, tmp_path, suffix):
    for path in (tmp_path / "a.png", tmp_path / f"b{suffix}"):
        assert dhp("decompress", coded, path, "--model_path", checkpoint, "--device", "cpu").exit_code == 0
    assert torch.equal(load_image(tmp_path / "a.png")[0], load_image(tmp_path / f"b{suffix}")[0])


@pytest.mark.parametrize(("mode", "note"), [("L", "grey picture"), ("RGBA", "transparency dropped")])
def test_conversions_are_reported(checkpoint, tmp_path, mode, note):
    Image.new(mode, (20, 17)).save(tmp_path / "in.png")
    result = dhp("compress", tmp_path / "in.png", tmp_path / "out.dhp", "--model_path", checkpoint)
    assert result.exit_code == 0 and note in result.stdout, result.stderr


def test_the_limit_of_compress_has_a_remedy(checkpoint, picture, tmp_path):
    options = ("--model_path", checkpoint, "--device", "cpu")
    line = refused("compress", picture, tmp_path / "a.dhp", "--max_megapixels", "0.002", *options)
    assert f"{picture}: 56 x 40 pixels, the limit is 0.002 megapixels" in line
    assert "max_megapixels 1" in line and "attack" not in line
    result = dhp("compress", picture, tmp_path / "a.dhp", "--max_megapixels", "1", *options)
    assert result.exit_code == 0 and (tmp_path / "a.dhp").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("encoding, shown", [("utf-8:strict", b"caf\\udce9"), ("ascii:strict", b"caf?")])
def test_any_file_name_can_be_printed(checkpoint, picture, tmp_path, encoding, shown):
    name = os.fsencode(tmp_path) + b"/caf\xe9\xc3\xa9"
    shutil.copy(picture, name + b".png")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "dhp_lab.cli"]
    for command in (
        ["compress", name + b".png", name + b".dhp", "--model_path", checkpoint, "--device", "cpu"],
        ["info", name + b".dhp"],
    ):
        done = subprocess.run([*program, *command], capture_output=True, env=environment)
        assert (done.returncode, done.stderr) == (0, b"") and shown in done.stdout
    done = subprocess.run([*program, "info", name + b".png"], capture_output=True, env=environment)
    assert done.returncode == 1 and done.stderr.startswith(b"dhp: ") and done.stderr.count(b"\n") == 1


def test_preview_of_a_file_that_was_cut_off(checkpoint, coded, tmp_path):
    file = bitstream.read(coded.read_bytes())
    cut, whole = tmp_path / "cut.dhp", coded.read_bytes()
    cut.write_bytes(whole[: 48 + len(file.z) + len(file.y) // 2])
    assert "--preview" in refused("decompress", cut, tmp_path / "a.png", "--model_path", checkpoint)
    for source, target in ((cut, "cut.png"), (coded, "whole.png")):
        result = dhp("decompress", source, tmp_path / target, "--preview", "--model_path", checkpoint)
        assert result.exit_code == 0 and "preview from z alone" in result.stdout, result.stderr
    model = DiffusionHyperprior.from_pretrained(checkpoint)
    expected = to_pixels(model.decompress([[None], [file.z], [file.side]], file.shape)["x_hat"])
    for name in ("cut.png", "whole.png"):
        assert np.array_equal(np.asarray(Image.open(tmp_path / name)), expected)
    cut.write_bytes(whole[: 48 + len(file.z) - 1])
    assert "no preview" in refused(
        "decompress", cut, tmp_path / "b.png", "--preview", "--model_path", checkpoint
    )


def test_info_shows_the_header(checkpoint, coded, monkeypatch):
    file = bitstream.read(coded.read_bytes())
    size = coded.stat().st_size
    monkeypatch.setattr(paths, "default_checkpoint", lambda: checkpoint)
    result = dhp("info", coded)
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert result.exit_code == 0
    assert rows["file"] == f"{coded}, version 1, {size} bytes, {size * 8 / 2240:.3f} bpp"
    assert (rows["picture"], rows["lambda_rate"]) == ("56 x 40 pixels", "0.001")
    assert rows["transmit"] == "z+y, 1 entropy pass"
    assert rows["z"].startswith(f"{len(file.z)} bytes") and rows["y"].startswith(f"{len(file.y)} bytes")
    assert rows["model"] == f"{file.model_id.hex()}, the shipped checkpoint"
    assert rows["checks"].endswith("good")


def test_info_names_another_model(checkpoint, coded, tmp_path, no_shipped_checkpoint):
    assert "cannot be compared" in dhp("info", coded).stdout
    assert dhp("info", coded, "--model_path", checkpoint).exit_code == 0
    other = small_checkpoint(tmp_path / "other", 1)
    result = dhp("info", coded, "--model_path", other)
    assert result.exit_code == 1 and f"not {other}" in result.stdout and "dhp: wrong model" in result.stderr
    assert "no checkpoint at" in refused("info", coded, "--model_path", tmp_path)


def test_info_reads_pictures_beyond_the_limit(tmp_path, no_shipped_checkpoint):
    strings = [[b"y"], [b"z"], [(20480).to_bytes(2, "big") + bytes(8)]]
    (tmp_path / "big.dhp").write_bytes(bitstream.write(strings, (20_000, 20_000), model_id=bytes(8)))
    result = dhp("info", tmp_path / "big.dhp")
    assert result.exit_code == 0 and "decompress needs --max_megapixels 400" in result.stdout
    assert "picture too large" in refused("decompress", tmp_path / "big.dhp", tmp_path / "a.png")


@pytest.mark.parametrize("flag", ["--low_memory", "--spare_memory"])
def test_low_memory_reads_and_writes_files(checkpoint, picture, coded, tmp_path, monkeypatch, flag):
    called = []
    low_memory = DiffusionHyperprior.low_memory

    def counted(model):
        called.append(model)
        return low_memory(model)

    monkeypatch.setattr(DiffusionHyperprior, "low_memory", counted)
    options = [flag, "--model_path", checkpoint, "--device", "cpu"]
    assert dhp("compress", picture, tmp_path / "a.dhp", *options).exit_code == 0
    assert dhp("decompress", coded, tmp_path / "a.png", *options).exit_code == 0
    assert len(called) == 2


@pytest.mark.parametrize("value", ["1e-6", "1e-1"])
def test_the_ends_of_lambda(checkpoint, picture, tmp_path, value):
    options = ["--model_path", checkpoint, "--device", "cpu"]
    result = dhp("compress", picture, tmp_path / "a.dhp", "--lambda_rate", value, *options)
    assert result.exit_code == 0, result.stderr
    assert dhp("decompress", tmp_path / "a.dhp", tmp_path / "a.png", *options).exit_code == 0


@pytest.mark.parametrize(("command", "name"), [("compress", "a.dhp"), ("decompress", "a.png")])
def test_outputs_have_ordinary_permissions(checkpoint, picture, coded, tmp_path, command, name):
    old = os.umask(0o027)
    try:
        dhp(command, picture if command == "compress" else coded, tmp_path / name, "--model_path", checkpoint)
    finally:
        os.umask(old)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640


def test_help_and_info_do_not_load_torch(coded):
    script = (
        "import sys; from typer.testing import CliRunner; from dhp_lab.cli import app\n"
        "calls = [['--help'], *([name, '--help'] for name in sys.argv[2:]), ['info', sys.argv[1]]]\n"
        "for arguments in calls:\n"
        "    result = CliRunner().invoke(app, arguments)\n"
        "    assert result.exit_code == 0, result.output\n"
        "assert 'bpp' in result.stdout and not {'torch', 'numpy', 'compressai'} & set(sys.modules)"
    )
    commands = [
        "compress",
        "decompress",
        "train",
        "train-lessons",
        "train-scenes",
        "draw-scenes",
        "evaluate",
        "lessons",
    ]
    done = subprocess.run([sys.executable, "-c", script, coded, *commands], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
