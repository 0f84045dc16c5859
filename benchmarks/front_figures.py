"""The two charts of README.md: rate against distortion, and rate against realism, on Kodak's 24 photos.

    python benchmarks/front_figures.py [--results data/results] [--folder data/figures]

    rate_distortion.svg   PSNR of our files beside those of other codecs: coded by `dhp evaluate` (kodak.json
                          in --results), and published (data/anchors)
    rate_realism.svg      LPIPS, DISTS and PSNR of what `benchmarks/realism.py` decoded with K = 0 and K = 2
                          (realism.json), beside published generative codecs; left out, with a line that says
                          so, where realism.json has no LPIPS

Measures nothing itself. Prints what it wrote.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from common import RESULTS, ROOT
from matplotlib.figure import Figure

from dhp_lab.core.files import write_atomic
from dhp_lab.lessons.evaluation.figures import curves_figure
from dhp_lab.lessons.evaluation.kodak import codec_curves, kodak_results, published_kodak
from dhp_lab.lessons.evaluation.perceptual import our_perceptual, perceptual_figure, published_perceptual

OURS, WIDEST = "ours, K = 0", 1.6  # bits per pixel
CODED = ("AVIF 4:4:4", "AVIF 4:2:0", "HEVC 4:4:4", "WebP", "JPEG")
PUBLISHED = {"bmshj2018-hyperprior": "scale hyperprior (2018)", "vtm": "VVC, reference encoder (VTM)"}
DECODERS = ("ours, K = 0", "ours, K = 2", "ours, K = 4")
GENERATIVE = ("HiFiC", "MS-ILLM", "RDEIC-2")


def rate_distortion(results: Path) -> Figure:
    """PSNR against bits per pixel.

    Raises:
        FileNotFoundError: `dhp evaluate` has not run on Kodak.
    """
    measured = codec_curves(kodak_results(results / "kodak.json")[0])["PSNR"]
    published = published_kodak()["PSNR"]
    curves = {OURS: measured[OURS]} | {name: published[key] for key, name in PUBLISHED.items()}
    curves |= {name: measured[name] for name in CODED if name in measured}
    return curves_figure({"Kodak, 24 photos": curves}, ylabel="PSNR, dB", widest=WIDEST)


def rate_realism(results: Path) -> Figure | None:
    """LPIPS, DISTS and PSNR against bits per pixel; None where ours were not measured."""
    rows = json.loads((results / "realism.json").read_text())["rows"]
    ours = our_perceptual((), rows)
    ours = {name: curves for name, curves in ours.items() if name in DECODERS}
    return perceptual_figure(ours | published_perceptual(GENERATIVE)[0]) if ours else None


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "figures")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw both charts and write them."""
    options = make_parser().parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    for draw in (rate_distortion, rate_realism):
        figure = draw(options.results)
        if figure is None:
            print(f"{draw.__name__}.svg: not drawn, realism.json has no LPIPS")
            continue
        path = options.folder / f"{draw.__name__}.svg"
        write_atomic(path, svg(figure))
        print(path)


def svg(figure: Figure) -> bytes:
    """The same bytes for the same figure."""
    data = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "dhp-lab"}):
        figure.savefig(data, format="svg", metadata={"Date": None})
    return data.getvalue()


if __name__ == "__main__":
    main()
