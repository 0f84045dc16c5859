"""How well a realism denoiser draws the validation crops: K = 1, 2 and 4 at two rates.

| figure | of the mean over the crops        | where                                    |
|--------|-----------------------------------|------------------------------------------|
| PSNR   | dB in RGB                         | always                                   |
| LPIPS  | LPIPS on AlexNet                  | where `dhp download metric-networks` was |
| DISTS  | DISTS, which the losses never see | likewise                                 |
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dhp_lab.codec.denoising.residual_sampling import ResidualSampler
from dhp_lab.codec.denoising.residual_unet import Conditions
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.metrics.network_files import MissingNetwork
from dhp_lab.metrics.perceptual import dists_network, lpips_network
from dhp_lab.metrics.pixels import psnr
from dhp_lab.training.realism_objective import decoded
from dhp_lab.training.run_board import SHOWN, RunBoard

log = logging.getLogger(__name__)

RATES = 1.5e-2, 5e-3  # the trade-offs: small files and larger ones
STEPS = 1, 2, 4  # K; the first is the codec's own picture
TITLE = "photo, then K = 1, 2, 4 at each rate"


def validation_judges(device: torch.device) -> dict[str, nn.Module]:
    """LPIPS and DISTS by name, those whose files are here; the log names one that is missing."""
    found = {}
    for name, network in (("LPIPS", lpips_network), ("DISTS", dists_network)):
        try:
            found[name] = network().to(device)
        except MissingNetwork as error:
            log.info("validations are without %s: %s", name, error)
    return found


@dataclass(frozen=True)
class Drawn:
    """The validation crops decoded in K steps.

    Attributes:
        lambda_rate, steps: the trade-off, and K.
        pictures: (B, 3, H, W) in [0, 1], on the CPU. figures: means over the crops, by name.
    """

    lambda_rate: float
    steps: int
    pictures: Tensor
    figures: Mapping[str, float]


class Validation:
    """The crops to validate on. What no training changes, K = 1, is decoded once.

    Args:
        model: the codec. x: (B, 3, H, W) in [0, 1], sides multiples of 64.
        judges: as of ``validation_judges``.
    """

    def __init__(self, model: DiffusionHyperprior, x: Tensor, judges: Mapping[str, nn.Module]) -> None:
        self.model, self.x, self.judges = model, x, judges
        self.kept: dict[float, tuple[Conditions, Drawn]] = {}

    @torch.no_grad()
    def draw(self, sampler: ResidualSampler) -> list[Drawn]:
        """The crops at RATES in STEPS, always from the same noise; sampler: with the network to judge."""
        layers = {name: judge.layers(self.x) for name, judge in self.judges.items()}
        found = []
        for rate in RATES:
            if rate not in self.kept:
                rates = torch.full((len(self.x),), rate, device=self.x.device)
                conditions = decoded(self.model, self.x, rates)
                self.kept[rate] = conditions, self._judged(rate, 1, conditions.picture, layers)
            conditions, mean = self.kept[rate]
            drawn = ((steps, sampler.sample(conditions, steps=steps)) for steps in STEPS[1:])
            found += [mean, *(self._judged(rate, steps, picture, layers) for steps, picture in drawn)]
        return found

    def _judged(self, rate: float, steps: int, picture: Tensor, layers: Mapping[str, list[Tensor]]) -> Drawn:
        """Pictures with their figures; ``layers`` are the photos', by judge."""
        picture = picture.clamp(0, 1)
        figures = {"PSNR": psnr(picture, self.x).mean().item()}
        for name, judge in self.judges.items():
            figures[name] = judge.between(judge.layers(picture), layers[name]).mean().item()
        return Drawn(rate, steps, picture.cpu(), figures)


def report(board: RunBoard, step: int, found: list[Drawn], x: Tensor) -> None:
    """Show a validation of crops x (B, 3, H, W): a line of the log for each rate, curves, and a sheet."""
    for rate in RATES:
        row = [drawn for drawn in found if drawn.lambda_rate == rate]
        figures = "; ".join(f"K = {one.steps}: {_words(one.figures)}" for one in row)
        log.info("validation at step %d, lambda %g: %s", step, rate, figures)
    for one in found:
        for name, value in one.figures.items():
            board.figure(step, f"{name} at lambda {one.lambda_rate:g}, K = {one.steps}", value)
    rows = [x.cpu(), *(one.pictures for one in found)]
    board.sheet(step, TITLE, torch.cat([torch.cat(list(row[:SHOWN]), 2) for row in rows], 1))


def _words(figures: Mapping[str, float]) -> str:
    """The figures of a line in the log."""
    return " ".join(
        f"{name} {value:.2f} dB" if name == "PSNR" else f"{name} {value:.4f}"
        for name, value in figures.items()
    )
