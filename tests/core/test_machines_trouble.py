"""Memory or disk that fails while a sound file is read: the error stays what it is, and nothing is called
damaged.
"""

from __future__ import annotations

import errno

import pytest
import torch

from dhp_lab.codec import DiffusionHyperprior
from dhp_lab.core.memory import is_out_of_memory, raise_if_of_the_machine
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.latent.autoencoders import load_autoencoder
from dhp_lab.latent.folder import as_checkpoint_error
from dhp_lab.training.digit_denoiser import load_denoiser

SHORTAGE = RuntimeError(
    "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"
)
BROKEN_DISK = OSError(errno.EIO, "Input/output error", "x.safetensors")


def failing(error: Exception):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("error", [SHORTAGE, BROKEN_DISK, MemoryError()])
def test_what_is_of_the_machine_is_raised_again(error):
    with pytest.raises(type(error)) as caught:
        raise_if_of_the_machine(error)
    assert caught.value is error


@pytest.mark.parametrize("error", [RuntimeError("size mismatch for x"), OSError("not a file"), KeyError("x")])
def test_what_is_of_the_file_is_not(error):
    raise_if_of_the_machine(error)


def test_a_codec_is_not_called_another_version(monkeypatch):
    monkeypatch.setattr(DiffusionHyperprior, "load_state_dict", failing(SHORTAGE))
    with pytest.raises(RuntimeError) as caught:
        DiffusionHyperprior.from_pretrained(CHECKPOINTS / "z-only")
    assert is_out_of_memory(caught.value)


def test_a_lessons_denoiser_is_not_called_another_version(monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", failing(SHORTAGE))
    with pytest.raises(RuntimeError) as caught:
        load_denoiser("digits")
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [SHORTAGE, BROKEN_DISK])
def test_an_autoencoder_is_not_called_damaged(monkeypatch, error):
    monkeypatch.setattr("diffusers.AutoencoderKL.from_pretrained", failing(error))
    with pytest.raises(type(error)) as caught:
        load_autoencoder(CHECKPOINTS / "scenes-f4" / "vae")
    assert caught.value is error


@pytest.mark.parametrize("error", [SHORTAGE, BROKEN_DISK])
def test_a_folder_is_not_called_damaged(tmp_path, error):
    with pytest.raises(type(error)) as caught, as_checkpoint_error(tmp_path):
        raise error
    assert caught.value is error
