"""`dhp compress --effort`: the bar, an interruption, and what is refused."""

import os

import pytest
import torch
from programs import dhp, refused, small_checkpoint

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits.bitstream import HEADER_BYTES
from dhp_lab.codec.latent_optimiser import Window
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.images import load_image


def test_the_file_is_the_librarys_and_the_bar_shows_seconds_and_bits(checkpoint, picture, tmp_path):
    result = dhp("compress", picture, tmp_path / "a.dhp", "--model_path", checkpoint, "--effort", 1)
    model, x = DiffusionHyperprior.from_pretrained(checkpoint), load_image(picture)[0]
    assert (tmp_path / "a.dhp").read_bytes() == dhp_file.encode(model, x, effort=1)
    assert "effort 1: 100%" in result.stderr and "3/3" in result.stderr
    assert "s left" in result.stderr and "of the bits saved at equal quality" in result.stderr
    assert result.stdout.count("\n") == 1


def test_effort_0_shows_no_bar(checkpoint, picture, tmp_path):
    result = dhp("compress", picture, tmp_path / "a.dhp", "--model_path", checkpoint)
    assert result.stderr == "" and (tmp_path / "a.dhp").stat().st_size > HEADER_BYTES


def test_ctrl_c_writes_the_best_file_so_far(checkpoint, picture, tmp_path, monkeypatch):
    done = []
    iterate = Window._iterate

    def interrupted(self, *arguments):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(None)
        return iterate(self, *arguments)

    monkeypatch.setattr(Window, "_iterate", interrupted)
    result = dhp("compress", picture, tmp_path / "a.dhp", "--model_path", checkpoint, "--effort", 9)
    assert result.exit_code == 0 and os.listdir(tmp_path) == ["a.dhp"]
    assert dhp("info", tmp_path / "a.dhp", "--model_path", checkpoint).exit_code == 0
    assert "5/200" in result.stderr and "stopped at iteration 5 of 200" in result.stdout


@pytest.mark.parametrize("value", [-1, 10])
def test_efforts_out_of_range_are_refused(picture, tmp_path, value):
    line = refused("compress", picture, tmp_path / "a.dhp", "--effort", value)
    assert line.strip() == f"dhp: --effort must lie in 0 .. 9, got {value}"
    assert not os.listdir(tmp_path)


def test_z_alone_is_refused(picture, tmp_path_factory, tmp_path):
    folder = small_checkpoint(tmp_path_factory.mktemp("z_alone"), 0, transmit="z")
    line = refused("compress", picture, tmp_path / "a.dhp", "--model_path", folder, "--effort", 3)
    assert line.strip() == "dhp: effort 3 optimises y, and this model sends z alone: use effort 0"
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_too_little_memory_leaves_no_output(checkpoint, picture, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error("out of memory")

    monkeypatch.setattr(Window, "_iterate", fail)
    line = refused("compress", picture, tmp_path / "a.dhp", "--model_path", checkpoint, "--effort", 2)
    assert line.strip() == (
        "dhp: not enough memory for effort 2: take a lower effort, or smaller tiles (--low_memory)"
    )
    assert not os.listdir(tmp_path)
