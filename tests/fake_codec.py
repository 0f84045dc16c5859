"""A codec whose bytes and pictures follow from its definition."""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch

from dhp_lab.codec.bits.bitstream import HEADER_BYTES
from dhp_lab.codec.bits.lambdas import lambda_code, lambda_of


@dataclass(frozen=True)
class FakeConfig:
    transmit: str = "z+y"
    passes: int = 1


class FakeModel:
    """y is the zlib stream of the picture rounded to steps that grow with lambda; K = 1 lifts every pixel by
    1/255.
    """

    model_id, config, sends_y = b"fake-mdl", FakeConfig(), True
    log2_spread = torch.zeros(())  # on the model's device
    M, block = 3, 1

    def __init__(self):
        self.calls = []

    def to(self, device):
        return self

    def eval(self):
        return self

    @staticmethod
    def step(lambda_rate):
        return max(1, round(3000 * lambda_rate))

    def compress(self, x, lambda_rate):
        self.calls.append((len(x), lambda_rate))
        levels = (x * 255 / self.step(lambda_rate)).round().byte().numpy()
        y = [zlib.compress(one.tobytes()) for one in levels]
        side = struct.pack(">HII", lambda_code(lambda_rate), 0, 0)
        return {"strings": [y, [b"z"] * len(x), [side] * len(x)], "shape": tuple(x.shape[-2:])}

    def decompress(self, strings, shape, steps=1, gamma=0.0, seed=0):
        step = self.step(lambda_of(struct.unpack(">HII", strings[2][0])[0]))
        pixels = [np.frombuffer(zlib.decompress(y), np.uint8).reshape(3, *shape) for y in strings[0]]
        return {"x_hat": ((torch.from_numpy(np.stack(pixels)).float() * step + steps) / 255).clamp(0, 1)}


def expected_row(x, lambda_rate, k):
    """Bytes of the file and the decoded picture, straight from the definition of FakeModel."""
    step = FakeModel.step(lambda_rate)
    levels = (x * 255 / step).round()
    n_bytes = HEADER_BYTES + 1 + len(zlib.compress(levels[0].byte().numpy().tobytes()))
    return n_bytes, ((levels * step + k) / 255).clamp(0, 1)
