"""What a training shows while it runs: curves and pictures for TensorBoard, and lines of its log."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import torch
from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dhp_lab.data.images import save_image
from dhp_lab.training.run_folder import BOARD, SAMPLES

log = logging.getLogger(__name__)

SHOWN = 4  # pictures of a sample sheet


class RunBoard:
    """The curves of a run, and its sheets of sample pictures.

    Args:
        folder: of the run. step: where it begins; what an earlier run showed of later steps is hidden.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self.writer = SummaryWriter(folder / BOARD, purge_step=step + 1 if step else None)
        self.hook = threading.excepthook
        threading.excepthook = self._without_disk_errors

    def _without_disk_errors(self, arguments: threading.ExceptHookArgs) -> None:
        """Print no traceback of a full disk from TensorBoard's thread: the next curve raises the error."""
        if type(arguments.thread) is not _AsyncWriterThread or not isinstance(arguments.exc_value, OSError):
            self.hook(arguments)

    def report(self, step: int, values: dict[str, float], lr: float) -> None:
        """Add the losses of a training step, and its learning rate."""
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, step)
        self.writer.add_scalar("train/learning rate", lr, step)

    def validation(self, step: int, rows: list[dict], score: float, x: Tensor) -> None:
        """Add a validation, as ``CodecObjective.validate`` gives it for pictures ``x``, and its sheet."""
        for row in rows:
            for name in ("bpp", "psnr"):
                self.writer.add_scalar(f"validation/{name} at lambda {row['lambda_rate']:g}", row[name], step)
        self.writer.add_scalar("validation/objective", score, step)
        points = [f"lambda {r['lambda_rate']:g}: {r['bpp']:.3f} bpp {r['psnr']:.2f} dB" for r in rows]
        log.info("validation at step %d: objective %.4f; %s", step, score, "; ".join(points))
        columns = torch.cat([x[:SHOWN], rows[len(rows) // 3]["x_hat"][:SHOWN].cpu()], 2)  # (B, 3, 2 H, W)
        sheet = torch.cat(list(columns), 2).clamp(0, 1)
        self.sheet(step, "original above, decoded below", sheet)

    def figure(self, step: int, title: str, value: float) -> None:
        """Add a figure of a validation."""
        self.writer.add_scalar(f"validation/{title}", value, step)

    def sheet(self, step: int, title: str, sheet: Tensor) -> None:
        """Add a picture (3, H, W) in [0, 1] of a validation, and write it to the folder of samples."""
        self.writer.add_image(f"validation/{title}", sheet, step)
        save_image(sheet, self.folder / SAMPLES / f"step_{step:07d}.png")

    def close(self, *, failed: bool) -> None:
        """Write what is left; after a failure, as far as the disk allows.

        Raises:
            OSError: the disk's own trouble, in a run that went well.
        """
        try:
            self.writer.close()
        except OSError:
            if not failed:
                raise
        finally:
            threading.excepthook = self.hook
