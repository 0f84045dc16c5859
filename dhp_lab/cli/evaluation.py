"""``dhp evaluate``, and ``download``, which fetches the pictures and networks to evaluate with."""

from __future__ import annotations

from typing import Annotated

import typer

from dhp_lab.cli.app import DEVICE, LOW_MEMORY, MODEL_PATH, app
from dhp_lab.cli.options import options_from
from dhp_lab.evaluation.config import (
    CLASSICAL_CODECS,
    DEFAULT_METRICS,
    MORE_CODECS,
    MORE_METRICS,
    EvaluationConfig,
)

EVALUATION_OPTIONS = {
    "data_path": "Folder of pictures, folders below included; `offline`: seven photos that packages bring.",
    "model_path": MODEL_PATH,
    "output_dir": "Receives evaluation.json and samples/.",
    "batch_size": "Pictures of one size coded together.",
    "save_samples": "Write some pictures, original and decoded.",
    "steps": "Numbers of diffusion steps K, separated by commas.",
    "lambda_rates": typer.Option(
        "--lambda_rates", help="Trade-offs, separated by commas; else nine of them.", show_default=False
    ),
    "effort": "Of the encoder, 0 .. 9: time spent on smaller files.",
    "gamma": "0 .. 1: 0 the sample, 1 the posterior mean.",
    "seed": "Of the noise that K > 1 draws.",
    "codecs": typer.Option(
        "--codecs",
        metavar="NAMES",
        help=f"Some of {','.join(CLASSICAL_CODECS + MORE_CODECS)}, or none; "
        f"{','.join(CLASSICAL_CODECS)} if not given. jxl, hevc and vvc need the extra [rivals].",
        show_default=False,
    ),
    "metrics": typer.Option(
        "--metrics",
        metavar="NAMES",
        help=f"Some of {','.join(DEFAULT_METRICS + MORE_METRICS)}, or none; {','.join(DEFAULT_METRICS)} if "
        "not given. lpips to patch-kid need `dhp download metric-networks`, the last two the extra [rivals].",
        show_default=False,
    ),
    "device": DEVICE,
    "low_memory": LOW_MEMORY,
    "overwrite": "Replace a report in output_dir.",
}


@app.command()
@options_from(EvaluationConfig, EVALUATION_OPTIONS)
def evaluate(config: EvaluationConfig) -> None:
    """Measure a codec on real files, beside JPEG, WebP, JPEG 2000, AVIF and, if named, stronger ones."""
    from dhp_lab.evaluation.evaluate import run

    run(
        config,
        log=lambda line: typer.echo(line, err=True),
        show=lambda report: typer.echo(report.table()),
    )


@app.command()
def download(
    name: Annotated[
        str,
        typer.Argument(
            metavar="kodak|fashion-mnist|metric-networks",
            help="A data set, or the networks of LPIPS, DISTS and patch-KID.",
        ),
    ],
) -> None:
    """Fetch a data set, or networks to measure with, to the folder DHP_DATA, checked; what is there stays."""
    if name == "metric-networks":
        from dhp_lab.metrics.network_files import download as fetch_networks

        folder = fetch_networks(report=typer.echo)
    else:
        from dhp_lab.data.downloads import DATASETS
        from dhp_lab.data.downloads import download as fetch

        if name not in DATASETS:
            names = ", ".join([*DATASETS, "metric-networks"])
            raise ValueError(f"no data set {name!r}; choose one of {names}")
        folder = fetch(name, report=typer.echo)
    typer.echo(f"{name}: complete in {folder}")
