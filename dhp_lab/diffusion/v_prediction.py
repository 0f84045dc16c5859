"""A network that predicts v in EDM's form, by noise level: the start of a consistency model."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from dhp_lab.diffusion.schedules import NoiseSchedule

LabelNetwork = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
"""``v = network(x_t, t, label)``: states (B, ...), times (B,) and labels (B,) or None for any class."""


class LabelledV(nn.Module):
    """-v as the F of EDM's preconditioning with sigma_data = 1, at noise levels instead of times.

    There D = c_skip u + c_out F is cos(phi)^2 u + sin(phi) F with tan(phi) = sigma, and x0 is cos(phi) z -
    sin(phi) v with z = cos(phi) u = c_in u: so F = -v (Salimans & Ho 2022, appendix D).

    Args:
        network: predicts v, given x_t, t and a label. schedule: of its times.
        label: (B,) whole numbers; None is any class.
    """

    def __init__(self, network: LabelNetwork, schedule: NoiseSchedule, label: Tensor | None) -> None:
        super().__init__()
        self.network, self.schedule, self.label = network, schedule, label

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """x (B, C, H, W) = u / sqrt(1 + sigma^2) and c_noise (B,) = ln(sigma) / 4 -> -v (B, C, H, W)."""
        t = self.schedule.time_of((4 * c_noise.double()).exp()).to(x)
        return -self.network(x, t, self.label)
