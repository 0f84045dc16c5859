"""The realism benchmark and the contact sheet: every way of decoding a file, controls, differences."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from models import picture, woken
from oracles import largest
from PIL import Image
from realism_codecs import SIZE, codec

from dhp_lab.codec import dhp_file
from dhp_lab.codec.denoising.expected_error import BANDS
from dhp_lab.codec.denoising.residual_unet import Conditions
from dhp_lab.evaluation.classical import JPEG, CodecError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FIGURES = "--metrics", "psnr,texture", "--codecs", "jpeg", "--lambda_rates", "1e-2"


@pytest.fixture
def script(monkeypatch):
    """A benchmark as a module."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module


def measured(script, monkeypatch, tmp_path, model, *options) -> dict:
    """What the benchmark writes of two small photos."""
    module, output = script("realism"), tmp_path / "realism.json"
    monkeypatch.setattr(module, "load_codec", lambda *_: model)
    photos = [(f"{seed}.png", picture(*SIZE, seed=seed)) for seed in (1, 2)]
    monkeypatch.setattr(module, "photos_of", lambda _: iter(photos))
    module.main([*FIGURES, *options, "--output", str(output)])
    assert output.with_suffix(".md").read_text("utf-8") == module.table(json.loads(output.read_text())) + "\n"
    return json.loads(output.read_text())


# the ways


def test_a_file_is_decoded_as_it_is_elsewhere(script):
    decoders, model = script("realism_decoders"), codec()
    data = dhp_file.encode(model, picture(*SIZE), lambda_rate=1e-2)
    found = dict(decoders.decode_every_way(model, data, steps=(2, 3), gammas=(0.0, 0.5), seed=3))
    for way, x_hat in found.items():
        assert x_hat.shape == (1, 3, *SIZE) and x_hat.min() >= 0 and x_hat.max() <= 1
        if way.decoder in ("K = 0", "K = 1", decoders.REALISM):
            whole = dhp_file.decode(model, data, steps=way.steps, gamma=way.gamma or 0.0, seed=3)
            assert largest(whole - x_hat) < 1e-6, way.name
    model.realism = None
    chain = dhp_file.decode(model, data, steps=4, seed=3)
    assert largest(chain - found[decoders.Way(decoders.CHAIN, 4)]) < 1e-6
    names = [way.name for way, _ in decoders.decode_every_way(model, data)]
    assert names == ["K = 0", "K = 1", "K = 1 + white noise", "latent chain, K = 4"]


def test_the_white_noise_is_as_strong_as_the_expected_error(script):
    decoders, errors = script("realism_decoders"), torch.full((1, 1 + BANDS, 8, 8), 0.05)
    errors[..., 4:] = 0.2
    clean = Conditions(picture(128, 128), errors, torch.zeros(1))
    noise = decoders.with_white_noise(clean, 0) - clean.picture
    for part, expected in ((noise[..., :48], 0.05), (noise[..., 80:], 0.2)):
        assert part.std().item() == pytest.approx(expected, rel=0.03)
        assert abs(part.mean().item()) < 0.05 * expected
    assert torch.equal(decoders.with_white_noise(clean, 0), clean.picture + noise)


def test_errors_spread_evenly_are_the_root_mean_square(script):
    errors = torch.rand(2, 1 + BANDS, 3, 4) + 0.1
    given = Conditions(picture(48, 64, count=2), errors, torch.zeros(2))
    even = script("realism_decoders").with_even_errors(given)
    assert torch.allclose(even.errors.square().mean((2, 3)), errors.square().mean((2, 3)))
    assert even.errors.std((2, 3)).max() < 1e-6 and even.picture is given.picture


def test_another_codecs_file_is_the_largest_that_is_no_larger(script):
    nearest_below, x = script("realism_decoders").nearest_below, picture(64, 64)
    sizes = [len(JPEG.encode(x, quality)) for quality in range(1, 101)]
    found = nearest_below("jpeg", x, 2000)
    assert found.n_bytes == max(size for size in sizes if size <= 2000)
    assert nearest_below("jpeg", x, 10).n_bytes == sizes[0] > 10, "none is so small"
    assert found.picture.shape == x.shape


# the benchmark


def test_every_way_has_a_row_and_every_control_a_difference(script, monkeypatch, tmp_path):
    found = measured(script, monkeypatch, tmp_path, codec(), "--steps", "2,3", "--gammas", "0,0.5")
    assert [(row["decoder"], row["K"], row["gamma"]) for row in found["rows"]] == [
        ("K = 0", 0, None),
        ("K = 1", 1, None),
        *(("realism", k, gamma) for k in (2, 3) for gamma in (0, 0.5)),
    ]
    controls = [row["decoder"] for row in found["controls"]]
    assert controls == [
        "K = 1 + white noise",
        "latent chain",
        "realism, errors spread evenly",
        "JPEG",
    ]
    assert len({row["bpp"] for row in found["rows"]}) == 1
    pairs = [(one["of"], one["less"]) for one in found["differences"]]
    assert pairs[0] == ("K = 1", "K = 0") and all(of == "realism, K = 3" for of, _ in pairs[1:])
    assert {less for _, less in pairs[1:]} == {
        "K = 0",
        "K = 1",
        "K = 1 + white noise",
        "latent chain, K = 4",
        "realism, K = 2",
        "realism, errors spread evenly, K = 3",
        "JPEG",
    }
    by_name = {row["decoder"]: row for row in (*found["rows"][:2], *found["controls"])}
    gain = found["differences"][0]["psnr"]
    assert gain["value"] == pytest.approx(by_name["K = 1"]["psnr"] - by_name["K = 0"]["psnr"])
    assert gain["low"] <= gain["value"] <= gain["high"]


@pytest.mark.parametrize("name", ["realism", "contact_sheet"])
def test_a_checkpoint_that_is_missing_is_one_line(script, tmp_path, name):
    options = ["--model_path", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out.png")]
    with pytest.raises(SystemExit, match="no checkpoint at .*nowhere"):
        script(name).main(options)


def test_without_a_realism_part_its_rows_are_left_out_with_a_line(script, monkeypatch, tmp_path):
    found = measured(script, monkeypatch, tmp_path, woken(N=4, M=24), "--model_path", "some/codec")
    assert [row["decoder"] for row in found["rows"]] == ["K = 0", "K = 1"]
    assert "codec has no realism part, so there are no rows of it: `dhp train-realism`" in found["notes"][0]
    pairs = [(one["of"], one["less"]) for one in found["differences"]]
    assert pairs == [("K = 1", "K = 0"), ("latent chain, K = 4", "K = 1 + white noise")]


def test_a_codec_that_fails_and_networks_that_are_missing_are_named(script, monkeypatch, tmp_path):
    def fail(key, x, n_bytes):
        raise CodecError("its program ended with 1")

    monkeypatch.setenv("DHP_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(script("realism"), "nearest_below", fail)
    found = measured(script, monkeypatch, tmp_path, codec(), "--metrics", "psnr,dists,patch-kid")
    lines = "\n".join(found["notes"])
    assert "dists is left out: " in lines and "patch-kid is left out: " in lines
    assert str(tmp_path) not in lines, "no folder of the machine is named"
    assert "JPEG is left out, it failed at 1.png: its program ended with 1" in lines
    assert "JPEG" not in [row["decoder"] for row in found["controls"]]
    assert "dists" not in found["rows"][0]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--steps", "1"], "it must lie in 2 .. 1000, got 1"),
        (["--gammas", "2"], "it must lie in 0 .. 1, got 2"),
        (["--steps", "two"], "'two' is no number"),
        (["--codecs", "gif"], "there is no 'gif'; choose from jpeg"),
        (["--metrics", "fid"], "there is no 'fid'; choose from psnr"),
    ],
)
def test_options_out_of_range_are_refused(script, capsys, options, message):
    with pytest.raises(SystemExit):
        script("realism").main(options)
    assert message in capsys.readouterr().err


# the contact sheet


def drawn_sheet(script, monkeypatch, output: Path, *options: str):
    module = script("contact_sheet")
    crops = module.Crop("sky", "a", 10, 10), module.Crop("text", "b", 0, 6)
    monkeypatch.setattr(module, "CROPS", crops)
    monkeypatch.setattr(module, "load", lambda name: picture(160, 160, seed=ord(name)))
    monkeypatch.setattr(module, "load_codec", lambda *_: codec())
    given = ["--steps", "2", "--codecs", "jpeg", "--lambda_rates", "1e-2,1e-3"]
    module.main([*given, *options, "--output", str(output)])
    return module


def test_a_sheet_has_a_row_for_each_crop_and_rate(script, monkeypatch, tmp_path, capsys):
    output = tmp_path / "sheet.png"
    module = drawn_sheet(script, monkeypatch, output)
    sheet = Image.open(output)
    side, gap, line = module.SIDE, module.GAP, module.LINE
    assert sheet.size == (5 * (side + gap) - gap, line + 4 * (side + line + gap))
    original = module.to_pixels(module.CROPS[1].of(picture(160, 160, seed=ord("b"))))
    top = line + 3 * (side + line + gap)
    assert sheet.crop((0, top, side, top + side)).tobytes() == original.tobytes()
    assert (
        f"{output}: {sheet.width} x {sheet.height}, {output.stat().st_size} bytes" in capsys.readouterr().out
    )


def test_a_sheet_fits_into_its_kilobytes(script, monkeypatch, tmp_path):
    output = tmp_path / "sheet.webp"
    drawn_sheet(script, monkeypatch, output, "--kilobytes", "60")
    assert 20_000 < output.stat().st_size <= 60_000
    with pytest.raises(SystemExit, match="more than 10000: raise --kilobytes"):
        drawn_sheet(script, monkeypatch, tmp_path / "sheet.png", "--kilobytes", "10")
    assert not (tmp_path / "sheet.png").exists()


def test_every_crop_lies_in_its_photo(script):
    module = script("contact_sheet")
    assert len(module.CROPS) == 10
    for crop in module.CROPS:
        assert crop.of(module.load(crop.photo)).shape == (1, 3, module.SIDE, module.SIDE), crop


def test_every_label_fits_under_its_crop(script):
    module = script("contact_sheet")
    font = module.ImageFont.load_default(module.LETTERS)
    words = [f"{crop.shows}, lambda 0.0075" for crop in module.CROPS] + ["123456 bytes, 12.34 bpp"]
    assert max(font.getlength(one) for one in words) <= module.SIDE + module.GAP


def test_a_sheet_needs_a_realism_part_and_a_picture_to_write(script, monkeypatch, tmp_path, capsys):
    module = script("contact_sheet")
    monkeypatch.setattr(module, "load_codec", lambda *_: woken(N=4, M=24))
    with pytest.raises(SystemExit, match="some/codec has no realism part: name a checkpoint that holds"):
        module.main(["--model_path", "some/codec", "--output", str(tmp_path / "sheet.png")])
    for options, message in (
        ([], "--output must end in .webp or .png, got None"),
        (["--output", "sheet.gif"], "--output must end in .webp or .png, got sheet.gif"),
        (["--output", "sheet.png", "--steps", "1"], "--steps must be at least 2"),
    ):
        with pytest.raises(SystemExit):
            module.main(options)
        assert message in capsys.readouterr().err
