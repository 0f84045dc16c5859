"""Precision: a program's default type changes nothing, and a codec stays in float32."""

from __future__ import annotations

import pytest
import torch
from models import picture, woken

from dhp_lab.codec import dhp_file
from dhp_lab.codec.create import create_diffusion_hyperprior_model, with_settings
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.precision import float32_by_default


@pytest.fixture(params=[torch.float64, torch.float16, torch.bfloat16], ids=str)
def default_dtype(request):
    """Sets another default type; the test calls it."""
    yield lambda: torch.set_default_dtype(request.param)
    torch.set_default_dtype(torch.float32)


def made(model: DiffusionHyperprior) -> list:
    """Everything that a codec makes of a picture."""
    x = picture(48, 64).float()
    files = [dhp_file.encode(model, x, effort=effort) for effort in (0, 1)]
    pictures = [dhp_file.decode(model, files[0], steps=steps) for steps in (0, 1, 3)]
    pictures.append(dhp_file.decode(model, files[0], steps=2, preview=True))
    pictures.append(model(x)["x_hat"].detach())
    assert all(one.dtype == torch.float32 for one in pictures)
    return [*files, *(one.numpy().tobytes() for one in pictures)]


def test_files_and_pictures_do_not_depend_on_the_default_type(default_dtype, in_float32):
    model = woken(passes=2)
    x = picture(48, 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "picture", lambda *_: x)
        expected = made(model)
        default_dtype()
        assert made(model) == expected


def test_models_are_made_and_loaded_in_float32(default_dtype, tmp_path):
    woken().save_pretrained(tmp_path)
    torch.manual_seed(0)
    expected = create_diffusion_hyperprior_model(16, 32, 10)
    before = DiffusionHyperprior.from_pretrained(tmp_path)
    default_dtype()
    default = torch.get_default_dtype()
    torch.manual_seed(0)
    pairs = [
        (create_diffusion_hyperprior_model(16, 32, 10), expected),
        (DiffusionHyperprior.from_pretrained(tmp_path), before),
    ]
    for one, other in pairs:
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
            assert a.dtype == b.dtype and torch.equal(a, b)
    assert all(p.dtype == torch.float32 for p in with_settings(before, passes=2).parameters())
    assert torch.get_default_dtype() == default


@pytest.mark.parametrize(
    "move",
    [
        lambda model: model.half(),
        lambda model: model.bfloat16(),
        lambda model: model.double(),
        lambda model: model.to(torch.bfloat16),
        lambda model: model.to("cpu", torch.float16),
    ],
)
def test_a_codec_stays_in_float32_and_works_on(move):
    model = woken()
    before = dhp_file.encode(model, picture(32, 32))
    with pytest.raises(ValueError, match=r"stays in float32, .* asked for torch.*low_memory\(\)"):
        move(model)
    assert dhp_file.encode(model.float().to("cpu"), picture(32, 32)) == before
    with pytest.raises(ValueError, match="pictures must be float32"):
        model.compress(picture(32, 32).half())


def test_the_default_type_comes_back_after_an_error():
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(KeyError), float32_by_default():
            assert torch.zeros(1).dtype == torch.float32
            raise KeyError
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
