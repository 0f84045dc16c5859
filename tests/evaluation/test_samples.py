"""The pictures that an evaluation leaves behind, and that it never takes for pictures to measure."""

from dataclasses import replace

import skimage
import torch
from fake_codec import FakeModel, expected_row
from photos import photo

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.images import load_image, save_image
from dhp_lab.evaluation.config import EvaluationConfig
from dhp_lab.evaluation.evaluate import evaluate, run


def test_samples_are_the_pictures_that_were_measured(tmp_path):
    evaluate(
        FakeModel(),
        [("in/a.png", photo())],
        lambda_rates=(1e-2,),
        steps=(0,),
        codecs=(),
        save_samples=tmp_path,
    )

    def read(name):
        pixels = torch.from_numpy(skimage.io.imread(tmp_path / name))  # (H, W, 3)
        return pixels.permute(2, 0, 1)[None].float() / 255

    assert torch.equal(read("in_a.png"), photo())
    assert (read("in_a_lambda0.01_K0.png") - expected_row(photo(), 1e-2, 0)[1]).abs().max() < 1e-6


def test_pictures_of_one_stem_do_not_overwrite_each_other(tmp_path):
    names = ("x.jpg", "x.png", "a/b.png", "a_b.png", "X.tif", "x_lambda0.01_K0.png")
    pictures = [(name, photo(shift=8 * i)) for i, name in enumerate(names)]
    evaluate(
        FakeModel(),
        pictures,
        lambda_rates=(1e-2,),
        steps=(0,),
        codecs=(),
        save_samples=tmp_path,
        batch_size=6,
    )
    originals = ("x", "x.png", "a_b", "a_b.png", "X.tif", "x_lambda0.01_K0.png")
    written = {f"{label}{ending}.png" for label in originals for ending in ("", "_lambda0.01_K0")}
    assert {path.name for path in tmp_path.iterdir()} == written
    for label, (_, x) in zip(originals, pictures, strict=True):
        assert torch.equal(load_image(tmp_path / f"{label}.png")[0], x)
        x_hat = load_image(tmp_path / f"{label}_lambda0.01_K0.png")[0]
        assert (x_hat - expected_row(x, 1e-2, 0)[1]).abs().max() < 1e-6


def test_an_evaluation_does_not_measure_its_own_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(DiffusionHyperprior, "from_pretrained", lambda path: FakeModel())
    save_image(photo(), tmp_path / "a.png")
    config = EvaluationConfig(
        data_path=tmp_path,
        model_path=tmp_path,
        output_dir=tmp_path / "out",
        steps=(0,),
        lambda_rates=(1e-2,),
        save_samples=True,
        device="cpu",
        codecs=(),
        overwrite=True,
    )
    first, second = run(config, log=str), run(config, log=str)
    assert second.notes[0] == f"passed over in {tmp_path.name}: 1 folders of results"
    third = run(replace(config, output_dir=tmp_path), log=str)
    fourth = run(replace(config, output_dir=tmp_path), log=str)
    for one in (first, second, third, fourth):
        assert [row.picture for row in one.measurements] == ["a.png"]
