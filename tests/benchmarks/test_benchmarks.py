"""Every benchmark: its options, its table beside the figures that it wrote, and its place in the page."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from models import picture, untrained
from realism_codecs import codec

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS, RESULTS = ROOT / "benchmarks", ROOT / "data" / "results"
PARTS = {"common", "ablation_variants", "latent_cost_jobs", "realism_decoders"}  # of others, not to be run
TABLES = {  # result in data/results -> the benchmark that wrote it
    "ablation": "ablation",
    "ablation_codec": "ablation",
    "block_removal": "block_removal",
    "caption_accuracy": "caption_accuracy",
    "denoiser": "denoiser_worth",
    "digit_flow": "digit_flow",
    "digit_guidance": "digit_guidance",
    "digit_samplers": "digit_samplers",
    "digit_training": "digit_training",
    "effort": "effort",
    "explorer": "explorer_latency",
    "few_steps": "few_steps",
    "latent_cost": "latent_cost",
    "picture_measures": "picture_measures",
    "realism": "realism",
    "scenes_codec": "scenes_codec",
    "small_teachers": "small_teachers",
    "speed": "codec_speed",
    "start_up": "start_up",
    "tiling": "tiling_seams",
    "training_hours": "training_hours",
    "training_speed": "training_speed",
    "trellis_tables": "trellis_tables",
    "variants": "variants",
    "variants_trellis": "variants",
    "z_only": "z_only",
}
PAGE = "# P\n\n<!-- a: begin -->\nold\n<!-- a: end -->\n\n<!-- b: begin -->\nkept\n<!-- b: end -->\nend\n"


@pytest.fixture
def script(monkeypatch):
    """A benchmark as a module."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module


@pytest.mark.parametrize("name", sorted(file.stem for file in BENCHMARKS.glob("*.py")))
def test_the_help_of_every_benchmark_names_its_command_and_all_its_options(script, name):
    if name in PARTS:
        assert not hasattr(script(name), "make_parser")
        return
    parser = script(name).make_parser()
    text = parser.format_help()
    assert f"python benchmarks/{name}.py" in text and callable(script(name).main)
    options = [option for action in parser._actions for option in action.option_strings]
    assert len(options) == len(set(options)) and all(len(option) > 2 for option in options if option != "-h")
    if name not in ("tables", "without_adapter", "contact_sheet", "front_figures"):
        assert parser.get_default("output").parent == RESULTS


@pytest.mark.parametrize("result, name", TABLES.items())
def test_the_table_of_a_result_is_what_its_benchmark_makes_of_the_figures(script, result, name):
    found = json.loads((RESULTS / f"{result}.json").read_text("utf-8"))
    assert found["command"].startswith(f"python benchmarks/{name}.py")
    assert (RESULTS / f"{result}.md").read_text("utf-8") == script(name).table(found) + "\n"


def test_every_result_is_in_the_page(script):
    tables = script("tables")
    page = (BENCHMARKS / "README.md").read_text("utf-8")
    written = {file.stem: file.read_text("utf-8") for file in RESULTS.glob("*.md")}
    assert set(written) == set(TABLES) == set(tables.places(page))
    assert tables.filled(page, written) == page


def test_make_bench_runs_every_benchmark_that_needs_no_photos(script):
    rows = (BENCHMARKS / "README.md").read_text("utf-8").split("|---|---|---|\n")[1].split("\n\n")[0]
    listed = {row.split("`")[1].split(".py")[0]: row for row in rows.splitlines() if ".py" in row}
    assert set(TABLES.values()) <= set(listed)
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    (line,) = (line for line in makefile.splitlines() if line.startswith("BENCHES ?="))
    without_arguments = {name for name in TABLES.values() if not _required(script(name).make_parser())}
    assert set(line.split()[2:]) == without_arguments


def _required(parser) -> list[str]:
    return [action.dest for action in parser._actions if action.required]


def test_tables_are_put_between_their_marks_and_nothing_else_changes(script):
    tables = script("tables")
    page = tables.filled(PAGE, {"a": "| new |\n", "c": "| no place |"})
    assert page == PAGE.replace("old", "| new |") and tables.filled(page, {}) == page


@pytest.mark.parametrize(
    "page, message",
    [
        ("<!-- a: begin -->\n", "has no partner"),
        ("<!-- a: begin -->\n<!-- b: end -->\n", "has no partner"),
        (2 * "<!-- a: begin -->\n<!-- a: end -->\n", "two places called a"),
    ],
)
def test_a_page_with_odd_marks_is_refused(script, page, message):
    with pytest.raises(ValueError, match=message):
        script("tables").filled(page, {})


def test_a_page_is_filled_from_a_folder_of_results(script, tmp_path, capsys):
    (tmp_path / "a.md").write_text("| a |\n")
    (tmp_path / "c.md").write_text("| c |\n")
    (tmp_path / "page.md").write_text(PAGE)
    script("tables").main(["--page", str(tmp_path / "page.md"), "--results", str(tmp_path)])
    assert (tmp_path / "page.md").read_text() == PAGE.replace("old", "| a |")
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["a: from a.md", "b: kept as it was"] and "c.md has no place in page.md" in printed


def test_steps_and_minutes_are_those_of_the_logs_last_training(script, tmp_path):
    (tmp_path / "best_checkpoint").mkdir()
    lines = [
        "2026-01-01 10:00:00,1 INFO 900 steps: {}",
        "2026-01-01 11:00:00,1 INFO step 900 loss 1",
        "2026-01-01 12:00:00,1 INFO 400 steps: {}",
        "2026-01-01 12:30:00,1 INFO validation at step 400: objective 1",
    ]
    (tmp_path / "training.log").write_text("\n".join(lines))
    trained = script("variants").trained
    assert trained(tmp_path) == (400, 30.0) and trained(tmp_path / "best_checkpoint") == (None, None)


def test_a_variant_is_a_folder_and_the_settings_that_are_changed(script):
    variant = script("variants").variant("leaning=runs/fifth dead_zone=0.3 passes=2 trellis=true")
    assert variant.name == "leaning" and variant.folder == Path("runs/fifth")
    assert variant.values == {"dead_zone": 0.3, "passes": 2, "trellis": True}
    assert variant.source == "fifth dead_zone=0.3 passes=2 trellis=true"


def rounded(values: object) -> object:
    """Figures of a result to nine decimal places, whatever they are nested in."""
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items()}
    if isinstance(values, list):
        return [rounded(value) for value in values]
    return round(values, 9) if isinstance(values, float) else values


def test_the_curves_of_the_denoiser_are_compared_again(script, tmp_path, capsys):
    output = tmp_path / "denoiser.json"
    script("denoiser_worth").main(["--output", str(output)])
    again, kept = (json.loads(path.read_text()) for path in (output, RESULTS / "denoiser.json"))
    assert rounded(again) == rounded(kept)  # the last digits of an interpolation are the processor's
    assert capsys.readouterr().out == (RESULTS / "denoiser.md").read_text("utf-8")


def test_an_orthonormal_transform_has_no_cap(script, tmp_path, monkeypatch, capsys):
    """All 768 channels, nothing learnt: without rounding each picture comes back."""
    module, output = script("quality_cap"), tmp_path / "quality_cap.json"
    monkeypatch.setattr(module, "load_codec", lambda _: untrained(M=768))
    chosen = [("photo", "a", picture(32, 48)), ("drawing", "b", picture(16, 16, seed=1))]
    monkeypatch.setattr(module, "pictures", lambda: iter(chosen))
    module.main(["--lambda_rates", "1e-2,1e-4", "--output", str(output)])
    found = json.loads(output.read_text())
    coarse, fine = (at for at in found["rows"][0]["measured"])
    assert coarse["unrounded"] == fine["unrounded"] == found["mean_unrounded_of_photos"]["0.01"]
    assert coarse["unrounded"] > 55 and coarse["psnr"] < fine["psnr"] and coarse["bytes"] < fine["bytes"]
    assert capsys.readouterr().out == output.with_suffix(".md").read_text("utf-8")


@pytest.mark.slow
def test_tiles_leave_no_seam_in_a_small_picture(script, tmp_path, capsys):
    output = tmp_path / "tiling.json"
    script("tiling_seams").main(["--width", "96", "--height", "64", "--tile", "2", "--output", str(output)])
    found = json.loads(output.read_text())
    rows = found["rows"]
    assert [row["decoder"] for row in rows] == ["K = 1"] * 3 + ["realism, K = 2"] * 3 and not found["note"]
    assert all(row["picture_in_levels"] < 0.01 for row in rows)
    assert capsys.readouterr().out == output.with_suffix(".md").read_text()


def test_the_realism_part_has_rows_of_its_own_in_the_benchmark_of_seams(
    script, tmp_path, monkeypatch, in_float32
):
    module, output = script("tiling_seams"), tmp_path / "tiling.json"
    monkeypatch.setattr(module, "load_codec", lambda _: codec())
    monkeypatch.setattr(module, "LAMBDA_RATES", (1e-2,))
    monkeypatch.setattr(module, "mosaic", lambda width, height: picture(height, width))
    module.main(["--width", "512", "--height", "32", "--tile", "12", "--output", str(output)])
    plain, drawn = json.loads(output.read_text())["rows"]
    assert (plain["decoder"], drawn["decoder"]) == ("K = 1", "realism, K = 2")
    assert plain["picture_in_levels"] < 0.01 and drawn["picture_in_levels"] < 0.01
    assert (
        drawn["latents_in_steps"] is None and "| realism, K = 2 |  |" in output.with_suffix(".md").read_text()
    )


IMPORT_TIMES = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 |   zipimport
import time:       200 |        300 | site
a line that a program wrote
import time:        10 |         10 |     torch._C
import time:      5000 |       5010 |   torch
import time:        40 |         40 |   numpy
import time:        50 |       5100 | dhp_lab.data.images
"""


def test_import_times_are_read_as_a_tree(script):
    program = script("start_up").read_import_times(IMPORT_TIMES)
    assert [(one.name, one.seconds) for one in program.parts] == [
        ("site", 300e-6),
        ("dhp_lab.data.images", 5100e-6),
    ]
    images, site = program.largest(5)
    assert [one.name for one in images.largest(1)] == ["torch"] and [one.name for one in site.parts] == [
        "zipimport"
    ]
    assert [one.name for one in images.parts[0].parts] == ["torch._C"] and program.seconds == pytest.approx(
        5400e-6
    )


def test_no_import_times_make_an_empty_tree(script):
    assert script("start_up").read_import_times("nothing\n").parts == []
