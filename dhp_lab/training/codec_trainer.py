"""Training: one loop on Accelerate, three stages (codec, denoiser, joint), exact resume, nothing lost when it
stops.

    codec     transforms, hyperprior and gain curve; straight-through rounding for g_s, uniform noise for the rate
    denoiser  the codec is frozen; D learns K = 1 through the frozen g_s, and the lower noise levels in the latents
    joint     everything, with D left out in a share of the pictures so that K = 0 stays an honest decode

A batch is a function of (seed, step) alone and the random state is saved, so a resumed run repeats an
unbroken one.

    accelerate launch -m dhp_lab.cli train --data_path photos ...       # several GPUs or machines
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dhp_lab.codec.checkpoint import save_model
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.settings import choose_device
from dhp_lab.data.crops import PhotoCrops, prefetching
from dhp_lab.data.images import list_images, save_image
from dhp_lab.training.codec_config import TrainingConfig, TrainingError
from dhp_lab.training.codec_objective import Objective
from dhp_lab.training.codec_state import load_training_state, save_training_state

log = logging.getLogger(__name__)

STAGES = ("codec", "denoiser", "joint")
REPORT_EVERY = 50  # steps between TensorBoard scalars; training.log gets every fourth


def train(config: TrainingConfig) -> Path:
    """Run all stages and return the folder of the best checkpoint.

    Raises:
        ImageError: no usable photo. TrainingError: the loss is not finite or a checkpoint cannot be written.
    """
    return Trainer(config).run()


def split_validation(crops: PhotoCrops) -> PhotoCrops:
    """Take the photos that a training validates on out of its own: every 20th, of many photos about 16."""
    return crops.hold_out(every=max(20, len(crops) // 16))


class Trainer:
    """The state of one run: photos, model, average, optimiser, step."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.out = Path(config.output_dir)
        (self.out / "samples").mkdir(parents=True, exist_ok=True)
        self.accelerator = Accelerator(cpu=choose_device(config.device).type == "cpu")
        if self.accelerator.is_main_process:
            self._log_to_file()
        self.crops, self.val = self._photos()
        per_epoch = math.ceil(len(self.crops) / (config.batch_size * self.accelerator.num_processes))
        self.lengths = [per_epoch * e for e in (config.epochs, config.denoiser_epochs, config.joint_epochs)]
        self.total = sum(self.lengths)
        torch.manual_seed(config.seed + 7919 * self.accelerator.process_index)
        self.model = (
            self.config.model().to(self.accelerator.device, memory_format=torch.channels_last).train()
        )
        self.objective = Objective(self.model, config.lambda_rate)
        self.ema = EMAModel(
            self.model.parameters(),
            decay=config.ema_decay,
            use_ema_warmup=True,
            inv_gamma=1.0,
            power=0.75,
            foreach=True,
        )
        self.step, self.best, self.stage, self.optimizer = 0, math.inf, None, None
        if config.resume:
            self._resume()

    def run(self) -> Path:
        """Go on from the current step to the end; returns the folder of the best checkpoint."""
        board = SummaryWriter(self.out / "tensorboard") if self.accelerator.is_main_process else None
        log.info(
            "%d steps: %s; %s",
            self.total,
            dict(zip(STAGES, self.lengths, strict=True)),
            json.dumps(asdict(self.config)),
        )
        try:
            self._loop(board)
            self._export("final_checkpoint")
        except OSError as error:
            raise TrainingError(
                f"cannot write to {self.out}: {error.strerror or error}; the last good checkpoint there is intact. "
                "Make room, then go on with --resume"
            ) from None
        except KeyboardInterrupt:
            self._save()
            raise TrainingError(f"stopped at step {self.step}; go on with --resume") from None
        finally:
            if board:
                board.close()
        return self.out / "best_checkpoint"

    def _loop(self, board: SummaryWriter | None) -> None:
        saved = time.monotonic()
        with (
            prefetching() as reader,
            tqdm(total=self.total, initial=self.step, disable=board is None) as bar,
        ):
            ahead = reader.submit(self._batch, self.step)
            while self.step < self.total:
                x, ahead = ahead.result(), reader.submit(self._batch, self.step + 1)
                report = self._train_step(x)
                self.step += 1
                bar.update()
                if self.step % REPORT_EVERY == 0 and board:
                    self._report(board, bar, report)
                if self.step % self.config.validate_every == 0 or self.step == self.total:
                    self._validate(board)
                if (
                    time.monotonic() - saved > 60 * self.config.minutes_between_saves
                    or self.step == self.total
                ):
                    self._save()
                    saved = time.monotonic()

    # one step

    def _train_step(self, x: Tensor) -> dict[str, float]:
        self.enter_stage()
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self._lr_share()
        if self.step % 500 == 0 and self.stage != "denoiser":
            self.model.update(force=True, update_quantiles=True)  # medians follow the moving prior of z
        losses = self.wrapped(x.to(self.accelerator.device), self.stage)
        if not bool(torch.isfinite(losses["objective"])):
            raise TrainingError(
                f"the loss is {losses['objective'].item()} at step {self.step}; the last good state is in {self.out}. "
                f"Resume with a smaller --lr (now {self.config.lr:g}) or a smaller --lambda_rate"
            )
        self.optimizer.zero_grad()
        self.accelerator.backward(losses["objective"])
        norm = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.config.clip)
        self.optimizer.step()
        self.ema.step(self.model.parameters())
        return {"gradient norm": norm.detach(), **{name: value.detach() for name, value in losses.items()}}

    def enter_stage(self, stage: str | None = None) -> None:
        stage = stage or STAGES[next(i for i in range(3) if self.step < sum(self.lengths[: i + 1]))]
        if stage == self.stage:
            return
        self.stage = stage
        self.objective.zero_grad(set_to_none=True)  # gradients of parts that now rest
        groups = self.objective.parameter_groups(stage, self.config.lr)
        self.wrapped, self.optimizer = self.accelerator.prepare(
            self.objective, torch.optim.Adam(groups, fused=True)
        )
        log.info("stage '%s' from step %d", stage, self.step)

    def _lr_share(self) -> float:
        index = STAGES.index(self.stage)
        done = (self.step - sum(self.lengths[:index])) / self.lengths[index]
        warm = (self.step - sum(self.lengths[:index]) + 1) / min(200, self.lengths[index])
        return min(1.0, warm) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

    def _batch(self, step: int) -> Tensor:
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        x = self.crops.batch(step * world + rank, self.config.batch_size)
        return x.contiguous(memory_format=torch.channels_last)

    # what the run leaves behind

    def _report(self, board: SummaryWriter, bar: tqdm, report: dict[str, Tensor]) -> None:
        values = {name: float(value) for name, value in report.items()}
        for name, value in values.items():
            board.add_scalar(f"train/{name}", value, self.step)
        board.add_scalar("train/learning rate", self.optimizer.param_groups[0]["lr"], self.step)
        bar.set_postfix(stage=self.stage, **{name: f"{value:.4g}" for name, value in values.items()})
        if self.step % (4 * REPORT_EVERY) == 0:
            log.info(
                "step %d %s", self.step, " ".join(f"{name} {value:.5g}" for name, value in values.items())
            )

    @torch.no_grad()
    def _validate(self, board: SummaryWriter | None) -> None:
        with self._averaged() as model:
            rows = self.objective.validate(self.val, denoise=self.stage != "codec")
            score = sum(row["objective"] for row in rows) / len(rows)
            if board is None:
                return
            for row in rows:
                for name in ("bpp", "psnr"):
                    board.add_scalar(
                        f"validation/{name} at lambda {row['lambda_rate']:g}", row[name], self.step
                    )
            board.add_scalar("validation/objective", score, self.step)
            log.info(
                "validation at step %d: objective %.4f; %s",
                self.step,
                score,
                "; ".join(
                    f"lambda {r['lambda_rate']:g}: {r['bpp']:.3f} bpp {r['psnr']:.2f} dB" for r in rows
                ),
            )
            sheet = torch.cat([self.val[:4], rows[len(rows) // 3]["x_hat"][:4].cpu()], 2)
            sheet = torch.cat(list(sheet), 2).clamp(0, 1)
            board.add_image("validation/original above, decoded below", sheet, self.step)
            save_image(sheet, self.out / "samples" / f"step_{self.step:07d}.png")
            if score < self.best:
                self.best = score
                save_model(self.out / "best_checkpoint", model)

    def _export(self, name: str) -> None:
        if self.accelerator.is_main_process:
            with self._averaged() as model:
                save_model(self.out / name, model)

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            save_training_state(self.out / "last.safetensors", self)

    @contextmanager
    def _averaged(self) -> Iterator[DiffusionHyperprior]:
        """The model with its averaged weights and tables made for them, in eval mode; all is put back at the
        end.
        """
        self.ema.store(self.model.parameters())
        self.ema.copy_to(self.model.parameters())
        self.model.eval()
        try:
            self.model.update(force=True, update_quantiles=True)
            yield self.model
        finally:
            self.ema.restore(self.model.parameters())
            self.model.train()

    # start

    def _photos(self) -> tuple[PhotoCrops, Tensor]:
        config = self.config
        crops = PhotoCrops(list_images(config.data_path), config.image_size, config.seed)
        if config.val_data_path:
            validation = PhotoCrops(list_images(config.val_data_path), config.image_size, seed=0)
        else:
            validation = split_validation(crops)
        log.info("%d photos to train on, %d to validate", len(crops), len(validation))
        return crops, validation.batch(0, 8)

    def _resume(self) -> None:
        path = self.out / "last.safetensors"
        if not path.is_file():
            raise TrainingError(f"--resume: there is no {path}; start without --resume")
        load_training_state(path, self)
        log.info("resumed at step %d", self.step)

    def _log_to_file(self) -> None:
        root = logging.getLogger("dhp_lab")
        root.setLevel(logging.INFO)
        for old in [h for h in root.handlers if isinstance(h, logging.FileHandler)]:
            root.removeHandler(old)
            old.close()
        handler = logging.FileHandler(self.out / "training.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root.addHandler(handler)
