"""Write the golden files of a shipped codec: one small .dhp and the pictures that it decodes to.

    python tests/golden/make.py NAME ...

Run it for a new checkpoint only: what an old one wrote must decode for ever. A new realism part of the same
codec changes the pictures of K > 1, and no file. Convolutions run in float32, as
in the test.
"""

import sys
from pathlib import Path

from dhp_lab.codec import DiffusionHyperprior, dhp_file
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
PREVIEW = {"steps": 2, "seed": 3}


def write(name: str) -> None:
    """Write the file and the pictures of one checkpoint."""
    photo, lambda_rate = FILES[name]
    model = DiffusionHyperprior.from_pretrained(CHECKPOINTS / name)
    x = load_photo(photo)[..., 100 : 100 + SIZE[0], 200 : 200 + SIZE[1]]
    data = dhp_file.encode(model, x, lambda_rate=lambda_rate)
    (FOLDER / f"{name}.dhp").write_bytes(data)
    for label, settings in DECODES.items():
        save_image(dhp_file.decode(model, data, **settings), FOLDER / f"{name}_{label}.png")
    preview = dhp_file.decode(model, data, preview=True, **PREVIEW)
    save_image(preview, FOLDER / f"{name}_preview.png")


if __name__ == "__main__":
    precision.has_fast_bfloat16 = lambda device_type: False
    for name in sys.argv[1:]:
        write(name)
