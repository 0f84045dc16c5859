r"""What training the realism denoiser minimises, on a frozen codec.

    loss = w_s statistics + w_p LPIPS + w_m MSE / 0.05^2 + w_d denoising

| part       | of                        | what it is                                                        |
|------------|---------------------------|-------------------------------------------------------------------|
| denoising  | a random noise level      | EDM's weighted squared error (Karras et al. 2022, eq. 8)          |
| statistics | a picture of 2 or 4 steps | Wasserstein distortion of local means and deviations, of the      |
|            |                           | picture and VGG-16's layers (Qiu et al. 2023)                     |
| LPIPS      | likewise                  | Zhang et al. 2018, on AlexNet                                     |
| MSE        | likewise                  | the squared error to the photo                                    |

With ``judges`` None there is the denoising loss alone: the first stage, a diffusion model in its own right.
The second stage goes through all steps of the sampler, which closes the gap between a chain of few steps and
the posterior (cf. Whang et al. 2022, "Deblurring via stochastic refinement"). The drawn picture is compared
in a window at a random place: a network of the losses that always sees the same grid of its strides leaves it
in the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.denoising.residual_sampling import ResidualSampler
from dhp_lab.codec.denoising.residual_unet import Conditions, pixel_scale
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.precision import autocast
from dhp_lab.diffusion.edm import edm_weight
from dhp_lab.metrics.perceptual import LPIPS
from dhp_lab.training.realism_config import RealismWeights

STEPS = 2, 2, 4  # of the sampler, one of them for a batch: with 2 alone, 4 draw worse pictures
LAMBDAS = 1e-3, 3e-2  # the trade-offs that are drawn, log-uniformly
LEVELS = 0.05, 3.2  # noise levels, likewise
WINDOW = 16  # pixels: side of the windows whose statistics are compared
LAYERS = 3  # of VGG-16 whose statistics are compared, each at half the resolution of the one before
LEAST_VARIANCE = 1e-4  # of a window: below it deviations are alike
UNIT_ERROR = 0.05  # the deviation whose square the MSE is divided by
SHIFT = 16  # pixels that the compared window moves by, at most


@dataclass(frozen=True)
class Judges:
    """The networks of the losses: LPIPS on AlexNet, and on VGG-16, whose layers' statistics are compared."""

    alexnet: LPIPS
    vgg16: LPIPS


class RealismObjective(nn.Module):
    """A realism denoiser with its loss.

    Args:
        model: the codec, frozen, in eval mode. sampler: with the network to train.
        judges: None leaves the denoising loss alone.
        seed: of everything random.
    """

    def __init__(
        self,
        model: DiffusionHyperprior,
        sampler: ResidualSampler,
        judges: Judges | None,
        weights: RealismWeights | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.sampler, self.network = model, sampler, sampler.network
        self.judges, self.weights = judges, weights or RealismWeights()
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """One batch's losses.

        Args:
            x: photos (B, 3, H, W) in [0, 1], sides multiples of 64.

        Returns:
            scalars by name; "objective" is the one to minimise.
        """
        conditions = decoded(self.model, x, self._log_uniform(len(x), *LAMBDAS).to(x.device))
        denoising = self.denoising_loss(x, conditions)
        if self.judges is None:
            return {"objective": denoising, "denoising": denoising.detach()}
        parts = {"denoising": denoising} | self.drawn_losses(x, conditions)
        objective = sum(getattr(self.weights, name) * part for name, part in parts.items())
        return {"objective": objective} | {name: part.detach() for name, part in parts.items()}

    def _log_uniform(self, count: int, low: float, high: float) -> Tensor:
        place = torch.rand(count, generator=self.generator)
        return torch.exp(math.log(low) + place * math.log(high / low))

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator).to(like)

    def denoising_loss(self, x: Tensor, conditions: Conditions) -> Tensor:
        """EDM's loss at noise levels drawn for each picture: 1 for an untrained network on residuals of unit
        variance.
        """
        residual = (x - conditions.picture) / pixel_scale(conditions.errors)
        sigma = self._log_uniform(len(x), *LEVELS).to(x)
        level = sigma.view(-1, 1, 1, 1)
        estimate = self.network(residual + level * self._noise(residual), sigma, conditions)
        return (edm_weight(level) * (estimate - residual).square()).mean()

    def drawn_losses(self, x: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """The losses of pictures drawn in one of STEPS steps, by name."""
        steps = STEPS[int(torch.randint(0, len(STEPS), (), generator=self.generator))]
        drawn = self.sampler.draw(conditions, self._noise(x), steps=steps)
        top, left = torch.randint(0, SHIFT + 1, (2,), generator=self.generator).tolist()
        height, width = x.shape[-2] - SHIFT, x.shape[-1] - SHIFT
        a, b = (image[..., top : top + height, left : left + width] for image in (drawn, x))
        with torch.no_grad():
            original = self._layers(b)
        return {
            "statistics": wasserstein_distortion(self._layers(a), original),
            "lpips": self.judges.alexnet(a, b).mean(),
            "mse": (drawn - x).square().mean() / UNIT_ERROR**2,
        }

    def _layers(self, x: Tensor) -> list[Tensor]:
        """The pictures and the first layers of VGG-16 on them."""
        with autocast(x.device):
            layers = self.judges.vgg16.features(x, LAYERS)
        return [x, *(layer.float() for layer in layers)]


@torch.no_grad()
def decoded(model: DiffusionHyperprior, x: Tensor, lambda_rate: Tensor) -> Conditions:
    """What the realism decoder is given of photos (B, 3, H, W) with trade-offs (B,): K = 1 of the codec."""
    state = model.decoder_state(model.training_latents(x, lambda_rate)).detach().with_moments()
    return model.realism_conditions(state, model.sampler.sample(state, steps=1))


def wasserstein_distortion(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """The squared Wasserstein distance of the local Gaussians of two pictures' layers, (): 0 for equal ones.

    A window's mean and deviation stand for its texture: the squared differences of both, averaged over
    windows and channels, and divided by the layer's mean variance in b.

    Args:
        a, b: the picture (B, 3, H, W) and layers (B, C, h, w) of falling resolution, of each.
    """
    total = a[0].new_zeros(())
    for one, other in zip(a, b, strict=True):
        side = max(2, round(WINDOW * one.shape[-1] / a[0].shape[-1]))
        (mean_a, deviation_a), (mean_b, deviation_b) = (_moments(layer, side) for layer in (one, other))
        distance = (mean_a - mean_b).square() + (deviation_a - deviation_b).square()
        total = total + distance.mean() / other.var((0, 2, 3)).mean().clamp(min=1e-3)
    return total


def _moments(layer: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of windows that overlap by half."""
    mean = F.avg_pool2d(layer, side, side // 2)
    variance = F.avg_pool2d(layer.square(), side, side // 2) - mean.square()
    return mean, variance.clamp(min=LEAST_VARIANCE).sqrt()
