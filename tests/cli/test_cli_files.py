"""The program dhp: real files in, real files out, and one clear line for everything that goes wrong."""

import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dhp_lab.cli import app
from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.create import create_diffusion_hyperprior_model
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core import paths, weights
from dhp_lab.data.images import LOSSLESS, load_image, to_pixels


def dhp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(*arguments) -> str:
    """The one line on stderr of a command that must fail with exit code 1 and say nothing else."""
    result = dhp(*arguments)
    assert (result.exit_code, result.stdout) == (1, ""), (result.stdout, result.exception)
    assert result.stderr.startswith("dhp: ") and result.stderr.count("\n") == 1
    return result.stderr


def small_checkpoint(folder, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = create_diffusion_hyperprior_model(N=16, M=32, diffusion_steps=10)
    model.update()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return small_checkpoint(tmp_path_factory.mktemp("small_model"), 0)


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    rows, columns = np.mgrid[0:40, 0:56]
    pixels = np.stack([rows * 6, columns * 4, 128 + 60 * np.sin(rows / 3) * np.cos(columns / 5)], -1).astype(
        np.uint8
    )
    path = tmp_path_factory.mktemp("picture") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def coded(tmp_path_factory, checkpoint, picture):
    path = tmp_path_factory.mktemp("coded") / "photo.dhp"
    result = dhp("compress", picture, path, "--model_path", checkpoint, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    return path


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
def test_conversions_are_told(checkpoint, tmp_path, mode, note):
    Image.new(mode, (20, 17)).save(tmp_path / "in.png")
    result = dhp("compress", tmp_path / "in.png", tmp_path / "out.dhp", "--model_path", checkpoint)
    assert result.exit_code == 0 and note in result.stdout, result.stderr


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


def test_info_knows_pictures_beyond_the_limit(tmp_path, no_shipped_checkpoint):
    strings = [[b"y"], [b"z"], [(20480).to_bytes(2, "big") + bytes(8)]]
    (tmp_path / "big.dhp").write_bytes(bitstream.write(strings, (20_000, 20_000), model_id=bytes(8)))
    result = dhp("info", tmp_path / "big.dhp")
    assert result.exit_code == 0 and "decompress needs --max_megapixels 400" in result.stdout
    assert "picture too large" in refused("decompress", tmp_path / "big.dhp", tmp_path / "a.png")


def test_damage_is_one_line_and_leaves_nothing(checkpoint, coded, tmp_path):
    data, damaged = coded.read_bytes(), tmp_path / "damaged.dhp"
    for content, message in (
        (data[:20] + b"?" + data[21:], "damaged header"),
        (data[:-1] + bytes([data[-1] ^ 1]), "damaged streams"),
        (data[:-1], "1 are missing"),
        (data + b"\n", "unexpected bytes after the end"),
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n", "PNG picture"),
    ):
        damaged.write_bytes(content)
        for line in (refused("info", damaged), refused("decompress", damaged, tmp_path / "a.png")):
            assert message in line and str(damaged) in line
        assert os.listdir(tmp_path) == ["damaged.dhp"]


def test_symbols_that_decode_wrongly_are_noticed(checkpoint, coded, tmp_path):
    file = bitstream.read(coded.read_bytes())
    side = file.side[:6] + bytes(b ^ 255 for b in file.side[6:])  # another CRC of the symbols of y
    forged = bitstream.write([[file.y], [file.z], [side]], file.shape, model_id=file.model_id)
    (tmp_path / "forged.dhp").write_bytes(forged)
    assert dhp("info", tmp_path / "forged.dhp").exit_code == 0  # only a decoder can know
    refused("decompress", tmp_path / "forged.dhp", tmp_path / "a.png", "--model_path", checkpoint)
    assert os.listdir(tmp_path) == ["forged.dhp"]


def test_wrong_model_is_refused(coded, tmp_path):
    other = small_checkpoint(tmp_path / "other", 1)
    line = refused("decompress", coded, tmp_path / "a.png", "--model_path", other)
    assert "wrong model" in line and bitstream.read(coded.read_bytes()).model_id.hex() in line
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"passes": 4}, "the header contradicts its model: entropy passes 4"),
        ({"transmit": "z", "y": b""}, "the header contradicts its model: transmit z"),
        ({"y": b""}, "y has 0 bytes where"),
    ],
)
def test_a_header_that_contradicts_its_model_is_one_line(checkpoint, coded, tmp_path, change, message):
    """All its checksums are right, as those of a file that another program wrote wrongly."""
    file = bitstream.read(coded.read_bytes())
    fields = {"y": file.y, "transmit": file.transmit, "passes": file.passes} | change
    strings = [[fields.pop("y")], [file.z], [file.side]]
    forged = bitstream.write(strings, file.shape, model_id=file.model_id, **fields)
    (tmp_path / "forged.dhp").write_bytes(forged)
    assert dhp("info", tmp_path / "forged.dhp").exit_code == 0  # without a model nothing contradicts
    arguments = (tmp_path / "forged.dhp", tmp_path / "a.png", "--model_path", checkpoint)
    assert message in refused("decompress", *arguments)
    assert os.listdir(tmp_path) == ["forged.dhp"]


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


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--steps", "-1", "--steps must lie in 0 .. 1000, got -1"),
        ("--steps", "1001", "--steps must lie in"),
        ("--gamma", "1.5", "--gamma must lie in 0 .. 1, got 1.5"),
        ("--gamma", "nan", "--gamma must lie in 0 .. 1, got nan"),
        ("--seed", "-1", "--seed must lie in"),
        ("--max_megapixels", "-3", "--max_megapixels must lie in"),
        ("--max_megapixels", "0.002", "picture too large: 56 x 40 = 2240 pixels, the limit is 2000"),
        ("--device", "tpu", "device is 'tpu'"),
        ("--model_path", "/nowhere", "/nowhere"),
    ],
)
def test_bad_options_of_decompress(coded, tmp_path, option, value, message):
    assert message in refused("decompress", coded, tmp_path / "a.png", option, value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", ["0", "1e-7", "0.2", "-1", "nan", "inf"])
def test_bad_lambda(picture, tmp_path, value):
    assert "lambda_rate must lie in" in refused(
        "compress", picture, tmp_path / "a.dhp", "--lambda_rate", value
    )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", ["1e-6", "1e-1"])
def test_the_ends_of_lambda(checkpoint, picture, tmp_path, value):
    options = ["--model_path", checkpoint, "--device", "cpu"]
    result = dhp("compress", picture, tmp_path / "a.dhp", "--lambda_rate", value, *options)
    assert result.exit_code == 0, result.stderr
    assert dhp("decompress", tmp_path / "a.dhp", tmp_path / "a.png", *options).exit_code == 0


def test_outputs_are_not_overwritten_unasked(checkpoint, picture, coded, tmp_path):
    for command, source, target in (("compress", picture, "a.dhp"), ("decompress", coded, "a.png")):
        (tmp_path / target).write_bytes(b"mine")
        assert "exists; --force" in refused(command, source, tmp_path / target, "--model_path", checkpoint)
        assert (tmp_path / target).read_bytes() == b"mine"
        assert dhp(command, source, tmp_path / target, "--model_path", checkpoint, "--force").exit_code == 0
        assert (tmp_path / target).read_bytes() != b"mine"


def test_impossible_outputs(picture, coded, tmp_path):
    (tmp_path / "folder.dhp").mkdir()
    (tmp_path / "link.dhp").symlink_to(tmp_path / "nothing")
    copy = tmp_path / "copy.dhp"
    copy.write_bytes(coded.read_bytes())
    for source, target, message in (
        (picture, tmp_path / "no" / "a.dhp", "no folder"),
        (picture, tmp_path / "a.png", "must end in .dhp"),
        (picture, tmp_path / "folder.dhp", "not a regular file"),
        (picture, tmp_path / "link.dhp", "exists"),
        (copy, copy, "is the input itself"),
    ):
        assert message in refused("compress", source, target)
    for name in ("a.jpg", "a", "a.dhp"):
        assert "must end in .png" in refused("decompress", coded, tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["copy.dhp", "folder.dhp", "link.dhp"]


def test_bad_inputs(coded, tmp_path):
    Image.new("RGB", (15, 40)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, message in (("missing.png", "missing.png"), ("small.png", "16"), ("text.png", "text.png")):
        assert message in refused("compress", tmp_path / name, tmp_path / "a.dhp")
    for source in (tmp_path / "missing.dhp", tmp_path):
        assert str(source) in refused("info", source)
    assert "not a picture" in refused("compress", coded, tmp_path / "a.dhp")


@pytest.mark.parametrize(("command", "name"), [("compress", "a.dhp"), ("decompress", "a.png")])
def test_a_full_disk_leaves_the_old_file_alone(checkpoint, picture, coded, tmp_path, command, name):
    source = picture if command == "compress" else coded
    (tmp_path / name).write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))  # no file may grow beyond 20 bytes
    try:
        line = refused(command, source, tmp_path / name, "--force", "--model_path", checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path / name) in line and "too large" in line
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"old"


@pytest.mark.parametrize(("command", "name"), [("compress", "a.dhp"), ("decompress", "a.png")])
def test_an_interrupt_leaves_nothing(checkpoint, picture, coded, tmp_path, monkeypatch, command, name):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    result = dhp(
        command, picture if command == "compress" else coded, tmp_path / name, "--model_path", checkpoint
    )
    assert result.exit_code != 0 and os.listdir(tmp_path) == []


@pytest.mark.parametrize(("command", "name"), [("compress", "a.dhp"), ("decompress", "a.png")])
def test_outputs_have_ordinary_permissions(checkpoint, picture, coded, tmp_path, command, name):
    old = os.umask(0o027)
    try:
        dhp(command, picture if command == "compress" else coded, tmp_path / name, "--model_path", checkpoint)
    finally:
        os.umask(old)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640


def test_memory_errors_are_one_line(coded, tmp_path, checkpoint, monkeypatch):
    def huge(*_, **__):
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\nSecond line"
        )

    monkeypatch.setattr(DiffusionHyperprior, "decompress", huge)
    assert "not enough memory" in refused("decompress", coded, tmp_path / "a.png", "--model_path", checkpoint)
    monkeypatch.setattr(DiffusionHyperprior, "decompress", lambda *_, **__: 1 / 0)
    result = dhp("decompress", coded, tmp_path / "a.png", "--model_path", checkpoint)
    assert isinstance(result.exception, ZeroDivisionError)  # a fault of ours keeps its traceback


def test_download_of_an_unknown_set():
    assert "no data set 'imagenet'; choose one of kodak, fashion-mnist" in refused("download", "imagenet")


def test_help_and_info_do_not_load_torch(coded):
    script = (
        "import sys; from typer.testing import CliRunner; from dhp_lab.cli import app\n"
        "calls = [['--help'], *([name, '--help'] for name in sys.argv[2:]), ['info', sys.argv[1]]]\n"
        "for arguments in calls:\n"
        "    result = CliRunner().invoke(app, arguments)\n"
        "    assert result.exit_code == 0, result.output\n"
        "assert 'bpp' in result.stdout and not {'torch', 'numpy', 'compressai'} & set(sys.modules)"
    )
    commands = ["compress", "decompress", "train", "train-lessons", "train-scenes", "draw-scenes", "evaluate"]
    done = subprocess.run([sys.executable, "-c", script, coded, *commands], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
