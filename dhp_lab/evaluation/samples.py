"""Pictures that an evaluation leaves behind: originals beside what was decoded, no two under one name."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from dhp_lab.data.images import save_image


class SampleFiles:
    """A folder of PNG files: `<picture>.png` and, decoded, `<picture>_lambda<l>_K<k>.png`.

    `<picture>` is the path of the picture without its suffix and with `_` for `/`. Where this would overwrite
    a file of another picture (`a.png` beside `a.jpg`), it is the path with its suffix, then with a number.

    Args:
        folder: made when the first picture is saved.
        lambda_rates, steps: all that pictures will be saved with.
    """

    def __init__(self, folder: Path, lambda_rates: Sequence[float], steps: Sequence[int]) -> None:
        self.folder = folder
        self.endings = ["", *(_ending(lambda_rate, k) for lambda_rate in lambda_rates for k in steps)]
        self.labels: dict[str, str] = {}  # by the name of the picture
        self.taken: set[str] = set()  # names of files, in lower case: some disks do not tell A from a

    def save(self, name: str, x: Tensor, x_hat: Tensor, lambda_rate: float, k: int) -> None:
        """Write a picture and what was decoded, both (1, 3, H, W) in [0, 1].

        Raises:
            OSError: the disk's own trouble.
        """
        label = self.label(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        save_image(x, self.folder / f"{label}.png")
        save_image(x_hat, self.folder / f"{label}{_ending(lambda_rate, k)}.png")

    def label(self, name: str) -> str:
        """`<picture>` for a name, the same at each call."""
        if name not in self.labels:
            label = self._free_label(name)
            self.labels[name] = label
            self.taken |= self._files(label)
        return self.labels[name]

    def _free_label(self, name: str) -> str:
        whole = name.replace("/", "_")
        first = [Path(name).with_suffix("").as_posix().replace("/", "_"), whole]
        numbered = (f"{whole}_{number}" for number in itertools.count(2))
        return next(
            label for label in itertools.chain(first, numbered) if not self._files(label) & self.taken
        )

    def _files(self, label: str) -> set[str]:
        return {f"{label}{ending}".casefold() for ending in self.endings}


def _ending(lambda_rate: float, k: int) -> str:
    return f"_lambda{lambda_rate:g}_K{k}"
