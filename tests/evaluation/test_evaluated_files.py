"""Evaluations of the real codec: the files are those of the library."""

import itertools

import pytest
import torch
from models import untrained, woken
from photos import photo

from dhp_lab.codec import dhp_file
from dhp_lab.codec.bits.bitstream import write
from dhp_lab.codec.create import create_diffusion_hyperprior_model
from dhp_lab.evaluation.evaluate import evaluate
from dhp_lab.metrics.pixels import psnr


def test_files_are_those_of_the_effort():
    model, pictures = woken(passes=2), [("a.png", photo())]
    rows = {
        effort: evaluate(model, pictures, lambda_rates=(1e-3,), steps=(0,), effort=effort, codecs=())
        for effort in (0, 2)
    }
    for effort, found in rows.items():
        expected = dhp_file.encode(model, photo(), lambda_rate=1e-3, effort=effort)
        assert found.measurements[0].n_bytes == len(expected) and found.about["effort"] == effort
    assert rows[0].measurements[0].n_bytes != rows[2].measurements[0].n_bytes
    with pytest.raises(ValueError, match="effort 1 optimises y, and this model sends z alone"):
        evaluate(untrained(transmit="z"), pictures, effort=1, codecs=())


def test_the_real_codec_through_real_files():
    """An untrained model is a lapped-transform codec: its curve is monotonic, its files are what the codec
    writes.
    """
    torch.manual_seed(0)
    model = create_diffusion_hyperprior_model(N=8, M=192).eval()
    pictures = [("a", photo(176, 192)), ("b", photo(176, 192, shift=64))]
    result = evaluate(model, pictures, lambda_rates=(1e-2, 1e-3, 1e-4, 1e-5), steps=(0,), codecs=())
    assert all(a.bpp < b.bpp and a.psnr < b.psnr for a, b in itertools.pairwise(result.points))
    assert result.points[-1].psnr > 30
    row = next(row for row in result.measurements if (row.picture, row.setting) == ("b", 1e-3))
    coded = model.compress(pictures[1][1], lambda_rate=1e-3)
    x_hat = model.decompress(coded["strings"], coded["shape"], steps=0)["x_hat"]
    assert row.n_bytes == len(write(coded["strings"], coded["shape"], model_id=model.model_id))
    assert row.psnr == pytest.approx(psnr(x_hat, pictures[1][1]).item(), abs=1e-3)
    made_of = {
        "N": 8,
        "M": 192,
        "diffusion_steps": 50,
        "schedule": "linear",
        "transmit": "z+y",
        "passes": 1,
        "dead_zone": 0.0,
        "revision": 2,
        "trellis": False,
    }
    assert result.about["config"] == made_of
