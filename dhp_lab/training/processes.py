"""Several processes of one training: what they share, and how each learns that another has ended.

One process is the same as several, with nobody to share with. `torchrun` starts them, or `accelerate launch`:

    torchrun --nproc_per_node 2 -m dhp_lab.cli train --data_path photos --batch_size 4

| what                                    | where                                                           |
|-----------------------------------------|-----------------------------------------------------------------|
| crop n of the run, and its noise        | a function of (seed, n): process r of P takes B of each P B     |
| gradients                               | averaged, by DistributedDataParallel                            |
| losses, a signal to stop                | shared in each step, so that all of them end at the same one    |
| list of photos, state, validation crops | the main process's, sent to the others: they need no output_dir |
| files                                   | written by the main process alone                               |
"""

from __future__ import annotations

from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast
from torch import Tensor
from torch.distributed import DistError

from dhp_lab.core.settings import choose_device

PATIENCE = timedelta(minutes=10)  # to wait for a process that neither answers nor ends
LOSS = "another process of this training has ended"
SIGNS = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")


class Processes:
    """The processes of this training, and which of them this one is.

    Args:
        device: as for ``choose_device``.

    Attributes:
        accelerator: of Accelerate. count: of processes. index: of this one, 0 .. count - 1.
        is_main: whether this one writes files.
    """

    def __init__(self, device: str | None) -> None:
        on_cpu = choose_device(device).type == "cpu"
        waiting = InitProcessGroupKwargs(timeout=PATIENCE)
        self.accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=[waiting])
        self.count, self.index = self.accelerator.num_processes, self.accelerator.process_index
        self.is_main = self.accelerator.is_main_process

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The means over all processes of scalars, by the same names in each."""
        if self.count == 1:
            return values
        whole = torch.stack([value.detach().float() for value in values.values()])
        return dict(zip(values, self.accelerator.reduce(whole, "mean").unbind(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in at least one process."""
        if self.count == 1:
            return flag
        found = torch.tensor(float(flag), device=self.accelerator.device)
        return bool(self.accelerator.reduce(found, "sum") > 0)

    def share_bytes(self, data: bytes | None) -> bytes:
        """The main process's bytes, in all processes; the others' argument does not count."""
        if self.count == 1:
            return data
        length = torch.tensor([len(data) if self.is_main else 0], device=self.accelerator.device)
        length = int(broadcast(length))
        sent = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.is_main and length else None
        sent = torch.zeros(length, dtype=torch.uint8) if sent is None else sent
        return broadcast(sent.to(self.accelerator.device)).cpu().numpy().tobytes()

    def share(self, x: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        """The main process's float32 tensor on the CPU, in all processes."""
        if self.count == 1:
            return x
        x = x if self.is_main else torch.zeros(shape)
        return broadcast(x.to(self.accelerator.device)).cpu()

    def leave(self) -> None:
        """Wait for the others, and part from them; this training is over."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()


def is_loss(error: RuntimeError) -> bool:
    """Whether an error says that another process has ended, or is silent for longer than PATIENCE."""
    return isinstance(error, DistError) or any(words in str(error).lower() for words in SIGNS)
