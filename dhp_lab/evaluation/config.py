"""What an evaluation measures; no torch, so that `dhp evaluate --help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_LAMBDA_RATES = (2.3e-2, 1e-2, 4.4e-3, 1.9e-3, 8.3e-4, 3.6e-4, 1.6e-4, 6.9e-5, 3e-5)  # even in log
CLASSICAL_CODECS = ("jpeg", "webp", "jpeg2000", "avif")  # keys of `codecs.CODECS`
MORE_CODECS = ("avif420", "jxl", "hevc", "vvc")  # measured only if named

DEFAULT_METRICS = ("psnr", "ms-ssim", "texture")  # names of `judges.METRICS`
MORE_METRICS = ("lpips", "lpips-vgg", "dists", "patch-kid", "ssimulacra2", "cvvdp")  # only if named


@dataclass(frozen=True)
class EvaluationConfig:
    """The options of `dhp evaluate`.

    Attributes:
        data_path: folder of pictures, folders below included; `offline` is `photos.offline_photos`.
        model_path: folder of a checkpoint; None is the shipped one.
        output_dir: receives evaluation.json and samples/.
        batch_size: pictures of one size that are coded together.
        save_samples: whether the first pictures are written to samples/, original and decoded.
        steps: the numbers of diffusion steps K that each file is decoded with, 0 .. 1000.
        lambda_rates: trade-offs, 1e-6 .. 1e-1; BD-rates need at least four.
        effort: of the encoder, 0 .. 9, see `codec.effort`.
        gamma: weight of the posterior mean in a sample, 0 .. 1.
        seed: of the noise that K > 1 draws.
        codecs: the codecs that are measured beside ours; keys of `codecs.CODECS`.
        metrics: what decoded pictures are measured by; names of `judges.METRICS`, and patch-kid.
        device: "cpu", "cuda", ...; None takes the fastest.
        low_memory: see `DiffusionHyperprior.low_memory`.
        overwrite: replace a report in output_dir.
    """

    data_path: Path
    model_path: Path | None = None
    output_dir: Path = Path("evaluation_results")
    batch_size: int = 4
    save_samples: bool = False
    steps: tuple[int, ...] = (0, 1)
    lambda_rates: tuple[float, ...] = DEFAULT_LAMBDA_RATES
    effort: int = 0
    gamma: float = 0.0
    seed: int = 0
    codecs: tuple[str, ...] = CLASSICAL_CODECS
    metrics: tuple[str, ...] = DEFAULT_METRICS
    device: str | None = None
    low_memory: bool = False
    overwrite: bool = False
