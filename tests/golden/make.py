"""Write the golden files: for each shipped codec one small .dhp and the pictures that it decodes to.

    python tests/golden/make.py

Run it only for a new checkpoint: what an old one wrote must decode for ever. Convolutions run in float32, as
in the test.
"""

from pathlib import Path

import torch

from dhp_lab.codec import DiffusionHyperprior
from dhp_lab.codec.bits import bitstream
from dhp_lab.core import precision
from dhp_lab.data.images import save_image
from dhp_lab.data.photos import load_photo

FOLDER = Path(__file__).parent
CHECKPOINTS = FOLDER.parents[1] / "data" / "checkpoints"
SIZE = 80, 112  # neither side is a multiple of 64
FILES = {
    "diffusion-hyperprior": ("chelsea", 3e-3),
    "z-only": ("coffee", 1e-2),
    "scenes-codec": ("rocket", 1e-2),
}
DECODES = {"k0": {"steps": 0}, "k1": {"steps": 1}, "k4": {"steps": 4, "gamma": 0.25, "seed": 7}}


def main() -> None:
    """Write three pictures and a file for each checkpoint."""
    precision.has_fast_bfloat16 = lambda device_type: False
    for name, (photo, lambda_rate) in FILES.items():
        model = DiffusionHyperprior.from_pretrained(CHECKPOINTS / name)
        x = load_photo(photo)[..., 100 : 100 + SIZE[0], 200 : 200 + SIZE[1]]
        coded = model.compress(x, lambda_rate)
        (FOLDER / f"{name}.dhp").write_bytes(
            bitstream.write(coded["strings"], coded["shape"], **model.file_fields)
        )
        for label, settings in DECODES.items():
            decoded = model.decompress(coded["strings"], coded["shape"], **settings)
            save_image(decoded["x_hat"], FOLDER / f"{name}_{label}.png")
        preview = model.decompress([[None], *coded["strings"][1:]], coded["shape"], steps=2, seed=3)
        save_image(preview["x_hat"], FOLDER / f"{name}_preview.png")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
