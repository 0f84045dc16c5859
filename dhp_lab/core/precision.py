"""bfloat16 where the hardware multiplies it fast (AMX or AVX-512 BF16 on a CPU, CUDA from Ampere on), float32
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn


@cache
def has_fast_bfloat16(device_type: str) -> bool:
    """Return whether convolutions in bfloat16 beat float32 on this type of device ("cpu", "cuda", ...)."""
    if device_type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())
    return device_type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device) -> torch.autocast:
    """Return a context of mixed precision: convolutions in bfloat16 where that is fast, else in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_fast_bfloat16(device.type))


class StaysFloat32(nn.Module):
    """A module that another precision cannot be given."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StaysFloat32:
        """Move every tensor, as torch does.

        Raises:
            ValueError: the model would be float16, bfloat16 or float64.
        """
        moved = fn(torch.zeros(1, dtype=torch.float32)).dtype
        if moved != torch.float32:
            raise ValueError(
                "a codec stays in float32, as its files depend on the last bit of its weights; asked for "
                f"{moved}. Mixed precision is used where it is fast; low_memory() halves borrowed networks"
            )
        return super()._apply(fn, recurse)


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Let torch make float32 numbers inside the block, or in the function that this decorates, where a
    program has set another default (``torch.set_default_dtype``).
    """
    before = torch.get_default_dtype()
    if before == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
