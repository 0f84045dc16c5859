"""The codec as it is saved and loaded: the same bytes each time, in another process, on another device."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models import parts, picture, woken
from oracles import largest

import dhp_lab
from dhp_lab.codec.bits.bitstream import BitstreamError
from dhp_lab.codec.entropy_coding import decode_latents
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.weights import CONFIG, WEIGHTS


@pytest.fixture(scope="module")
def model() -> DiffusionHyperprior:
    return woken()


@pytest.fixture(scope="module")
def coded(model) -> dict:
    return model.compress(picture(64, 96), 1e-3)


# checkpoints


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    return folder


def test_a_loaded_model_writes_the_same_bytes_each_time(saved, tmp_path):
    first = DiffusionHyperprior.from_pretrained(saved)
    first.save_pretrained(tmp_path)
    second, x = DiffusionHyperprior.from_pretrained(tmp_path), picture(64, 96)
    assert first.model_id == second.model_id != bytes(8) and len(first.model_id) == 8
    assert first.config == second.config and not first.training
    one, other = first.compress(x, 1e-3), second.compress(x, 1e-3)
    assert one == other
    decoded = [m.decompress(one["strings"], one["shape"], steps=3)["x_hat"] for m in (first, second)]
    assert torch.equal(*decoded)


@torch.no_grad()
def test_what_is_stored_is_what_was_saved_up_to_float16(model, saved):
    loaded = DiffusionHyperprior.from_pretrained(saved).state_dict()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            assert largest(loaded[name] - value) <= (
                2**-11 * largest(value) if value.numel() >= 4096 else 0
            ), name
        else:
            assert torch.equal(loaded[name], value), name


def test_tables_are_loaded_and_not_made_again(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(saved / WEIGHTS)
    for name in ("_quantized_cdf", "_cdf_length", "_offset"):  # the channels' tables in another order
        tensors[f"entropy_bottleneck.{name}"] = tensors[f"entropy_bottleneck.{name}"].flip(0).contiguous()
    tensors["gaussian_conditional._quantized_cdf"][:, 500] += 1
    save_file(tensors, tmp_path / WEIGHTS, metadata={"format": "pt"})
    (tmp_path / CONFIG).write_bytes((saved / CONFIG).read_bytes())
    tampered, honest = (
        DiffusionHyperprior.from_pretrained(tmp_path),
        DiffusionHyperprior.from_pretrained(saved),
    )
    for name in ("entropy_bottleneck", "gaussian_conditional"):
        assert torch.equal(getattr(tampered, name)._quantized_cdf, tensors[f"{name}._quantized_cdf"])
    assert tampered.model_id != honest.model_id and tampered.update() is False, (
        "update() leaves loaded tables alone"
    )
    coded = [model.compress(picture(64, 96), 1e-5) for model in (tampered, honest)]
    assert parts(coded[0])[1] != parts(coded[1])[1], "the stored tables are the ones that code"
    decode_latents(tampered, coded[0]["strings"], coded[0]["shape"])
    with pytest.raises(BitstreamError):
        decode_latents(honest, coded[0]["strings"], coded[0]["shape"])


@pytest.mark.slow
def test_another_process_decodes_the_same_picture(saved):
    model = DiffusionHyperprior.from_pretrained(saved)
    coded = model.compress(picture(64, 96), 1e-3)
    expected = model.decompress(coded["strings"], coded["shape"], steps=2, seed=5)["x_hat"]
    code = f"""
import hashlib, torch
from dhp_lab.codec.model import DiffusionHyperprior
torch.set_num_threads({torch.get_num_threads()})
model = DiffusionHyperprior.from_pretrained({str(saved)!r})
x_hat = model.decompress({coded["strings"]!r}, {coded["shape"]!r}, steps=2, seed=5)["x_hat"]
print(hashlib.sha256(x_hat.numpy().tobytes()).hexdigest())
"""
    root = Path(dhp_lab.__file__).resolve().parents[1]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == hashlib.sha256(expected.numpy().tobytes()).hexdigest()


def test_compress_leaves_the_mode_as_it_was(model):
    other = woken().train()
    x = picture(48, 48)
    assert other.compress(x) == model.compress(x) and other.training
    assert model.compress(x, 1e-3) == model.compress(x) and not model.training


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_reads_what_a_cpu_wrote_and_the_other_way_round(model):
    x, on_gpu = picture(131, 200), woken().cuda()
    for writer, reader, data in ((model, on_gpu, x), (on_gpu, model, x.cuda())):
        coded = writer.compress(data, 1e-4)
        decoder_state, own = (decode_latents(m, coded["strings"], coded["shape"]) for m in (reader, writer))
        assert torch.equal(decoder_state.symbols.cpu(), own.symbols.cpu())
