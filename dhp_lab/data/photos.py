"""The photos that scikit-image and scikit-learn bring along."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from dhp_lab.data.images import Picture, to_tensor

OFFLINE = "offline"  # `dhp evaluate --data_path offline` takes these photos
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle", "china", "flower")


def load_photo(name: str, side: int = 512) -> Tensor:
    """The middle of a photo.

    Args:
        name: one of ``PHOTOS``.
        side: the largest height and width, in pixels.

    Returns:
        (1, 3, H, W) in [0, 1], H and W at most ``side``.

    Raises:
        ValueError: another name.
    """
    if name not in PHOTOS:
        raise ValueError(f"there is no photo {name!r}; choose one of {', '.join(PHOTOS)}")
    if name in ("china", "flower"):
        import sklearn.datasets  # here, because it loads much else

        pixels = sklearn.datasets.load_sample_image(f"{name}.jpg")
    else:
        import skimage.data

        if name == "motorcycle":
            pixels = skimage.data.stereo_motorcycle()[0]  # the left picture
        else:
            pixels = getattr(skimage.data, name)()
    top, left = (max(0, length - side) // 2 for length in pixels.shape[:2])
    return to_tensor(pixels[top : top + side, left : left + side])


def offline_photos(side: int = 512) -> Iterator[Picture]:
    """Iterate over the middles of all PHOTOS: pictures to measure codecs on, without a folder or a download.

    Three of them are stored as JPEG (rocket, china, flower): they favour JPEG a little.

    Args:
        side: the largest height and width, in pixels.

    Returns:
        An iterator over (name, (1, 3, H, W) in [0, 1]).
    """
    return ((name, load_photo(name, side)) for name in PHOTOS)
