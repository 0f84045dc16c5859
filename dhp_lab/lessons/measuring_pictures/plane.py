"""A number seen through noise: a toy on which the perception-distortion plane is known exactly.

x is drawn from a mixture of Gaussians, y = x + sigma n. A decoder makes x_hat of y. Its distortion is
D = E (x_hat - x)^2, its perception index P the Wasserstein distance W2 between x_hat and x as distributions
(Blau & Michaeli 2018). For this pair the bound has a closed form (Freirich, Michaeli & Meir 2021, theorem 1):

    D(P) = D* + max(W* - P, 0)^2,     D* = E (x* - x)^2,   W* = W2(x*, x),   x* = E[x | y]

| decoder                | function        | D and P                                                       |
|------------------------|-----------------|---------------------------------------------------------------|
| posterior mean         | `decode`, K = 1 | D*, W*: the left end of the bound                             |
| deterministic sampling | `decode`, eta 0 | walks along the bound as K grows; in one dimension to its end |
| ancestral sampling     | `decode`, eta 1 | ends at a sample of the posterior: 2 D*, 0                    |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """Gaussians of equal weight and one deviation.

    Attributes:
        means: of the components.
        deviation: above 0.
    """

    means: tuple[float, ...]
    deviation: float

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw (count,) numbers, float64."""
        which = torch.randint(len(self.means), (count,), generator=generator)
        noise = torch.randn(count, generator=generator, dtype=torch.float64)
        return torch.tensor(self.means, dtype=torch.float64)[which] + self.deviation * noise

    def posterior_mean(self, y: Tensor, sigma: float) -> Tensor:
        """E[x | y] of y (count,) = x + sigma n."""
        means, variance = torch.tensor(self.means, dtype=y.dtype), self.deviation**2
        offsets = y[:, None] - means  # (count, components)
        weights = (-offsets.square() / (2 * (variance + sigma**2))).softmax(1)
        return (weights * (means + variance / (variance + sigma**2) * offsets)).sum(1)


GAUSSIAN = Mixture((0.0,), 1.0)
ISLANDS = Mixture((-1.0, 1.0), 0.25)


def wasserstein(a: Tensor, b: Tensor) -> float:
    """W2 of two equally large sets of numbers: in one dimension, sorted values belong together.

    Raises:
        ValueError: sets of different sizes.
    """
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(
            f"two sets of equally many numbers are needed, got {tuple(a.shape)}, {tuple(b.shape)}"
        )
    return (a.sort().values - b.sort().values).square().mean().sqrt().item()


def bound(perception: Tensor, mmse: float, distance: float) -> Tensor:
    """The least distortion at each perception index: D* + max(W* - P, 0)^2.

    Args:
        perception: P, any shape, at least 0.
        mmse, distance: D* and W* of the posterior mean.
    """
    return mmse + (distance - perception).clamp(min=0).square()


def decode(y: Tensor, sigma: float, steps: int, prior: Mixture, *, eta: float = 0.0, seed: int = 0) -> Tensor:
    """Decode y in K steps from noise level sigma down to 0, evenly spaced, with the ideal denoiser.

    DDIM (Song et al. 2021, eq. 12) in sigma, the noise level s -> r:  x0 = E[x | x_s],
    x_r = x0 + sqrt(r^2 - v) (x_s - x0) / s + sqrt(v) n,  v = eta^2 r^2 (1 - r^2 / s^2).

    Args:
        y: (count,).
        sigma: above 0.
        steps: K, at least 1; K = 1 is the posterior mean.
        prior: of x.
        eta: 0 is deterministic, 1 ancestral sampling.
        seed: of the noise.

    Returns:
        (count,).
    """
    generator = torch.Generator().manual_seed(seed)
    levels = torch.linspace(sigma, 0, steps + 1).tolist()
    x = y
    for now, later in zip(levels, levels[1:], strict=False):
        x0 = prior.posterior_mean(x, now)
        variance = (eta * later) ** 2 * (1 - (later / now) ** 2)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = x0 + (later**2 - variance) ** 0.5 * (x - x0) / now + variance**0.5 * noise
    return x
