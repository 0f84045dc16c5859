"""Random numbers that depend on a picture's number and on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


class PictureDraws:
    """What is drawn for each picture of a training, from a generator of the picture's own.

    A picture's numbers are a function of (seed, its number in the whole run): a batch gets the same ones
    whether one process or several work on it, and a resumed run needs no state of a generator.

    Args:
        seed: >= 0. device: of the numbers; a GPU draws others than a CPU.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, torch.device(device)
        self.first, self.begun = 0, 0
        self.generators: list[torch.Generator] = []

    def begin(self, first: int | None = None) -> None:
        """Let the pictures be numbers ``first`` .. from now on; None: those after the last ones."""
        self.first = self.first + self.begun if first is None else first
        self.begun = 0

    def rand(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1) for a batch, (B, ...)."""
        return self._stack(torch.rand, shape)

    def randn(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers for a batch, (B, ...)."""
        return self._stack(torch.randn, shape)

    def _stack(self, draw: Callable[..., Tensor], shape: Sequence[int]) -> Tensor:
        count, *rest = shape
        while self.begun < count:
            self._begin_picture()
        draws = [draw(rest, generator=one, device=self.device) for one in self.generators[:count]]
        return torch.stack(draws)

    def _begin_picture(self) -> None:
        """Set the generator of one more picture to the beginning of what is drawn for it."""
        if self.begun == len(self.generators):
            self.generators.append(torch.Generator(self.device))
        words = np.random.SeedSequence([self.seed, self.first + self.begun]).generate_state(1, np.uint64)
        self.generators[self.begun].manual_seed(int(words[0]))
        self.begun += 1


def normal_noise(like: Tensor, draws: PictureDraws) -> Tensor:
    """Standard normal noise in the shape of a batch (B, ...)."""
    return draws.randn(like.shape)


def uniform_noise(like: Tensor, draws: PictureDraws) -> Tensor:
    """Noise uniform in [-1/2, 1/2] in the shape of a batch (B, ...): the proxy of rounding (Ballé et al.
    2017).
    """
    return draws.rand(like.shape) - 0.5


Noise = Callable[[Tensor, PictureDraws], Tensor]
