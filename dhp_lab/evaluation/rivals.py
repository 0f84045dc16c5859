"""The strongest codecs that a package brings: JPEG XL, and H.265 and H.266 for single pictures.

They need the extra `rivals` (`pip install "dhp-lab[rivals]"`): pillow-jxl-plugin, a plugin of Pillow, and
imageio-ffmpeg, a program. Each is set to win by PSNR in RGB, as far as it lets itself be set:

| codec      | setting        | encoder and options                                                          |
|------------|----------------|------------------------------------------------------------------------------|
| JPEG XL    | quality 0..100 | libjxl, effort 7, XYB colours at full resolution                             |
| HEVC 4:4:4 | QP 0..51       | libx265, veryslow, 10 bits, tuned for PSNR, one thread (several cost bits)   |
| VVC 4:2:0  | QP 0..63       | libvvenc, slow, 10 bits, not tuned for the eye, chroma 6 QP finer than luma  |

    x --pad to even--> RGB -> Y'CbCr, 10 bits --ffmpeg--> one byte for the padding + raw stream (.hevc, .266)

The bits are those of the raw stream, parameter sets included, and of that byte: a container such as mp4 or
HEIF would only add to them. The stream does not name its colours; the decoder here knows them. Both encoders
get one picture, so all of it is intra coded. Times include the start of the program.

The settings are those that gave the best PSNR for the bits in trials on a few photos: for HEVC the matrix of
BT.601, 10 bits, tuned for PSNR (placebo is a little better, and refuses sides below 64); for VVC the slow
preset, chroma quantised finer than luma, and no parameter sets for video.

libjxl works for the eye, in a space of its own: it is weak by PSNR, and efforts above 7 change nothing there.
This libvvenc has 4:2:0 only, and what chroma at half the resolution loses, no QP brings back: saturated
photos end at 38 to 44 dB. A chroma sample there stands for four pixels, which is why finer chroma pays.

On Kodak's 24 photos HEVC needs 3.3 % fewer bits here than the published curve of BPG, an 8-bit x265 in 4:4:4
(`python benchmarks/classical_codecs.py kodak --codecs hevc`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dhp_lab.data.images import to_pixels, to_tensor
from dhp_lab.evaluation import ffmpeg
from dhp_lab.evaluation.classical import CodecError, PillowCodec
from dhp_lab.evaluation.ycbcr import double, from_levels, halve, rgb_to_ycbcr, to_levels, ycbcr_to_rgb

INSTALL = 'pip install "dhp-lab[rivals]"'
BITS = 10
FRAME = b"FRAME\n"


class JpegXLCodec(PillowCodec):
    """A `Codec` of Pillow that a plugin adds."""

    def encode(self, x: Tensor, setting: float) -> bytes:
        """Compress a picture, (1, 3, H, W) in [0, 1], at one of the settings; return the whole file."""
        self._register()
        return super().encode(x, setting)

    def decode(self, data: bytes) -> Tensor:
        """Decompress a file that `encode` wrote into a picture (1, 3, H, W) in [0, 1]."""
        self._register()
        return super().decode(data)

    def missing(self) -> str | None:
        """One line on what to install if the plugin is not there, else None."""
        try:
            self._register()
        except CodecError as error:
            return str(error)
        return None

    def _register(self) -> None:
        try:
            import pillow_jxl  # noqa: F401  (adds the format to Pillow)
        except ImportError:
            raise CodecError(
                f"{self.name} is left out: pillow-jxl-plugin is not installed; {INSTALL}"
            ) from None


@dataclass(frozen=True)
class VideoCodec:
    """A `Codec` that is a video encoder of ffmpeg, given one picture.

    Attributes:
        name: as in tables.
        settings: from the smallest file to the largest.
        encoder: what ffmpeg calls it.
        stream: ffmpeg's name of its raw stream.
        half_chroma: whether chroma has half the resolution, 4:2:0.
        options: the words of ffmpeg's command line that a setting stands for.
    """

    name: str
    settings: tuple[float, ...]
    encoder: str
    stream: str
    half_chroma: bool
    options: Callable[[float], list[str]]

    @property
    def pixel_format(self) -> str:
        """Return ffmpeg's name of the planes."""
        return "yuv420p10le" if self.half_chroma else "yuv444p10le"

    def encode(self, x: Tensor, setting: float) -> bytes:
        """Compress a picture, (1, 3, H, W) in [0, 1], at one of the settings; return the whole file.

        Raises:
            CodecError: ffmpeg is not there, failed or took too long.
        """
        pixels = to_pixels(x)
        odd_rows, odd_columns = (length % 2 for length in pixels.shape[:2])
        pixels = np.pad(pixels, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
        planes = list(rgb_to_ycbcr(pixels))
        if self.half_chroma:
            planes[1:] = [halve(plane) for plane in planes[1:]]
        height, width = pixels.shape[:2]
        source = ["-f", "rawvideo", "-pix_fmt", self.pixel_format, "-video_size", f"{width}x{height}"]
        words = [*source, "-i", "-", "-frames:v", "1", "-c:v", self.encoder, *self.options(setting)]
        stream = self._run([*words, "-f", self.stream, "-"], to_levels(planes, BITS))
        return bytes([2 * odd_rows + odd_columns]) + stream

    def decode(self, data: bytes) -> Tensor:
        """Decompress a file that `encode` wrote into a picture (1, 3, H, W) in [0, 1].

        Raises:
            CodecError: ffmpeg is not there, failed or took too long, or gave something else than a picture.
        """
        odd_rows, odd_columns = divmod(data[0], 2)
        words = ["-f", self.stream, "-i", "-", "-frames:v", "1", "-pix_fmt", self.pixel_format]
        planes = self._planes(self._run([*words, "-strict", "-1", "-f", "yuv4mpegpipe", "-"], data[1:]))
        if self.half_chroma:
            planes[1:] = [double(plane) for plane in planes[1:]]
        pixels = ycbcr_to_rgb(np.stack(planes))
        height, width = pixels.shape[:2]
        return to_tensor(pixels[: height - odd_rows, : width - odd_columns])

    def missing(self) -> str | None:
        """One line on what to install if there is no ffmpeg with this encoder, else None."""
        path = ffmpeg.program()
        if path is None:
            return f"{self.name} is left out: imageio-ffmpeg is not installed; {INSTALL}"
        try:
            if ffmpeg.has_encoder(path, self.encoder):
                return None
        except CodecError as error:
            return f"{self.name} is left out: {error}"
        return f"{self.name} is left out: {path} was built without {self.encoder}; {INSTALL}"

    def _run(self, words: list[str], data: bytes) -> bytes:
        try:
            return ffmpeg.run(words, data)
        except CodecError as error:
            raise CodecError(f"{self.name}: {error}") from None

    def _planes(self, video: bytes) -> list[np.ndarray]:
        """Y, Cb and Cr of a YUV4MPEG2 stream: a line of fields such as W768 and H512, then the frame."""
        heading, _, frame = video.partition(b"\n")
        fields = {field[:1]: field[1:] for field in heading.split()[1:]}
        if not (
            heading.startswith(b"YUV4MPEG2 ") and frame.startswith(FRAME) and {b"W", b"H"} <= fields.keys()
        ):
            raise CodecError(f"{self.name}: ffmpeg decoded no picture")
        height, width = int(fields[b"H"]), int(fields[b"W"])
        small = (height // 2, width // 2) if self.half_chroma else (height, width)
        return from_levels(frame.removeprefix(FRAME), [(height, width), small, small], BITS)


JXL = JpegXLCodec(
    "JPEG XL",
    "JXL",
    "jxl",
    (0, 15, 35, 55, 70, 80, 88, 94),
    lambda quality: {"quality": quality, "effort": 7},
)
X265 = "ipratio=1:keyint=1:pools=none:frame-threads=1:info=0:vui-timing-info=0"  # ipratio: QP is of I
HEVC = VideoCodec(
    "HEVC 4:4:4",
    (47, 42, 37, 32, 27, 22, 17, 13),
    "libx265",
    "hevc",
    False,
    lambda qp: ["-preset", "veryslow", "-tune", "psnr", "-x265-params", f"qp={qp:g}:{X265}"],
)
VVENC = ":".join(  # chroma; then nothing in the stream that one picture does not need: 126 bytes less
    (
        "CbQpOffset=-6:CrQpOffset=-6",
        "GOPSize=1:IntraPeriod=1:AccessUnitDelimiter=0",
        "SEIDecodedPictureHash=0:VuiParametersPresent=0:HrdParametersPresent=0",
    )
)
VVC = VideoCodec(
    "VVC 4:2:0",
    (51, 45, 39, 33, 27, 21, 15),
    "libvvenc",
    "vvc",
    True,
    lambda qp: ["-preset", "slow", "-qp", f"{qp:g}", "-qpa", "0", "-vvenc-params", VVENC],
)
