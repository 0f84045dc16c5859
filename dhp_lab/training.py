"""Training: one loop on Accelerate, three stages (codec, denoiser, joint), exact resume, nothing lost when it stops.

    codec     transforms, hyperprior and gain curve; straight-through rounding for g_s, uniform noise for the rate
    denoiser  the codec is frozen; D learns the posterior mean at t*, then the lower noise levels
    joint     everything, with D left out in a share of the pictures so that K = 0 stays an honest decode

A batch is a function of (seed, step) alone and the random state is saved, so a resumed run repeats an unbroken one.

    accelerate launch -m dhp_lab.cli train --data_path photos ...       # several GPUs or machines
"""

from __future__ import annotations

import json
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dhp_lab.checkpoints import load_training_state, save_model, save_training_state
from dhp_lab.codec.model import DiffusionHyperprior, create_diffusion_hyperprior_model
from dhp_lab.codec.objective import Objective
from dhp_lab.data import PhotoCrops, list_images, save_image

log = logging.getLogger(__name__)

STAGES = ("codec", "denoiser", "joint")


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why, where the last good checkpoint is, and what to try."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything a run depends on.

    Attributes:
        data_path: folder of training photos. val_data_path: photos for the validation loss; None holds some out.
        output_dir: receives training.log, samples/, tensorboard/, last.safetensors, best_checkpoint/, final_checkpoint/.
        epochs, denoiser_epochs, joint_epochs: passes over the photos in each stage, 0 skips the stage.
        lr: peak Adam step size of every stage; warm-up, then a cosine to 1 % of it.
        lambda_rate: one trade-off to train for; None trains all of 1e-5 .. 1e-2 in one model.
        image_size: side of the crops, a multiple of 64.
        init_from: checkpoint folder to start from. resume: go on from output_dir/last.safetensors.
        minutes_between_saves: of last.safetensors. validate_every: steps between validations.
    """

    data_path: str
    val_data_path: str | None = None
    output_dir: str = "outputs"
    batch_size: int = 8
    epochs: int = 100
    denoiser_epochs: int = 20
    joint_epochs: int = 20
    lr: float = 1e-4
    lambda_rate: float | None = None
    N: int = 128
    M: int = 128
    diffusion_steps: int = 50
    schedule: str = "linear"
    transmit: str = "z+y"
    image_size: int = 256
    device: str | None = None
    resume: bool = False
    init_from: str | None = None
    seed: int = 0
    ema_decay: float = 0.999
    clip: float = 2.0
    minutes_between_saves: float = 5.0
    validate_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("epochs", "denoiser_epochs", "joint_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.epochs + self.denoiser_epochs + self.joint_epochs == 0:
            raise ValueError("all stages have 0 epochs: nothing to train")
        if not 0 < self.lr < 1:
            raise ValueError(f"lr must lie in (0, 1), got {self.lr}")
        if self.image_size < 64 or self.image_size % 64:
            raise ValueError(f"image_size must be a multiple of 64 of at least 64, got {self.image_size}")


def train(config: TrainingConfig) -> Path:
    """Run all stages and return the folder of the best checkpoint.

    Raises:
        ImageError: no usable photo. TrainingError: the loss is not finite or a checkpoint cannot be written.
    """
    return Trainer(config).run()


class Trainer:
    """The state of one run: photos, model, average, optimiser, step."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.out = Path(config.output_dir)
        (self.out / "samples").mkdir(parents=True, exist_ok=True)
        self.accelerator = Accelerator(cpu=config.device == "cpu")
        self._log_to_file()
        self.crops, self.val = self._photos()
        per_epoch = math.ceil(len(self.crops) / (config.batch_size * self.accelerator.num_processes))
        self.lengths = [per_epoch * e for e in (config.epochs, config.denoiser_epochs, config.joint_epochs)]
        torch.manual_seed(config.seed + 7919 * self.accelerator.process_index)
        self.model = self._model()
        self.objective = Objective(self.model, config.lambda_rate)
        self.ema = EMAModel(self.model.parameters(), decay=config.ema_decay, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
        self.step, self.best, self.stage, self.optimizer = 0, math.inf, None, None
        if config.resume:
            self._resume()

    def run(self) -> Path:
        total, saved = sum(self.lengths), time.monotonic()
        board = SummaryWriter(self.out / "tensorboard") if self.accelerator.is_main_process else None
        log.info("%d steps: %s; %s", total, dict(zip(STAGES, self.lengths, strict=True)), json.dumps(asdict(self.config)))
        with ThreadPoolExecutor(1) as reader, tqdm(total=total, initial=self.step, disable=board is None) as bar:
            ahead = reader.submit(self._batch, self.step)
            while self.step < total:
                x, ahead = ahead.result(), reader.submit(self._batch, self.step + 1)
                report = self._train_step(x)
                self.step += 1
                bar.update()
                if self.step % 50 == 0 and board:
                    self._report(board, bar, report)
                if self.step % self.config.validate_every == 0 or self.step == total:
                    self._validate(board)
                if time.monotonic() - saved > 60 * self.config.minutes_between_saves or self.step == total:
                    self._save()
                    saved = time.monotonic()
        if board:
            board.close()
            self._export("final_checkpoint")
        return self.out / "best_checkpoint"

    # one step

    def _train_step(self, x: Tensor) -> dict[str, float]:
        self.enter_stage()
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self._lr_share()
        if self.step % 500 == 0 and self.stage != "denoiser":
            self.model.update(force=True, update_quantiles=True)             # medians follow the moving prior of z
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
        groups = self.objective.parameter_groups(stage, self.config.lr)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.objective, torch.optim.Adam(groups, foreach=True))
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
        bar.set_postfix(stage=self.stage, loss=f"{values['loss']:.5f}", bpp=f"{values['bpp']:.3f}", psnr=f"{values['psnr']:.2f}")
        if self.step % 200 == 0:
            log.info("step %d %s", self.step, " ".join(f"{name} {value:.5g}" for name, value in values.items()))

    @torch.no_grad()
    def _validate(self, board: SummaryWriter | None) -> None:
        with self._averaged() as model:
            rows = self.objective.validate(self.val, denoise=self.stage != "codec")
            score = sum(row["objective"] for row in rows) / len(rows)
            if board is None:
                return
            for row in rows:
                for name in ("bpp", "psnr"):
                    board.add_scalar(f"validation/{name} at lambda {row['lambda_rate']:g}", row[name], self.step)
            board.add_scalar("validation/objective", score, self.step)
            log.info("validation at step %d: objective %.4f; %s", self.step, score,
                     "; ".join(f"lambda {r['lambda_rate']:g}: {r['bpp']:.3f} bpp {r['psnr']:.2f} dB" for r in rows))
            sheet = torch.cat([self.val[:4], rows[1]["x_hat"][:4].cpu()], 2)
            sheet = torch.cat(list(sheet), 2).clamp(0, 1)
            board.add_image("validation/original above, decoded below", sheet, self.step)
            save_image(sheet, self.out / "samples" / f"step_{self.step:07d}.png")
            if score < self.best:
                self.best = score
                self._write(lambda: save_model(self.out / "best_checkpoint", model))

    def _export(self, name: str) -> None:
        with self._averaged() as model:
            self._write(lambda: save_model(self.out / name, model))

    def _averaged(self):
        return _Averaged(self.model, self.ema)

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            self._write(lambda: save_training_state(self.out / "last.safetensors", self))

    def _write(self, write) -> None:
        try:
            write()
        except OSError as error:
            raise TrainingError(f"cannot write a checkpoint to {self.out}: {error}; the last good one there is intact") from None

    # start

    def _photos(self) -> tuple[PhotoCrops, Tensor]:
        config = self.config
        files = list_images(config.data_path)
        if config.val_data_path:
            held = list_images(config.val_data_path)
        else:
            held = files[:: max(2, len(files) // 16)][:16] if len(files) > 1 else files
            files = [f for f in files if f not in held] or files
        crops = PhotoCrops(files, config.image_size, config.seed)
        validation = PhotoCrops(held, config.image_size, seed=0)
        log.info("%d photos to train on, %d to validate", len(crops), len(validation))
        return crops, validation.batch(0, 8)

    def _model(self) -> DiffusionHyperprior:
        c = self.config
        if c.init_from:
            model = DiffusionHyperprior.from_pretrained(c.init_from)
        else:
            model = create_diffusion_hyperprior_model(c.N, c.M, c.diffusion_steps, c.schedule, c.transmit)
        return model.to(self.accelerator.device, memory_format=torch.channels_last).train()

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


class _Averaged:
    """The model with its averaged weights, tables made, in eval mode; everything is put back at the end."""

    def __init__(self, model: DiffusionHyperprior, ema: EMAModel) -> None:
        self.model, self.ema = model, ema

    def __enter__(self) -> DiffusionHyperprior:
        self.ema.store(self.model.parameters())
        self.ema.copy_to(self.model.parameters())
        self.model.eval()
        self.model.update(force=True, update_quantiles=True)
        return self.model

    def __exit__(self, *_) -> None:
        self.ema.restore(self.model.parameters())
        self.model.train()
