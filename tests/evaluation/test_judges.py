"""The metrics of `dhp evaluate --metrics`: chosen, left out, measured for every codec, and shown."""

import json

import pytest
import torch
from fake_codec import FakeModel, expected_row
from made_networks import lay_all, made_efficientnet, made_trunk
from photos import photo

from dhp_lab.evaluation import judges as module
from dhp_lab.evaluation.columns import FIELDS, OF_METRIC
from dhp_lab.evaluation.config import DEFAULT_METRICS, MORE_METRICS
from dhp_lab.evaluation.evaluate import evaluate
from dhp_lab.evaluation.judges import METRICS, NAMES, PATCH_KID, Judges, choose_metrics
from dhp_lab.metrics.efficientnet import EfficientNetLite0, efficientnet_lite0
from dhp_lab.metrics.patch_distance import cut_patches, paired_kernel_distance
from dhp_lab.metrics.perceptual import DISTS, LPIPS, dists_network, lpips_network
from dhp_lab.metrics.pixels import round_to_8_bits

NETWORKS = ("lpips", "lpips-vgg", "dists", PATCH_KID)


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """No networks anywhere, and none loaded before or after."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("DHP_DATA", str(tmp_path))
    caches = lpips_network, dists_network, efficientnet_lite0
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def networks(empty):
    """Small networks of no worth in the places of the real ones."""
    lay_all()
    return empty


def test_every_metric_has_an_option_and_columns():
    assert set(NAMES) == set(DEFAULT_METRICS + MORE_METRICS) == set(OF_METRIC) == set(FIELDS)
    assert all(FIELDS[name] == (metric.field,) for name, metric in METRICS.items())


def test_what_cannot_be_had_is_left_out_by_one_line(empty):
    found, lines = choose_metrics(("psnr", *NETWORKS, "psnr"))
    assert found == ["psnr"] and len(lines) == 4
    for name, line in zip(NETWORKS, lines, strict=True):
        assert line.startswith(f"{name} is left out: {empty}/metric-networks/") and "\n" not in line
        assert line.endswith(".safetensors is missing: `dhp download metric-networks` brings it")
    with pytest.raises(
        ValueError, match="unknown metric 'ssim'; choose from psnr, ms-ssim, texture, lpips, "
    ):
        choose_metrics(["ssim"])


def test_without_networks_the_others_are_measured(empty):
    result = evaluate(
        FakeModel(), [("a", photo())], lambda_rates=(1e-3,), steps=(0,), codecs=(), metrics=("psnr", "lpips")
    )
    assert result.metrics == ("psnr",) and result.points[0].psnr > 20 and result.points[0].lpips is None
    place = "DHP_DATA/metric-networks/lpips-alexnet.safetensors"
    assert result.notes == [
        f"lpips is left out: {place} is missing: `dhp download metric-networks` brings it"
    ]
    assert "PSNR" in result.table() and "LPIPS" not in result.table().partition("\n")[0]


def test_each_figure_is_its_metrics(networks):
    pictures = [("a", photo(128, 128)), ("b", photo(128, 136, shift=64))]
    result = evaluate(
        FakeModel(), pictures, lambda_rates=(3e-3,), steps=(1,), codecs=("jpeg",), metrics=("psnr", *NETWORKS)
    )
    vgg = made_trunk("vgg16", thinner=16)
    expected = {
        "lpips": LPIPS("alexnet", made_trunk("alexnet", thinner=16)),
        "lpips_vgg": LPIPS("vgg16", vgg),
        "dists": DISTS(vgg),
    }
    decoded = [round_to_8_bits(expected_row(x, 3e-3, 1)[1]) for _, x in pictures]
    rows = result.measurements
    for field, network in expected.items():
        figures = [network(x_hat, x).item() for x_hat, (_, x) in zip(decoded, pictures, strict=True)]
        assert [getattr(row, field) for row in rows] == pytest.approx(figures, abs=1e-6)
        assert getattr(result.points[0], field) == pytest.approx(sum(figures) / 2, abs=1e-6)
    features = EfficientNetLite0(made_efficientnet())
    sets = [[features(cut_patches(x)) for x in of] for of in ([x for _, x in pictures], decoded)]
    found = paired_kernel_distance(*sets)
    point = result.points[0]
    assert (point.patch_kid, point.patch_kid_low, point.patch_kid_high) == pytest.approx(found, rel=0.02)
    jpeg = [point for point in result.points if point.codec == "JPEG"]
    assert len(jpeg) > 3 and all(point.lpips > 0 and point.patch_kid is not None for point in jpeg)
    assert jpeg[0].patch_kid > jpeg[-1].patch_kid and jpeg[0].lpips > jpeg[-1].lpips


def test_an_original_is_looked_at_once(networks, monkeypatch):
    calls = []
    layers = LPIPS.layers
    monkeypatch.setattr(LPIPS, "layers", lambda self, x: calls.append(x) or layers(self, x))
    judges, x = Judges(["lpips"]), photo(48, 48)
    facts = {"codec": "c", "picture": "p", "n_bytes": 9, "encode_seconds": 0.1, "decode_seconds": 0.1}
    figures = [judges.measure((x + n / 50).clamp(0, 1), x, setting=n, **facts).lpips for n in (1, 2, 3)]
    assert len(calls) == 4 and figures == sorted(figures)
    other = photo(48, 48, shift=9)
    fresh = lpips_network()(round_to_8_bits(x), other).item()
    assert judges.measure(x, other, setting=1, **facts).lpips == pytest.approx(fresh, abs=1e-6)
    monkeypatch.setattr(module, "KEPT_PIXELS", 100)
    calls.clear()
    for n in (1, 2):
        judges.measure(x, x, setting=n, **facts)
    assert len(calls) == 4


def test_small_pictures_have_no_figure_and_a_note_says_so(networks):
    pictures = [("small", photo(24, 40)), ("a", photo(64, 128)), ("b", photo(130, 70))]
    names = ("ms-ssim", "lpips", "dists", PATCH_KID)
    result = evaluate(FakeModel(), pictures, lambda_rates=(1e-3,), steps=(0,), codecs=(), metrics=names)
    (point,) = result.points
    assert (
        point.psnr is point.ms_ssim is point.lpips is None and point.dists > 0 and point.patch_kid is not None
    )
    assert result.notes == [
        "no averages of MS-SSIM: a side is below 161 pixels in a, b, small",
        "no averages of LPIPS: a side is below 31 pixels in small",
        "patch-kid is without small: no patch fits",
    ]
    alone = evaluate(
        FakeModel(), [("a", photo(64, 200))], lambda_rates=(1e-3,), steps=(0,), codecs=(), metrics=[PATCH_KID]
    )
    assert alone.points[0].patch_kid is not None and alone.points[0].patch_kid_low is None
    assert " - " in alone.table()


def test_columns_are_those_of_the_metrics_chosen(networks, tmp_path):
    names = ("dists", PATCH_KID)
    result = evaluate(
        FakeModel(), [("a", photo())], lambda_rates=(1e-3,), steps=(0,), codecs=("jpeg",), metrics=names
    )
    heads = " ".join(result.table().partition("\n")[0].split())
    assert heads == "codec setting bpp ratio DISTS patch-KID 95 % encode s decode s"
    result.save(tmp_path / "r.json")
    written = json.loads((tmp_path / "r.json").read_text())
    point, row = written["points"][0], written["measurements"][0]
    assert {"dists", "patch_kid", "patch_kid_low", "patch_kid_high"} <= point.keys()
    assert "dists" in row and "patch_kid" not in row
    assert (
        not {"psnr", "ms_ssim", "texture", "lpips", "lpips_vgg", "ssimulacra2", "cvvdp"}
        & (point | row).keys()
    )
    assert written["comparisons"] == []


def test_without_a_choice_the_table_is_as_it_was():
    result = evaluate(FakeModel(), [("a", photo())], lambda_rates=(1e-3,), steps=(0,), codecs=())
    heads, line = result.table().splitlines()[:2]
    assert heads == "codec       setting     bpp  ratio   PSNR  MS-SSIM     dB  texture  encode s  decode s"
    assert len(line) == len(heads) and line.startswith("dhp K=0       0.001 ")


def test_metrics_change_no_other_figure(networks):
    pictures = [("a", photo())]
    plain = evaluate(FakeModel(), pictures, lambda_rates=(1e-3,), steps=(0,), codecs=())
    more = evaluate(
        FakeModel(),
        pictures,
        lambda_rates=(1e-3,),
        steps=(0,),
        codecs=(),
        metrics=(*DEFAULT_METRICS, *NETWORKS),
    )
    for field in ("bpp", "psnr", "ms_ssim", "texture"):
        assert getattr(plain.points[0], field) == getattr(more.points[0], field)
    assert torch.is_grad_enabled()
