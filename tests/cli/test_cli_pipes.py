"""`-` is standard input or output: the same bytes as with files, and everything else on the error stream."""

import errno
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from programs import small_checkpoint
from typer.testing import CliRunner

from dhp_lab.cli import app, pipes
from dhp_lab.cli.files import decompress, info
from dhp_lab.cli.pipes import PIPE
from dhp_lab.codec.bits import bitstream

PROGRAM = [sys.executable, "-m", "dhp_lab.cli"]


class Endless:
    """Standard input that begins with some bytes, goes on with zeros, and counts what is taken of it."""

    buffer = property(lambda self: self)

    def __init__(self, start: bytes) -> None:
        self.start, self.taken = start, 0

    def isatty(self) -> bool:
        return False

    def read(self, count: int) -> bytes:
        data = self.start[self.taken : self.taken + count].ljust(count, b"\0")
        self.taken += count
        return data


def piped(data: bytes, *arguments):
    """Call the program with bytes as its standard input."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=data)


def refused(data: bytes, *arguments) -> str:
    """The one line on stderr of a command that must fail, with nothing on stdout."""
    result = piped(data, *arguments)
    assert (result.exit_code, result.stdout_bytes) == (1, b""), (result.stderr, result.exception)
    assert result.stderr.startswith("dhp: ") and result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.slow
def test_a_shells_pipe_makes_the_bytes_that_files_make(checkpoint, picture, coded, tmp_path):
    options = ["--model_path", str(checkpoint), "--device", "cpu"]
    dhp = shlex.join(PROGRAM)
    line = (
        f"cat {picture} | {dhp} compress - - {shlex.join(options)} | tee a.dhp | "
        f"{dhp} decompress - b.png {shlex.join(options)}"
    )
    done = subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size = coded.stat().st_size
    assert done.stdout.startswith("b.png: 56 x 40 pixels, ") and done.stdout.count("\n") == 1
    assert done.stderr.startswith(f"standard output: {size} bytes, ") and done.stderr.count("\n") == 1
    assert (tmp_path / "a.dhp").read_bytes() == coded.read_bytes()
    command = [*PROGRAM, "decompress", coded, "c.png", *options]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()


def test_each_end_alone(checkpoint, picture, coded, tmp_path):
    options = ["--model_path", checkpoint, "--device", "cpu"]
    image, file = tmp_path / "a.png", tmp_path / "a.dhp"
    result = piped(picture.read_bytes(), "compress", "-", file, *options)
    assert result.stdout.startswith(f"{file}: ") and file.read_bytes() == coded.read_bytes()
    result = piped(b"", "compress", picture, "-", "--force", *options)
    assert (result.exit_code, result.stdout_bytes) == (0, coded.read_bytes())
    assert result.stderr.startswith("standard output: ") and result.stderr.count("\n") == 1
    result = piped(coded.read_bytes(), "decompress", "-", image, *options)
    assert result.stdout.startswith(f"{image}: ")
    result = piped(b"", "decompress", coded, "-", *options)
    assert (result.exit_code, result.stdout_bytes) == (0, image.read_bytes())
    assert result.stderr.startswith("standard output: 56 x 40 pixels, ")
    assert sorted(os.listdir(tmp_path)) == ["a.dhp", "a.png"]


def test_the_bar_of_an_effort_is_no_part_of_the_file(checkpoint, picture, tmp_path):
    options = ["--effort", "1", "--model_path", checkpoint, "--device", "cpu"]
    result = piped(picture.read_bytes(), "compress", "-", "-", *options)
    assert piped(b"", "compress", picture, tmp_path / "a.dhp", *options).exit_code == 0
    assert result.stdout_bytes == (tmp_path / "a.dhp").read_bytes()
    assert "effort 1:" in result.stderr and "standard output: " in result.stderr


def test_info_of_a_pipe(checkpoint, coded):
    options = ["--model_path", checkpoint]
    from_file = piped(b"", "info", coded, *options)
    from_pipe = piped(coded.read_bytes(), "info", "-", *options)
    assert from_pipe.exit_code == 0 and "standard input, version 1" in from_pipe.stdout
    assert from_pipe.stdout.splitlines()[1:] == from_file.stdout.splitlines()[1:]


def test_preview_from_a_pipe_that_was_cut_off(checkpoint, coded):
    cut = coded.read_bytes()[:-1]
    assert "--preview" in refused(cut, "decompress", "-", "-", "--model_path", checkpoint)
    result = piped(cut, "decompress", "-", "-", "--preview", "--model_path", checkpoint, "--device", "cpu")
    assert result.exit_code == 0 and result.stdout_bytes.startswith(b"\x89PNG\r\n\x1a\n")
    assert "preview from z alone" in result.stderr


@pytest.mark.parametrize(
    "arguments, data, message",
    [
        (["info", "-"], b"", "standard input: not a .dhp file: the file is empty"),
        (["decompress", "-", "-"], b"", "standard input: not a .dhp file: the file is empty"),
        (["compress", "-", "-"], b"", "standard input: not a picture that Pillow can read: it is empty"),
        (["compress", "-", "-"], b"\x89PNG\r\n\x1a\n\xff", "standard input: not a picture"),
        (["compress", "-", "a.png"], b"", "a.png: the output must end in .dhp"),
        (["compress", "-", "."], b"", ".: the output must end in .dhp"),
        (["decompress", "-", "nowhere/a.png"], b"DHP", "standard input: truncated header: 3 of 48 bytes"),
    ],
)
def test_what_cannot_be_coded_is_one_line(arguments, data, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(data, *arguments)
    assert os.listdir(tmp_path) == []


def test_a_pipe_keeps_the_limits_of_a_file(checkpoint, picture, coded, tmp_path):
    options = ["--max_megapixels", "0.002"]
    line = refused(picture.read_bytes(), "compress", "-", "-", *options)
    assert "standard input: 56 x 40 pixels, the limit is 0.002 megapixels" in line
    line = refused(coded.read_bytes(), "decompress", "-", "-", *options)
    assert "standard input: picture too large: 56 x 40 = 2240 pixels, the limit is 2000" in line
    assert "unexpected bytes after the end" in refused(coded.read_bytes() + bytes(9), "info", "-")


def test_no_more_is_read_than_a_file_can_have(coded, monkeypatch):
    """An endless pipe ends at the size in the header; where that picture is too large, at the header."""
    streams = [[b"y" * 100], [b"z" * 100], [(20480).to_bytes(2, "big") + bytes(8)]]
    large = bitstream.write(streams, (20_000, 20_000), model_id=bytes(8))
    for start, command, enough in (
        (coded.read_bytes(), info, coded.stat().st_size + 1),
        (large, lambda source: decompress(source, PIPE), bitstream.HEADER_BYTES),
    ):
        endless = Endless(start)
        monkeypatch.setattr(sys, "stdin", endless)
        with pytest.raises(bitstream.BitstreamError, match="^standard input: "):
            command(PIPE)
        assert endless.taken == enough


def test_a_file_called_dash_has_a_folder_before_it(coded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("./-").write_bytes(coded.read_bytes())
    result = piped(b"", "info", "./-")
    assert result.exit_code == 0 and f"{tmp_path / '-'}, version 1" in result.stdout
    assert pipes.file_or_pipe("-") == PIPE != pipes.file_or_pipe("./-")
    assert pipes.file_or_pipe("a/-") == Path("a/-") and pipes.file_or_pipe("a.png") == Path("a.png")


# What only real file descriptors can show.


@pytest.mark.parametrize(
    "command, stream, message",
    [
        (["compress", "photo.png", "-"], "stdout", "standard output is a terminal, and a file no text"),
        (["decompress", "a.dhp", "-"], "stdout", "standard output is a terminal, and a file no text"),
        (["info", "-"], "stdin", "standard input is a terminal; give it a file"),
        (["decompress", "-", "a.png"], "stdin", "standard input is a terminal; give it a file"),
    ],
)
def test_a_terminal_is_neither_read_nor_filled(command, stream, message, tmp_path):
    ours, theirs = pty.openpty()
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, stream: theirs}
    try:
        done = subprocess.run(
            [*PROGRAM, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=60, **streams
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stdout or "") == (1, "")
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "command, closed, message",
    [
        ("info -", "<&-", "standard input is closed"),
        ("decompress a.dhp -", ">&-", "standard output is closed"),
    ],
)
def test_a_closed_stream_is_one_line(command, closed, message, tmp_path):
    line = f"{shlex.join(PROGRAM)} {command} {closed}"
    done = subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_reader_that_has_had_enough_ends_it_quietly(checkpoint, coded):
    theirs, ours = os.pipe()
    os.close(theirs)  # `| head -c 10`, after its ten bytes
    options = ["--model_path", str(checkpoint), "--device", "cpu"]
    try:
        done = subprocess.run(
            [*PROGRAM, "decompress", coded, "-", *options], stdout=ours, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(ours)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line(checkpoint, coded):
    options = ["--model_path", str(checkpoint), "--device", "cpu"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, "decompress", coded, "-", *options], stdout=full, stderr=subprocess.PIPE, text=True
        )
    line = f"dhp: standard output: {os.strerror(errno.ENOSPC)}\n"
    assert (done.returncode, done.stderr) == (1, line)


def test_standard_output_gets_every_byte(monkeypatch):
    """A pipe may take fewer bytes at a time than it is given."""
    taken = bytearray()

    class Narrow:
        buffer = property(lambda self: self)
        raw = buffer

        def write(self, data):
            taken.extend(data[:7])
            return min(7, len(data))

    monkeypatch.setattr(sys, "stdout", Narrow())
    pipes.write_standard_output(bytes(range(100)))
    assert taken == bytes(range(100))
    monkeypatch.setattr(Narrow, "write", lambda self, data: None)  # it takes none now, and does not wait
    with pytest.raises(BlockingIOError) as caught:
        pipes.write_standard_output(b"x")
    assert caught.value.filename == pipes.OUTPUT


def test_a_wrong_model_leaves_standard_output_empty(coded, tmp_path):
    other = small_checkpoint(tmp_path / "other", 1)
    assert "wrong model" in refused(coded.read_bytes(), "decompress", "-", "-", "--model_path", other)
