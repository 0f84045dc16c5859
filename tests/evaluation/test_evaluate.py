"""dhp_lab.evaluation.evaluate on a codec whose bytes and pictures follow from its definition."""

import errno
import json
import math
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_codec import FakeModel, expected_row
from photos import photo
from realism_codecs import codec

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.realism import realism_id
from dhp_lab.core.environment import cpu_model
from dhp_lab.core.files import OverwriteError
from dhp_lab.data.images import batches, load_pictures, save_image
from dhp_lab.evaluation import report
from dhp_lab.evaluation.codecs import CODECS
from dhp_lab.evaluation.config import DEFAULT_LAMBDA_RATES, EvaluationConfig
from dhp_lab.evaluation.evaluate import evaluate, model_ids, run
from dhp_lab.metrics.pixels import ms_ssim, psnr
from dhp_lab.metrics.rd_curves import bd_rate

LAMBDAS = (1e-2, 3e-3, 1e-3, 6e-4)  # steps of 30, 9, 3 and 2 of 255 in FakeModel


def test_each_row_is_what_the_definitions_say():
    x = photo()
    result = evaluate(FakeModel(), [("a.png", x)], lambda_rates=LAMBDAS, steps=(0, 1), codecs=())
    rows = {(row.codec, row.setting): row for row in result.measurements}
    assert len(rows) == len(result.measurements) == 8
    for lambda_rate in LAMBDAS:
        for k in (0, 1):
            n_bytes, x_hat = expected_row(x, lambda_rate, k)
            row = rows[f"dhp K={k}", lambda_rate]
            assert row.n_bytes == n_bytes
            assert row.bpp == 8 * n_bytes / (176 * 192)
            assert row.psnr == pytest.approx(psnr(x_hat, x).item(), abs=1e-9)
            assert row.ms_ssim == pytest.approx(ms_ssim(x_hat, x).item(), abs=1e-6)
            assert row.encode_seconds > 0 and row.decode_seconds > 0


def test_points_are_means_over_pictures():
    pictures = [("a.png", photo()), ("b.png", photo(192, 176, shift=64)), ("c.png", photo(shift=32))]
    result = evaluate(FakeModel(), pictures, lambda_rates=(1e-3,), steps=(1,), codecs=())
    (point,) = result.points
    expected = [expected_row(x, 1e-3, 1) for _, x in pictures]
    assert point.pictures == 3
    assert point.bpp == pytest.approx(np.mean([8 * n / (176 * 192) for n, _ in expected]), rel=1e-12)
    assert point.compression_ratio == pytest.approx(24 / point.bpp, rel=1e-12)
    psnrs = [psnr(x_hat, x).item() for (_, x_hat), (_, x) in zip(expected, pictures, strict=True)]
    assert point.psnr == pytest.approx(np.mean(psnrs), abs=1e-9)
    assert [row.picture for row in result.measurements] == ["a.png", "b.png", "c.png"]


def test_batches_hold_consecutive_pictures_of_one_size():
    wide, tall = torch.zeros(1, 3, 16, 32), torch.zeros(1, 3, 32, 16)
    pictures = [("a", wide), ("b", wide), ("c", wide), ("d", tall), ("e", wide)]
    found = list(batches(pictures, 2))
    assert [names for names, _ in found] == [["a", "b"], ["c"], ["d"], ["e"]]
    assert [tuple(x.shape) for _, x in found] == [
        (2, 3, 16, 32),
        (1, 3, 16, 32),
        (1, 3, 32, 16),
        (1, 3, 16, 32),
    ]
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(batches(pictures, 0))


def test_batch_size_changes_no_figure():
    pictures = [(name, photo(shift=shift)) for name, shift in (("a", 0), ("b", 20), ("c", 40))]
    found = {}
    for batch_size, coded_together in ((1, 1), (4, 3)):
        model = FakeModel()
        result = evaluate(model, pictures, lambda_rates=(1e-3,), codecs=(), batch_size=batch_size)
        assert {size for size, _ in model.calls} == {coded_together}
        rows = [(r.codec, r.picture, r.n_bytes, r.psnr, r.texture) for r in result.measurements]
        found[batch_size] = sorted(rows)
    assert found[1] == found[4]


def test_bd_rates_are_those_of_the_averaged_curves():
    x = photo()
    result = evaluate(FakeModel(), [("a", x)], lambda_rates=LAMBDAS, steps=(0, 1), codecs=("jpeg",))

    def curve(codec):
        own = [point for point in result.points if point.codec == codec]
        return tuple(point.bpp for point in own), tuple(point.psnr for point in own)

    found = {(one.test, one.anchor, one.metric): one for one in result.comparisons}
    pairs = [("dhp K=0", "JPEG"), ("dhp K=1", "JPEG"), ("dhp K=1", "dhp K=0")]
    assert set(found) == {(*pair, metric) for pair in pairs for metric in ("PSNR", "MS-SSIM")}
    assert found["dhp K=1", "dhp K=0", "PSNR"].result == bd_rate(curve("dhp K=0"), curve("dhp K=1"))
    assert found["dhp K=0", "JPEG", "PSNR"].result == bd_rate(curve("JPEG"), curve("dhp K=0"))
    assert "dhp K=0    JPEG" in result.table()


def test_too_few_points_give_a_reason_instead_of_a_figure():
    result = evaluate(FakeModel(), [("a", photo())], lambda_rates=LAMBDAS[:3], steps=(0,), codecs=("jpeg",))
    assert {one.result for one in result.comparisons} == {None}
    assert all("at least 4" in one.reason for one in result.comparisons)


def test_small_pictures_have_no_ms_ssim_and_the_report_says_so():
    result = evaluate(
        FakeModel(), [("small.png", photo(100, 200)), ("a", photo())], lambda_rates=LAMBDAS, codecs=()
    )
    assert [point.ms_ssim for point in result.points] == [None] * 8
    assert result.notes == ["no averages of MS-SSIM: a side is below 161 pixels in small.png"]


def test_nothing_to_measure_is_an_error():
    pictures = [("a", photo())]
    with pytest.raises(ValueError, match="nothing to measure"):
        evaluate(None, pictures, codecs=())
    for option in ({"lambda_rates": ()}, {"steps": ()}):
        with pytest.raises(ValueError, match="nothing to measure"):
            evaluate(FakeModel(), pictures, **option)
    with pytest.raises(ValueError, match="no picture could be read"):
        evaluate(FakeModel(), [], codecs=())
    with pytest.raises(
        ValueError, match="unknown codec 'gif'; choose from jpeg, webp, jpeg2000, avif, avif420, "
    ):
        evaluate(None, [("a", photo())], codecs=("gif",))


# folders and files


def test_a_broken_picture_is_skipped_by_name(tmp_path):
    save_image(photo(), tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    (tmp_path / "deeper").mkdir()
    save_image(photo(), tmp_path / "deeper" / "c.png")
    notes, lines = [], []
    pictures = list(load_pictures(tmp_path, notes, lines.append))
    assert [name for name, _ in pictures] == ["a.png", "deeper/c.png"]
    assert len(notes) == 1 and notes[0].startswith("b.png: skipped, ") and str(tmp_path) not in notes[0]
    assert lines == ["1/3 a.png", f"warning: {notes[0]}", "3/3 deeper/c.png"]


def test_an_empty_folder_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match="holds no picture"):
        load_pictures(tmp_path, [], str)


@pytest.fixture
def fake_checkpoint(monkeypatch):
    """Make every checkpoint folder hold a FakeModel."""
    monkeypatch.setattr(DiffusionHyperprior, "from_pretrained", lambda path: FakeModel())


def test_run_writes_one_json_with_everything(tmp_path, fake_checkpoint):
    folder = tmp_path / "my photos"
    folder.mkdir()
    save_image(photo(), folder / "a.png")
    (folder / "b.png").write_text("not a picture")
    config = EvaluationConfig(
        data_path=folder,
        model_path=tmp_path / "model",
        output_dir=tmp_path / "out",
        steps=(0, 2),
        lambda_rates=LAMBDAS,
        save_samples=True,
        device="cpu",
        codecs=("jpeg",),
    )
    result, text = run(config, log=str), (tmp_path / "out" / "evaluation.json").read_text()
    stored = json.loads(text)
    assert str(tmp_path) not in text
    assert stored["about"]["command"] == (
        "dhp evaluate --model_path model --data_path 'my photos' --output_dir out --steps 0,2 "
        "--lambda_rates 0.01,0.003,0.001,0.0006 --effort 0 --gamma 0.0 --seed 0 --batch_size 4 --device cpu "
        "--codecs jpeg --metrics psnr,ms-ssim,texture --save_samples"
    )
    assert stored["about"]["pictures_from"] == "my photos"
    assert stored["about"]["model_id"] == b"fake-mdl".hex() and stored["about"]["realism_id"] is None
    assert stored["about"]["device"] == cpu_model() and stored["about"]["threads"] == torch.get_num_threads()
    assert stored["notes"] == ["b.png: skipped, not a picture that Pillow can read"]
    assert len(stored["measurements"]) == 8 and len(stored["points"]) == 8 + len(CODECS["jpeg"].settings)
    n_bytes, x_hat = expected_row(photo(), 1e-3, 2)
    row = next(r for r in stored["measurements"] if (r["codec"], r["setting"]) == ("dhp K=2", 1e-3))
    assert (row["picture"], row["n_bytes"]) == ("a.png", n_bytes)
    assert row["psnr"] == pytest.approx(psnr(x_hat, photo()).item(), rel=1e-5)
    names = {path.name for path in (tmp_path / "out" / "samples").iterdir()}
    assert names == {"a.png", *(f"a_lambda{value:g}_K{k}.png" for value in LAMBDAS for k in (0, 2))}
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["evaluation.json", "samples"]
    assert result.points[0].codec == "dhp K=0"


def test_results_name_the_realism_part_beside_the_codec():
    model = codec()
    assert model_ids(model) == {
        "model_id": model.model_id.hex(),
        "realism_id": realism_id(model.realism, model.model_id).hex(),
    }


def test_a_report_is_never_overwritten_unasked(tmp_path, fake_checkpoint):
    save_image(photo(), tmp_path / "a.png")
    options = {"data_path": tmp_path, "model_path": tmp_path, "output_dir": tmp_path / "out", "device": "cpu"}
    config = EvaluationConfig(**options, steps=(0,), lambda_rates=(1e-3,), codecs=())
    run(config, log=str)
    before = (tmp_path / "out" / "evaluation.json").read_bytes()
    lines = []
    with pytest.raises(OverwriteError, match=r"evaluation.json exists .*--output_dir.*--overwrite"):
        run(replace(config, seed=1), log=lines.append)
    assert lines == [] and (tmp_path / "out" / "evaluation.json").read_bytes() == before
    run(replace(config, seed=1, overwrite=True), log=str)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["about"]["seed"] == 1


def test_a_report_that_cannot_be_written_is_shown_all_the_same(tmp_path, fake_checkpoint, monkeypatch):
    save_image(photo(), tmp_path / "a.png")
    (tmp_path / "out" / "evaluation.json").mkdir(parents=True)
    options = {"data_path": tmp_path, "model_path": tmp_path, "output_dir": tmp_path / "out", "device": "cpu"}
    config = EvaluationConfig(**options, steps=(0,), lambda_rates=(1e-3,), codecs=(), overwrite=True)
    shown, lines = [], []
    with pytest.raises(IsADirectoryError) as raised:
        run(config, log=lines.append, show=shown.append)
    assert raised.value.filename == str(tmp_path / "out" / "evaluation.json")
    assert shown == [] and not any("a.png" in line for line in lines), (
        "nothing is measured for a report without a place"
    )
    (tmp_path / "out" / "evaluation.json").rmdir()

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"No space left.*evaluation\.json'"):
        run(config, log=str, show=shown.append)
    assert len(shown) == 1 and "dhp K=0" in shown[0].table()
    assert list((tmp_path / "out").iterdir()) == []


def test_run_names_a_missing_codec_before_it_measures(tmp_path, fake_checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    save_image(photo(), tmp_path / "a.png")
    options = {"data_path": tmp_path, "model_path": tmp_path, "output_dir": tmp_path / "out", "device": "cpu"}
    lines = []
    config = EvaluationConfig(**options, steps=(0,), lambda_rates=(1e-3,), codecs=("jxl", "jpeg"))
    result = run(config, log=lines.append)
    assert lines[0].startswith("warning: JPEG XL is left out: ") and lines[1] == "1/1 a.png"
    assert result.notes == [lines[0].removeprefix("warning: ")]
    assert {point.codec for point in result.points} == {"dhp K=0", "JPEG"}
    with pytest.raises(ValueError, match="unknown codec 'gif'"):
        run(replace(config, codecs=("gif",), model_path=tmp_path / "none"), log=str)


def test_settings_given_twice_count_once():
    model = FakeModel()
    rates = (1e-2, 1e-3, 1e-2, 1.0000001e-3)
    result = evaluate(model, [("a", photo())], lambda_rates=rates, steps=(1, 0, 1), codecs=("jpeg", "jpeg"))
    ours = [(row.codec, row.setting) for row in result.measurements if row.codec != "JPEG"]
    assert ours == [(f"dhp K={k}", rate) for rate in (1e-2, 1e-3) for k in (1, 0)]
    assert len(result.points) == 4 + len(CODECS["jpeg"].settings)
    assert [rate for _, rate in model.calls] == [1e-2, 1e-2, 1e-3]  # the first is not measured


def test_json_of_identical_pictures_has_no_infinity():
    result = evaluate(FakeModel(), [("a", photo())], lambda_rates=(1e-5,), steps=(0,), codecs=())
    assert result.points[0].psnr == math.inf
    assert json.loads(report.to_json(result))["points"][0]["psnr"] is None


def test_default_lambdas_are_evenly_spaced():
    ratios = np.diff(np.log(DEFAULT_LAMBDA_RATES))
    assert len(ratios) == 8
    assert DEFAULT_LAMBDA_RATES[0] == 2.3e-2 and DEFAULT_LAMBDA_RATES[-1] == 3e-5
    assert np.abs(ratios - ratios.mean()).max() < 0.02


# the real codec
