"""The metrics of `dhp evaluate --metrics`, by their names there, and what each needs.

| name        | of a decoded picture and its original                       | better | needs                |
|-------------|-------------------------------------------------------------|--------|----------------------|
| psnr        | dB in RGB                                                   | more   |                      |
| ms-ssim     | 0 .. 1, sides of at least 161 pixels                        | more   |                      |
| texture     | gradient energy over the original's                         | 1      |                      |
| lpips       | LPIPS 0.1 on AlexNet, sides of at least 31                  | less   | the metric-networks  |
| lpips-vgg   | LPIPS 0.1 on VGG-16                                         | less   | the same             |
| dists       | DISTS on VGG-16                                             | less   | the same             |
| patch-kid   | of all pictures' 64-pixel patches, see `patch_distance`     | less   | the same             |
| ssimulacra2 | SSIMULACRA2, 100 for equal pictures                         | more   | the extra `rivals`   |
| cvvdp       | ColorVideoVDP on a 4K screen, in JOD, 10 for equal pictures | more   | the same             |

`dhp download metric-networks` brings the networks. A metric that cannot be had here is left out, with one
line on what is missing. VGG-16 takes about 1.5 kB of memory a pixel. The `Judges` of a run measure
each decoded picture, and remember its patches' features until the points of the curves are averaged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dhp_lab.core.download import DownloadError
from dhp_lab.core.paths import data_dir
from dhp_lab.evaluation import rival_metrics
from dhp_lab.evaluation.config import DEFAULT_METRICS
from dhp_lab.evaluation.measurements import PIXEL_METRICS, Measurement, Metric, Point, measure
from dhp_lab.metrics.efficientnet import efficientnet_features, efficientnet_lite0
from dhp_lab.metrics.patch_distance import cut_patches, paired_kernel_distance
from dhp_lab.metrics.perceptual import dists_network, lpips_network
from dhp_lab.metrics.pixels import round_to_8_bits

PATCH_KID = "patch-kid"
KEPT_PIXELS = 1 << 19  # an original of more has its layers computed anew for each decoded picture


class _OfNetwork:
    """A figure by a network that compares layers; those of the last original are kept."""

    def __init__(self, network: Callable[[], torch.nn.Module]) -> None:
        self.network = network
        self.kept: tuple[torch.nn.Module, Tensor, list[Tensor]] | None = None

    @torch.no_grad()
    def __call__(self, x_hat: Tensor, x: Tensor) -> float:
        network = self.network().to(x.device)
        layers = self._layers(network, x)
        return network.between(network.layers(x_hat), layers).item()

    def _layers(self, network: torch.nn.Module, x: Tensor) -> list[Tensor]:
        if self.kept is not None:
            of, original, layers = self.kept
            if of is network and original.device == x.device and torch.equal(original, x):
                return layers
        self.kept = layers = None  # before the next ones take memory
        layers = network.layers(x)
        if x[0, 0].numel() <= KEPT_PIXELS:
            self.kept = (network, x, layers)
        return layers


def _lpips_vgg() -> torch.nn.Module:
    return lpips_network("vgg16")


METRICS = PIXEL_METRICS | {
    "lpips": Metric("lpips", _OfNetwork(lpips_network), 31, lpips_network),
    "lpips-vgg": Metric("lpips_vgg", _OfNetwork(_lpips_vgg), 16, _lpips_vgg),
    "dists": Metric("dists", _OfNetwork(dists_network), 1, dists_network),
    "ssimulacra2": Metric(
        "ssimulacra2", rival_metrics.ssimulacra2, 8, lambda: rival_metrics.require("ssimulacra2")
    ),
    "cvvdp": Metric("cvvdp", rival_metrics.cvvdp, 16, lambda: rival_metrics.require("pycvvdp")),
}
NAMES = (*METRICS, PATCH_KID)


def choose_metrics(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the metrics that can be measured here, and a line on each that cannot.

    Args:
        names: as on the command line; one given twice counts once.

    Raises:
        ValueError: another name.
    """
    found, lines = [], []
    for name in dict.fromkeys(names):
        if name not in NAMES:
            raise ValueError(f"unknown metric {name!r}; choose from {', '.join(NAMES)}")
        try:
            (efficientnet_lite0 if name == PATCH_KID else METRICS[name].prepare)()
            found.append(name)
        except (DownloadError, rival_metrics.MissingPackage) as error:
            lines.append(f"{name} is left out: {error}")
    return found, lines


def without_folders(line: str) -> str:
    """Return a line of `choose_metrics` for a report, which names no folder of the machine."""
    return line.replace(str(data_dir()), "DHP_DATA").replace(str(Path(torch.hub.get_dir())), "TORCH_HOME/hub")


class Judges:
    """Measure decoded pictures by the metrics chosen.

    Args:
        names: of metrics that can be measured here, see `choose_metrics`.
        device: where networks are evaluated.
        seed: of what patch-kid draws.
    """

    def __init__(
        self, names: Sequence[str] = DEFAULT_METRICS, *, device: torch.device | str = "cpu", seed: int = 0
    ) -> None:
        self.names = tuple(names)
        self.device = torch.device(device)
        self.seed = seed
        self.real: dict[str, Tensor] = {}  # by picture: features of its patches
        self.fake: dict[tuple[str, float], dict[str, Tensor]] = defaultdict(dict)  # by codec and setting

    def measure(self, x_hat: Tensor, x: Tensor, **facts: object) -> Measurement:
        """Measure one decoded picture against its original, see `measurements.measure`.

        Args:
            x_hat, x: (1, 3, H, W) in [0, 1].
            facts: codec, setting, picture, n_bytes, encode_seconds and decode_seconds.
        """
        x_hat, x = round_to_8_bits(x_hat).to(self.device), x.to(self.device)
        if PATCH_KID in self.names:
            self._remember(x_hat, x, facts["codec"], facts["setting"], facts["picture"])
        metrics = [METRICS[name] for name in self.names if name != PATCH_KID]
        return measure(x_hat, x, metrics=metrics, **facts)

    def _remember(self, x_hat: Tensor, x: Tensor, codec: str, setting: float, picture: str) -> None:
        """Keep the features of a picture's patches, in half precision: 0.25 MB for one of Kodak's."""
        if picture not in self.real:
            self.real[picture] = self._features(x)
        self.fake[codec, setting][picture] = self._features(x_hat)

    def _features(self, x: Tensor) -> Tensor:
        return efficientnet_features(cut_patches(x, seed=self.seed)).half().cpu()

    def judge(self, points: Sequence[Point]) -> list[Point]:
        """Return the points with their patch-kid, if it was chosen and two patches at least were seen."""
        return [self._with_patches(point) for point in points]

    def _with_patches(self, point: Point) -> Point:
        fake = self.fake.get((point.codec, point.setting), {})
        seen = [name for name, features in fake.items() if len(features)]
        if sum(len(fake[name]) for name in seen) < 2:
            return point
        found = paired_kernel_distance(
            [self.real[name] for name in seen], [fake[name] for name in seen], seed=self.seed
        )
        return replace(point, patch_kid=found.value, patch_kid_low=found.low, patch_kid_high=found.high)

    def notes(self, measurements: Sequence[Measurement]) -> list[str]:
        """A line on each metric that some pictures are too small for."""
        lines = []
        for name in self.names:
            if name != PATCH_KID and (small := _without(METRICS[name].field, measurements)):
                side = METRICS[name].smallest_side
                lines.append(
                    f"no averages of {_title(name)}: a side is below {side} pixels in {', '.join(small)}"
                )
        small = sorted(name for name, features in self.real.items() if not len(features))
        return [*lines, *([f"{PATCH_KID} is without {', '.join(small)}: no patch fits"] if small else [])]


def _without(field: str, measurements: Sequence[Measurement]) -> list[str]:
    return sorted({one.picture for one in measurements if getattr(one, field) is None})


def _title(name: str) -> str:
    return name.upper() if name in ("psnr", "ms-ssim", "lpips", "dists") else name
