"""The program ffmpeg, as the package imageio-ffmpeg brings it: bytes in, bytes out, one line if it fails.

It is started without a shell; pictures and streams pass through pipes, so nothing is left on the disk. The
variable IMAGEIO_FFMPEG_EXE names another ffmpeg.
"""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Sequence
from functools import lru_cache

from dhp_lab.evaluation.classical import CodecError

TIMEOUT = 3600.0  # seconds for one picture; libvvenc needs about 20 for each of Kodak's on one core

PIPELINE = ("[out#", "[vost#", "[vist#", "[vf#", "[in#")  # these lines say what follows from a failure


def program() -> str | None:
    """Return the path of ffmpeg; None if imageio-ffmpeg is missing, or has no program for this machine."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None


def has_encoder(path: str, encoder: str) -> bool:
    """Return whether the ffmpeg at `path` was built with an encoder, such as "libx265"."""
    return encoder in _encoders(path).split()


@lru_cache
def _encoders(path: str) -> str:
    return run(["-encoders"], b"", path=path).decode(errors="replace")


def run(words: Sequence[str], data: bytes, *, path: str | None = None, timeout: float = TIMEOUT) -> bytes:
    """Run ffmpeg once.

    Args:
        words: of its command line; "-" stands for both pipes.
        data: what it reads.
        path: of the program; None is `program()`.
        timeout: in seconds; then it is ended.

    Returns:
        What it wrote.

    Raises:
        CodecError: there is no ffmpeg, it did not start, failed with the reason it wrote, or took too long.
    """
    path = path or program()
    if path is None:
        raise CodecError("there is no ffmpeg: imageio-ffmpeg is not installed")
    command = [path, "-hide_banner", "-loglevel", "error", *words]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=timeout)  # noqa: S603 (no shell)
    except subprocess.TimeoutExpired:
        raise CodecError(f"ffmpeg took longer than {timeout:g} s, and was ended") from None
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):  # no fault of ffmpeg's
            raise
        raise CodecError(f"ffmpeg did not start: {error.strerror} ({path})") from None
    if done.returncode:
        raise CodecError(f"ffmpeg failed ({done.returncode}): {_reason(done.stderr)}")
    return done.stdout


def _reason(errors: bytes) -> str:
    """The last line that an encoder or decoder wrote; if there is none, the last one of the pipeline."""
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    causes = [line for line in lines if not line.startswith(PIPELINE)]
    return [*lines, *causes][-1] if lines else "it wrote no reason"
