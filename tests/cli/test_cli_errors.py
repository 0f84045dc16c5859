"""One clear line for everything that goes wrong with files, and nothing half-made is left behind."""

import os
import re
import resource

import pytest
from PIL import Image
from programs import dhp, refused, small_checkpoint

from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.model import DiffusionHyperprior


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
    assert dhp("info", tmp_path / "forged.dhp").exit_code == 0  # only a decoder can find out
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


def test_memory_errors_are_one_line(coded, tmp_path, checkpoint, monkeypatch):
    def huge(*_, **__):
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\nSecond line"
        )

    monkeypatch.setattr(DiffusionHyperprior, "decompress", huge)
    line = refused("decompress", coded, tmp_path / "a.png", "--model_path", checkpoint)
    assert line.startswith("dhp: not enough memory; try --low_memory, another --device: DefaultCPUAllocator")
    monkeypatch.setattr(DiffusionHyperprior, "decompress", lambda *_, **__: 1 / 0)
    result = dhp("decompress", coded, tmp_path / "a.png", "--model_path", checkpoint)
    assert isinstance(result.exception, ZeroDivisionError)  # a fault of ours keeps its traceback


@pytest.mark.parametrize(
    "arguments, function",
    [
        (["train", "--data_path", "x"], "dhp_lab.training.codec_trainer.train"),
        (["evaluate", "--data_path", "x"], "dhp_lab.evaluation.evaluate.run"),
        (["compress", "x.png", "x.dhp"], "dhp_lab.data.images.load_image"),
        (["train-lessons"], "dhp_lab.training.digit_denoiser.train_lessons"),
        (["draw-scenes", "x"], "dhp_lab.data.scenes.batch"),
        (["download", "kodak"], "dhp_lab.data.downloads.download"),
    ],
)
def test_advice_on_memory_fits_the_command(monkeypatch, tmp_path, arguments, function):
    def huge(*_, **__):
        raise MemoryError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(function, huge)
    line = refused(*arguments)
    assert line.startswith("dhp: not enough memory") and line.endswith("MemoryError\n")
    named = set(re.findall(r"--\w+", line))
    options = set(re.findall(r"--\w+", dhp(arguments[0], "--help").stdout))
    offered = {"--image_size", "--batch_size", "--effort", "--low_memory", "--device"}
    assert named == options & offered


def test_download_of_an_unknown_set():
    line = "no data set 'imagenet'; choose one of kodak, fashion-mnist, metric-networks"
    assert line in refused("download", "imagenet")


def test_download_of_networks_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("DHP_DATA", str(tmp_path))
    line = refused("download", "metric-networks")
    assert line.startswith(
        "dhp: HF_HUB_OFFLINE is set, nothing is fetched; run `dhp download metric-networks`"
    )
    assert f"into {tmp_path}/metric-networks by hand" in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
