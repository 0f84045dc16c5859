"""Damaged, foreign and impossible input of the codec: refused, never decoded to something else."""

from __future__ import annotations

import struct

import pytest
import torch
from models import M, N, parts, picture, untrained, woken

from dhp_lab.codec.bits.bitstream import BitstreamError
from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.create import create_diffusion_hyperprior_model
from dhp_lab.codec.entropy_coding import decode_latents
from dhp_lab.codec.model import DiffusionHyperprior


@pytest.fixture(scope="module")
def model() -> DiffusionHyperprior:
    return woken()


@pytest.fixture(scope="module")
def z_model() -> DiffusionHyperprior:
    return woken(transmit="z")


@pytest.fixture(scope="module")
def coded(model) -> dict:
    return model.compress(picture(64, 96), 1e-3)


# damage


def test_side_is_lambda_and_two_crcs(model, coded):
    code, z_crc, y_crc = struct.unpack(">HII", parts(coded)[2])
    assert code == lambda_code(1e-3) and z_crc != y_crc
    decoder_state = decode_latents(model, coded["strings"], coded["shape"])
    assert 2 ** decoder_state.log2_delta.item() == pytest.approx(model.step_size(1e-3), rel=1e-6)


@pytest.mark.parametrize("stream", [0, 1])
def test_a_damaged_stream_is_never_decoded_to_something_else(model, coded, stream):
    """Every second byte of y or z in turn. The last bits of rANS may carry nothing: then the symbols are the
    true ones.
    """
    whole, truth, refused = parts(coded)[stream], decode_latents(model, coded["strings"], coded["shape"]), 0
    places = range(0, len(whole), 2 + len(whole) // 40)
    for place in places:
        damaged = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        strings = [*coded["strings"][:stream], [damaged], *coded["strings"][stream + 1 :]]
        try:
            assert torch.equal(decode_latents(model, strings, coded["shape"]).symbols, truth.symbols)
        except BitstreamError as error:
            assert f"symbols of {'yz'[stream]} have CRC32" in str(error)
            refused += 1
    assert refused >= len(places) - 2


@pytest.mark.parametrize(
    "stream, change",
    [
        (0, lambda y: y[:-4]),
        (0, lambda y: y[:1]),
        (0, lambda y: b"\xff" * 40),
        (1, lambda z: z[: len(z) // 2]),
        (1, lambda z: b""),
    ],
)
def test_a_cut_or_foreign_stream_is_refused(model, coded, stream, change):
    strings = list(coded["strings"])
    strings[stream] = [change(strings[stream][0])]
    with pytest.raises(BitstreamError, match="damaged or was made by another model"):
        model.decompress(strings, coded["shape"])


@pytest.mark.parametrize("side", [b"", bytes(9), bytes(11)])
def test_a_side_of_another_length_is_refused(model, coded, side):
    with pytest.raises(BitstreamError, match=f"holds {len(side)} bytes, not 10"):
        model.decompress([*coded["strings"][:2], [side]], coded["shape"])


@pytest.mark.parametrize(
    "code, message", [(lambda_code(2e-3), "symbols of y"), (0, "lambda"), (65535, "lambda")]
)
def test_another_lambda_in_the_side_is_refused(model, coded, code, message):
    side = struct.pack(">H", code) + parts(coded)[2][2:]
    with pytest.raises(BitstreamError, match=message):
        model.decompress([*coded["strings"][:2], [side]], coded["shape"])


def test_another_model_is_refused(model, coded):
    with pytest.raises(BitstreamError, match="made by another model"):
        untrained().decompress(coded["strings"], coded["shape"])


def test_another_shape_is_refused(model, coded):
    with pytest.raises(BitstreamError, match="damaged"):
        model.decompress(coded["strings"], (64, 128))


# what is refused


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"N": 3}, "N must lie in 4 .. 1024, got 3"),
        ({"N": 1025}, "got 1025"),
        ({"M": 0}, "M must lie in 1 .. 768, .*got 0"),
        ({"M": 769}, "got 769"),
        ({"schedule": "quadratic"}, "one of linear, cosine, got 'quadratic'"),
        ({"transmit": "y"}, "'z.y' or 'z', got 'y'"),
        ({"diffusion_steps": 0}, "at least 1 step, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        create_diffusion_hyperprior_model(**{"N": N, "M": M} | settings)


@pytest.mark.parametrize(
    "shape",
    [
        (3, 64, 64),
        (1, 1, 64, 64),
        (1, 4, 64, 64),
        (1, 3, 15, 64),
        (1, 3, 64, 15),
        (1, 1, 3, 64, 64),
        (0, 3, 64, 64),
    ],
)
def test_shapes_that_are_no_pictures_are_refused(model, shape):
    for function in (model.compress, model):
        with pytest.raises(ValueError, match=r"shape \(B, 3, H, W\) with .*got \(" + str(shape[0])):
            function(torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_pictures_that_are_not_finite_are_refused(model, z_model, value):
    x = picture(48, 48)
    x[0, 1, 20, 20] = value
    for codec in (model, z_model):
        with pytest.raises(ValueError, match="finite"):
            codec.compress(x)


@pytest.mark.parametrize("value", [0.0, 1e-7, 0.11, float("nan")])
def test_lambdas_out_of_range_are_refused(model, value):
    for function in (model.compress, model, lambda x, value: model.step_size(value)):
        with pytest.raises(ValueError, match=f"lambda_rate must lie in .*got {value}"):
            function(picture(16, 16), value)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps": -1}, "steps must lie in 0 .. 1000, got -1"),
        ({"steps": 1001}, "got 1001"),
        ({"gamma": -0.1}, "gamma must lie in .0, 1., got -0.1"),
        ({"gamma": 1.5}, "got 1.5"),
        ({"gamma": float("nan")}, "got nan"),
    ],
)
def test_sampling_out_of_range_is_refused(model, coded, settings, message):
    with pytest.raises(ValueError, match=message):
        model.decompress(coded["strings"], coded["shape"], **settings)


def test_a_model_without_tables_says_what_to_do():
    from dhp_lab.codec.config import CodecConfig

    with pytest.raises(ValueError, match=r"call model.update\(\) first"):
        DiffusionHyperprior(CodecConfig(N=4, M=4)).compress(picture(16, 16))
